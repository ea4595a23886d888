"""A network learns the ground state of the critical Ising chain, and its entanglement is read from the amplitudes.

The network never sees the exact state; its energy, its fidelity and its entanglement entropy across every
cut are then held against it. Runs in half a minute.
"""

import torch

from ketwork import Ket, waves


def main(sites: int = 12, steps: int = 200) -> float:
    hamiltonian = waves.ising(waves.chain(sites), field=1.0)
    wave = waves.Wave(waves.RBM(alpha=2), hamiltonian.space)
    run = waves.ground_state(hamiltonian, wave, steps=steps, n_samples=1008, seed=0)
    energy = waves.exact.ising_chain_energy(sites)
    print(f"energy     {run.energy}")
    print(
        f"exact      {energy:.6f} (free fermions), off by {abs(float(run.energy) - energy) / abs(energy):.1e}"
    )

    ket = wave.ket()
    exact = Ket.normalized(waves.exact.ground_state_vector(hamiltonian), hamiltonian.space.shape)
    print(f"fidelity   {float(ket.overlap(exact).abs() ** 2):.6f} with the exact ground state")

    print("\nentanglement entropy between the first sites and the rest, in bits")
    print("  sites   network     exact")
    worst = 0.0
    for cut in range(1, sites // 2 + 1):
        ours, theirs = float(ket.entanglement_entropy(cut)), float(exact.entanglement_entropy(cut))
        worst = max(worst, abs(ours - theirs))
        print(f"  {cut:5d}  {ours:8.5f}  {theirs:8.5f}")

    half = list(range(sites // 2))
    full = waves.FullSum().sample(wave, 1, seed=torch.Generator().manual_seed(0))
    drawn = waves.Metropolis(chains=64).sample(wave, 100_000, seed=torch.Generator().manual_seed(0))
    print(f"\nRényi-2 entropy of half the chain, by swaps of samples: {waves.renyi2(wave, half, drawn)} bits")
    print(
        f"the same from the amplitudes:                           {float(waves.renyi2(wave, half, full).value):.6f}"
    )
    return worst


if __name__ == "__main__":
    main()
