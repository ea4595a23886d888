"""Data named on a command line: arrays, tables, folders of images, or a factory of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ketwork.sources.arrays import from_arrays, load_arrays
from ketwork.sources.batches import DatasetBatches, LoadedData, check_positive
from ketwork.sources.errors import SourceError, readable
from ketwork.sources.factories import Factory, call, parse, resolve
from ketwork.sources.images import load_images
from ketwork.sources.tables import is_table, load_table


def load_data(
    spec: str,
    *,
    text: str | None = None,
    input: str | Sequence[str] | None = None,  # noqa: A002
    label: str | None = None,
    tokenizer: Any | None = None,
    batch_size: int = 64,
    samples: int | None = None,
    seed: int = 0,
    image_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    processor: Any | None = None,
    dtype: torch.dtype = torch.float32,
    skip_bad: bool = False,
) -> LoadedData:
    """Batches of the data that `spec` names, with labels where it has them.

    `spec` is one of
    - `.npz` (arrays `x` and `y`, or as `input` and `label` say) or `.npy`: see `load_arrays`;
    - `.csv`, `.tsv`, `.json`, `.jsonl` (also compressed) or `.parquet`: a column of texts for `tokenizer`, or
      columns of numbers; `.txt`: a text a line: see `load_table`;
    - a folder of images, one subfolder a class, normalized by `mean` and `std`, or else by `processor`: see
      `load_images`;
    - `package.module:factory` or `file.py:factory`: called without arguments, returns an iterable of
      batches, a map-style Dataset, an array, or a tuple `(x, labels)` of arrays.

    `samples` takes so many at most, as many of each label where there are labels, else at random, by the seed; of a
    stream (a factory's batches) nothing is drawn here. Floating features take `dtype`.
    With `skip_bad`, numbers that are missing or not finite pass, for the study to drop and count, and rows
    without a text are skipped and noted.
    Errors: `SourceError` where the data cannot be used; `SourceFailed` where a factory's own code raises.
    """
    check_positive("batch_size", batch_size)
    check_positive("samples", samples)
    with readable("data", spec):
        path = Path(spec)
        table = is_table(path)
        if path.is_dir():
            _refuse("tables and arrays, not to a folder of images", text=text, input=input, label=label)
            loaded = load_images(
                path,
                image_size=image_size,
                mean=mean,
                std=std,
                processor=processor,
                batch_size=batch_size,
                samples=samples,
                seed=seed,
                dtype=dtype,
            )
        elif path.suffix in (".npz", ".npy") or table:
            _refuse("a folder of images", image_size=image_size, mean=mean, std=std)
            if not path.is_file():
                raise SourceError(f"Argument `data` must name data to read, but there is no file {spec}.")
            if table:
                loaded = load_table(
                    path,
                    text=text,
                    inputs=input,
                    label=label,
                    tokenizer=tokenizer,
                    batch_size=batch_size,
                    dtype=dtype,
                    skip_bad=skip_bad,
                )
            else:
                _refuse("tables", text=text)
                if path.suffix == ".npy":
                    _refuse("tables and .npz files", input=input, label=label)
                loaded = load_arrays(
                    path,
                    inputs=_one(input),
                    label=label,
                    batch_size=batch_size,
                    dtype=dtype,
                    samples=samples,
                    seed=seed,
                )
        elif (factory := parse(spec)) is not None:
            _refuse("files", text=text, input=input, label=label, image_size=image_size, mean=mean, std=std)
            loaded = _from_factory(factory, batch_size, dtype)
        else:
            raise SourceError(
                "Argument `data` must be a .npz, .npy, .csv, .tsv, .json, .jsonl, .parquet or .txt file, a folder of "
                "images or `package.module:factory`, but was "
                f"{spec!r}{'' if path.exists() else ', and there is no such file'}."
            )
    loaded = loaded.drawn(samples, seed)
    names = None if loaded.label_names is None else list(loaded.label_names)
    loaded.description.update(spec=spec, samples=loaded.samples, label_names=names)
    return loaded


@dataclass(frozen=True)
class _Repeated:
    """The batches of a factory that returns a one-time iterator: called anew for each pass."""

    first: list[Iterator[Any]]
    function: Any
    name: str

    def __iter__(self) -> Iterator[Any]:
        return self.first.pop() if self.first else iter(call(self.function, self.name, "data"))


def _from_factory(factory: Factory, batch_size: int, dtype: torch.dtype) -> LoadedData:
    name = f"{factory.module}:{factory.attribute}"
    if factory.weights is not None:
        raise SourceError(f"Argument `data` must not have a weights file, but was {name}@{factory.weights}.")
    function = resolve(factory, "data")
    made = call(function, name, "data") if callable(function) else function
    description = {"kind": "factory"}
    if isinstance(made, Tensor | np.ndarray):
        return from_arrays(_array(made), None, batch_size=batch_size, dtype=dtype, name=name)
    if (
        isinstance(made, tuple)
        and len(made) == 2
        and all(isinstance(part, Tensor | np.ndarray) for part in made)
    ):
        x, y = map(_array, made)
        return from_arrays(x, y, batch_size=batch_size, dtype=dtype, name=name)
    if isinstance(made, Dataset) and not isinstance(made, IterableDataset):
        made = DatasetBatches(made, batch_size)
    count: int | None = None
    if isinstance(made, DataLoader) and isinstance(made.dataset, Sized):
        count = len(made.dataset)
    if isinstance(made, DatasetBatches):
        count = len(made.dataset)  # type: ignore[arg-type]
    batches: Iterable[Any]
    if isinstance(made, Iterator):
        batches = _Repeated([made], function, name)
    elif isinstance(made, Iterable) and not isinstance(made, str | bytes | dict):
        batches = made
    else:
        raise SourceError(
            f"Argument `data` must name what returns batches, but {name!r} returned {type(made).__name__}. "
            "Return an "
            "iterable of tensors, of pairs (x, labels) or of mappings."
        )
    empty = count == 0 or (isinstance(batches, Sequence) and not batches)
    if empty:
        raise SourceError(f"Argument `data` must hold at least one sample, but {name!r} returned no batches.")
    return LoadedData(batches, count, None, None, description)


def _array(values: Tensor | np.ndarray) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _one(names: str | Sequence[str] | None) -> str | None:
    if names is None or isinstance(names, str):
        return names
    if len(names) > 1:
        raise SourceError(f"Argument `input` must name one array of an .npz file, but was {list(names)}.")
    return names[0] if names else None


def _refuse(where: str, **options: Any) -> None:
    for name, value in options.items():
        if value:
            raise SourceError(f"Argument `{name}` applies to {where} only. Leave it out.")
