"""Checkpoints of a study's pass: a folder with its last two states, which one run at a time writes to.

Each is one safetensors file, written in one step and signed with a digest: a crash while writing leaves the ones
before, and a damaged one is known. The lock is the operating system's: it ends with the process that holds it, however
that ends.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from ketwork.networks.activations.batches import Batch
from ketwork.networks.activations.captures import Capture
from ketwork.networks.runtime.fingerprints import of_batch
from ketwork.networks.study.passing import Pass
from ketwork.records import storage
from ketwork.records.checked import Count, check
from ketwork.records.files import TEMPORARY
from ketwork.records.signals import deferred

SCHEMA = 1
"""The version of the file format; files of a newer one are refused."""

EVERY = 200
"""Batches from one checkpoint to the next unless told otherwise."""

_KIND = "checkpoint"
_KEPT = 2
_NAME = "after-*-batches.safetensors"
_HEADER = {"network": {str: str}, "settings": dict, "data": Count, "pass": dict, "capture": dict}


class CheckpointError(ValueError):
    """A checkpoint that this run cannot go on from, or a folder that it cannot use."""


@contextmanager
def checkpoints(
    folder: str | Path, every: int, resume: bool, network: dict[str, str], settings: dict[str, Any]
) -> Iterator[Checkpoints]:
    """The checkpoints in a folder, which no other run can use inside the block.

    `network` and `settings` are plain values that a checkpoint must agree with.

    Raises:
        CheckpointError: another run uses the folder, or it has checkpoints and `resume` is False.
        OSError: it cannot be made or written to.
    """
    folder = Path(folder)
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
        for left in folder.glob(f"{TEMPORARY}*"):  # by a run that was killed while writing
            left.unlink(missing_ok=True)
        found = Checkpoints(folder, every, network, settings)
        if not resume and found.files():
            raise CheckpointError(
                f"Argument `checkpoint` must be a folder without checkpoints, but {str(folder)!r} has some. Go on from "
                "them with `resume=True` (--resume), remove them, or give another folder."
            )
        yield found
    finally:
        lock.release()


@dataclass
class Checkpoints:
    """The checkpoints of one run: what it reads at first, and writes after `every` batches."""

    folder: Path
    every: int
    network: dict[str, str]
    settings: dict[str, Any]
    saved: int = 0  # batches in the newest one
    _begun: int = 0  # batches in the one that was restored, and their fingerprint
    _expected: int = 0
    _seen: int = 0  # batches of the data that were read or skipped, their samples and their fingerprint
    _samples: int = 0
    _data: int = 0

    def files(self) -> list[Path]:
        """The checkpoints, the newest last."""
        return sorted(self.folder.glob(_NAME), key=_batches)

    def restore(self, run: Pass, live: Capture, device: torch.device) -> None:
        """Takes over the newest whole checkpoint, if there is one; a damaged one is noted, and removed.

        Raises:
            CheckpointError: it is of another network or other settings, or none is whole.
        """
        damaged: list[Path] = []
        why: Exception | None = None
        for path in reversed(self.files()):
            try:
                tensors, header = storage.read(path, _KIND, SCHEMA)
                check(header, _HEADER, _KIND)
                self._compare(path, header["network"], header["settings"])
                # Copies, since tensors of a file keep its place on the disk after it is removed.
                run.restore(header["pass"], {name: t.clone() for name, t in tensors.items()}, device)
                live.restore(header["capture"])
            except CheckpointError:
                raise
            except ValueError as error:
                damaged.append(path)
                why = error
                continue
            self.saved, self._begun = run.batches, run.number
            self._expected = header["data"]
            for other in damaged:
                run.notes[
                    f"The checkpoint {other.name} is damaged, and was removed: the pass went on from {path.name}."
                ] = None
                other.unlink(missing_ok=True)
            return
        if why is not None:
            names = " and ".join(path.name for path in damaged)
            raise CheckpointError(
                f"Argument `checkpoint` must be a folder with a whole checkpoint, but {names} in {str(self.folder)!r} "
                f"cannot be read ({why}). Remove them to begin anew."
            ) from why

    def has(self, batch: Batch, run: Pass) -> bool:
        """Whether the next batch of the data is in the checkpoint that was restored.

        Raises:
            CheckpointError: the batches in it were others.
        """
        if self._seen >= self._begun:
            return False
        self.add(batch, run)
        if self._seen == self._begun and self._data != self._expected:
            raise CheckpointError(
                f"{str(self.folder)!r} has checkpoints of other data: the first {self._seen} batches were not these. A "
                "pass can go on only over the same samples in the same order (a shuffling loader needs a generator "
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

    def add(self, batch: Batch, run: Pass) -> None:
        """Adds a batch that the pass has taken in to the fingerprint of the data."""
        labels = run.labels.given_to(self._samples, batch.size)
        self._data = of_batch((batch.content, batch.mask, labels), self._data)
        self._seen += 1
        self._samples += batch.size

    def save(self, run: Pass, live: Capture) -> None:
        """Writes a checkpoint of the pass unless there is one, in one step that no signal interrupts.

        Where it cannot be written the pass goes on: it says so at once, and in its notes.
        """
        if run.batches == self.saved or run.torn:
            return
        header = {
            "network": self.network,
            "settings": self.settings,
            "data": self._data,
            "pass": run.header(),
            "capture": live.header(),
        }
        with deferred():
            try:
                storage.write(
                    self.folder / _NAME.replace("*", str(run.batches)), _KIND, SCHEMA, run.tensors(), header
                )
            except OSError as error:
                note = f"{error.strerror or error} The pass went on, and could be resumed after {self.saved} batches."
                run.notes[note] = None
                warnings.warn(note, RuntimeWarning, stacklevel=3)
                return
            self.saved = run.batches
            for old in self.files()[:-_KEPT]:
                old.unlink(missing_ok=True)

    def save_if_due(self, run: Pass, live: Capture) -> None:
        """Writes a checkpoint after every so many batches."""
        if run.batches % self.every == 0:
            self.save(run, live)

    def _compare(self, path: Path, network: dict[str, str], settings: dict[str, Any]) -> None:
        """Refuses a checkpoint of another network or other settings, and says what differs."""
        others = []
        for name, here in self.network.items():
            told = network.get(name, "unknown")
            if told != here:
                values = f"was {told} and is {here}" if name == "class" else "were others"
                others.append(f"the network's {name} {values}")
        for name, here in self.settings.items():
            there = settings.get(name)
            if there != here:
                others.append(f"`{name}` was {_short(there)} and is {_short(here)}")
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
