"""A smaller network trained for some steps to predict what the original does, on the calibration data, without labels.

Adam lowers the distance of the predictions (`Predictions`), each tensor at a rate relative to its own size, since
factors in a metric may be of any; the rate falls to 0 as half a cosine. Every second sample held back judges, since
those that layers were fitted to are no judges of what comes after, and what was best by them is taken. Where a quarter
of the steps has made nothing better and much worse, the rate was too high (recurrent networks want small ones): it
begins again at a quarter of it, with the steps that are left.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Batch
from ketwork.networks.compression.calibration import Calibration, Rows, picked
from ketwork.networks.compression.costs import EIGHT_BITS

_RATE = 0.003  # of a tensor's root mean square, a step
_QUARTER = 4  # one in so many of the steps goes astray at most, and the rate is then divided by as much
_ASTRAY = 1.25  # times the distance that it began with, where nothing was better
_JUDGED = 20  # times in all
_LEAST = 1e-3  # of the root mean square of all: what a tensor of zeros is taken to have


def healed(original: nn.Module, small: nn.Module, calibration: Calibration, steps: int) -> nn.Module:
    """A copy of `small` after so many steps; of the same numbers where no step does better on the samples that judge.

    What the two networks share stays, as do weights of 8 bits. Cost: two forward passes and a backward one of a batch
    for each step, and 20 over the samples that judge.
    """
    twin = copy.deepcopy(small)
    own = _own(original, small, twin)
    if not own:
        return twin
    fitted, judges = calibration.fit, _judges(calibration.held_back)
    with torch.no_grad():
        expected = [calibration.rows(original, batch) for batch in judges]
    begun = best = _distance(twin, calibration, judges, expected)
    state, draw = [p.detach().clone() for p in own], torch.Generator().manual_seed(steps)
    rate, since = _RATE, 0
    adam, falling = _training(own, rate, steps)
    every = max(1, steps // _JUDGED)
    for step in range(1, steps + 1):
        batch = fitted[int(torch.randint(len(fitted), (), generator=draw))]
        with torch.no_grad():
            targets = calibration.rows(original, batch)
        with torch.enable_grad():
            _of(calibration, targets, calibration.rows(twin, batch)).backward()
        adam.step()
        falling.step()
        adam.zero_grad()
        if step % every == 0 or step == steps:
            distance = _distance(twin, calibration, judges, expected)
            if distance < best:
                best, state = distance, [p.detach().clone() for p in own]
            astray = best == begun and not distance <= _ASTRAY * begun  # or NaN
            if astray and step < steps and _QUARTER * (step - since) >= steps - since:
                _restore(own, state)
                rate, since = rate / _QUARTER, step
                adam, falling = _training(own, rate, steps - step)
    _restore(own, state)
    for parameter in own:
        parameter.requires_grad_(False)
    return twin


def _own(original: nn.Module, small: nn.Module, twin: nn.Module) -> list[nn.Parameter]:
    """The parameters of the copy that may be trained: what the smaller network does not share with the original."""
    shared = {p.data_ptr() for p in original.parameters()}
    frozen = {id(module.weight) for module in small.modules() if getattr(module, EIGHT_BITS, False)}
    result: list[nn.Parameter] = []
    for parameter, theirs in zip(twin.parameters(), small.parameters(), strict=True):
        parameter.requires_grad_(False)
        if theirs.is_floating_point() and theirs.data_ptr() not in shared and id(theirs) not in frozen:
            parameter.requires_grad_(True)
            result.append(parameter)
    return result


def _judges(batches: list[Batch]) -> list[Batch]:
    """Every second sample of those held back; all of them where there is but one."""
    judges: list[Batch] = []
    start = 0
    for batch in batches:
        chosen = torch.arange(start, start + batch.size) % 2 == 0
        start += batch.size
        if chosen.any():
            judges.append(picked(batch, chosen.nonzero()[:, 0]))
    return judges


def _training(
    parameters: list[nn.Parameter], rate: float, steps: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.CosineAnnealingLR]:
    sizes = [float(p.detach().double().square().mean().sqrt()) for p in parameters]
    least = _LEAST * max(sizes)
    adam = torch.optim.Adam(
        [{"params": [p], "lr": rate * max(size, least)} for p, size in zip(parameters, sizes, strict=True)]
    )
    return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)


def _restore(parameters: list[nn.Parameter], state: list[Tensor]) -> None:
    with torch.no_grad():
        for parameter, tensor in zip(parameters, state, strict=True):
            parameter.copy_(tensor)


def _of(calibration: Calibration, targets: Rows, rows: Rows) -> Tensor:
    """The mean distance of a batch's predictions, summed over heads."""
    heads = calibration.predictions.heads
    distances = [head.kl(a, b).mean() for head, a, b in zip(heads, targets, rows, strict=True)]
    return torch.stack(distances).sum()


@torch.no_grad()
def _distance(model: nn.Module, calibration: Calibration, judges: list[Batch], expected: list[Rows]) -> float:
    """The same of several batches, by samples."""
    parts = [
        batch.size * float(_of(calibration, rows, calibration.rows(model, batch)))
        for batch, rows in zip(judges, expected, strict=True)
    ]
    return sum(parts) / sum(batch.size for batch in judges)
