"""Rows of the arrays in an `.npz` archive, read one after the other, without the others in memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.lib import format as npy

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Member:
    """An array in an archive, whose rows lie one after the other from the byte `start` of its file."""

    archive: ZipFile
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def read(self, places: np.ndarray) -> np.ndarray:
        """The rows at these places, which ascend.

        Raises:
            ValueError: the file ends before them.
        """
        rows = np.empty((len(places), *self.shape[1:]), self.dtype)
        size = math.prod(self.shape[1:]) * self.dtype.itemsize
        with self.archive.open(self.name) as file:
            for row, place in zip(rows, places.tolist(), strict=True):
                file.seek(self.start + place * size)
                data = file.read(size)
                if len(data) < size:
                    raise ValueError(f"{self.name} ends before row {place}")
                row[...] = np.frombuffer(data, self.dtype).reshape(row.shape)
        return rows


def member_of(archive: Any, name: str) -> Member | None:
    """The array of that name of an open `.npz` archive; None where its rows do not lie one after the other.

    Raises:
        ValueError: it declares more than its file holds.
    """
    names = set(archive.zip.namelist())
    full = name if name in names else f"{name}.npy"
    with archive.zip.open(full) as file:
        read = _HEADERS.get(npy.read_magic(file))
        if read is None:
            return None
        shape, transposed, dtype = read(file)
        start = file.tell()
    if not shape or transposed or dtype.hasobject:
        return None
    size = math.prod(shape) * dtype.itemsize
    if min(shape) < 0 or archive.zip.getinfo(full).file_size < start + size:
        raise ValueError(f"{full} declares {size} bytes, and holds fewer")
    return Member(archive.zip, full, shape, dtype, start)
