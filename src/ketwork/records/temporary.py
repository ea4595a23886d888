"""Folders for files that are being written: a process that is killed leaves at most one, which the next write removes.

A writer holds the operating system's lock on its folder while it writes, which ends with the process, however that
ends. So a folder that is not locked was left behind. Where the system has no such lock, nothing is removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None  # type: ignore[assignment]

TEMPORARY = ".ketwork-"
"""How the names of these folders begin."""


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new folder inside `parent`, which is removed at the end with all that is in it.

    Raises:
        OSError: `parent` is not there, or cannot be written to.
    """
    remove_left_behind(parent)
    folder, handle = _locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_left_behind(parent: Path, alone: bool = False) -> None:
    """Removes the folders in `parent` that killed processes of this user left; with `alone` all that are there.

    `alone` says that no other process writes there, so that no lock is needed.
    """
    if fcntl is None and not alone:
        return
    for path in parent.glob(f"{TEMPORARY}*"):
        with suppress(OSError):  # of another user, or gone by now
            if alone:
                _remove(path)
            elif stat.S_ISDIR(path.lstat().st_mode) and path.lstat().st_uid == os.geteuid():
                handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if _lock(handle, wait=False):
                        _remove(path)
                finally:
                    os.close(handle)


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    """A new folder, and what holds its lock, where the system has locks of folders."""
    while True:
        folder = parent / f"{TEMPORARY}{secrets.token_hex(8)}"
        folder.mkdir(0o700)
        if fcntl is None:
            return folder, None
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for one that was left behind
            continue
        _lock(handle, wait=True)
        if folder.exists():
            return folder, handle
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    """Whether this process has the lock now."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # held by another, or the file system has none
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
