"""One case of `benchmarks/waves.py` run by ketwork: `python waves_ketwork.py CASE SEED STEPS`, one line of JSON."""

import time

BEGAN = time.time()

import json  # noqa: E402
import math  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402

import torch  # noqa: E402

from ketwork import waves  # noqa: E402
from ketwork.waves.models.network import Network  # noqa: E402


def case(name: str) -> tuple[waves.Operator, Network, float, int | None]:
    """The operator, the network, the exact energy, the samples."""
    if name in ("ising20", "ising14"):
        chain = waves.chain(int(name[-2:]))
        exact = waves.exact.ising_chain_energy(chain.sites)
        return waves.ising(chain, field=1.0), waves.RBM(alpha=1), exact, None if name == "ising14" else 1008
    if name == "heisenberg22":
        return waves.heisenberg(waves.chain(22)), waves.RBM(alpha=2), -39.1475226071, 1008
    if name == "heisenberg6x6":
        square = waves.square(6)
        return waves.heisenberg(square), waves.SymmetricRBM(square.translations(), 4), -97.7575895972, 1008
    square = waves.square(4)
    if name == "vision":
        return waves.j1j2(square, j2=0.5), waves.VisionTransformer(square, 2, 36, 4, 1), -33.8316934, 1008
    if name == "j1j2":
        machine = waves.SymmetricRBM(square.translations(), 12, std=0.05, dtype=torch.complex64)
        return waves.j1j2(square, j2=0.5), machine, -33.8316934, None
    raise SystemExit(f"no case {name}")


def main() -> None:
    torch.set_num_threads(1)
    name, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    operator, network, exact, samples = case(name)
    wave = waves.Wave(network, operator.space, seed=torch.Generator().manual_seed(seed))
    marks: list[tuple[float, float]] = []
    run = waves.ground_state(
        operator,
        wave,
        steps=steps,
        n_samples=samples,
        seed=seed,
        final=1 if name == "vision" else 64,
        guard=waves.Guard(rhat=math.inf)
        if name == "vision"
        else None,  # its few steps are timed, not trusted
        on_step=lambda step: marks.append((time.time(), time.process_time())),
    )
    found = {
        "ms": 1e3 * statistics.median(step.seconds for step in run.history[1:]),
        "cpu_ms": 1e3 * (marks[-1][1] - marks[0][1]) / (len(marks) - 1),
        "first": marks[0][0] - BEGAN,
        "error": abs(float(run.energy) - exact) / abs(exact),
        "vscore": run.energy.vscore,
        "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "parameters": wave.count,
        "total": marks[-1][0] - BEGAN,
    }
    print(json.dumps(found))


main()
