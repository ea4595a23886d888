"""`compress`: a smaller network that predicts what the original does, without training."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ketwork._compat import renamed
from ketwork._version import __version__
from ketwork.networks.activations import (
    Forward,
    Layers,
    Mask,
    eager,
    kept_buffers,
    neutral,
    tokenized,
    unwrapped,
)
from ketwork.networks.compression import arguments
from ketwork.networks.compression.calibration import calibrate
from ketwork.networks.compression.loader import unfused
from ketwork.networks.compression.preparation import prepared
from ketwork.networks.compression.record import recorded
from ketwork.networks.compression.result import Compressed
from ketwork.networks.compression.surgery import plain
from ketwork.networks.compression.survey import without_checkpoints
from ketwork.networks.compression.targets import reached
from ketwork.networks.measures import Output
from ketwork.networks.runtime import Distributed, give_back, join, parse_bytes
from ketwork.quantum import generator_from


@renamed(
    groups={"distributed": Distributed.from_argument},
    budget="cost",
    samples="max_samples",
    multiple="multiple_of",
    generator="seed",
    processes="distributed",
    timeout="distributed.timeout",
)
@neutral()
def compress(
    model: nn.Module,
    data: Any,
    *,
    keep: float | None = None,
    cost: str = "parameters",
    max_kl: float | None = None,
    max_drop: float | None = None,
    layers: Layers = "all",
    output: Output = None,
    loss: str | None = None,
    labels: str | None = None,
    mask: Mask = None,
    tokenizer: Any = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    multiple_of: int = 8,
    heal: int = 0,
    memory: int | str = 2**32,
    seed: int | torch.Generator = 0,
    distributed: Distributed | str | None = None,
    progress: bool | Callable[..., None] = False,
) -> Compressed:
    """A smaller network of plain torch.nn modules that predicts what `model` does, without training.

    Each linear layer and convolution may become two thinner ones: its output is truncated to the leading
    eigenstates of its density over the data, W′ = U(UᵀW), or of that weighted by how much the predictions depend
    on it. Which layer gets which rank, or stays whole, is one minimisation of the estimated KL over all layers.
    Beside that, neurons, channels and attention heads are removed outright that the layers reading them can do
    without, once those are refitted to what is left. Several candidates are made, of either and of both; the one
    with the least KL from the original on data held back is returned, with a budget of latency the best of those
    that were timed to be within it. Layers on which the predictions do not depend go before all that, at no cost.

    Args:
        model: any `nn.Module`; it is copied and never changed.
        data: calibration data, as in `ketwork.study`; a few hundred to a few thousand samples like those that the
            network will meet. No labels are needed. Every fifth sample is held back to choose by.
        keep: the share of the whole network's cost that may stay.
        cost: what `keep` counts: "parameters", "macs" (multiply-adds of a sample) or "latency", the measured seconds
            of a batch.
        max_kl: in place of `keep`, the most that predictions may change, nats a prediction: the smallest network
            within it.
        max_drop: in place of `keep`, the most accuracy that may be lost on data held back (0.01 is one point); the
            data must have labels.
        layers: which layers may be changed: selectors as in `ketwork.study`.
        output: which part of the network's output matters: a key, or a callable (output, batch) -> tensor with
            features last. None takes `logits`, else the first tensor.
        loss: "kl" where the output is logits, "squared" where it is anything else, ½ ‖f − f′‖² being the KL of
            normal distributions of unit variance. None: "kl" for `logits` and for a network that returns one
            tensor with several features.
        labels: the key of labels in mappings where it is neither "labels" nor "label".
        mask: which positions exist, as in `ketwork.study`.
        tokenizer: as in `ketwork.study`.
        forward: `forward(model, batch)` in place of the usual call.
        max_samples: stop after so many.
        batch_size: for data that is not batched yet; and what latency is measured with.
        multiple_of: ranks, and the numbers of units that stay where some are removed, are multiples of it.
        heal: steps of training on the calibration data for the best network in the end, towards the original's
            predictions; it is returned trained only where that has the lower KL on data held back.
        memory: bytes (or a text such as "2GB") that the sequential fit may hold of activations, which takes as many
            samples as fit; of the original's predictions that are kept in memory, the others on disk; and of moments
            and factors in memory, the others in files that are mapped into it, on Linux 256 MB of them at a time.
        seed: draws the directions of gradients: an integer or a `torch.Generator`.
        distributed: as in `ketwork.study`, for the moments of layers and of gradients alone: process 0 then continues
            by itself, with its own part of the data to choose by and for the sequential fits. Each process needs
            five samples at least.
        progress: True for a bar with the time left, or a callable that gets the samples that went through networks so
            far and an estimate of how many there will be, after each batch.

    Returns:
        A `Compressed`: the network, a table of what became of each layer and why, and measured totals.
        With `distributed`, the others than process 0 have None.

    Raises:
        TypeError, ValueError: an argument is not what it must be; the data holds NaN, or fewer than five samples; no
            layer can be compressed; or the budget cannot be met, in which case the least that can is named.

    Cost: seven to eight passes over the data, forward or backward, and eigendecompositions, O(min(m, k)³) a layer
    m × k and O(k³) for the sequential fit.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    >>> result = compress(net, torch.randn(100, 64), keep=0.6)
    >>> result.model[0], result.after.parameters <= 0.6 * result.before.parameters
    (Sequential(
      (0): Linear(in_features=64, out_features=16, bias=False)
      (1): Linear(in_features=16, out_features=64, bias=True)
    ), True)
    """
    aim = arguments.target(cost, keep, max_kl, max_drop)
    arguments.check_counts(multiple_of=multiple_of, batch_size=batch_size)
    arguments.check_steps(heal=heal)
    held, draw = parse_bytes(memory), generator_from(seed)
    network = unwrapped(model)
    base = unfused(plain(network))
    with (
        warnings.catch_warnings(),
        kept_buffers(network),
        join(Distributed.from_argument(distributed)) as group,
        eager(base),
        without_checkpoints(),
        arguments.with_progress(progress) as report,
    ):
        # Of a network whose states are truncated; it is as fast as can be all the same.
        warnings.filterwarnings("ignore", "LSTM with projections", UserWarning)
        if group is not None and group.rank:
            draw = group.apart(draw)
        gathered = calibrate(
            base,
            tokenized(data, tokenizer),
            samples=max_samples,
            batch_size=batch_size,
            mask=mask,
            output=output,
            loss=loss,
            forward=forward,
            labels=labels,
            progress=report,
            mine=None if group is None else group.mine,
        )
        gathered.remember(base, held, recognize=loss is None)
        work = prepared(
            base,
            gathered,
            layers=layers,
            kind=aim.cost,
            multiple_of=multiple_of,
            memory=held,
            generator=draw,
            group=group,
        )
        if work is None:
            return None  # type: ignore[return-value]  # process 0 has the network, as documented
        if heal and not work.survey.differentiable:
            raise ValueError(
                f"Argument `heal` must be 0 for a network whose predictions have no gradient, but is {heal}."
            )
        work.heal = heal
        best, tried = reached(work, aim)
        heads = gathered.predictions.described()
        settings = {
            "keep": keep,
            "cost": aim.cost,
            "max_kl": max_kl,
            "max_drop": max_drop,
            "output": ", ".join(head["output"] for head in heads),
            "loss": ", ".join(head["loss"] for head in heads),
            "heads": heads,
            "samples": gathered.samples,
            "held_back": sum(batch.size for batch in gathered.held_back),
            "batch_size": batch_size,
            "timed_batch": gathered.fit[0].size,
            "multiple_of": multiple_of,
            "heal": heal,
            "accuracy": gathered.accuracies(base, best.model),
            "gradients": work.survey.differentiable,
            "processes": 1 if group is None else group.count,
            "torch": torch.__version__,
            "ketwork": __version__,
        }
        work.fits.forget()
        give_back()
        return recorded(network, work, best, tried, settings)
