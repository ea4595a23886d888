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
    """Batches of image files: (batch, channels, height, width), and class numbers (batch,).

    Values are in [0, 1], less `mean` and over `std` of each channel; or what `processor` makes of each image.
    """

    paths: Sequence[Path]
    labels: Sequence[int]
    grey: bool
    size: tuple[int, int]  # height, width
    batch_size: int
    dtype: torch.dtype
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    processor: Any | None = None

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
            if self.processor is not None:
                return _processed(path, self.processor)
            pixels = _pixels(path, self.grey, self.size)
        except _Unreadable as error:
            raise SourceFailed(f"Image {path} does not decode: {error}.") from error
        mean, std = (np.asarray(part, dtype=np.float32)[:, None, None] for part in (self.mean, self.std))
        return np.asarray((pixels - mean) / std)


def load_images(
    folder: Path,
    *,
    image_size: int | tuple[int, int] | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    processor: Processor | None = None,
    batch_size: int,
    samples: int | None,
    seed: int,
    dtype: torch.dtype,
) -> LoadedData:
    """Batches of the images in the subfolders of `folder`, each subfolder a class named by it.

    Greyscale where every image is, otherwise RGB; values in [0, 1]. Images must agree in size unless
    `image_size` (height and width, or both at once) says to which to resize them. Then `mean` is subtracted and `std`
    divided by, one number a channel or one for all. Where none of these is given, the model's own `processor` does all
    of that, if it has one. `samples` takes that many at most, as many of each class, drawn by the seed.
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
    own = image_size is None and mean is None and std is None and processor is not None
    if own and processor is not None and processor.run is not None:
        batches = ImageBatches(paths, labels, False, (0, 0), batch_size, dtype, processor=processor.run)
        words = f"Images are prepared by the model's own image processor ({processor.name})."
        return LoadedData(
            batches,
            len(paths),
            True,
            tuple(entry.name for entry in classes),
            {"kind": "images", "processor": processor.name},
            (words,),
            taken,
        )
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
    each = [_channels(name, given, 1 if grey else 3) for name, given in (("mean", mean), ("std", std))]
    centre, spread = each[0] or (0.0,), each[1] or (1.0,)
    if min(spread) <= 0:
        raise SourceError(f"Argument `std` must be positive, but was {spread}.")
    description: dict[str, Any] = {"kind": "images", "size": list(size), "channels": 1 if grey else 3}
    description["mean"], description["std"] = list(centre), list(spread)
    names = tuple(entry.name for entry in classes)
    return LoadedData(
        ImageBatches(paths, labels, grey, size, batch_size, dtype, centre, spread),
        len(paths),
        True,
        names,
        description,
        () if processor is None else (_ignored(processor, centre, spread, mean is None and std is None),),
        taken=taken,
    )


@dataclass(frozen=True)
class Processor:
    """What prepares images for a model: its `run`, or why that is not to be had (`reason`), and what it would do."""

    name: str
    run: Any | None = None
    reason: str = ""
    wants: str = ""


def _ignored(processor: Processor, mean: Sequence[float], std: Sequence[float], unsaid: bool) -> str:
    """A warning that a model's own preprocessing was not used."""
    words = f"The model's own preprocessing ({processor.name}{processor.wants}) was ignored"
    words += f": {processor.reason}" if processor.reason else ""
    if unsaid:
        return f"{words}. Its images were in [0, 1], neither centred nor scaled: give --mean and --std (`mean`, `std`)."
    return f"{words}: images had mean {listed(map(str, mean))} and std {listed(map(str, std))}, as given."


def _channels(name: str, given: Sequence[float] | None, count: int) -> tuple[float, ...] | None:
    """One number a channel, or one for all."""
    if given is None:
        return None
    values = tuple(map(float, given))
    if len(values) not in (1, count) or not np.isfinite(values).all():
        raise SourceError(
            f"Argument `{name}` must be one number, or one for each of {count} channels, but was {list(given)}."
        )
    return values


def _processed(path: Path, processor: Any) -> np.ndarray:
    """What the model's image processor makes of an image, (channels, height, width)."""
    with _opened(path) as image:
        return np.asarray(processor(images=image.convert("RGB"), return_tensors="np")["pixel_values"][0])


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
