"""`Checkpoint`: where a run writes its state again and again, so that it can be continued."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Checkpoint:
    """A run's state on disk: `path` gets it after `every` batches (or steps), and at the end.

    With `resume` the run continues with what is there, if there is anything, to the same result as if nothing had
    happened.
    """

    path: str | PathLike[str]
    every: int = 200
    resume: bool = False

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"Argument `every` must be at least 1, but is {self.every}.")

    @classmethod
    def from_argument(cls, value: Self | str | PathLike[str] | None) -> Self | None:
        """The checkpoint of a `checkpoint` argument: itself, or a path with the usual settings."""
        return value if value is None or isinstance(value, cls) else cls(Path(value))  # type: ignore[arg-type]
