"""Checkpoints of a pass: a folder with its last two states, which one run at a time writes to.

Each is one safetensors file, written in one step and signed with a digest: a crash while writing leaves the ones
before, and a damaged one is known. A run is resumed only where the network, the settings and the data read so far are
those of the checkpoint (`_compare`, `has`); `study/run.py` lists the settings that must agree. The lock is the
operating system's: it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout

from ketwork.networks.activations import Batch
from ketwork.networks.runtime.fingerprints import of_batch
from ketwork.records import (
    Checkpoint,
    Count,
    deferred,
    pack,
    read_parts,
    remove_left_behind,
    unpack,
    write_parts,
)

SCHEMA = 2
"""The version of the file format; files of another one are refused."""

_KIND = "checkpoint"
_KEPT = 2
_NAME = "after-*-batches.safetensors"

State = TypeVar("State")


class CheckpointError(ValueError):
    """A checkpoint that this run cannot continue with, or a folder that it cannot use."""


@dataclass(frozen=True)
class _About:
    """What a checkpoint belongs to: a network, settings, the fingerprint of the data so far, and how far that was."""

    network: dict[str, str]
    settings: dict[str, Any]
    data: Count
    batches: Count
    number: Count
    state: dict[str, Any]


@contextmanager
def open_checkpoints(
    checkpoint: Checkpoint,
    folder: Path,
    state: type[State],
    network: dict[str, str],
    settings: dict[str, Any],
) -> Iterator[Checkpoints[State]]:
    """The checkpoints in a folder, which no other run can use inside the block.

    `network` and `settings` are plain values that a checkpoint must agree with, `state` is the record that it holds.

    Raises:
        CheckpointError: another run uses the folder, or it has checkpoints and is not to be resumed.
        OSError: it cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"Argument `checkpoint` must be a folder of one run alone, but another one writes to {str(folder)!r}. "
            "Wait until it ends, or give another folder."
        ) from error
    try:
        remove_left_behind(folder, alone=True)  # by a run that was killed while writing
        run = Checkpoints(folder, checkpoint.every, state, network, settings)
        if not checkpoint.resume and run.files():
            raise CheckpointError(
                f"Argument `checkpoint` must be a folder without checkpoints, but {str(folder)!r} has some. Continue "
                "with them by `Checkpoint(..., resume=True)` (--resume), remove them, or give another folder."
            )
        yield run
    finally:
        lock.release()


@dataclass
class Checkpoints(Generic[State]):
    """The checkpoints of one run: what it reads at first, and writes after `every` batches.

    `warnings` are for whoever reads the result.
    """

    folder: Path
    every: int
    kind: type[State]
    network: dict[str, str]
    settings: dict[str, Any]
    saved: int = 0  # batches in the newest one
    _begun: int = 0  # batches of the data in the one that was restored, and their fingerprint
    _expected: int = 0
    _seen: int = 0  # batches of the data that were read or skipped, their samples and their fingerprint
    _samples: int = 0
    _data: int = 0

    def files(self) -> list[Path]:
        """The checkpoints, the newest last."""
        return sorted(self.folder.glob(_NAME), key=_batches)

    def restore(self) -> tuple[State | None, list[str]]:
        """The newest state that is complete, None where there is none yet; a damaged one is noted, and removed.

        Raises:
            CheckpointError: it is of another network or other settings, or none is complete.
        """
        damaged: list[Path] = []
        reason: Exception | None = None
        for path in reversed(self.files()):
            try:
                tensors, header = read_parts(path, _KIND, SCHEMA)
                about = unpack(_About, header, {})
                self._compare(path, about)
                # Copies, since tensors of a file keep its place on the disk after it is removed.
                state = unpack(self.kind, about.state, {name: t.clone() for name, t in tensors.items()})
            except CheckpointError:
                raise
            except ValueError as error:
                damaged.append(path)
                reason = error
                continue
            self.saved, self._begun, self._expected = about.batches, about.number, about.data
            for other in damaged:
                other.unlink(missing_ok=True)
            return state, [
                f"The checkpoint {other.name} is damaged, and was removed: the pass continued from {path.name}."
                for other in damaged
            ]
        if reason is not None:
            names = " and ".join(path.name for path in damaged)
            raise CheckpointError(
                f"Argument `checkpoint` must be a folder with a complete checkpoint, but {names} in "
                f"{str(self.folder)!r} cannot be read ({reason}). Remove them to begin anew."
            ) from reason
        return None, []

    def has(self, batch: Batch, labels: Any) -> bool:
        """Whether the next batch of the data is in the checkpoint that was restored; `labels` are given beside it.

        Raises:
            CheckpointError: the batches in it were others.
        """
        if self._seen >= self._begun:
            return False
        self.add(batch, labels)
        if self._seen == self._begun and self._data != self._expected:
            raise CheckpointError(
                f"{str(self.folder)!r} has checkpoints of other data: the first {self._seen} batches were not these. A "
                "pass can continue only over the same samples in the same order (a shuffling loader needs a generator "
                "with a seed), with the same labels and mask. Give it those, or another folder."
            )
        return True

    def ended(self) -> None:
        """Raises `CheckpointError` where the data end before the checkpoint does."""
        if self._seen < self._begun:
            raise CheckpointError(
                f"{str(self.folder)!r} has a checkpoint after {self._begun} batches, but the data end after "
                f"{self._seen}. Give the same data, or another folder."
            )

    def add(self, batch: Batch, labels: Any) -> None:
        """Adds a batch that the pass has taken in to the fingerprint of the data."""
        self._data = of_batch((batch.content, batch.mask, labels), self._data)
        self._seen += 1
        self._samples += batch.size

    @property
    def samples(self) -> int:
        """The samples of the data that have been read or skipped."""
        return self._samples

    def save(self, batches: int, number: int, state: Callable[[], State]) -> str | None:
        """Writes a checkpoint after so many batches unless there is one, in one step that no signal interrupts.

        Where it cannot be written the pass continues: it warns at once, and the message is returned.
        """
        if batches == self.saved:
            return None
        with deferred():
            header, tensors = pack(state())
            about = _About(self.network, self.settings, self._data, batches, number, header)
            try:
                path = self.folder / _NAME.replace("*", str(batches))
                write_parts(path, _KIND, SCHEMA, tensors, pack(about)[0])
            except OSError as error:
                words = error.strerror or error
                message = f"{words} The pass continued, and could be resumed after {self.saved} batches."
                warnings.warn(message, RuntimeWarning, stacklevel=3)
                return message
            self.saved = batches
            for old in self.files()[:-_KEPT]:
                old.unlink(missing_ok=True)
        return None

    def due(self, batches: int) -> bool:
        """Whether a checkpoint is to be written after so many batches."""
        return batches % self.every == 0

    def _compare(self, path: Path, about: _About) -> None:
        """Refuses a checkpoint of another network or other settings, and reports what differs."""
        others = []
        for name, here in self.network.items():
            there = about.network.get(name, "unknown")
            if there != here:
                values = f"was {there} and is {here}" if name == "class" else "were others"
                others.append(f"the network's {name} {values}")
        for name, value in self.settings.items():
            before = about.settings.get(name)
            if before != value:
                others.append(f"`{name}` was {_short(before)} and is {_short(value)}")
        if others:
            raise CheckpointError(
                f"{str(path)!r} is a checkpoint of another run: {'; '.join(others)}. Give what it was begun with, or "
                "another folder."
            )


def _batches(path: Path) -> int:
    digits = path.name.split("-")[1]
    return int(digits) if digits.isdecimal() else -1


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:80]} …"
