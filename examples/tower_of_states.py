"""The tower of states of a Heisenberg antiferromagnet: the lowest energy of each spin, which rises like S(S + 1).

In a lattice that orders, these levels come down to the ground state as N grows (Anderson 1952): E(S) − E(0) =
S(S + 1)/(2χN). `waves.spectrum` takes an operator for each magnetization; the lowest state of magnetization 2S has the
spin S.

    python examples/tower_of_states.py
"""

from ketwork import waves


def main(side: int = 4, spins: int = 4, steps: int = 120, n_samples: int = 504) -> waves.Spectrum:
    lattice = waves.square(side)
    operators = {f"S = {s}": waves.heisenberg(lattice, magnetization=2 * s) for s in range(spins)}
    found = waves.spectrum(
        operators, lambda: waves.SymmetricRBM(lattice.translations(), 4), steps=steps, n_samples=n_samples
    )
    energies = [float(level.reached) / 4 for level in found.levels]  # from Pauli matrices to S·S
    print("level    E           ±        exact       (E − E₀)/S(S+1)   trouble")
    for s, (level, energy) in enumerate(zip(found.levels, energies, strict=True)):
        exact = waves.exact.ground_energy(operators[f"S = {s}"]) / 4
        slope = f"{(energy - energies[0]) / (s * (s + 1)):.4f}" if s else ""
        print(
            f"{level.sector}  {energy:.5f}  {level.reached.stderr / 4:.5f}  {exact:.6f}  {slope:15}  {level.trouble}"
        )
    return found


if __name__ == "__main__":
    main()
