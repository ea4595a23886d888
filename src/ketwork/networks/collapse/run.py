"""`collapse`: layers are measured while the network runs, which continues with the collapsed states."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ketwork._compat import renamed
from ketwork.networks.activations import (
    MOST_VISITS,
    POOLED,
    Key,
    LayerInfo,
    Layers,
    Reading,
    Site,
    intervene,
    select,
    unwrapped,
)
from ketwork.networks.collapse.projections import (
    DRAWING,
    MODES,
    Directions,
    Question,
    Target,
    directions,
    question,
)
from ketwork.networks.measures import LayerState
from ketwork.networks.study import Layer, Study
from ketwork.quantum import Seed, generator_from


@dataclass
class Collapsed:
    """What an open `collapse` tells: in mode "sample", the outcomes of the last forward pass by (layer, call).

    int64, (samples, positions), or (samples,) where positions were measured. Outcome k is the k-th direction, neuron
    or position in the order they were named; the number after the last one is what they leave over.
    """

    outcomes: dict[Key, Tensor] = field(default_factory=dict)


def center_of(around: str | None) -> bool:
    """What `around`, as it was called in version 0.1, says of `center`."""
    if around not in (None, "mean"):
        raise ValueError(
            f"Argument `around` must be None or 'mean', but is {around!r}. It is now `center=True`."
        )
    return around is not None


@renamed(
    groups={"reading": lambda reading: reading},
    convert={"around": center_of},
    measured="targets",
    around="center",
    generator="seed",
    feature_axis="reading.feature_axis",
)
@contextlib.contextmanager
def collapse(
    model: nn.Module,
    targets: Mapping[Layers, Target],
    mode: str = "project",
    *,
    study: Study | None = None,
    center: bool = False,
    reading: Reading = Reading(),  # noqa: B008  frozen
    seed: Seed = 0,
) -> Iterator[Collapsed]:
    """A context in which the named layers are measured: the network continues with the states that this leaves.

    Each activation a of d features, at each position, is a ket of norm ‖a‖. A target names outcomes
    with projectors P₀ … P_(m−1); what they leave over, P_m = 1 − Σ Pₖ, is one outcome more. The layer then puts out
    ‖a‖ b/‖b‖, with b by mode:

    - `"project"`: b = Σ_(k<m) Pₖ a, the part in the subspace named.
    - `"remove"`: b = P_m a, the part outside.
    - `"sample"`: b = Pₖ a, an outcome drawn by Born's rule, ‖Pₖ a‖²/‖a‖².
    - `"dephase"`: b = Σ φₖ Pₖ a with independent random phases φₖ, uniform on the circle; signs ±1, equally likely,
      where a is real. Nothing but |amplitude|² survives: averaged over the phases, |b⟩⟨b| is Σ Pₖ|a⟩⟨a|Pₖ. A fixed
      phase would not do, since eigenstates are defined up to one.

    A ket of which nothing is left becomes 0. Projecting onto everything leaves the output as it is, bit by bit.

    Args:
        model: any `nn.Module`, called as usual while the context is open. Weights and training flags are not
            touched, gradients flow (outcomes and phases are constants), and on every exit all hooks come off.
        targets: what to measure of which layers, by selectors as in `study`. A layer named twice is measured twice, in
            that order; a module called several times, at each call. What to measure:

            - an integer k: the k leading eigenstates of the layer's density in `study`, at that call;
            - a basis (d, k) with orthonormal columns, or a `Ket` of k orthonormal kets: each is an outcome;
            - a `Measurement`, with its own outcomes; for "project" and "remove" a pair (Measurement, outcome).
              One that is not projective can be sampled;
            - a list of integers: neurons (channels of a convolution), each an outcome;
            - `Positions`: tokens or pixels, each an outcome for the ket of a whole sample over positions ⊗ features.
        mode: see above.
        study: of this network, for ranks and `center`. Take its data for those that the layers' states are to
            describe.
        center: measure a less the layer's mean, and add the mean back. The eigenstates are
            then those of the centred density. The study must hold mean activations: `normalize="ensemble"`.
        reading: as in `study`.
        seed: draws outcomes and phases: an integer, or a generator on the activations' device.

    Yields:
        `Collapsed`, with the outcomes drawn.

    Padding, where the network is given a two-dimensional `attention_mask`, is left as it is.

    Raises:
        SelectorError: a selector names nothing.
        TypeError, ValueError: an argument is not what it must be; a target does not fit the layer (raised in
            the forward pass); on leaving, a selector of which no layer ran though the network did.

    Cost: O(d k) an activation. Up to the norm restored, "remove" of one direction is directional ablation (Arditi et
    al. 2024, arXiv 2406.11717), of neurons zero ablation, or with `center=True` mean ablation.

    >>> net = nn.Sequential(nn.Identity())
    >>> with collapse(net, {"0": [0, 1]}):
    ...     net(torch.tensor([[3.0, 4.0, 12.0]]))
    tensor([[ 7.8000, 10.4000,  0.0000]])
    """
    if mode not in MODES:
        raise ValueError(f"Argument `mode` must be one of {MODES}, but is {mode!r}.")
    if not isinstance(targets, Mapping) or not targets:
        raise TypeError(
            f"Argument `targets` must map layers to what is measured, such as {{'layer3': 16}}, but is {targets!r}."
        )
    network = unwrapped(model)
    targeted = [
        _Targeted(tuple(select(network, layers).chosen), target, mode, study, center)
        for layers, target in targets.items()
    ]
    collapsed = Collapsed()
    seeded: dict[torch.device, torch.Generator] = {}
    states: dict[int, Tensor] = {}

    def change(site: Site) -> Tensor | None:
        device = site.values.device
        if device not in seeded:
            seeded[device] = generator_from(seed, device)
        if mode not in DRAWING or not site.serial:
            return changed(site, seeded[device])
        if not site.again:
            states[site.serial] = seeded[device].get_state()
            states.pop(site.serial - MOST_VISITS, None)
            return changed(site, seeded[device])
        # The backward pass runs the layer again, which draws what it drew.
        before = seeded[device].get_state()
        seeded[device].set_state(states[site.serial])
        try:
            return changed(site, seeded[device])
        finally:
            seeded[device].set_state(before)

    def changed(site: Site, generator: torch.Generator) -> Tensor | None:
        values = None
        for each in targeted:
            if site.key[0] in each.paths:
                now = site.values if values is None else values
                after, outcome = each.at(site, now, generator)
                values = after if after is not None else values
                if outcome is not None:
                    collapsed.outcomes[site.key] = outcome
        return values

    paths = {path for each in targeted for path in each.paths}
    known = reading.layers if reading.axes is not None else _infos(study, paths)
    with intervene(network, paths, change, reading.feature_axis, known) as live:
        yield collapsed
    for each in targeted:
        if live.passes and not live.ran.intersection(each.paths):
            raise ValueError(
                f"Layer {each.paths[0]!r} never ran in the network's forward pass, so nothing was measured. "
                "Name a module that is called."
            )


def _infos(study: Study | None, paths: Collection[str]) -> list[LayerInfo] | None:
    """What a study knows of the axes of these layers, None where it does not know all of them."""
    infos = [layer.info for layer in study or () if layer.info.layout.ndim]
    known = {name for info in infos for name in (info.name, *info.aliases)}
    return infos if known.issuperset(paths) else None


class _Targeted:
    """What is measured of one selector's layers, settled for each of their calls as far as can be known beforehand."""

    def __init__(
        self, paths: tuple[str, ...], target: Target, mode: str, study: Study | None, center: bool
    ) -> None:
        self.paths, self.mode = paths, mode
        number = isinstance(target, (int, np.integer)) and not isinstance(target, bool)
        self.rank = int(target) if number else None  # type: ignore[arg-type]
        self.rows: dict[str, list[Layer]] = {}
        self.center = center
        self._fixed = None if self.rank is not None else question(target, mode, paths[0])
        self._settled: dict[Key, tuple[Question, Tensor | None]] = {}
        if self.rank is None and not self.center:
            return
        wanted = "A rank" if self.rank is not None else "Argument `center`"
        if study is None:
            raise ValueError(
                f"{wanted} needs the states of layer {paths[0]!r}. Give `study=kw.study(model, data, …)`."
            )
        for path in paths:
            rows = [row for row in study if path == row.name or path in row.aliases]
            if not rows and study.skipped.get(path, "").startswith("it never ran"):
                continue
            if not rows:
                raise ValueError(
                    f"{wanted} needs the state of layer {path!r}, but the study has none. "
                    f"Study it by `layers=[{path!r}]`."
                )
            if self.rank is not None and not 1 <= self.rank <= min(row.d for row in rows):
                raise ValueError(
                    f"The rank for layer {path!r} must lie in 1 … {rows[0].d}, but is {self.rank}."
                )
            self.rows[path] = rows

    def at(
        self, site: Site, values: Tensor, generator: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """What the network continues with at that site, and the outcomes drawn."""
        if site.key not in self._settled:
            self._settled[site.key] = self._settle(site)
        measured, mean = self._settled[site.key]
        try:
            measured.check(values, site.positions)
        except ValueError as error:
            raise ValueError(f"Layer {site.key[0]!r} cannot be measured so: {error}.") from error
        return measured_at(values, site.present, measured, self.mode, generator, mean)

    def _settle(self, site: Site) -> tuple[Question, Tensor | None]:
        if site.key[0] not in self.rows:
            assert self._fixed is not None
            return self._fixed, None
        row = _row(self.rows[site.key[0]], site)
        mean = mean_of(row) if self.center else None
        if self._fixed is not None:
            return self._fixed, mean
        assert self.rank is not None
        return leading(row, self.rank, self.center), mean


def measured_at(
    values: Tensor,
    present: Tensor | None,
    measured: Question,
    mode: str,
    generator: torch.Generator,
    mean: Tensor | None,
) -> tuple[Tensor | None, Tensor | None]:
    """What becomes of activations (N, T, d) about a mean, and the outcomes; absent positions stay as they are."""
    shifted = values if mean is None else values - mean.to(values)
    if present is not None:
        shifted = torch.where(present[..., None], shifted, 0.0)
    after, outcome = measured.collapse(shifted, mode, generator)
    if after is None:
        return None, None
    after = after if mean is None else after + mean.to(values)
    return after if present is None else torch.where(present[..., None], after, values), outcome


def leading(row: Layer, rank: int, center: bool = False) -> Directions:
    """The question that has the leading eigenstates of a studied layer for outcomes."""
    return directions(row.eigenstates(rank, row.center or center))


def mean_of(row: Layer) -> Tensor:
    """The layer's mean activation (d,), in float64.

    Raises:
        ValueError: the study holds the mean of unit kets.
    """
    if row.normalize != "ensemble":
        raise ValueError(
            "Argument `center` is True, which needs a study of mean activations. Give one made by "
            "`kw.study(model, data, normalize='ensemble')`."
        )
    return LayerState(row.accumulator, row.normalize, center=True).mean


def _row(rows: list[Layer], site: Site) -> Layer:
    """The row of a study for this call of the layer."""
    path, call = site.key
    matching = [row for row in rows if row.call in (call, POOLED)] or (
        rows if len(rows) == 1 and call == 0 else []
    )
    if not matching:
        raise ValueError(
            f"Layer {path!r} is called {call + 1} times, but the study saw {len(rows)} of its calls. "
            "Study this network in the way it is called here."
        )
    same_layer(matching[0], site)
    return matching[0]


def same_layer(row: Layer, site: Site) -> None:
    """Raises ValueError where the layer is not what was studied."""
    axis = site.layout.samples if site.layout.features is None else site.layout.features
    if row.d != site.values.shape[-1] or row.info.axis != axis:
        raise ValueError(
            f"Layer {site.key[0]!r} has {site.values.shape[-1]} features on axis {axis}, but the study saw "
            f"{row.d} on axis {row.info.axis}. Give the study of this network, with the same `feature_axis`."
        )
