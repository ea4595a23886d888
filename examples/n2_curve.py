"""The dissociation curve of N₂: mean field, exact, and a network's wave function with its error bars.

    python examples/n2_curve.py

Needs `pip install 'ketwork[waves,chem]'`. STO-3G, the two 1s orbitals frozen: ten electrons in eight orbitals, 3,136
determinants. Hartree–Fock fails as the triple bond breaks; neural backflow, a sum of four
determinants, starts from its own at every length.
"""

from ketwork import waves

LENGTHS = (0.9, 1.0, 1.1, 1.3, 1.6, 2.0)


def main(lengths: tuple[float, ...] = LENGTHS, steps: int = 300, n_samples: int = 400) -> list[float]:
    print("R / Å   Hartree–Fock          exact      ketwork, the error of its sample, and what it is off")
    off = []
    for length in lengths:
        molecule = waves.molecule(f"N 0 0 0; N 0 0 {length}", frozen=2)
        exact = waves.exact.ground_energy(molecule.operator)
        wave = waves.Wave(waves.Backflow((64,)), molecule.operator.space)
        run = waves.ground_state(molecule.operator, wave, steps=steps, n_samples=n_samples)
        off.append(1e3 * (float(run.energy) - exact))
        print(
            f"{length:5.2f}   {molecule.hartree_fock:12.6f}   {exact:12.6f}   {float(run.energy):12.6f} ± "
            f"{run.energy.stderr:.6f}   {off[-1]:+.3f} mHa",
            flush=True,
        )
    return off


if __name__ == "__main__":
    main()
