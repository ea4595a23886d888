"""`Study`: what a pass measured of a network's layers; read, added up, saved."""

from __future__ import annotations

import html
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self, overload

import pandas as pd

from ketwork.networks.activations import full_precision
from ketwork.networks.comparison import FEWEST, ComparedLayer, Comparison
from ketwork.networks.measures import Measure, measures_of
from ketwork.networks.moments import UNITS, PairMoments
from ketwork.networks.runtime import Plan
from ketwork.networks.study import tables
from ketwork.networks.study.accumulator import SAME_KEYS, StudyAccumulator
from ketwork.networks.study.layer import Layer, StoredLayer
from ketwork.networks.study.sinks import sink_table, sink_warnings
from ketwork.networks.study.upgrade import upgraded
from ketwork.networks.study.warnings import label_warnings, listed, pass_warnings
from ketwork.records import Malformed, Presented, check_source, read, write

SCHEMA = 2
"""The version of the file format; files of a newer one are refused."""


@dataclass(frozen=True)
class StoredStudy:
    """A study as a file has it; the fields of its parts are declared in `StudyAccumulator` and `StoredLayer`."""

    gathered: StudyAccumulator
    layers: list[StoredLayer]
    settings: dict[str, Any]
    skipped: dict[str, str]
    error: str | None = None
    comparison: Comparison | None = None

    def check(self) -> None:
        """There is a row for each layer that could be read, and the source is as commands write it."""
        if len(self.layers) != len(self.gathered.rows):
            raise Malformed(
                f"a study of {len(self.gathered.rows)} layers cannot have {len(self.layers)} rows"
            )
        for name in ("model", "normalize", "center", "calls"):
            if name not in self.settings and "parts" not in self.settings:
                raise Malformed(f"settings lack {name!r}")
        check_source(self.settings)


@dataclass(frozen=True, eq=False)
class Study(Presented):
    """The record of one pass: its layers in order of execution, its settings, and what was skipped.

    `study["layer"]` gives a `Layer`, `study["layer", 2]` its third call, `study[0]` the first and `study[1:3]` several;
    `print(study)` the table. `complete` is False where the pass ended early; `error` then says why.
    """

    gathered: StudyAccumulator = field(repr=False)
    layers: tuple[Layer, ...]
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    comparison: Comparison | None = None
    more_notes: tuple[str, ...] = ()

    @classmethod
    @full_precision()
    def from_accumulator(
        cls,
        gathered: StudyAccumulator,
        settings: dict[str, Any],
        error: str | None,
        on_layer: Callable[[int, int], None] = lambda number, total: None,
    ) -> Study:
        """The study of what was gathered; `error` says why the pass ended early. Cost: O(d³) a layer at most.

        `on_layer` is called after each layer with how many are done, and how many there are.
        """
        task = gathered.labels.task
        names = tuple(gathered.labels.names)
        center = bool(settings["center"])
        layers: tuple[Layer, ...] = ()
        for row in gathered.rows:
            layers += (Layer.from_accumulator(row, center, gathered.normalize, names, task),)
            on_layer(len(layers), len(gathered.rows))
        visible = {name for layer in layers for name in (layer.name, *layer.aliases)}
        skipped = {path: reason for path, reason in gathered.skipped.items() if path not in visible}
        settings = settings | {"task": task}
        comparison = _compared(gathered, settings, skipped)
        return cls(gathered, layers, settings, skipped, error, comparison)

    @property
    def samples(self) -> int:
        """How many samples entered."""
        return self.gathered.samples

    @property
    def complete(self) -> bool:
        """Whether the pass went to the end of the data."""
        return self.error is None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the pass noted on its way."""
        return (*self.gathered.notes, *self.gathered.labels.notes, *self.more_notes)

    @property
    def plan(self) -> Plan | None:
        """What each layer kept of a memory budget, None where there was none."""
        return self.gathered.plan

    @property
    def pairs(self) -> PairMoments | None:
        """What comparing the layers takes, if that was asked for."""
        return self.gathered.pairs

    @property
    def streams(self) -> tuple[int, ...]:
        """The seeds of the random keys by which samples were kept."""
        return tuple(self.gathered.streams)

    def __add__(self, other: Study) -> Study:
        """The study of both data joined, first this one's, then the other's.

        Moments are those of the joined data (a sketch's bound is the sum of both), and what follows from them; the kept
        samples are a fair draw from all. Labels are matched by name. The cost is that of the end of a study: O(d³) a
        layer. `sum` of many works too, and costs that each time.

        Raises:
            ValueError: the studies are not of the same layers, or not made alike; it says what differs.
        """
        if not isinstance(other, Study):
            return NotImplemented
        differing = [
            f"`{name}` is {self.settings.get(name)!r} and {other.settings.get(name)!r}"
            for name in _ALIKE
            if self.settings.get(name) != other.settings.get(name)
        ]
        if differing:
            raise ValueError(f"Studies can only be added that were made alike, but {'; '.join(differing)}.")
        total = self.gathered.copy()
        total.add(other.gathered)
        if {*self.streams} & {*other.streams}:
            total.note(SAME_KEYS)
        for note in (*self.more_notes, *other.more_notes):
            total.note(note)
        errors = dict.fromkeys(one.error for one in (self, other) if one.error is not None)
        return Study.from_accumulator(
            total, _joined(self.settings, other.settings), "; ".join(errors) or None
        )

    def __radd__(self, other: Any) -> Study:
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def described(self, notes: tuple[str, ...] = (), **settings: Any) -> Self:
        """The same study with more notes and settings."""
        return replace(self, settings=self.settings | settings, more_notes=(*self.more_notes, *notes))

    @property
    def definitions(self) -> dict[str, str]:
        """What each column means, with its unit."""
        return tables.DEFINITIONS | {each.name: each.sentence for each in self.measures}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures of this study: those of every layer, with labels of what can be decoded, and those asked for."""
        known = {name for layer in self.layers for name in layer.accumulator.sums}
        return tuple(
            each for each in measures_of(self.settings.get("task")) if not each.option or each.name in known
        )

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""
        messages = list(self.notes)
        if not self.complete:
            messages.append(f"The pass ended early, after {self.samples} samples: {self.error}")
        messages += pass_warnings(self.layers) + sink_warnings(self.layers)
        return messages + label_warnings(self.layers)

    def table(self) -> pd.DataFrame:
        """One row a layer and call, in order of execution; `definitions` says what the columns mean.

        `table().loc["layer"]` is a layer's row; `table().attrs["units"]` has the units. Where layers are sketched there
        are `sketch` and `sketch_error`, and for each number that this touches `…_low` and `…_high`; of exact layers
        these are missing (NaN).
        """
        return tables.table(self.layers, self.measures)

    def long(self) -> pd.DataFrame:
        """One row a layer, call and measure: value, standard error, bounds, plain value, unit, N and d.

        `value` is corrected for finite data where that is known how, `plain` is the number of the data at hand."""
        return tables.long(self.layers, self.measures)

    def sinks(self) -> pd.DataFrame:
        """One row for each layer that has sinks (positions) or massive dimensions (neurons), and what they hold.

        Sinks are positions whose ‖a‖² is more than 100 times the median over their sample: `sinks` of them,
        `per_sample`, their `places` in samples with how many are there, the `share` of ρ that they hold (that is
        `vectors` or `weight`, by `normalize`). `dimensions` are the up to eight largest neurons whose share of ρ is
        more than 100 times the median, `dimensions_share` what all such hold.
        """
        return sink_table(self.layers)

    def compare(self) -> Comparison:
        """How alike every pair of layers is, from the study's own pass; see `ketwork.compare` for the measures.

        Raises:
            ValueError: the study did not keep what it takes.
        """
        if self.comparison is None:
            raise ValueError(
                "This study did not keep its layers' rows. Run it with `compare=True` on at least 4 samples, "
                "or use `ketwork.compare(model, data)`."
            )
        return self.comparison

    def detector(self, method: str = "combined", **options: Any) -> Any:
        """A `ketwork.Detector` of what is unlike the data studied, with no second pass over them.

        Vectors of unit norm are what makes Mahalanobis detection work (Mueller & Hein 2025, arXiv 2505.18032): the
        study's kets are such, one a sample here, of which positions are averaged. Methods, of each layer:

        - `"mahalanobis"`: the least squared distance to a class mean, min_k (x − μ_k)ᵀ C⁻¹ (x − μ_k), with the
          covariance C that the classes share (Lee et al. 2018, arXiv 1807.03888);
        - `"relative"`: less the distance to the common mean under the common covariance, C plus that of the class means
          (Ren et al. 2021, arXiv 2106.09022);
        - `"typicality"`, without labels: −log₂⟨x|ρ|x⟩ − log₂⟨x|P|x⟩, the Born probabilities under the layer's state ρ
          and of its leading eigenspace P, in bits;
        - `"residual"`, without labels: ‖(1 − P)x‖, the norm outside the leading eigenspace (ViM without its logits:
          Wang et al. 2022, arXiv 2203.10807);
        - `"combined"`: all of these, of all layers, weighted by calibration samples alone.

        No number is chosen by hand: C and ρ are mixed with the maximally mixed state by Ledoit and Wolf's weight, and P
        holds the eigenvalues above the Marchenko–Pastur edge of the bulk. A score of one layer and method is as above;
        several are combined by Fisher's method, with tails fitted to calibration samples.

        Args:
            method: one of the above.
            layers: names or globs of the study's layers; None for all of them.
            positions: of a sample with several positions (tokens, pixels), `"mean"` scores the mean-pooled ket,
                `"worst"` each position's without labels and takes the largest, `"both"` has terms of both.
            model, calibration: the network, and samples like those studied, but not among them, for p-values. None
                takes those that the study held out of its class moments (a quarter, up to 1,024), where it has labels
                of samples.
            mask, forward, max_samples, batch_size, reading: how to read `calibration`, as in `study`.
            seed: draws which of given calibration samples weigh the terms; the other half gives p-values.

        Raises:
            ValueError: an argument is not what it must be, the study has no class moments for a method that needs
                them, or there are no (or too few) calibration samples.

        Cost: O(d³) a layer, and the forward passes over `calibration`.

        >>> import torch, ketwork as kw
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh())
        >>> x = torch.randn(2000, 6)
        >>> detector = kw.study(net, (x, (x[:, 0] > 0).long())).detector("mahalanobis", layers="1")
        >>> detector.score(net, 9 * torch.ones(1, 6), alpha=0.05)[["nearest_class", "layer", "alarm"]].values.tolist()
        [[1, '1', True]]
        """
        # The package above this one: it is found when it is wanted, as pages and plots are.
        make = import_module("ketwork.networks.detection").make_detector
        return make(self, method, **options)

    def report(self, path: str | Path, comparison: Comparison | None = None, **options: Any) -> Path:
        """Writes the study as one HTML file that needs no network, and returns its path.

        It answers at a glance where dimensions collapse, what can be decoded of the labels, what could be
        cut, which neurons are dead; every layer's spectrum, confusion of labels and leading eigenstates are
        one click away. With a `comparison` of the model with itself it also says which neighbors are alike. With
        `beside=`, another study of such layers (of other `positions`, say), effective rank, entropy and leading weight
        of both stand side by side.

        Cost: one decomposition a layer, O(min(d, N)² d), and a few seconds for the page.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
            ValueError: `comparison` is of two models.
        """
        return super().report(path, comparison=comparison or self.comparison, **options)

    def save(self, path: str | Path, *, pairs: bool = True) -> None:
        """Writes the study, states included, to one safetensors file; replaces the file in one step.

        `pairs=False` leaves out `pairs`, which is large and needed for no more than adding up comparisons.
        """
        kept = self.gathered if pairs else replace(self.gathered, pairs=None)
        kept = replace(kept, notes=list(dict.fromkeys((*kept.notes, *self.more_notes))))
        layers = [layer.stored(complete=False) for layer in self.layers]
        stored = StoredStudy(kept, layers, self.settings, self.skipped, self.error, self.comparison)
        write(path, "study", SCHEMA, stored)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Reads a study that `save` wrote, also by version 0.1.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a study, damaged, or written by a newer ketwork.
        """
        stored = read(StoredStudy, path, "study", SCHEMA, upgraded)
        names = tuple(stored.gathered.labels.names)
        layers = tuple(
            Layer.restored(layer, row, names)
            for layer, row in zip(stored.layers, stored.gathered.rows, strict=True)
        )
        return cls(stored.gathered, layers, stored.settings, stored.skipped, stored.error, stored.comparison)

    @overload
    def __getitem__(self, key: int | str | tuple[str, int]) -> Layer: ...

    @overload
    def __getitem__(self, key: slice) -> tuple[Layer, ...]: ...

    def __getitem__(self, key: int | str | tuple[str, int] | slice) -> Layer | tuple[Layer, ...]:
        if isinstance(key, int | slice):
            return self.layers[key]
        matches = self._matching(key)
        if not matches:
            names = listed([layer.name for layer in self.layers])
            raise KeyError(f"No layer {key!r} in this study; it has {names}.")
        return matches[0]

    def __contains__(self, key: object) -> bool:
        if isinstance(key, str) or (isinstance(key, tuple) and len(key) == 2):
            return bool(self._matching(key))
        return key in self.layers

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        notes = "".join(f"\n! {warning}" for warning in self.warnings)
        return f"{self._head()}\n{self._brief().to_string(index=False)}{notes}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>! {html.escape(warning)}</p>" for warning in self.warnings)
        return f"<p>{html.escape(self._head())}</p>{self._brief().to_html(index=False, border=0)}{notes}"

    def _matching(self, key: str | tuple[str, int]) -> list[Layer]:
        """The rows of that name and call, or that have it as another name."""
        name, call = (key, None) if isinstance(key, str) else key
        rows = [layer for layer in self.layers if call in (None, layer.call)]
        return [row for row in rows if name == row.name] or [row for row in rows if name in row.aliases]

    def _brief(self) -> pd.DataFrame:
        return tables.brief(self.layers, {each.name: each for each in self.measures})

    def _head(self) -> str:
        model = self.settings.get("model", "a network")
        beside = {"taken": " ({})", "positions": ", positions {}"}
        more = [form.format(value) for name, form in beside.items() if (value := self.settings.get(name))]
        return f"Study of {model}: {len(self)} layers, N = {self.samples} samples{''.join(more)}"


def _compared(
    gathered: StudyAccumulator, settings: dict[str, Any], skipped: dict[str, str]
) -> Comparison | None:
    """The comparison of the layers with each other, where the pass kept what it takes."""
    if gathered.pairs is None or gathered.pairs.n < FEWEST:
        return None
    named: dict[Hashable, ComparedLayer] = {
        row.info.key: ComparedLayer.from_info(row.info, row.d) for row in gathered.layers
    }
    # As `compare` does it by default, whatever weighs the kets of the study itself.
    how = {"other": settings["model"], "unit": UNITS[0], "normalize": "ensemble", "center": True}
    return Comparison.from_pairs(gathered.pairs, named, settings | how, skipped)


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What both settings have alike, and as `parts` all of both."""
    parts = [part for one in (a, b) for part in one.get("parts", [one])]
    return {name: value for name, value in a.items() if name in b and b[name] == value} | {"parts": parts}


_ALIKE = ("model", "normalize", "center", "calls", "positions")
