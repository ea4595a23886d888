"""`compare`: one streaming pass that says how alike every pair of layers is, within a model or between two."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import FeatureAxis
from ketwork.networks.activations.batches import Batch, EmptyDataError, Forward, Mask, batches
from ketwork.networks.activations.captures import Activation, Capture, Key, capture, unwrapped
from ketwork.networks.activations.encoding import unit
from ketwork.networks.activations.names import row_names
from ketwork.networks.activations.outputs import map_tensors
from ketwork.networks.activations.selectors import Layers, SelectorError
from ketwork.networks.comparison.result import SIDES, ComparedLayer, Comparison
from ketwork.networks.measures.similarity import MEASURES
from ketwork.networks.moments.accumulator import NORMALIZATIONS
from ketwork.networks.moments.labelled_moments import pooled
from ketwork.networks.moments.pair_moments import MEMORY, PairMoments
from ketwork.networks.runtime.distributed import TIMEOUT, ProcessError, Processes, joined
from ketwork.networks.runtime.memory import parse

FEWEST = 4
"""Debiased CKA divides by N − 3."""

UNITS = ("pooled", "positions", "flattened")
"""What is compared: samples with their positions averaged, every position, or samples with positions as features."""


def compare(
    model_a: nn.Module,
    model_b: nn.Module | None,
    data: Any,
    *,
    layers: Layers = None,
    layers_b: Layers = None,
    data_b: Any = None,
    mask: Mask = None,
    forward: Forward | None = None,
    forward_b: Forward | None = None,
    samples: int | None = None,
    batch_size: int = 64,
    measures: Collection[str] = tuple(MEASURES),
    positions: bool = False,
    flatten: bool = False,
    normalize: str = "ensemble",
    center: bool = True,
    calls: str = "separate",
    feature_axis: FeatureAxis = None,
    memory: int | str = MEMORY,
    generator: torch.Generator | None = None,
    processes: str | None = None,
    timeout: float = TIMEOUT,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """How alike every layer of one model is to every layer of another, or of its own, in one pass over data.

    With X (N × dₓ) and Y (N × d_y) what two layers put out for the same N samples, widths need not agree:

    - `cka`: linear CKA from HSIC₁, debiased over the full data, not batch by batch (Song et al. 2012, JMLR
      13:1393; Kornblith et al. 2019, arXiv 1905.00414). Features are centred by definition. Values below 0
      are chance, and shown as they are. `cka_biased` is the usual one: 0.909 for independent Gaussians with
      N = 100 and d = 1,000, where `cka` is 0.00.
    - `bures`: normalised Bures similarity ‖XᵀY‖_*/(‖X‖‖Y‖), which is the root fidelity √F of the sample-side
      states XXᵀ/Tr and YYᵀ/Tr (Harvey et al. 2023, arXiv 2311.11436). Features are centred unless
      `center=False`. It is not debiased: beside it stands `bures_null`, what unrelated layers with these
      spectra would give.
    - `cka_distance`, `bures_distance`: the angles whose cosines these are.
    - `r2`: the share of the column's layer that the best linear map of the row's explains, adjusted for the
      number of parameters; `r2_reverse` the other way round. Both centred. Axes lighter than rounding (of
      float32 values, and of float32 products once the data outgrow the rows) are left out of the map.

    None of them changes when either layer's features are rotated or scaled as a whole.

    Args:
        model_a, model_b: any two modules; `None` or the second compares the first with itself.
        data: as in `study`. Both models get the same batches.
        layers, layers_b: which modules of each, as in `study`; without `layers_b`, `layers` goes for both.
        data_b: other data for the second model (its own tokeniser's, say): the same samples in the same order
            and batches of the same sizes.
        mask: which positions exist, as in `study`.
        forward, forward_b: how to call each; without `forward_b`, `forward` goes for both.
        samples, batch_size, calls, feature_axis, progress: as in `study`.
        measures: which of `"cka"`, `"bures"` and `"r2"` to compute; CKA alone is much the cheapest.
        positions: compare every position as a sample of its own, among the layers that have the same
            positions (the commonest number of them), instead of each sample's mean over positions. The
            positions of a sample are not independent, which the corrections for finite N do not know.
        flatten: make positions and features together the features of a sample, as torch-cka does (which also
            counts padding; here padding is 0). Every batch must have the same positions.
        normalize: `"ensemble"`, rows as they are, or `"state"`, each scaled to a ket of norm 1.
        center: whether `bures` is of centred features; False leaves the origin in, as in a study's states, and
            gives no null.
        memory: bytes for what the pass keeps, or a text such as "2GB". Rows are kept while they are the smaller side,
            else cross moments; where both are larger than this, layers are projected at random to fewer dimensions, and
            `errors` of the result says by how much that may have changed each number (one standard deviation and bias,
            from the change that half the width makes).
        generator: seeds the projection; None is a fixed seed.
        processes, timeout: as in `study`.

    Returns:
        A `Comparison`. If a batch fails after others went through, the comparison of those, with `error` set. With
        `processes`, process 0 has the comparison over all data, and the others have None.

    Raises:
        SelectorError: a selector names nothing.
        TypeError, ValueError: an argument is not what it must be, fewer than 4 samples, NaN or infinite values
            (layer, batch and sample are named), or `data_b` that disagrees on the samples.
        ProcessError: as in `study`.

    Cost: the forward passes; then, for Bures and R², O(N dᵢ dⱼ) and an eigenvalue problem of min(d, N) for each
    pair; for CKA alone O(N² d) a layer while rows are kept. With `positions=True` the products exceed the forward
    passes: choose layers.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
    >>> found = compare(net, None, torch.randn(500, 8))
    >>> float(found.r2.loc["1", "2"].round(6)), float(found.bures.loc["0", "0"])
    (1.0, 1.0)
    >>> found.best_match()["match"].to_dict()
    {'0': '1', '1': '0', '2': '1'}
    """
    _check(measures, normalize, positions, flatten, batch_size, samples)
    unit_of_comparison = UNITS[1] if positions else UNITS[2] if flatten else UNITS[0]
    sides = [_Side(SIDES[0], unwrapped(model_a), layers, forward, unit_of_comparison, normalize)]
    if model_b is not None:
        layers_b = layers if layers_b is None else layers_b
        forward_b = forward if forward_b is None else forward_b
        sides.append(_Side(SIDES[1], unwrapped(model_b), layers_b, forward_b, unit_of_comparison, normalize))
    elif data_b is not None or layers_b is not None or forward_b is not None:
        raise ValueError("Arguments `data_b`, `layers_b` and `forward_b` need a `model_b`, but it is None.")
    seed = 0 if generator is None else int(torch.randint(2**31, (), generator=generator))
    with joined(processes, timeout) as group:
        pairs = PairMoments(memory=parse(memory), seed=seed)
        error: Exception | None = None
        done = 0
        with contextlib.ExitStack() as stack:
            for side in sides:
                side.enter(stack, calls, feature_axis)
            sources = [
                batches(
                    source,
                    batch_size=batch_size,
                    samples=samples,
                    mask=mask,
                    dtype=side.dtype,
                    mine=None if group is None else group.mine,
                )
                for source, side in zip([data] if data_b is None else [data, data_b], sides, strict=False)
            ]
            try:
                for aligned in _side_by_side(sources):
                    if aligned[0].elsewhere:
                        done += aligned[0].size
                        continue
                    for side, batch in zip(sides, itertools.chain(aligned, aligned), strict=False):
                        side.run(batch, done, sides[0].dtype)
                    if pairs.n == 0:
                        _choose(sides)
                    pairs.add(*(side.rows for side in sides))
                    done += aligned[0].size
                    if progress is not None:
                        progress(done)
            except Exception as failure:
                error = failure
                if group is None and (pairs.n < FEWEST or isinstance(failure, _MisalignedError)):
                    raise
        if group is None and pairs.n < FEWEST:
            raise ValueError(
                f"Argument `data` must hold at least {FEWEST} samples, but holds {pairs.n}: debiased CKA divides by "
                "N − 3."
            )
        settings = {
            "model": type(sides[0].model).__name__,
            "other": type(sides[-1].model).__name__,
            "layers": "default" if layers is None else str(layers),
            "unit": unit_of_comparison,
            "normalize": normalize,
            "center": center,
            "calls": calls,
            "batch_size": batch_size,
            "samples": samples,
            "memory": memory,
            "seed": seed,
            "torch": torch.__version__,
        }
        part = _Part.of(pairs, sides)
        if group is not None:
            return _together(group, part, error, settings, measures, center)
        return part.comparison(settings, measures, center, error)


@dataclass
class _Part:
    """What a pass over a part of the data gathered: what comparing layers takes, their names, and what was left out."""

    pairs: PairMoments
    named: dict[Hashable, ComparedLayer]
    skipped: dict[str, str]

    @classmethod
    def of(cls, pairs: PairMoments, sides: list[_Side]) -> _Part:
        """What this pass gathered."""
        named = {key: layer for side in sides for key, layer in side.named().items()}
        skipped = {
            path if len(sides) == 1 else f"{side.name}: {path}": reason
            for side in sides
            for path, reason in side.skipped().items()
        }
        return cls(pairs, named, skipped)

    def comparison(
        self, settings: dict[str, Any], measures: Collection[str], center: bool, error: Exception | str | None
    ) -> Comparison:
        """The comparison that it makes."""
        found = Comparison.of(
            self.pairs, self.named, settings, self.skipped, measures=measures, center=center
        )
        return replace(found, complete=error is None, error=error)

    def take(self, other: _Part, start: int | None = None) -> None:
        """Adds the part of another process; where its samples stand does not matter."""
        self.pairs += other.pairs
        self.named = other.named | self.named
        self.skipped = other.skipped | self.skipped

    def header(self) -> dict[str, Any]:
        """All but the tensors, as plain values."""
        return {
            "pairs": self.pairs.header(),
            "keys": [_plain_key(key) for key in self.pairs.keys],
            "named": [[_plain_key(key), layer.header()] for key, layer in self.named.items()],
            "skipped": self.skipped,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors."""
        return self.pairs.tensors()

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> _Part:
        """The part that `header` and `tensors` described."""
        keys = [_key(told) for told in header["keys"]]
        named = {_key(told): ComparedLayer.from_header(layer) for told, layer in header["named"]}
        return cls(PairMoments.from_header(header["pairs"], tensors, keys), named, dict(header["skipped"]))


def _plain_key(key: Any) -> list[Any]:
    side, (path, call) = key
    return [side, path, call]


def _key(told: list[Any]) -> Hashable:
    side, path, call = told
    return side, (path, call)


def _together(
    group: Processes,
    part: _Part,
    error: Exception | None,
    settings: dict[str, Any],
    measures: Collection[str],
    center: bool,
) -> Comparison:
    """The comparison over what all processes gathered, at process 0."""
    failed = error is not None and not isinstance(error, EmptyDataError)
    told = group.exchange(
        {"error": f"{type(error).__name__}: {error}" if failed else None, "n": part.pairs.n}
    )
    failures = [f"process {rank} failed ({one['error']})" for rank, one in enumerate(told) if one["error"]]
    total = sum(one["n"] for one in told)
    if total < FEWEST and not failures:
        raise ValueError(
            f"Argument `data` must hold at least {FEWEST} samples, but holds {total} in {group.count} processes: "
            "debiased CKA divides by N − 3."
        )
    part = group.add_up(part, _Part.from_header)
    found = None
    if group.rank == 0 and total >= FEWEST:
        settings = settings | {"processes": group.count}
        found = part.comparison(settings, measures, center, "; ".join(failures) or None)
    if failures:
        raise ProcessError(f"In a job of {group.count} processes, {'; '.join(failures)}.", found) from error
    return found  # type: ignore[return-value]  # None in the other processes, as documented


class _MisalignedError(ValueError):
    """`data` and `data_b` are not the same samples."""


@dataclass
class _Side:
    """One of the models during the pass. Its rows of the current batch are keyed by (side, (path, call))."""

    name: str
    model: nn.Module
    layers: Layers
    forward: Forward | None
    unit: str
    normalize: str
    rows: dict[Hashable, Tensor] = field(default_factory=dict)
    kinds: dict[Key, str] = field(default_factory=dict)
    widths: dict[Key, int] = field(default_factory=dict)
    left_out: dict[Key, str] = field(default_factory=dict)
    batches: int = 0
    _samples: int = 0
    _mask: Tensor | None = None

    def __post_init__(self) -> None:
        floating = (p for p in self.model.parameters() if p.is_floating_point() or p.is_complex())
        first = next(floating, torch.empty(0))
        self.dtype, self.device = first.dtype, first.device

    def enter(self, stack: contextlib.ExitStack, calls: str, feature_axis: FeatureAxis) -> None:
        """Puts the hooks on until the stack unwinds."""
        live = capture(self.model, self.layers, receive=self.receive, calls=calls, feature_axis=feature_axis)
        try:
            self.live: Capture = stack.enter_context(live)
        except SelectorError as error:
            raise SelectorError(f"In {self.name}: {error}") from error

    def run(self, batch: Batch, done: int, dtype_of_data: torch.dtype) -> None:
        """Runs one batch through this model; `rows` then has what each layer made of it."""
        cast = self.dtype if self.dtype != dtype_of_data else None

        def placed(tensor: Tensor) -> Tensor:
            fits = cast is not None and tensor.dtype == dtype_of_data
            return tensor.to(self.device, cast if fits else None)

        batch = replace(batch, content=map_tensors(batch.content, placed))
        self._mask = batch.mask.to(self.device) if batch.mask is not None else None
        self._samples = done
        self.rows.clear()
        self.live.forward(lambda model: batch.run(model, self.forward), batch.size)
        self.batches += 1

    def receive(self, activation: Activation) -> None:
        """Reduces one activation to a row a sample, inside the hook."""
        if activation.key in self.left_out:
            return
        path = activation.key[0]
        rows = sample_rows(
            activation.values, self._present(activation), kind=self.unit, normalize=self.normalize
        )
        width = self.widths.setdefault(activation.key, rows.shape[1])
        self.kinds.setdefault(activation.key, activation.kind)
        if width != rows.shape[1]:
            remedy = (
                "With `flatten=True` every batch must have the same positions: pad all of them to one length."
                if self.unit == UNITS[2]
                else f"Say which axis holds its features with `feature_axis={{{path!r}: ...}}`."
            )
            raise ValueError(
                f"Layer {path!r} of {self.name} had {width} features and now has {rows.shape[1]}. {remedy}"
            )
        if not bool(torch.isfinite(rows).all()):
            raise ValueError(self._told(path, activation))
        self.rows[self.name, activation.key] = rows

    def leave_out(self, key: Key, reason: str) -> None:
        """Takes a layer out of this and later batches."""
        self.left_out[key] = reason
        self.rows.pop((self.name, key), None)

    def named(self) -> dict[Hashable, ComparedLayer]:
        """The layers by the keys of their rows."""
        names = row_names(self.live, [key for key in self.kinds if key not in self.left_out])
        found: dict[Hashable, ComparedLayer] = {}
        for key, (place, aliases) in names.items():
            found[self.name, key] = ComparedLayer.at(place, aliases, self.kinds[key], self.widths[key])
        return found

    def skipped(self) -> dict[str, str]:
        """Modules that gave no row, each with its reason."""
        shown = {name for layer in self.named().values() for name in (layer.name, *layer.aliases)}
        left_out = {path: reason for (path, _), reason in self.left_out.items()}
        return {path: why for path, why in (self.live.skipped | left_out).items() if path not in shown}

    def _present(self, activation: Activation) -> Tensor | None:
        if activation.present is not None:
            return activation.present
        mask = self._mask
        if mask is None or not activation.positions or mask.shape != activation.values.shape[:2]:
            return None
        return mask

    def _told(self, path: str, activation: Activation) -> str:
        values = activation.values.abs().sum(dim=-1)
        present = self._present(activation)
        if present is not None:
            values = values.masked_fill(~present, 0)
        bad = (~torch.isfinite(values)).any(dim=1).nonzero().squeeze(1).tolist()
        shown = ", ".join(str(self._samples + i) for i in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        return (
            f"Layer {path!r} of {self.name} put out NaN or infinite values in batch {self.batches}, sample "
            f"{shown}{more} (counted from 0). Mend the data or the network there, or leave those samples out."
        )


def sample_rows(values: Tensor, present: Tensor | None, *, kind: str = UNITS[0], normalize: str) -> Tensor:
    """An activation (N, T, d) as the rows that are compared, in memory of their own.

    `"pooled"`: the mean over existing positions, (N, d), 0 where a sample has none; `"positions"`: every existing
    position, (n, d); `"flattened"`: (N, T·d), 0 where a position does not exist. Complex values become pairs
    of real features. `normalize="state"` scales each row to norm 1; zero rows stay.
    """
    if values.is_complex():
        values = torch.view_as_real(values.resolve_conj()).flatten(-2)
    if kind == "positions":
        rows = values.flatten(0, 1).clone() if present is None else values[present]
    elif kind == "flattened":
        rows = values.flatten(1).clone() if present is None else _existing(values, present).flatten(1)
    else:
        rows = pooled(values, present)
    return unit(rows)[0] if normalize == "state" else rows


def _existing(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present[..., None], values, torch.zeros_like(values))


def _side_by_side(sources: list[Iterator[Batch]]) -> Iterator[tuple[Batch, ...]]:
    for number, aligned in enumerate(itertools.zip_longest(*sources)):
        sizes = [0 if batch is None else batch.size for batch in aligned]
        if len(set(sizes)) > 1:
            raise _MisalignedError(
                "Argument `data_b` must hold the same samples as `data`, in batches of the same sizes, but "
                f"batch {number} has {sizes[0]} of `data` and {sizes[1]} of `data_b`."
            )
        yield aligned


def _choose(sides: list[_Side]) -> None:
    """Leaves out layers that have other positions than most have, and sees that some are left."""
    for side in sides:
        if not side.rows:
            reasons = "; ".join(f"{path}: {why}" for path, why in list(side.live.skipped.items())[:5])
            raise ValueError(f"No layer of {side.name} gave an activation to compare ({reasons}).")
    counts = Counter(len(rows) for side in sides for rows in side.rows.values())
    most = max(counts, key=lambda count: (counts[count], count))
    for side in sides:
        for key in side.kinds:
            rows = side.rows[side.name, key]
            if len(rows) != most:
                side.leave_out(
                    key, f"it has {len(rows)} positions in the first batch, where most have {most}"
                )
        if not side.rows:
            raise ValueError(
                f"Argument `positions` compares layers with the same positions, but no layer of {side.name} has the "
                f"{most} that most have. Leave it out to compare samples, or choose layers."
            )


def _check(
    measures: Collection[str],
    normalize: str,
    positions: bool,
    flatten: bool,
    batch_size: int,
    samples: int | None,
) -> None:
    if isinstance(measures, str) or not measures or not set(measures) <= MEASURES.keys():
        raise ValueError(f"Argument `measures` must be some of {tuple(MEASURES)}, but is {measures!r}.")
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"Argument `normalize` must be one of {NORMALIZATIONS}, but is {normalize!r}.")
    if positions and flatten:
        raise ValueError(
            "Arguments `positions` and `flatten` must not both be True: a sample is one or the other."
        )
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
    if samples is not None and samples < FEWEST:
        raise ValueError(
            f"Argument `samples` must be at least {FEWEST}, but is {samples}: debiased CKA divides by N − 3."
        )
