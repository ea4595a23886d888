"""The tables of `benchmarks/waves.py --tables …`: error bars, molecules, fermions on lattices, larger magnets.

    python benchmarks/waves.py --tables coverage
    python -P benchmarks/waves_physics.py molecules --seeds 5

Each line is printed when its runs are done. Energies are compared with exact ones: of the trained wave itself by a full
sum (coverage), of Lanczos (molecules, lattices), of quantum Monte Carlo or published ones (larger).
"""

import argparse
import time

import numpy as np
import torch

from ketwork import waves
from ketwork.waves.problems import Problem, network, problem

MOLECULES = {
    "H2": "H 0 0 0; H 0 0 0.7414",
    "LiH": "Li 0 0 0; H 0 0 1.5949",
    "H2O": "O 0 0 0.1173; H 0 0.7572 -0.4692; H 0 -0.7572 -0.4692",
    "N2": "N 0 0 0; N 0 0 1.0977",
}
MOLECULE_STEPS = {"H2": (60, 200), "LiH": (150, 200), "H2O": (150, 200), "N2": (250, 400)}


def coverage(seeds: int) -> None:
    """How often the final ± 1.96 standard errors hold the trained wave's own energy, over fresh runs."""
    print("| system | runs | covered | median of |E − E_ψ|/stderr | largest |")
    print("|---|---|---|---|---|")
    for name, made in SYSTEMS.items():
        inside, sizes = [], []
        for seed in range(seeds):
            operator, wave, settings = made(seed)
            try:
                run = waves.ground_state(operator, wave, seed=seed, **settings)
            except waves.Stopped as stopped:
                print(f"  {name}, seed {seed}: {stopped.reason}")
                continue
            truth = float(waves.expect(operator, wave, waves.FullSum().sample(wave, 1)))
            off = abs(float(run.energy) - truth)
            rounding = 20 * torch.finfo(wave.dtype).eps * abs(truth)
            inside.append(off <= 1.96 * run.energy.stderr + rounding)
            sizes.append(off / max(run.energy.stderr, rounding))
        share = f"{sum(inside)} of {len(inside)} ({100 * np.mean(inside):.0f} %)"
        print(
            f"| {name} | {len(inside)} | {share} | {np.median(sizes):.2f} | {np.max(sizes):.1f} |", flush=True
        )


def observables(seeds: int) -> None:
    """How often ± 1.96 standard errors hold what a full sum gives, over fresh samples of one trained wave."""
    print("| system, 1,008 samples | chains | " + " | ".join(OBSERVED) + " |")
    print("|---|---|" + "---|" * len(OBSERVED))
    for name, operator in MEASURED.items():
        wave = waves.Wave(waves.RBM(alpha=1), operator.space)
        waves.ground_state(operator, wave, steps=60, n_samples=504, seed=1)
        every = waves.FullSum().sample(wave, 1)
        exact = {label: torch.as_tensor(made(operator, wave, every)[0]) for label, made in OBSERVED.items()}
        for chains in (None, 16, 4):
            inside: dict[str, list[float]] = {label: [] for label in OBSERVED}
            for seed in range(seeds):
                samples = waves.Metropolis(chains=chains).sample(wave, 1008, seed=seed)
                for label, made in OBSERVED.items():
                    value, stderr = map(torch.as_tensor, made(operator, wave, samples))
                    off = (value - exact[label]).abs()
                    counted = (
                        stderr > 1e-12
                    )  # not those that are the same in all samples, or that have no error
                    if bool(counted.any()):
                        inside[label].append(float((off <= 1.96 * stderr)[counted].double().mean()))
            shares = " | ".join(
                f"{np.mean(each):.3f}" if len(each) > seeds / 2 else "–" for each in inside.values()
            )
            print(f"| {name} | {chains or samples.chains} | {shares} |", flush=True)


def molecules(seeds: int) -> None:
    """STO-3G molecules with neural backflow, from Hartree–Fock, drawn without replacement."""
    print(
        "| molecule | determinants | parameters | Hartree–Fock, mHa above FCI | worst seed, mHa | seconds a run |"
    )
    print("|---|---|---|---|---|---|")
    for name, atoms in MOLECULES.items():
        of = waves.molecule(atoms)
        exact = waves.exact.ground_energy(of.operator)
        steps, samples = MOLECULE_STEPS[name]
        off, seconds, count = [], [], 0
        for seed in range(seeds):
            wave = waves.Wave(waves.Backflow(), of.operator.space, seed=seed)
            began = time.process_time()
            run = waves.ground_state(of.operator, wave, steps=steps, n_samples=samples, seed=seed)
            seconds.append(time.process_time() - began)
            off.append(1e3 * (float(run.energy) - exact))
            count = wave.count
        above = 1e3 * (of.hartree_fock - exact)
        every = ", ".join(f"{x:.2f}" for x in off)
        print(
            f"| {name} | {of.operator.space.size:,} | {count:,} | {above:.1f} | {max(off):.2f} ({every}) | "
            f"{np.mean(seconds):.0f} |",
            flush=True,
        )


def lattices(seeds: int) -> None:
    """Fermions on lattices with neural backflow on the orbitals without interaction."""
    print("| model | configurations | exact | relative error of each seed | seconds a run |")
    print("|---|---|---|---|---|")
    for name, (of, settings) in FERMIONS.items():
        exact = waves.exact.ground_energy(of.operator)
        off, seconds = [], []
        for seed in range(seeds):
            wave = waves.Wave(network("backflow", of), of.operator.space, seed=seed)
            began = time.process_time()
            run = waves.ground_state(of.operator, wave, seed=seed, **settings)
            seconds.append(time.process_time() - began)
            off.append((float(run.energy) - exact) / abs(exact))
        every = ", ".join(f"{100 * x:.3f} %" for x in off)
        print(
            f"| {name} | {of.operator.space.size:,} | {exact:.6f} | {every} | {np.mean(seconds):.0f} |",
            flush=True,
        )


def larger(seeds: int) -> None:
    """Magnets beyond exact diagonalisation (but for 6 × 6), with projected translations."""
    print("| model | wave | parameters | energy a site / 4 | reference | off | V-score | minutes |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (side, reference) in MAGNETS.items():
        square = waves.square(side)
        operator, module = waves.heisenberg(square), waves.SymmetricRBM(square.translations(), 4)
        wave = waves.Wave(module, operator.space, seed=0)
        began = time.process_time()
        run = waves.ground_state(operator, wave, seed=0, final=16, steps=300, n_samples=1008)
        minutes = (time.process_time() - began) / 60
        energy, error = float(run.energy) / wave.space.sites / 4, run.energy.stderr / wave.space.sites / 4
        print(
            f"| {name} | {type(module).__name__} | {wave.count:,} | {energy:.6f} ± {error:.6f} | {reference} | "
            f"{100 * (energy / reference - 1):.2f} % | {run.energy.vscore:.1e} | {minutes:.1f} |",
            flush=True,
        )


def _spins(operator: waves.Operator, make, **settings):
    return lambda seed: (operator, waves.Wave(make(), operator.space, seed=seed), settings)


SHORT = {"steps": 60, "n_samples": 512}
COMPLEX = {"dtype": torch.complex64, "std": 0.05}
SYSTEMS = {
    "Ising chain 12, field 1, RBM": _spins(waves.ising(waves.chain(12), 1.0), waves.RBM, **SHORT),
    "Ising chain 16, field 0.9 (ordered), RBM": _spins(waves.ising(waves.chain(16), 0.9), waves.RBM, **SHORT),
    "Heisenberg chain 12, RBM, exchange": _spins(waves.heisenberg(waves.chain(12)), waves.RBM, **SHORT),
    "J1–J2 chain 16, complex RBM": _spins(
        waves.j1j2(waves.chain(16), 0.4), lambda: waves.RBM(2, **COMPLEX), **SHORT
    ),
    "Bose–Hubbard chain 8, dense network": _spins(
        waves.bose_hubbard(waves.chain(8), 2.0, most=3, particles=8),
        lambda: waves.FeedForward((16,)),
        **SHORT,
    ),
    "Hubbard chain 6, backflow, without replacement": _spins(
        waves.hubbard(waves.chain(6), 4.0), lambda: waves.Backflow((16,)), steps=60, n_samples=150, final=1
    ),
}


MEASURED = {
    "Ising chain 10, field 0.4 (ordered)": waves.ising(waves.chain(10), 0.4),
    "Ising chain 10, field 0.8": waves.ising(waves.chain(10), 0.8),
    "Ising chain 10, field 1.5": waves.ising(waves.chain(10), 1.5),
    "Heisenberg chain 10, exchange": waves.heisenberg(waves.chain(10)),
}


def _structure(operator: waves.Operator, wave: waves.Wave, samples: waves.Samples) -> waves.Measured:
    lattice = waves.chain(10)
    return waves.structure_factor(samples, lattice, waves.momenta(lattice))


def _pair(found: waves.Measured | waves.Expectation) -> tuple:
    return found.value, found.stderr


OBSERVED = {
    "energy": lambda operator, wave, samples: _pair(waves.expect(operator, wave, samples)),
    "magnetizations": lambda operator, wave, samples: _pair(waves.magnetizations(samples)),
    "correlations": lambda operator, wave, samples: _pair(waves.correlations(samples)),
    "structure factor": lambda operator, wave, samples: _pair(_structure(operator, wave, samples)),
    "Rényi-2": lambda operator, wave, samples: _pair(waves.renyi2(wave, [*range(5)], samples)),
}


def _rectangle(name: str, interaction: float) -> Problem:
    lattice = waves.square(4, 2)
    hops = np.zeros((8, 8))
    for i, j in lattice.bonds():
        hops[i, j] = hops[j, i] = -1.0
    operator = waves.hubbard(lattice, interaction)
    return Problem(name, operator, lattice, orbitals=(waves.free_orbitals(hops, 4),) * 2, suits="backflow")


FERMIONS: dict[str, tuple[Problem, dict[str, int]]] = {
    "Hubbard 4×2, U/t = 4": (_rectangle("fermi-hubbard", 4.0), {"steps": 300, "n_samples": 500}),
    "Hubbard 4×2, U/t = 8": (_rectangle("fermi-hubbard", 8.0), {"steps": 300, "n_samples": 500}),
    "t–V 4×4, V/t = 4": (
        problem("t-v", sites=4, lattice="square", interaction=4.0),
        {"steps": 120, "n_samples": 400},
    ),
}
MAGNETS = {  # side, reference for the energy a site (S·S): exact; quantum Monte Carlo (Sandvik 1997)
    "Heisenberg 6×6": (6, -0.678872),
    "Heisenberg 8×8": (8, -0.673487),
    "Heisenberg 10×10": (10, -0.671549),
}


def frustrated(seeds: int) -> None:
    """J1–J2 at J2 = 0.5 by pairs beside a symmetric machine, summed over the full space group.

    References: exact on 6 × 6 (Schulz, Ziman & Poilblanc 1996); the lowest published on 10 × 10 (Chen & Heyl 2024, DOI
    10.1038/s41567-024-02566-1).
    """
    print(
        "| sites | cell, filters, steps, samples | parameters | energy a site / 4 | reference | above it | V-score | "
        "minutes |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, (side, cell, filters, steps, samples, reference) in FRUSTRATED.items():
        square = waves.square(side)
        operator = waves.j1j2(square, j2=0.5, sign_rule=False)
        sampler = waves.Metropolis(waves.Exchange(square.bonds() + square.bonds(2)))
        optimizer = waves.SR(rate=1.0, shift=(1e-2, 1e-3))
        for seed in range(seeds):
            group = square.symmetries()
            module = waves.PairProduct(square, waves.SymmetricRBM(group, filters), group, cell=cell)
            wave = waves.Wave(module, operator.space, seed=seed)
            began = time.process_time()
            run = waves.ground_state(
                operator,
                wave,
                steps=steps,
                n_samples=samples,
                sampler=sampler,
                optimizer=optimizer,
                seed=seed,
                final=16,
            )
            minutes = (time.process_time() - began) / 60
            energy, error = float(run.energy) / side**2 / 4, run.energy.stderr / side**2 / 4
            print(
                f"| {name} | {cell}, {filters}, {steps}, {samples:,} | {wave.count:,} | {energy:.6f} ± {error:.6f} | "
                f"{reference} | {100 * (1 - energy / reference):.2f} % | {run.energy.vscore:.1e} | {minutes:.1f} |",
                flush=True,
            )


FRUSTRATED = {  # side, cell, filters, steps, samples, reference
    "6×6": (6, 2, 2, 120, 500, -0.503810),
    "10×10": (10, 1, 1, 60, 400, -0.4976921),
}


TABLES = {
    "coverage": (coverage, 40),
    "observables": (observables, 300),
    "molecules": (molecules, 5),
    "lattices": (lattices, 3),
    "larger": (larger, 1),
    "frustrated": (frustrated, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="+", choices=list(TABLES))
    parser.add_argument("--seeds", type=int, help="how many runs of each, in place of a table's own number")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for rows in (SYSTEMS, MEASURED, MOLECULES, FERMIONS, MAGNETS, FRUSTRATED):
        for name in [name for name in rows if given.only not in name]:
            del rows[name]
    for name in given.tables:
        table, seeds = TABLES[name]
        print(f"\n{name}\n")
        table(given.seeds or seeds)


if __name__ == "__main__":
    main()
