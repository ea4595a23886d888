"""Numbers that take more memory than they may: in files that are mapped into memory.

A mapped tensor is used as any other. The operating system reads the parts of it that are used and puts them back to
disk when memory is short, so that moments and factors take what the layers at work need, and not what all do. On Linux
`rest` gives back what was used, so that it does not count for the process for longer than it is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_SMALL = 2**16  # bytes of a tensor that is not worth a file
_RESTING = 2**28  # bytes of files in memory from which these are given back
_NOT_NEEDED = 4  # MADV_DONTNEED: of a shared mapping of a file nothing is lost


class Scratch:
    """A temporary folder for tensors, where those that are kept take more than `memory` bytes together.

    >>> tensor = Scratch(memory=0).kept(torch.arange(2**14))
    >>> tensor += 1
    >>> tensor[:3]
    tensor([1, 2, 3])
    """

    def __init__(self, memory: int) -> None:
        self.left = memory
        self.mapped = 0
        self._folder: Path | None = None
        self._files: list[tuple[weakref.ref[Tensor], int]] = []  # mapped tensors, and where they are
        self._before = _resident()

    def kept(self, tensor: Tensor) -> Tensor:
        """The tensor itself while there is memory for it, else a copy of it in a file, which may be changed in place.

        Tensors of accelerators, and small ones, stay where they are.

        Raises:
            OSError: the file cannot be written.
        """
        if tensor.nbytes < _SMALL or tensor.device.type != "cpu":
            return tensor
        self.rest()
        if tensor.nbytes <= self.left:
            self.left -= tensor.nbytes
            weakref.finalize(tensor, self._give_back, tensor.nbytes)
            return tensor
        return self._file(tensor)

    def _file(self, tensor: Tensor) -> Tensor:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ketwork-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{self.mapped}"
        self.mapped += 1
        try:  # written first: a file that has no place on the disk would end the process when it is used
            tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tofile(path)
        except OSError as error:
            raise OSError(
                f"Argument `memory` leaves {tensor.nbytes:,} bytes for a file in {tempfile.gettempdir()!r}, which "
                f"cannot be written there ({error}). Give more memory, or set TMPDIR to a folder with more space."
            ) from error
        copy = torch.from_file(str(path), shared=True, size=tensor.numel(), dtype=tensor.dtype)
        copy = copy.reshape(tensor.shape)
        self._files.append((weakref.ref(copy), copy.data_ptr()))
        weakref.finalize(copy, _removed, path)
        return copy

    def rest(self, most: int = _RESTING) -> None:
        """Gives the memory back that parts of files take, where that is more than `most` bytes: they are read anew."""
        if self._files and _resident() - self._before > most:
            self._files = [one for one in self._files if one[0]() is not None]
            for reference, place in self._files:
                tensor = reference()  # held meanwhile: what comes to its place after it is no file
                if tensor is not None and tensor.data_ptr() == place:
                    _advise(place, tensor.nbytes)
            self._before = _resident()  # what is left is not of these files

    def _give_back(self, size: int) -> None:
        self.left += size


def _removed(path: Path) -> None:
    with contextlib.suppress(OSError):  # some systems remove no file that is mapped: it goes with its folder
        path.unlink(missing_ok=True)


def _resident() -> int:
    """Bytes of files that the process has in memory; 0 where the system does not say."""
    try:
        shared = int(Path("/proc/self/statm").read_text().split()[2])
        return shared * mmap.PAGESIZE
    except (OSError, IndexError, ValueError):
        return 0


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _advise(place: int, size: int) -> None:
    with contextlib.suppress(AttributeError, OSError):
        _library().madvise(ctypes.c_void_p(place), ctypes.c_size_t(size), _NOT_NEEDED)
