"""Root fidelity and entropy of a pair of states, d = 1024 and rank 64, against QuTiP and Qiskit, in one run.

    python benchmarks/measures.py [--d 1024] [--rank 64] [--peers qutip qiskit]

All see the same pair: ketwork its factors, the others the same states as dense matrices, made before the clock
starts. ketwork's time is the median of 20 runs, a peer's that of one (its dense routes take seconds to minutes).
A peer that is not installed is named as absent.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from ketwork.quantum import Density, entropy, random_density, root_fidelity, to_qutip


def qutip_routes(rho: Density, sigma: Density) -> tuple[Callable[[], float], Callable[[], float]]:
    qutip = importlib.import_module("qutip")
    a, b = to_qutip(rho), to_qutip(sigma)
    return lambda: float(qutip.fidelity(a, b)), lambda: float(qutip.entropy_vn(a, base=2))


def qiskit_routes(rho: Density, sigma: Density) -> tuple[Callable[[], float], Callable[[], float]]:
    info = importlib.import_module("qiskit.quantum_info")
    a, b = (info.DensityMatrix(s.matrix().numpy()) for s in (rho, sigma))
    # Qiskit returns the square of the fidelity; its own check of validity is left out of the time.
    return (
        lambda: float(info.state_fidelity(a, b, validate=False)) ** 0.5,
        lambda: float(info.entropy(a, base=2)),
    )


PEERS: dict[str, Any] = {"qutip": qutip_routes, "qiskit": qiskit_routes}


def timed(call: Callable[[], float], repeats: int) -> tuple[float, float]:
    """The value, and the median time in seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return value, statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures of factored states against dense routes.")
    parser.add_argument("--d", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--peers", nargs="*", choices=sorted(PEERS), default=sorted(PEERS))
    options = parser.parse_args()
    console = Console()

    generator = torch.Generator().manual_seed(0)
    rho, sigma = (random_density(options.d, options.rank, generator=generator) for _ in range(2))
    ours = (lambda: root_fidelity(rho, sigma).item(), lambda: entropy(rho).item())
    for call in ours:
        call()  # the first call starts thread pools

    table = Table(title=f"Two states, d = {options.d}, rank {options.rank}, complex128")
    for heading in ("measure", "library", "value", "difference", "seconds", "× ketwork"):
        table.add_column(heading, justify="left" if heading in ("measure", "library") else "right")
    apart = []
    results = [timed(call, 20) for call in ours]
    names = ("root fidelity", "entropy (bits)")
    for name, (value, seconds) in zip(names, results, strict=True):
        table.add_row(name, "ketwork", f"{value:.12f}", "", f"{seconds:.4f}", "1")
    for peer in options.peers:
        try:
            importlib.import_module(peer)
        except ImportError:
            console.print(f"{peer} is absent: `pip install {peer}` to compare with it.")
            continue
        routes = PEERS[peer](rho, sigma)
        for name, call, (value, seconds) in zip(names, routes, results, strict=True):
            other, other_seconds = timed(call, 1)
            if abs(other - value) > 1e-8:
                apart.append(f"{peer}'s {name} is {other - value:+.1e} away")
            ratio = f"{other_seconds / seconds:.0f}"
            table.add_row(name, peer, f"{other:.12f}", f"{other - value:+.1e}", f"{other_seconds:.3f}", ratio)
    console.print(table)
    console.print("Equal to 1e-8: " + ("all." if not apart else f"all but: {'; '.join(apart)}."))
    if apart:
        # √ of the d − r eigenvalues that rounding leaves at 1e−17 adds up; routes by singular values do not.
        console.print("QuTiP 5 sums square roots of eigenvalues of a d×d product, rounding noise among them.")


if __name__ == "__main__":
    main()
