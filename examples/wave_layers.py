"""`kw.study` on a trained wave: what each layer of a network that is itself a quantum state holds.

The data are configurations drawn from |Ψ|², labelled by the sign of their magnetization, which the ordered phase of the
Ising chain keeps. So the two directions of ketwork meet: the network is a quantum state, and is read as one.
"""

import torch

import ketwork as kw
from ketwork import waves


def main(sites: int = 10, steps: int = 150) -> kw.Study:
    hamiltonian = waves.ising(waves.chain(sites), field=0.8)
    wave = waves.Wave(waves.FeedForward((24, 24)), hamiltonian.space)
    run = waves.ground_state(hamiltonian, wave, steps=steps, n_samples=1008, seed=0)
    exact = waves.exact.ising_chain_energy(sites, field=0.8)
    print(f"energy {run.energy}, exact {exact:.5f}\n")

    drawn = waves.Metropolis().sample(wave, 2000, seed=torch.Generator().manual_seed(1)).flat
    up = (drawn.sum(1) > 0).long()
    study = kw.study(wave.module, [(drawn, up)], layers="all")
    print(study)
    return study


if __name__ == "__main__":
    main()
