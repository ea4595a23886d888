"""What one layer is compared with: class means and covariances of its kets, and the eigenstates of its state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.networks.activations import Activation, LayerInfo, unit
from ketwork.networks.detection.spaces import Distances, Eigenspace
from ketwork.networks.detection.stacks import LABEL_FREE, Parts, Stack, States
from ketwork.networks.moments import pooled
from ketwork.records import Count, Malformed

MEAN, WORST = "mean", "worst"
"""Of a sample with several positions: their mean is scored as one ket, or each is and the largest score counts."""

_WIDEST = 1024
"""Features of layers that are stacked: beyond that the products cost more than their calls, and copies much memory."""


@dataclass(frozen=True)
class LayerReference:
    """A layer as a study saw it: `samples` of them, d features.

    `classes` and `overall` are of mean-pooled kets, by class and about their common mean (None without classes);
    `state` is the state of mean-pooled kets (of those of all positions without labels), `every` that of all positions.
    `paired` says that complex kets are compared as real ones of their real and imaginary parts.
    """

    info: LayerInfo
    d: Count
    samples: Count
    state: Eigenspace
    classes: Distances | None = None
    overall: Distances | None = None
    every: Eigenspace | None = None
    paired: bool = False

    def check(self) -> None:
        """All parts are of the layer's features."""
        width = self.d * (2 if self.paired else 1)
        widths = [len(self.state.values)]
        widths += [part.means.shape[1] for part in (self.classes, self.overall) if part is not None]
        wrong = [each for each in widths if each != width]
        if self.every is not None and len(self.every.values) != self.d:
            wrong.append(len(self.every.values))
        if wrong:
            raise Malformed(f"a layer of {self.d} features cannot be compared with one of {wrong[0]}")
        if (self.classes is None) != (self.overall is None):
            raise Malformed("a layer must have distances by class and overall, or neither")
        if self.overall is not None and len(self.overall.means) != 1:
            raise Malformed(f"the common mean must be one vector, but there are {len(self.overall.means)}")

    def vectors(self, activation: Activation) -> Tensor:
        """The mean over the positions of each sample of an activation, (N, d), in real numbers where kets are real."""
        vectors = mean_of_positions(activation.values, activation.present).to(self.device)
        return torch.cat([vectors.real, vectors.imag], dim=-1) if self.paired else vectors

    @property
    def device(self) -> torch.device:
        """Where scores are computed: a few numbers a sample go there."""
        return self.state.values.device

    @property
    def parts(self) -> Parts:
        """What kets are compared with."""
        return self.state, self.classes, self.overall

    @cached_property
    def stack(self) -> Stack:
        """The layer as a stack of one."""
        return Stack.from_parts([0], [self.parts])

    def scores(self, kets: Tensor, methods: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor | None]:
        """The score of mean-pooled kets (N, d) by each method, (N,) each, and the nearest class, if it is computed."""
        scores, nearest = self.stack.scores(kets[None], methods)
        return {method: each[0] for method, each in scores.items()}, None if nearest is None else nearest[0]

    def worst(self, activation: Activation, methods: tuple[str, ...]) -> dict[str, Tensor]:
        """The largest score of each sample's positions by each label-free method, (N,) each; −∞ where it has none."""
        assert self.every is not None
        values, present = activation.values, activation.present
        n, t, d = values.shape
        rows = values.reshape(n * t, d) if present is None else values[present]
        owners = torch.arange(n, device=values.device)[:, None].expand(n, t)
        owners = owners.reshape(-1) if present is None else owners[present]
        kets, norms = unit(rows)
        norms, owners = norms.to(self.device), owners.to(self.device)
        states = States.from_spaces([self.every])
        populations = states.populations(kets[None])
        result = {}
        for method in methods:
            if method in LABEL_FREE:
                each = getattr(states, method)(populations)[0]
                each = torch.where(norms > 0, each, torch.full_like(each, -torch.inf))
                start = each.new_full((n,), -torch.inf)
                result[method] = start.scatter_reduce(0, owners, each, "amax")
        return result


def mean_of_positions(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the existing positions of each sample, (N, d), of activations (N, T, d).

    With a mask by one product that reads them once, unless what does not exist is NaN or infinite.
    """
    if present is not None and values.shape[1] > 1:
        shares = present.to(values) / present.sum(dim=1, keepdim=True).clamp(min=1)
        vectors = (shares[:, None] @ values)[:, 0]
        if bool(vectors.sum().isfinite()):
            return vectors
    return pooled(values, present)


def stacked(references: Sequence[LayerReference], methods: Sequence[Sequence[str]]) -> list[Stack]:
    """Stacks of all layers, those of one shape that are scored by the same methods together."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for place, each in enumerate(references):
        vectors, classes = each.state.vectors, each.classes
        key: tuple[object, ...] = (vectors.shape, vectors.dtype, vectors.device, each.paired, *methods[place])
        key += (None if classes is None else len(classes.means),)
        groups.setdefault(key if len(vectors) <= _WIDEST else (place,), []).append(place)
    return [Stack.from_parts(places, [references[i].parts for i in places]) for places in groups.values()]
