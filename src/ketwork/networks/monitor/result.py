"""`MonitorRun`: what a monitor saw of a training run; read from its file, also while it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ketwork.networks.monitor.lines import (
    NAME,
    VERSION,
    AlarmLine,
    EndLine,
    Line,
    LookLine,
    NoteLine,
    RunLine,
    alarm_of,
    encoded,
    look_lines,
    look_of,
    read_lines,
)
from ketwork.networks.monitor.look import Alarm, Look
from ketwork.networks.monitor.quantities import QUANTITIES
from ketwork.records import Presented, visible, write_text

_MOST = 6  # names of layers that are printed
_LONG = ["step", "layer", "call", "quantity", "value", "stderr", "unit"]


@dataclass(frozen=True, eq=False)
class MonitorRun(Presented):
    """A training run as a monitor saw it: its looks in the order of steps, and the alarms.

    `long()` has all numbers as a pandas frame, `table()` those of one look; `report("run.html")` writes a page.
    `ended` says that the training came to its end; `notes` what else a reader should know; `skipped` has the modules
    without a row, each with the reason.
    """

    looks: tuple[Look, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    ended: bool = False
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> MonitorRun:
        """Reads the file of a monitor, or that of its folder.

        A line that a killed run left incomplete is skipped, with a note.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not a monitor's, damaged, or written by a newer ketwork.
        """
        path = Path(path)
        path = path / NAME if path.is_dir() else path
        if not path.exists():
            raise FileNotFoundError(
                f"Argument `path` must be a saved run of a monitor, but there is no file {str(path)!r}. Name the "
                f"folder of a run (`path=` of the monitor), which has {NAME}."
            )
        lines, notes = read_lines(path)
        return cls.from_lines(lines, notes)

    @classmethod
    def from_lines(cls, lines: Iterable[Line], notes: Iterable[str] = ()) -> MonitorRun:
        """The run that lines tell of; where one begins again, its looks replace those from that step on."""
        settings: dict[str, Any] = {}
        looks: dict[int, LookLine] = {}
        alarms: dict[int, list[Alarm]] = {}
        said = list(notes)
        skipped: dict[str, str] = {}
        ended = fresh = False
        for line in lines:
            match line:
                case RunLine():
                    settings, ended, fresh = line.settings, False, True
                case LookLine():
                    if fresh:
                        looks = {step: look for step, look in looks.items() if step < line.step}
                        alarms = {step: each for step, each in alarms.items() if step < line.step}
                        fresh = False
                    looks[line.step] = line
                    skipped = line.skipped or skipped
                    alarms[line.step] = []
                case AlarmLine():
                    alarms.setdefault(line.step, []).append(alarm_of(line))
                case NoteLine():
                    said.append(line.text)
                case EndLine():
                    ended = True
        made = (look_of(looks[step], tuple(alarms.get(step, ()))) for step in sorted(looks))
        reasons = {visible(name): visible(reason) for name, reason in skipped.items()}
        return cls(tuple(made), settings, tuple(dict.fromkeys(map(visible, said))), ended, reasons)

    def save(self, path: str | Path) -> None:
        """Writes the run to one file as a monitor writes it (JSON lines), in one step; `load` reads it.

        Raises:
            OSError: the file cannot be written.
        """
        first = RunLine(VERSION, self.settings)
        looks = [
            line
            for i, look in enumerate(self.looks)
            for line in look_lines(look, self.skipped if i == 0 else None)
        ]
        step = self.steps[-1] if self.looks else 0
        notes = [NoteLine(step, note) for note in self.notes]
        end = [EndLine(step)] if self.ended else []
        write_text(path, encoded([first, *looks, *notes, *end]).decode())

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """All alarms, in the order of steps."""
        return tuple(alarm for look in self.looks for alarm in look.alarms)

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps that were looked at."""
        return tuple(look.step for look in self.looks)

    @property
    def quantities(self) -> tuple[str, ...]:
        """The quantities that some layer has, in the order of their columns."""
        names = dict.fromkeys(name for look in self.looks for layer in look.layers for name in layer.values)
        return tuple(names)

    @property
    def definitions(self) -> dict[str, str]:
        """What each quantity means, with its unit."""
        return {
            name: each.definition + (f" [{each.unit}]" if each.unit else "")
            for name in self.quantities
            if (each := QUANTITIES.get(name)) is not None
        }

    @property
    def warnings(self) -> list[str]:
        """What a reader of the numbers should know."""
        return list(self.notes)

    def table(self, step: int | None = None) -> pd.DataFrame:
        """One row a layer and call at a step, the last one by default; columns are the quantities, each with its error.

        Raises:
            ValueError: there was no look at that step.
        """
        if not self.looks:
            return pd.DataFrame(columns=["layer", "call", "kind", "d", "samples", "bad"])
        look = self.looks[-1] if step is None else next((x for x in self.looks if x.step == step), None)
        if look is None:
            raise ValueError(
                f"Argument `step` must be a step that was looked at, but is {step}; there are "
                f"{', '.join(map(str, self.steps[:8]))}{' …' if len(self.steps) > 8 else ''}."
            )
        rows = []
        for each in look.layers:
            row: dict[str, Any] = {
                "layer": each.layer,
                "call": each.call,
                "kind": each.kind,
                "d": each.d,
                "samples": each.samples,
                "bad": each.bad,
            }
            for name, value in each.values.items():
                row |= {name: value.value, f"{name}_stderr": value.stderr}
            rows.append(row)
        frame = pd.DataFrame(rows)
        frame.index = pd.Index(frame["layer"].tolist())
        return frame

    def long(self) -> pd.DataFrame:
        """One row a step, layer, call and quantity: value, standard error, unit."""
        rows = [
            (look.step, each.layer, each.call, name, value.value, value.stderr, value.unit)
            for look in self.looks
            for each in look.layers
            for name, value in each.values.items()
        ]
        return pd.DataFrame(rows, columns=_LONG)

    def report(self, path: str | Path, other: MonitorRun | None = None, **options: Any) -> Path:
        """Writes the run as one HTML file that needs no network, and returns its path.

        It has each quantity over steps and layers as a heat map and as lines, and the alarms on the time line; with
        an `other` run both, side by side. A page of a run that goes on loads itself again every half minute.

        Raises:
            ImportError: the extra `report` is missing.
            OSError: the file cannot be written.
        """
        return super().report(path, other=other, **options)

    def __len__(self) -> int:
        return len(self.looks)

    def __repr__(self) -> str:
        model = self.settings.get("model", "a network")
        if not self.looks:
            return f"MonitorRun of {model}: no look yet"
        labels = [layer.label for layer in self.looks[-1].layers]
        names = ", ".join(labels[:_MOST]) + (" …" if len(labels) > _MOST else "")
        state = "ended" if self.ended else "not ended"
        head = (
            f"MonitorRun of {model}: {len(self)} look{'s' if len(self) > 1 else ''} at {len(labels)} layers "
            f"({names}), steps {self.steps[0]:,} to {self.steps[-1]:,}, {state}"
        )
        notes = "".join(f"\n! {note}" for note in self.notes)
        return head + "".join(f"\n! {alarm}" for alarm in self.alarms) + notes
