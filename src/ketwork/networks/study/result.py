"""`Study`: what a pass measured of a network's layers; read, added up, saved."""

from __future__ import annotations

import html
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self, overload

import pandas as pd

from ketwork.networks.activations import full_precision
from ketwork.networks.comparison import Comparison
from ketwork.networks.measures import Measure, measures_of
from ketwork.networks.moments import PairMoments, missing_states
from ketwork.networks.runtime import Interrupted, Plan, Progress, show_progress, show_stage
from ketwork.networks.study import tables
from ketwork.networks.study.accumulator import SAME_KEYS, StudyAccumulator
from ketwork.networks.study.adding import joined_settings
from ketwork.networks.study.expert_load import expert_warnings
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.numbers import Numbers, OnStage, comparable, compute
from ketwork.networks.study.sinks import sink_warnings
from ketwork.networks.study.small import SAVED_SMALL, kept_states, parts_of
from ketwork.networks.study.stored import SCHEMA, StoredStudy
from ketwork.networks.study.tabulated import Tabulated
from ketwork.networks.study.upgrade import upgraded
from ketwork.networks.study.warnings import (
    label_warnings,
    listed,
    missing_warning,
    pass_warnings,
    unfinished_warning,
)
from ketwork.records import Presented, read, write


@dataclass(frozen=True, eq=False)
class Study(Tabulated, Presented):
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
        on_stage: OnStage = lambda stage: None,
        *,
        known: Numbers | None = None,
        seconds: float | None = None,
    ) -> Study:
        """The study of what was gathered; `error` says why the pass ended early. Cost: O(d³) a layer at most.

        `on_stage` gets how far it is. Numbers that are `known` are taken as they are. Where they take longer than the
        `seconds`, the layers that are left are unfinished.

        Raises:
            Interrupted: on Ctrl-C; `partial` is the study with what was computed.
        """
        numbers = known or Numbers()
        visible = {name for row in gathered.rows for name in (row.info.name, *row.info.aliases)}
        skipped = {path: reason for path, reason in gathered.skipped.items() if path not in visible}
        settings = settings | {"task": gathered.labels.task}
        complete = compute(gathered, settings, skipped, numbers, on_stage, seconds)
        layers = numbers.of(gathered, bool(settings["center"]))
        record = cls(gathered, layers, settings, skipped, error, numbers.comparison)
        if not complete and seconds is None:
            raise Interrupted("the computation of a study's numbers was interrupted", record)
        return record

    @property
    def finished(self) -> bool:
        """Whether all numbers were computed: not where the study was interrupted before that, see `finish`."""
        compared = self.comparison is not None or not comparable(self.gathered)
        return compared and all(layer.finished for layer in self.layers)

    def finish(self, progress: Progress = False) -> Study:
        """The study with all of its numbers, where an interruption came before some.

        They follow from what was gathered.

        `progress` is True for a bar. Cost: O(d³) for each layer that has none.

        Raises:
            Interrupted: on Ctrl-C; `partial` is the study with what was computed.
        """
        if self.finished:
            return self
        known = Numbers({layer.info.key: layer for layer in self.layers if layer.finished}, self.comparison)
        with show_progress(progress, None) as report:
            record = Study.from_accumulator(
                self.gathered,
                self.settings,
                self.error,
                lambda stage: show_stage(report, self.samples, stage),
                known=known,
            )
        return replace(record, more_notes=self.more_notes)

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
        """What comparing the layers takes, of studies with `compare`; else None."""
        return self.gathered.pairs

    @property
    def states(self) -> int | None:
        """How many leading states of each layer it has, where it was read from a small file; else None."""
        return kept_states(self.gathered)

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
        settings = joined_settings(self.settings, other.settings)
        for one in (self, other):
            if one.states is not None:
                raise missing_states(one.states, "adding it up")
        total = self.gathered.copy()
        total.add(other.gathered)
        if {*self.streams} & {*other.streams}:
            total.note(SAME_KEYS)
        for note in (*self.more_notes, *other.more_notes):
            total.note(note)
        errors = dict.fromkeys(one.error for one in (self, other) if one.error is not None)
        return Study.from_accumulator(total, settings, "; ".join(errors) or None)

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
        """The measures of this study: of layers, labels, `lens` and `attention`."""
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
        if not self.finished:
            messages.append(unfinished_warning(self.layers))
        missing = missing_warning(self.layers, self.measures)
        messages += [] if missing is None else [missing]
        messages += pass_warnings(self.layers) + sink_warnings(self.layers) + expert_warnings(self.layers)
        return messages + label_warnings(self.layers)

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
        - `"combined"`: with labels the first two (`"relative"` from three classes on) and `"residual"`, else the last
          two, weighted by calibration samples alone.

        No number is chosen by hand: C and ρ are mixed with the maximally mixed state by Ledoit and Wolf's weight, and P
        holds the eigenvalues above the Marchenko–Pastur edge of the bulk. A score of one layer and method is as above;
        several are combined by Fisher's method, with tails fitted to calibration samples. With labels
        `"combined"` is the larger of two such scores, of all layers and of that third of them that tells classes best
        which it has not seen: inputs may be unlike in their looks, or in what they mean.

        Args:
            method: one of the above.
            layers: names or globs of the study's layers; None for all of them.
            positions: of a sample with several positions (tokens, pixels), `"mean"` scores the mean-pooled ket,
                `"worst"` each position's without labels and takes the largest, `"both"` has terms of both.
            model, calibration: the network, and samples like those studied, but not among them, for p-values. None
                takes those that the study held out of its class moments (a quarter, up to 1,024), where it has labels
                of samples.
            mask, tokenizer, forward, max_samples, batch_size, reading: how to read `calibration`, as in `study`.
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
        `beside=`, another study of such layers (of other `positions`, say), both are drawn over each other along the
        depth, and effective rank, entropy and leading weight of both stand side by side. `with_command=True` has the
        page show the command line and absolute paths.

        Cost: one decomposition a layer, O(min(d, N)² d), and a few seconds for the page.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
            ValueError: `comparison` is of two models.
        """
        return super().report(path, comparison=comparison or self.comparison, **options)

    def save(self, path: str | Path, *, states: int | str | None = None, pairs: bool = True) -> int | None:
        """Writes the study to one safetensors file; replaces the file in one step.

        A file has every number, and what a page shows. What else it has is decided by `states`:

        - `"full"`: all that was gathered. Studies add up, and detectors are made, from such files alone.
        - a number k: of each layer the spectrum and the k leading eigenstates, in float32, as `collapse` and
          `layer.eigenstates` need them. What needs more (`layer.density`, `+`, `detector`) says so.
        - None: all where the file then has at most 100 MB, else the 64 leading states, with a warning.

        `pairs=False` leaves out `pairs`, which is large and needed for no more than adding up comparisons; so do small
        files. A study that was interrupted before its numbers were computed is saved in full.

        Returns:
            How many leading states of each layer the file has; None where it has all that was gathered.

        Raises:
            ValueError: `states` is none of these, or the study was read from a file that lacks them.
            OSError: the file cannot be written.

        >>> import tempfile, torch, ketwork as kw
        >>> study = kw.study(torch.nn.Linear(4, 3), torch.randn(50, 4))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     kept = study.save(f"{folder}/small", states=2)
        ...     kept, kw.Study.load(f"{folder}/small").table().equals(study.table())
        (2, True)
        """
        unfinished = self.comparison is None and comparable(self.gathered)
        kept = self.gathered if pairs or unfinished else replace(self.gathered, pairs=None)
        kept = replace(kept, notes=list(dict.fromkeys((*kept.notes, *self.more_notes))))
        (gathered, layers), number = parts_of(kept, self.layers, states)
        stored = StoredStudy(gathered, layers, self.settings, self.skipped, self.error, self.comparison)
        write(path, "study", SCHEMA, stored)
        if states is None and number is not None and self.states is None:
            warnings.warn(SAVED_SMALL, UserWarning, stacklevel=2)
        return number

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
