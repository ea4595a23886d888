"""Numbers that take more memory than they may: in files that are mapped into memory.

A mapped tensor is used as any other. The operating system reads the parts of it that are used and puts them back to
disk when memory is short, so that moments and factors take what the layers at work need, and not what all do.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import weakref
from pathlib import Path

import torch
from torch import Tensor

_SMALL = 2**16  # bytes of a tensor that is not worth a file


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

    def kept(self, tensor: Tensor) -> Tensor:
        """The tensor itself while there is memory for it, else a copy of it in a file, which may be changed in place.

        Tensors of accelerators, and small ones, stay where they are.

        Raises:
            OSError: the file cannot be written.
        """
        if tensor.nbytes < _SMALL or tensor.device.type != "cpu":
            return tensor
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
        weakref.finalize(copy, _removed, path)
        return copy

    def _give_back(self, size: int) -> None:
        self.left += size


def _removed(path: Path) -> None:
    with contextlib.suppress(OSError):  # some systems remove no file that is mapped: it goes with its folder
        path.unlink(missing_ok=True)
