"""A folder of images, one subfolder a class (extra `data`)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketwork._draws import choose
from ketwork.records import irregular
from ketwork.sources.batches import LoadedData
from ketwork.sources.errors import DAMAGED, SourceError, SourceFailed, listed

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_GREY_MODES = {"1", "L", "LA", "I;16", "I;16B", "I"}
_SIXTEEN_BIT = {"I;16", "I;16B", "I"}


@dataclass(frozen=True)
class ImageBatches:
    """Batches of image files: (batch, channels, height, width) in [0, 1], and class numbers (batch,)."""

    paths: Sequence[Path]
    labels: Sequence[int]
    grey: bool
    size: tuple[int, int]  # height, width
    batch_size: int
    dtype: torch.dtype

    def at(self, places: np.ndarray) -> ImageBatches:
        """Batches of the images at these places."""
        return replace(self, paths=[self.paths[i] for i in places], labels=[self.labels[i] for i in places])

    def __len__(self) -> int:
        return -(-len(self.paths) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.paths), self.batch_size):
            rows = slice(start, start + self.batch_size)
            images = np.stack([self._read(path) for path in self.paths[rows]])
            yield torch.from_numpy(images).to(self.dtype), torch.tensor(self.labels[rows])

    def _read(self, path: Path) -> np.ndarray:
        try:
            return _pixels(path, self.grey, self.size)
        except _Unreadable as error:
            raise SourceFailed(f"Image {path} does not decode: {error}.") from error


def load_images(
    folder: Path,
    *,
    image_size: int | tuple[int, int] | None,
    batch_size: int,
    samples: int | None,
    seed: int,
    dtype: torch.dtype,
) -> LoadedData:
    """Batches of the images in the subfolders of `folder`, each subfolder a class named by it.

    Greyscale where every image is, otherwise RGB; values in [0, 1]. Images must agree in size unless
    `image_size` (height and width, or both at once) says to which to resize them. `samples` takes that
    many at most, as many of each class, drawn by the seed.
    """
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files = [
        (path, number)
        for number, entry in enumerate(classes)
        for path in sorted(entry.rglob("*"))
        if path.suffix.lower() in _SUFFIXES and not path.is_dir()
    ]
    if not files:
        raise SourceError(
            f"Argument `data` must be a folder with one subfolder of images a class, but {folder} has "
            f"{len(classes)} subfolders and no image in them ({listed(sorted(_SUFFIXES), 12)})."
        )
    taken = None
    if samples is not None and samples < len(files):
        places, taken = choose(len(files), samples, [number for _, number in files], seed)
        files = [files[i] for i in places]
    paths, labels = [path for path, _ in files], [number for _, number in files]
    modes, sizes = _headers(paths)
    if image_size is None:
        if len(sizes) > 1:
            examples = listed((f"{height}x{width}" for height, width in sorted(sizes)), 4)
            raise SourceError(
                f"Argument `image_size` must be given where images differ in size, but those in {folder} "
                f"are {examples} "
                "(height x width)."
            )
        size = next(iter(sizes))
    else:
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(size) < 1:
            raise SourceError(f"Argument `image_size` must be at least 1 by 1, but was {image_size}.")
    grey = modes <= _GREY_MODES
    description = {"kind": "images", "size": list(size), "channels": 1 if grey else 3}
    names = tuple(entry.name for entry in classes)
    return LoadedData(
        ImageBatches(paths, labels, grey, size, batch_size, dtype),
        len(paths),
        True,
        names,
        description,
        taken=taken,
    )


def _headers(paths: Sequence[Path]) -> tuple[set[str], set[tuple[int, int]]]:
    """The modes and sizes that occur; files are opened but not decoded."""
    modes, sizes = set(), set()
    for path in paths:
        if (kind := irregular(path)) is not None:  # to open a pipe waits until somebody writes
            raise SourceError(
                f"Argument `data` must be a folder of image files, but {path} is {kind}. Remove it."
            )
        try:
            with _opened(path) as image:
                mode, size = image.mode, (image.height, image.width)
        except _Unreadable as error:
            raise SourceError(
                f"Argument `data` must hold readable images, but {path} is not one: {error}. Fix or remove it."
            ) from error
        if mode == "F":
            raise SourceError(
                f"Argument `data` must hold images of integer pixels, but {path} has floating ones, of a "
                "range that no "
                "one knows. Give them as an .npy array."
            )
        modes.add(mode)
        sizes.add(size)
    return modes, sizes


def _pixels(path: Path, grey: bool, size: tuple[int, int]) -> np.ndarray:
    """(channels, height, width), float32 in [0, 1]."""
    pillow = _pillow()
    with _opened(path) as image:
        if image.mode in _SIXTEEN_BIT:  # Pillow's own conversion to 8 bits clips at 255
            plain = pillow.fromarray(np.asarray(image, dtype=np.float32) / 257)
        else:
            plain = image.convert("L" if grey else "RGB")
        if (plain.height, plain.width) != size:
            plain = plain.resize((size[1], size[0]), pillow.Resampling.BILINEAR)
        values = np.asarray(plain, dtype=np.float32) / np.float32(255)
    return np.moveaxis(values, -1, 0) if values.ndim == 3 else np.stack([values] * (1 if grey else 3))


class _Unreadable(Exception):
    """An image that Pillow does not open or decode."""


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The opened image; what its decoder makes of a damaged or enormous file is one kind of error.

    Only the formats of `_SUFFIXES` are tried, whatever the file says it is: others start programs (EPS).
    """
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path, formats=_FORMATS) as image:
                yield image
    except MemoryError as error:
        raise _Unreadable("it needs more memory than there is") from error
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        most = pillow.MAX_IMAGE_PIXELS
        raise _Unreadable(
            f"it has more than {most:,} pixels, Pillow's limit against decompression bombs"
        ) from error
    except DAMAGED as error:
        raise _Unreadable(str(error).rstrip(".") or type(error).__name__) from error


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise SourceError(
            "Argument `data` is a folder of images, which needs the Pillow package, but it is not installed. "
            "Run `pip install 'ketwork[data]'`."
        ) from error
    return Image
