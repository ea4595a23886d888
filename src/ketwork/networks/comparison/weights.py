"""`WeightChange`: by how much each weight of a network differs from that of another, and the rank of the difference."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ketwork.networks.activations import adapts, base_of, is_sharded, unwrapped, weights_of
from ketwork.quantum import shannon_entropy
from ketwork.records import Count


@dataclass(frozen=True)
class WeightChange:
    """How one weight W became W' = W + ΔW: ‖W‖ (`norm`), ‖ΔW‖ (`change`), and of a matrix the ranks of ΔW.

    `rank` counts the singular values of ΔW above what rounding makes, see `rank_of`; `effective_rank` is 2^H of the
    shares σ²/Σσ² of those (None where there are none). A kernel (out, in, height, width) is the matrix
    (out, in · height · width); a vector has no ranks. `reason` says why there are no numbers.
    """

    name: str
    shape: tuple[Count, ...] = ()
    norm: float | None = None
    change: float | None = None
    rank: Count | None = None
    effective_rank: float | None = None
    reason: str | None = None

    @property
    def relative(self) -> float:
        """‖ΔW‖/‖W‖; NaN where it cannot be had."""
        return relative([self])


def relative(weights: Iterable[WeightChange]) -> float:
    """‖ΔW‖/‖W‖ of several weights as one vector: √(Σ‖ΔW‖²/Σ‖W‖²); 0 where nothing changed, NaN of none."""
    squares = [(w.change**2, w.norm**2) for w in weights if w.change is not None and w.norm is not None]
    if not squares:
        return math.nan
    changed, before = map(sum, zip(*squares, strict=True))
    return math.sqrt(changed / before) if before else (math.inf if changed else 0.0)


def changed_weights(
    before: nn.Module,
    after: nn.Module,
    adapters: tuple[bool, bool] = (True, True),
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[WeightChange, ...]:
    """The change of every weight that either network has by name.

    `adapters` says of which of the two adapters (peft) count, merged into the weights that they change. Once it is
    `stopped`, the weights left are missing.

    >>> _ = torch.manual_seed(0)
    >>> before, after = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> _ = after.load_state_dict({"weight": 1.5 * before.weight, "bias": before.bias})
    >>> [(each.name, round(each.relative, 6), each.rank) for each in changed_weights(before, after)]
    [('weight', 0.5, 3), ('bias', 0.0, None)]
    """
    old, new = (weights_of(network, used) for network, used in zip((before, after), adapters, strict=True))
    sharded = is_sharded(before) or is_sharded(after)
    results: dict[str, WeightChange] = {}
    with torch.no_grad():
        for name in [*old, *(name for name in new if name not in old)]:
            if sharded:
                results[name] = WeightChange(name, reason="the weights are sharded over processes")
            elif name not in old or name not in new:
                side = "after" if name in old else "before"
                results[name] = WeightChange(name, reason=f"the network {side} has no weight of this name")
            else:
                results[name] = _tried(name, old[name], new[name])
            if stopped():
                break
    return tuple(results.values())


def weighing(
    model: nn.Module, other: nn.Module | None
) -> tuple[Callable[[Callable[[], bool]], tuple[WeightChange, ...]], int | None]:
    """What compares the weights of two models, until it is to stop, and which of them is the one before: 0 or 1.

    The one before is `model`, but `other` where that has no adapters and `model` has. None: there is no other model.
    """
    if other is None:
        return lambda stopped: (), None
    networks = (unwrapped(model, sharded=True), unwrapped(other, sharded=True))
    bases = base_of(other) is networks[0] is model, base_of(model) is networks[1] is other
    used = [adapts(network) and not base for network, base in zip(networks, bases, strict=True)]
    before = int(used[0] and not used[1])
    after = 1 - before

    def weigh(stopped: Callable[[], bool]) -> tuple[WeightChange, ...]:
        return changed_weights(networks[before], networks[after], (used[before], used[after]), stopped)

    return weigh, before


def rank_of(delta: Tensor, *weights: Tensor, eps: float) -> tuple[int, float | None]:
    """The numerical and the effective rank of a matrix ΔW (m, n), the difference of `weights` of that precision `eps`.

    Singular values count above τ = eps (maxᵢ‖Wᵢ·‖ + maxⱼ‖W·ⱼ‖), of the larger weight: rounding each entry of W to a
    relative eps/2 adds a random matrix of a spectral norm below that (Bandeira, van Handel 2016, Ann. Probab. 44:2479).
    The effective rank is 2^H of the shares p = σ²/Σσ² of those that count, None where none does.

    >>> _ = torch.manual_seed(0)
    >>> W, A, B = torch.randn(40, 30), torch.randn(40, 3), torch.randn(3, 30)
    >>> rank, effective = rank_of((W + A @ B) - W, W, eps=torch.finfo(W.dtype).eps)
    >>> rank, 1 < effective <= 3
    (3, True)
    """
    values = torch.linalg.svdvals(delta.to(torch.promote_types(delta.dtype, torch.float64)))
    level = max(float(w.norm(dim=1).max() + w.norm(dim=0).max()) for w in weights)
    values = values[values > eps * level]
    if not len(values):
        return 0, None
    shares = values.square() / values.square().sum()
    return len(values), float(2 ** shannon_entropy(shares))


def _tried(name: str, old: Callable[[], Tensor], new: Callable[[], Tensor]) -> WeightChange:
    """The change of a weight, also where adapters cannot be merged into it."""
    try:
        return _change(name, old(), new())
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return WeightChange(name, reason=f"it cannot be computed ({type(error).__name__}: {error})")


def _change(name: str, old: Tensor, new: Tensor) -> WeightChange:
    reason = _not_comparable(old, new)
    if reason is not None:
        return WeightChange(name, tuple(old.shape), reason=reason)
    eps = max(torch.finfo(each.dtype).eps for each in (old, new))
    wide = torch.promote_types(torch.promote_types(old.dtype, new.dtype), torch.float32)
    device = "cpu" if old.device.type == "mps" else old.device  # which has no float64
    first, second = (each.to(device, wide) for each in (old, new))
    delta = second - first
    norm, change = (float(torch.linalg.vector_norm(each, dtype=_doubled(wide))) for each in (first, delta))
    if not (math.isfinite(norm) and math.isfinite(change)):
        return WeightChange(name, tuple(old.shape), reason="it has NaN or infinite values")
    rank, effective = (0 if delta.ndim >= 2 else None), None
    if rank is not None and change:
        rank, effective = rank_of(*(each.flatten(1) for each in (delta, first, second)), eps=eps)
    return WeightChange(name, tuple(old.shape), norm, change, rank, effective)


def _not_comparable(old: Tensor, new: Tensor) -> str | None:
    for side, weight in (("before", old), ("after", new)):
        if type(weight) is not Tensor or not (weight.is_floating_point() or weight.is_complex()):
            return f"the weight {side} is quantized ({_kind(weight)})"
        if weight.is_meta:
            return f"the weight {side} is not in memory"
    if old.shape != new.shape:
        return f"the shapes differ: {tuple(old.shape)} before, {tuple(new.shape)} after"
    return None


def _kind(weight: Tensor) -> str:
    return type(weight).__name__ if type(weight) is not Tensor else str(weight.dtype).removeprefix("torch.")


def _doubled(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64
