"""The one loop over data: batches go to what takes them, and whatever ends it early is kept beside what it gathered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

Item = TypeVar("Item")

INTERRUPTION = "interrupted"
"""Why a pass ended that Ctrl-C ended."""


class PartialError(RuntimeError):
    """A pass over data failed after some batches: `partial` is the result of those, or None if there is none.

    `__cause__` is the error that ended the pass.
    """

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


class ProgramExitError(RuntimeError):
    """Code of the data or of the network called `sys.exit` in the middle of a pass; `__cause__` is the `SystemExit`."""

    def __init__(self, cause: SystemExit) -> None:
        super().__init__(f"the code of the data or of the network called sys.exit({cause.code!r})")
        self.__cause__ = cause


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a pass; `partial` is the result of the batches before it, or None if none was finished."""

    def __init__(self, message: str, partial: Any = None) -> None:
        super().__init__(message)
        self.partial = partial


@dataclass(frozen=True)
class Ending:
    """How a pass ended: by an `error`, by Ctrl-C, or with the data."""

    error: Exception | None = None
    interrupted: bool = False

    @property
    def reason(self) -> str | None:
        """Why it ended early, in words; None if it did not."""
        return INTERRUPTION if self.interrupted else error_words(self.error)

    @property
    def sentence(self) -> str:
        """The reason as a sentence, empty if it did not."""
        return "" if self.reason is None else f"{self.reason.rstrip('.')}."


def stream(
    source: Iterable[Item],
    take: Callable[[Item], int | None],
    *,
    progress: Callable[[int], None] | None = None,
    at_end: Callable[[], None] | None = None,
) -> Ending:
    """Hands every batch to `take`, and how many samples have gone by, which it returns, to `progress`.

    `take` returns None for a batch that an earlier run has taken: `progress` is not called then. `at_end` is called
    once the data end, inside the same protection. A call of `sys.exit` is an error like others: it would end the
    program as if the pass had ended well.
    """
    try:
        for item in source:
            done = take(item)
            if progress is not None and done is not None:
                progress(done)
        if at_end is not None:
            at_end()
    except KeyboardInterrupt:
        return Ending(interrupted=True)
    except SystemExit as over:
        return Ending(ProgramExitError(over))
    except Exception as error:  # noqa: BLE001 - whatever it is, what was gathered before it is kept
        return Ending(error)
    return Ending()


def error_words(error: BaseException | None) -> str | None:
    """An error with its type and notes, None for none."""
    return None if error is None else f"{type(error).__name__}: {with_notes(error)}"


def with_notes(error: BaseException) -> str:
    """The words of an error, and the notes that were added to it, as sentences."""
    notes = getattr(error, "__notes__", ())
    return " ".join([f"{str(error).rstrip('.')}." if notes else str(error), *notes])
