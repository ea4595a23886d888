"""What a study found: its layers, its settings and what was left out; read, added up, saved."""

from __future__ import annotations

import copy
import html
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import torch
from torch import Tensor

from ketwork.networks.activations.captures import Activation, Key, as_key
from ketwork.networks.activations.labels import Labels
from ketwork.networks.comparison.result import ComparedLayer, Comparison
from ketwork.networks.comparison.run import FEWEST, UNITS
from ketwork.networks.measures import readings
from ketwork.networks.measures.knowledge import knowledge, quantities
from ketwork.networks.measures.quantities import DEFINITIONS, QUANTITIES, Quantity
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.networks.runtime.memory import Plan
from ketwork.networks.study import tables as frames
from ketwork.networks.study.gathered import Gathered
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.passing import Pass, Row
from ketwork.records import pages, storage
from ketwork.records.checked import Count, Malformed, check

SCHEMA = 1
"""The version of the file format; files of a newer one are refused."""

_FEW = 10

_COMPARED = "comparison."
_PAIRS = "pairs."
_HEADER = {
    "layers": [dict],
    "skipped": {str: str},
    "settings": dict,
    "samples": Count,
    "complete": bool,
    "error": (str, None),
    "notes": [str],
    "comparison": (dict, None),
    "plan": (dict, None),
    "streams": [int],
    "pairs": (dict, None),
}


@dataclass(frozen=True)
class Study:
    """The record of one pass: its layers in order of execution, its settings, and what was left out.

    `complete` is False where the pass ended early; `error` then says why (a text in a loaded study).
    `plan` says what each layer kept of a memory budget, None where there was none. `streams` are the seeds of the
    random keys by which samples were kept; `pairs` is what comparing the layers takes, if that was asked for.
    `study["layer"]` gives a `Layer`, `study["layer", 2]` its third call; `print(study)` the table.
    """

    layers: tuple[Layer, ...]
    skipped: dict[str, str]
    settings: dict[str, Any]
    samples: int
    complete: bool = True
    error: Exception | str | None = None
    notes: tuple[str, ...] = field(default=())
    comparison: Comparison | None = None
    plan: Plan | None = None
    streams: tuple[int, ...] = ()
    pairs: PairMoments | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, found: Gathered, settings: dict[str, Any], why: Exception | str | None) -> Study:
        """The study of what was gathered; `why` says why the pass ended early. Cost: O(d³) a layer at most."""
        run, center = found.run, settings["center"]
        names = tuple(run.labels.names)
        layers = []
        for (name, call), aliases in found.shown.items():
            row = run.rows[name, call]
            rho = readings.density(row.statistics, center)
            layers.append(
                Layer(
                    name,
                    call,
                    row.first.kind,
                    aliases,
                    row.first.leaf,
                    row.first.axis,
                    row.statistics,
                    run.normalize,
                    center,
                    readings.estimates(row.statistics, rho, run.normalize, center),
                    knowledge(row.labelled, names) if row.labelled and run.labels.task else None,
                )
            )
        shown = {name for layer in layers for name in (layer.name, *layer.aliases)}
        skipped = {path: reason for path, reason in found.skipped.items() if path not in shown}
        settings = settings | {"task": run.labels.task}
        return cls(
            tuple(layers),
            skipped,
            settings,
            run.samples,
            why is None,
            why,
            (*run.notes, *run.labels.notes),
            _compared(found, settings, skipped),
            run.plan,
            found.streams,
            run.pairs,
        )

    def gathered(self) -> Gathered:
        """What the study was made of, to add to; it shares the study's tensors."""
        task = self.settings.get("task")
        names = next((list(layer.knowledge.names) for layer in self.layers if layer.knowledge), [])
        labels = Labels()
        labels.restore({"task": task, "names": names, "notes": []})
        normalize = self.settings["normalize"]
        run = Pass(normalize, torch.Generator(), False, False, labels, self.pairs, self.plan)
        run.samples = run.position = self.samples
        run.batches = int(self.samples > 0)
        run.notes = dict.fromkeys(self.notes)
        for layer in self.layers:
            key = (layer.name, layer.call)
            nothing = layer.statistics.reservoir.kets.new_empty(0)
            first = Activation(key, layer.kind, nothing, False, None, layer.leaf, layer.axis)
            run.rows[key] = Row(
                first, layer.statistics, layer.knowledge.statistics if layer.knowledge else None
            )
        aliases = {(layer.name, layer.call): layer.aliases for layer in self.layers}
        return Gathered(run, aliases, dict(self.skipped), set(), self.streams)

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
        found = copy.deepcopy(self.gathered())
        found.take(other.gathered())
        if {*self.streams} & {*other.streams}:
            found.run.notes[_SAME_KEYS] = None
        failures = [told for one in (self, other) if (told := _told(one.error)) is not None]
        return Study.of(
            found, _joined(self.settings, other.settings), "; ".join(dict.fromkeys(failures)) or None
        )

    def __radd__(self, other: Any) -> Study:
        return self if isinstance(other, int) and other == 0 else NotImplemented

    @property
    def definitions(self) -> dict[str, str]:
        """What each column means, with its unit."""
        return DEFINITIONS

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The quantities of this study: those of every layer and, with labels, what layers know of them."""
        return (*QUANTITIES, *quantities(self.settings.get("task")))

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""
        found = list(self.notes)
        if not self.complete:
            found.append(f"The pass ended early, after {self.samples} samples: {self.error}")
        few = [layer.name for layer in self.layers if layer.kets < _FEW * layer.d]
        if few:
            found.append(
                f"Fewer than {_FEW} kets per dimension in {_listed(few)}: entropy and effective rank are limited by "
                "the data there. Give more samples."
            )
        found += self._label_warnings()
        dropped = {layer.name: layer.statistics.dropped for layer in self.layers if layer.statistics.dropped}
        if dropped:
            found.append(
                "Samples left out for NaN or infinite values: "
                + ", ".join(f"{count} at {name}" for name, count in dropped.items())
                + "."
            )
        return found

    def _label_warnings(self) -> list[str]:
        known = {layer.name: layer.knowledge for layer in self.layers if layer.knowledge is not None}
        told: dict[str, list[str]] = {}
        for name, each in known.items():
            for warning in each.warnings:
                told.setdefault(warning, []).append(name)
        # Layers differ where samples fell out at some of them, for NaN or zero activations.
        found = [
            warning if len(names) == len(known) else f"At {_listed(names)}: {warning}"
            for warning, names in told.items()
        ]
        lost = {name: each.discarded for name, each in known.items() if each.discarded > 0}
        sketched = [name for name in lost if frames.bounded(known[name].estimates)]
        if sketched:
            most = max(lost[name] for name in sketched)
            found.append(
                f"The states of the labels are sketches at {_listed(sketched)}, without up to {most:.0%} of their "
                "weight: Holevo's bits lie between their bounds; the readouts are solved from the sketches, and scored "
                "on held-out samples as always."
            )
        cut = [name for name in lost if name not in sketched]
        if cut:
            most = max(lost[name] for name in cut)
            found.append(
                f"Labels and features are too many for a state of each label at {_listed(cut)}: up to {most:.0%} of "
                "the weight is kept for all labels in common. Holevo's bits are a lower bound there, and the pretty "
                "good measurement takes the common part for each label's own."
            )
        return found

    def table(self) -> pd.DataFrame:
        """One row a layer and call, in order of execution; `definitions` says what the columns mean.

        Where layers are sketched there are `sketch` and `sketch_error`, and for each number that this touches
        `…_low` and `…_high`; of exact layers these are missing (NaN).
        """
        return frames.table(self.layers, self.quantities)

    def long(self) -> pd.DataFrame:
        """One row a layer, call and quantity: value, standard error, bounds where it is not exact, unit, N and d."""
        return frames.long(self.layers, self.quantities)

    def compare(self) -> Comparison:
        """How alike every pair of layers is, from the study's own pass; see `ketwork.compare` for the measures.

        Raises:
            ValueError: the study did not keep what it takes.
        """
        if self.comparison is None:
            raise ValueError(
                "This study did not keep its layers' rows. Run it with `compare=True` on at least 4 samples, "
                "or use `ketwork.compare(model, None, data)`."
            )
        return self.comparison

    def report(self, path: str | Path, comparison: Comparison | None = None) -> Path:
        """Writes the study as one HTML file that needs no network, and returns its path.

        It answers at a glance where dimensions collapse, what each layer knows of the labels, what could be
        cut, which neurons are dead; every layer's spectrum, confusion of labels and leading eigenstates are
        one click away. With a `comparison` of the model with itself it also says which neighbours are alike.

        Cost: one decomposition a layer, O(min(d, N)² d), and a few seconds for the page.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
            ValueError: `comparison` is of two models.
        """
        return pages.write(self, path, comparison=comparison or self.comparison)

    def save(self, path: str | Path, *, pairs: bool = True) -> None:
        """Writes the study, states included, to one safetensors file; replaces the file in one step.

        `pairs=False` leaves out `pairs`, which is large and needed for no more than adding up comparisons.
        """
        tensors = {
            f"{i}.{name}": tensor
            for i, layer in enumerate(self.layers)
            for name, tensor in layer.tensors().items()
        }
        header: dict[str, Any] = {
            "layers": [layer.header() for layer in self.layers],
            "skipped": self.skipped,
            "settings": self.settings,
            "samples": self.samples,
            "complete": self.complete,
            "error": _told(self.error),
            "notes": list(self.notes),
            "comparison": None,
            "plan": self.plan.header() if self.plan is not None else None,
            "streams": list(self.streams),
            "pairs": None,
        }
        if pairs and self.pairs is not None:
            keys = [list(cast(Key, key)) for key in self.pairs.keys]
            header["pairs"] = self.pairs.header() | {"keys": keys}
            tensors |= {f"{_PAIRS}{name}": tensor for name, tensor in self.pairs.tensors().items()}
        if self.comparison is not None:
            header["comparison"] = self.comparison.header()
            tensors |= {f"{_COMPARED}{name}": t for name, t in self.comparison.tensors().items()}
        storage.write(Path(path), "study", SCHEMA, tensors, header)

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Reads a study that `save` wrote.

        Raises:
            ValueError: not a study, truncated, or written by a newer ketwork.
        """
        tensors, header = storage.read(Path(path), "study", SCHEMA)
        try:
            check(header, _HEADER, "study")
            check(header["settings"].get("source", {}), {str: dict}, "source")
            layers = []
            for i, row in enumerate(header["layers"]):
                layers.append(Layer.from_header(row, storage.under(f"{i}.", tensors)))
            return cls(
                tuple(layers),
                dict(header["skipped"]),
                dict(header["settings"]),
                header["samples"],
                header["complete"],
                header["error"],
                tuple(header["notes"]),
                Comparison.from_parts(storage.under(_COMPARED, tensors), header["comparison"])
                if header["comparison"]
                else None,
                Plan.from_header(header["plan"]) if header["plan"] else None,
                tuple(header["streams"]),
                _pairs(header["pairs"], storage.under(_PAIRS, tensors)) if header["pairs"] else None,
            )
        except Malformed as error:
            raise ValueError(
                f"Argument `path` must be a saved study, but {str(path)!r} lacks a part of one ({error}). "
                "Save the study again."
            ) from error

    def __getitem__(self, key: str | tuple[str, int]) -> Layer:
        name, call = (key, None) if isinstance(key, str) else key
        found = [layer for layer in self.layers if name == layer.name and call in (None, layer.call)]
        found = found or [
            layer for layer in self.layers if name in layer.aliases and call in (None, layer.call)
        ]
        if not found:
            raise KeyError(
                f"No layer {key!r} in this study; it has {_listed([layer.name for layer in self.layers])}."
            )
        return found[0]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        notes = "".join(f"\n! {warning}" for warning in self.warnings)
        return f"{self._head()}\n{frames.brief(self.layers).to_string(index=False)}{notes}"

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>! {html.escape(warning)}</p>" for warning in self.warnings)
        return f"<p>{html.escape(self._head())}</p>{frames.brief(self.layers).to_html(index=False, border=0)}{notes}"

    def _head(self) -> str:
        return f"Study of {self.settings.get('model', 'a network')}: {len(self)} layers, N = {self.samples} samples"


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _told(error: Exception | str | None) -> str | None:
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error


def _compared(found: Gathered, settings: dict[str, Any], skipped: dict[str, str]) -> Comparison | None:
    """The comparison of the layers with each other, where the pass kept what it takes."""
    run = found.run
    if run.pairs is None or run.pairs.n < FEWEST:
        return None
    named: dict[Hashable, ComparedLayer] = {
        key: ComparedLayer.at(key, found.aliases.get(key, ()), row.first.kind, row.statistics.d)
        for key, row in run.rows.items()
    }
    # As `compare` does it by default, whatever weighs the kets of the study itself.
    how = {"other": settings["model"], "unit": UNITS[0], "normalize": "ensemble", "center": True}
    return Comparison.of(run.pairs, named, settings | how, skipped)


def _pairs(header: dict[str, Any], tensors: dict[str, Tensor]) -> PairMoments:
    check(header, {"keys": [list]}, "pairs")
    return PairMoments.from_header(header, tensors, [as_key(key) for key in header["keys"]])


def _joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """What both settings say alike, and as `parts` all that they say."""
    parts = [part for one in (a, b) for part in one.get("parts", [one])]
    return {name: value for name, value in a.items() if name in b and b[name] == value} | {"parts": parts}


_ALIKE = ("model", "normalize", "center", "calls")
_SAME_KEYS = (
    "Two parts drew the same random keys, since their data begin alike: the samples kept stand at the same places of "
    "both. Study one of them with another `generator` (--seed) for independent ones."
)
