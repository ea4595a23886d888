"""ketwork's waves beside NetKet: time, start, accuracy and memory, each case in a process of its own on one core.

    python benchmarks/waves.py                                   ketwork alone
    python benchmarks/waves.py --netket /path/to/python          beside NetKet, runs alternating
    python benchmarks/waves.py --cases ising20 heisenberg22 --seeds 5
    python benchmarks/waves.py --tables coverage observables molecules lattices larger frustrated
                                                                 physics; see waves_physics.py

The NetKet environment is one where `pip install netket==3.23` has been run; `waves_netket.py` is what it
runs. Set nothing for threads: both sides get one. Medians over seeds; "first" is from process start to the
end of step one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CASES = {  # steps, seeds, whether NetKet runs it here
    "ising20": (300, 5, True),
    "heisenberg22": (300, 5, True),
    "ising14": (100, 1, True),
    "vision": (6, 1, True),
    "j1j2": (400, 1, False),
    "heisenberg6x6": (400, 1, False),
}
COLUMNS = (
    ("parameters", "parameters", "{:.0f}"),
    ("ms", "ms/step", "{:.1f}"),
    ("cpu_ms", "CPU ms/step", "{:.1f}"),
    ("first", "first step s", "{:.1f}"),
    ("error", "rel. error", "{:.1e}"),
    ("worst", "worst seed", "{:.1e}"),
    ("vscore", "V-score", "{:.1e}"),
    ("mb", "peak MB", "{:.0f}"),
    ("total", "run s", "{:.0f}"),
)


ONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ONE["PYTHONSAFEPATH"] = (
    "1"  # without it Numba takes the neighbouring `coverage.py` for the package of that name
)
PINNED = (
    (lambda: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})) if sys.platform == "linux" else None
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--netket", help="the Python of an environment with NetKet")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--seeds", type=int, help="how many seeds, in place of each case's own number")
    parser.add_argument("--steps", type=int, help="how many steps, for a quick look at times alone")
    parser.add_argument("--tables", nargs="+", help="tables of `waves_physics.py`, in place of the cases")
    parser.add_argument("--only", help="rows of tables whose name holds this")
    given = parser.parse_args()
    if given.tables:
        seeds = [] if given.seeds is None else ["--seeds", str(given.seeds)]
        only = [] if given.only is None else ["--only", given.only]
        command = [sys.executable, str(HERE / "waves_physics.py"), *given.tables, *seeds, *only]
        raise SystemExit(
            subprocess.run(command, env=os.environ | ONE, preexec_fn=PINNED, check=False).returncode
        )
    print(f"| case | library | {' | '.join(head for _, head, _ in COLUMNS)} |")
    print(f"|---|---|{'---|' * len(COLUMNS)}")
    for case in given.cases:
        steps, seeds, both = CASES[case]
        steps = given.steps or steps
        sides = {"ketwork": [sys.executable, str(HERE / "waves_ketwork.py")]}
        if given.netket and both:
            sides["NetKet"] = [given.netket, str(HERE / "waves_netket.py")]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for seed in range(given.seeds or seeds):
            for name, command in sides.items():
                found[name].append(run([*command, case, str(seed), str(steps)]))
        for name, runs in found.items():
            show(case, name, runs)
        if "NetKet" in found:
            ratio(case, found["ketwork"], found["NetKet"])


def run(command: list[str]) -> dict[str, float]:
    """The JSON that one run prints, on one core."""
    done = subprocess.run(
        command, env=os.environ | ONE, capture_output=True, text=True, preexec_fn=PINNED, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def middle(runs: list[dict[str, float]], key: str) -> float:
    return statistics.median(r[key] for r in runs)


def show(case: str, name: str, runs: list[dict[str, float]]) -> None:
    cells = []
    for key, _, form in COLUMNS:
        if key == "worst":
            cells.append(form.format(max(r["error"] for r in runs)) if len(runs) > 1 else "")
        else:
            cells.append(form.format(middle(runs, key)) if key in runs[0] else "")
    print(f"| {case} | {name} | {' | '.join(cells)} |", flush=True)


def ratio(case: str, ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    cells = [f"{middle(ours, k) / middle(theirs, k):.2f} ×" for k in ("ms", "cpu_ms", "first")]
    memory = f"{middle(ours, 'mb') / middle(theirs, 'mb'):.2f} ×"
    print(f"| {case} | ratio | | {' | '.join(cells)} | | | | {memory} | |", flush=True)


if __name__ == "__main__":
    main()
