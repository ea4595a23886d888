"""`Comparison`: labelled matrices of layers against layers, as frames and as a long table."""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from ketwork.networks.activations import LayerInfo
from ketwork.networks.comparison import tables
from ketwork.networks.comparison.effort import effort_of, missing_pairs
from ketwork.networks.comparison.projected import uncertain
from ketwork.networks.comparison.upgrade import upgraded_comparison
from ketwork.networks.comparison.warnings import unit_of, warnings_of
from ketwork.networks.comparison.weights import WeightChange
from ketwork.networks.comparison.what_changed import changes
from ketwork.networks.measures import PAIR_MEASURES, groups, measured, overlaps_of, similarities
from ketwork.networks.moments import PairMoments
from ketwork.networks.runtime import Background
from ketwork.quantum import Estimate
from ketwork.records import Count, Malformed, Presented, check_source, read, write

SCHEMA = 2
"""The version of the file format; files of a newer one are refused."""

SIDES = ("model", "other")
"""What the two models are called."""

FEWEST = 4
"""Debiased CKA divides by N − 3."""

_PRINTED: dict[str, Any] = {"float_format": "{:.3f}".format, "na_rep": "–"}


@dataclass(frozen=True)
class ComparedLayer:
    """One layer of a comparison: its label, kind, features d, and the width it was held in (less if projected).

    `rank` is how many of its axes stand above rounding, of which linear maps are made; None where none were needed.
    """

    name: str
    kind: str
    d: Count
    held: Count
    aliases: tuple[str, ...] = ()
    rank: Count | None = None

    @classmethod
    def from_info(cls, info: LayerInfo, d: int) -> ComparedLayer:
        """The layer of that name and call; later calls of a module are numbered."""
        label = info.name if info.call <= 0 else f"{info.name}#{info.call}"
        return cls(label, info.kind, d, d, info.aliases)


@dataclass(frozen=True, eq=False)
class Comparison(Presented):
    """How the layers of a model compare with those of another (`columns`), or with each other.

    `cka`, `bures`, `r2` … are frames, rows × columns; `definitions` says what each is. `n` counts what was
    compared: samples, or positions of samples with `unit="position"`. `skipped` names skipped modules, each
    with its reason. `complete` is False where the pass ended early; `error` then says why.
    `matrices` has every measure as a float64 tensor, `stderrs` the standard errors of the sampling of the data (of
    those that have one; NaN where it cannot be had, for the reason in `unknown`), `missing_pairs` which pairs were not
    computed (NaN), `errors` by how much projecting wide
    layers may have changed it (empty where nothing was projected). `samples` counts the independent samples.
    `weights` has the change of every weight of two models, of which `changes` makes that of each layer.
    """

    rows: tuple[ComparedLayer, ...]
    columns: tuple[ComparedLayer, ...]
    matrices: dict[str, Tensor]
    n: Count
    settings: dict[str, Any]
    skipped: dict[str, str]
    errors: dict[str, Tensor] = field(default_factory=dict)
    itself: bool = False
    error: str | None = None
    stderrs: dict[str, Tensor] = field(default_factory=dict)
    samples: Count | None = None
    unknown: str | None = None
    missing_pairs: str | None = None
    weights: tuple[WeightChange, ...] = ()

    @property
    def independent(self) -> int:
        """How many independent samples were compared."""
        return self.n if self.samples is None else self.samples

    @property
    def complete(self) -> bool:
        """Whether the pass went to the end of the data."""
        return self.error is None

    def check(self) -> None:
        """Matrices are of these layers; that of a model with itself has its layers twice."""
        shape = (len(self.rows), len(self.columns))
        known = {name for names in groups().values() for name in names}
        if not self.matrices or not {*self.matrices} <= known or (self.itself and self.rows != self.columns):
            raise Malformed(
                "a comparison must have known measures, and that of a model with itself its layers twice"
            )
        for name, matrix in (*self.matrices.items(), *self.errors.items(), *self.stderrs.items()):
            if tuple(matrix.shape) != shape or not matrix.is_floating_point():
                raise Malformed(
                    f"the matrix {name!r} must be real of shape {shape}, but has {tuple(matrix.shape)}"
                )
        projected = any(layer.held < layer.d for layer in (*self.rows, *self.columns))
        if not {*self.errors, *self.stderrs} <= {*self.matrices} or (
            projected and {*self.errors} != {*self.matrices}
        ):
            raise Malformed("a comparison of projected layers must have the errors of its measures")
        if not all(isinstance(self.settings.get(side), str) for side in SIDES):
            raise Malformed("settings must name both models")
        check_source(self.settings)

    @classmethod
    def from_pairs(
        cls,
        pairs: PairMoments,
        named: Mapping[Hashable, ComparedLayer],
        settings: dict[str, Any],
        skipped: dict[str, str],
        *,
        measures: Collection[str] | None = None,
        center: bool = True,
        error: str | None = None,
        background: Background | None = None,
        seconds: float | None = None,
    ) -> Comparison:
        """The comparison that the streamed moments of `PairMoments` hold; `named` has the layer of each key.

        `measures` is which groups to compute (None: all), `center` for `bures` alone. Layers that missed
        a batch, or put out the same for every sample, go to `skipped`. Pairs take that number of `seconds` (None:
        all of them), nearest layers first, or until the `background` is stopped.
        """
        wanted = groups() if measures is None else measures
        overlaps = overlaps_of(pairs)
        effort = effort_of(background, seconds, parts=1 if pairs.half is None else 2)
        similar = measured(overlaps, wanted, center=center, effort=effort)
        matrices = similar.matrices
        errors: dict[str, Tensor] = {}
        if pairs.half is not None:
            halved = similarities(
                overlaps_of(pairs.half), wanted, center=center, effort=replace(effort, only=similar.pairs)
            )
            errors = {
                name: uncertain(matrix, halved[name], PAIR_MEASURES[name].scattered)
                for name, matrix in matrices.items()
            }
        skipped = dict(skipped)
        kept: tuple[list[int], list[int]] = ([], [])
        sides: tuple[list[ComparedLayer], list[ComparedLayer]] = ([], [])
        second = len(pairs.keys) if pairs.split is None else pairs.split
        for i, (key, held) in enumerate(zip(pairs.keys, pairs.dims, strict=True)):
            rank = None if similar.ranks is None else similar.ranks[i]
            layer, side = replace(named[key], held=held, rank=rank), int(i >= second)
            place = layer.name if pairs.split is None else f"{SIDES[side]}: {layer.name}"
            if key in pairs.incomplete:
                skipped.setdefault(place, "it ran in some batches only")
            elif overlaps.constant[i]:
                skipped[place] = "it puts out the same for every sample"
            else:
                kept[side].append(i - side * second)
                sides[side].append(layer)
        itself = pairs.split is None
        rows, columns = kept[0], kept[0] if itself else kept[1]
        chosen, bounds, stderrs = (
            {name: matrix[rows][:, columns] for name, matrix in part.items()}
            for part in (matrices, errors, similar.errors)
        )
        layers, others = tuple(sides[0]), tuple(sides[0] if itself else sides[1])
        return cls(
            layers,
            others,
            chosen,
            pairs.n,
            settings,
            skipped,
            bounds,
            itself,
            error,
            stderrs,
            pairs.samples,
            similar.unknown,
            missing_pairs(similar, seconds),
        )

    @property
    def cka(self) -> pd.DataFrame:
        """Debiased linear CKA."""
        return self.frame("cka")

    @property
    def cka_biased(self) -> pd.DataFrame:
        """Linear CKA as it is usually computed, which few samples inflate."""
        return self.frame("cka_biased")

    @property
    def cka_distance(self) -> pd.DataFrame:
        """The angle whose cosine is the debiased CKA, in radians."""
        return self.frame("cka_distance")

    @property
    def bures(self) -> pd.DataFrame:
        """Normalised Bures similarity: the root fidelity of the sample-side states."""
        return self.frame("bures")

    @property
    def bures_null(self) -> pd.DataFrame:
        """The Bures similarity to expect of layers with the same spectra and nothing in common."""
        return self.frame("bures_null")

    @property
    def bures_distance(self) -> pd.DataFrame:
        """The Bures angle, in radians."""
        return self.frame("bures_distance")

    @property
    def r2(self) -> pd.DataFrame:
        """Share of the column's layer that a linear map of the row's layer explains, adjusted."""
        return self.frame("r2")

    @property
    def r2_reverse(self) -> pd.DataFrame:
        """Share of the row's layer that a linear map of the column's layer explains, adjusted."""
        return self.frame("r2_reverse")

    @property
    def measures(self) -> tuple[str, ...]:
        """The names of the measures that were computed, distances included."""
        distances = [m.name for m in PAIR_MEASURES.values() if m.distance_of in self.matrices]
        return (*self.matrices, *distances)

    @property
    def definitions(self) -> dict[str, str]:
        """What each measure means."""
        return {name: measure.definition for name, measure in PAIR_MEASURES.items()}

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""
        return warnings_of(self)

    def frame(self, measure: str) -> pd.DataFrame:
        """One measure as a frame with the layers' names as labels; see `definitions` for the names."""
        return self._labelled(self.matrix(measure))

    def _labelled(self, matrix: Tensor) -> pd.DataFrame:
        return pd.DataFrame(
            matrix.numpy(),
            index=pd.Index([layer.name for layer in self.rows], name="layer"),
            columns=pd.Index([layer.name for layer in self.columns], name="other"),
        )

    def table(self) -> pd.DataFrame:
        """One row a pair of layers: names, widths, ranks, N, samples, N/d of the wider one, and every measure.

        Each measure of which samples tell the standard error has it as `…_stderr`. Compared with itself, each pair
        comes once, and no layer with itself. Columns `…_error` follow where layers were projected.
        """
        return tables.table(self)

    def long(self) -> pd.DataFrame:
        """One row a pair of layers and measure: value, standard error, and the 95 % interval `low` … `high` of the two.

        `error` is what projecting the layers may have changed. Pairs as in `table`.
        """
        return tables.long(self)

    def estimate(self, measure: str, i: int, j: int) -> Estimate:
        """One measure of the i-th row's and the j-th column's layer, with its standard error (NaN: it has none)."""
        stderr = self.stderr_matrix(measure)
        return Estimate(
            float(self.matrix(measure)[i, j]), math.nan if stderr is None else float(stderr[i, j])
        )

    def stderr(self, measure: str) -> pd.DataFrame:
        """The standard errors of a measure as a frame with the layers' names as labels.

        Raises:
            ValueError: the measure has none, being a chance level or of these samples alone.
        """
        stderr = self.stderr_matrix(measure)
        if stderr is None:
            have = [name for name in self.measures if self.stderr_matrix(name) is not None]
            raise ValueError(
                f"Argument `measure` must be one with standard errors ({', '.join(have)}), but is {measure!r}."
            )
        return self._labelled(stderr)

    def stderr_matrix(self, measure: str) -> Tensor | None:
        """The standard errors of a measure, rows × columns; those of an angle follow from its cosine's."""
        of = PAIR_MEASURES[measure].distance_of
        if of is None:
            return self.stderrs.get(measure)
        if of not in self.stderrs:
            return None
        return self.stderrs[of] / (1 - self.matrices[of].clamp(-1, 1).square()).sqrt()

    def best_match(self, measure: str | None = None) -> pd.DataFrame:
        """For each row's layer the column's layer that is most like it (never itself), and how much.

        None takes the first of `measures`, which is `cka` where it was computed. `mutual` says whether the match is
        the best in the other direction too. A distance is best small.
        """
        return tables.best_match(self, measure or self.measures[0])

    def changes(self, by: str | None = None) -> pd.DataFrame:
        """What changed: the layers that both models have by name, one row each, in order of depth, indexed by `layer`.

        Each measure of the two with its `…_stderr` (of the sampling of the data), and of the layer's weights, those
        inside it included:

        - `weight_change`: ‖ΔW‖/‖W‖ of all of them as one vector, W the weights before. Before is `model`, or `other`
          where `model` has adapters that `other` has not; `settings["before"]` says which.
        - `weight`: the matrix of the layer that changed most, by ‖ΔW‖; `weight_rank` and `weight_effective_rank`: of
          its ΔW, those singular values alone that exceed what rounding makes, see `rank_of`. A LoRA adapter of rank r
          gives r, a matrix that was scaled its own rank, and what did not change 0.
        - `reason`: why a layer has no weight change (–, NaN): it has no weights, or they are quantized, sharded, or of
          another name or shape.

        `by` sorts: a measure, the least alike first, or `"weight_change"`, the largest first. None: by depth.

        Raises:
            ValueError: the comparison is of a model with itself, or `by` is no such column.

        >>> import torch
        >>> from ketwork.networks.comparison import compare
        >>> _ = torch.manual_seed(0)
        >>> before, after = (torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.Linear(6, 4)) for _ in range(2))
        >>> _ = after.load_state_dict(before.state_dict())
        >>> with torch.no_grad():
        ...     _ = after[1].weight.mul_(1.25)
        >>> compare(before, torch.randn(100, 8), after).changes()[["weight", "weight_rank"]].to_dict("index")["1"]
        {'weight': '1.weight', 'weight_rank': 4}
        """
        return changes(self, by)

    def save(self, path: str | Path) -> None:
        """Writes the comparison to one safetensors file; replaces the file in one step."""
        write(path, "comparison", SCHEMA, self)

    @classmethod
    def load(cls, path: str | Path) -> Comparison:
        """Reads a comparison that `save` wrote, also by version 0.1.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a comparison, damaged, or written by a newer ketwork.
        """
        return read(cls, path, "comparison", SCHEMA, upgraded_comparison)

    def described(self, **settings: Any) -> Comparison:
        """The same comparison with more settings."""
        return replace(self, settings=self.settings | settings)

    def __repr__(self) -> str:
        head, best = self._brief()
        notes = "".join(f"\n! {warning}" for warning in self.warnings)
        if best.empty:
            return f"{head}\nno pair of layers has a value{notes}"
        return f"{head}\n{best.to_string(index=False, **_PRINTED)}{notes}"

    def _repr_html_(self) -> str:
        head, best = self._brief()
        notes = "".join(f"<p>! {html.escape(warning)}</p>" for warning in self.warnings)
        table = (
            "<p>no pair of layers has a value</p>"
            if best.empty
            else best.to_html(index=False, border=0, **_PRINTED)
        )
        return f"<p>{html.escape(head).replace(chr(10), '<br>')}</p>{table}{notes}"

    def _brief(self) -> tuple[str, pd.DataFrame]:
        """What is compared, in words, and each layer's best match with some measures of the two."""
        with_whom = "with itself" if self.itself else f"with {self.settings['other']}"
        taken = f" ({self.settings['taken']})" if self.settings.get("taken") else ""
        changes = "" if self.itself else ", and with `changes()` what changed in layers of the same name"
        head = (
            f"Comparison of {self.settings['model']} {with_whom}: {len(self.rows)} × {len(self.columns)} layers, "
            f"N = {self.n} {unit_of(self)}{taken}\nEach layer's best match by {self.measures[0]}{changes}:"
        )
        return head, tables.brief(self)

    def matrix(self, measure: str) -> Tensor:
        """One measure as a tensor, rows × columns; see `definitions` for the names."""
        if measure not in self.measures:
            remedy = " Ask for it with `measures=` when comparing." if measure in PAIR_MEASURES else ""
            raise ValueError(
                f"Argument `measure` must be one of {', '.join(self.measures)}, but is {measure!r}.{remedy}"
            )
        of = PAIR_MEASURES[measure].distance_of
        return self.matrices[measure] if of is None else self.matrices[of].clamp(-1, 1).arccos()
