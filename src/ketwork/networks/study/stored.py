"""`StoredStudy`: a study as a file has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ketwork.networks.comparison import Comparison
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.networks.study.layer import StoredLayer
from ketwork.records import Malformed, check_source

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
        task, seconds = self.settings.get("task"), self.settings.get("pairs_seconds")
        if not (task is None or isinstance(task, str)):
            raise Malformed(f"settings cannot have labels of the kind {task!r}")
        if not (seconds is None or (isinstance(seconds, int | float) and seconds >= 0)):
            raise Malformed(f"settings cannot give pairs of layers {seconds!r} seconds")
        check_source(self.settings)
