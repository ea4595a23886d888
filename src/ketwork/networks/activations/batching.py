"""From whatever holds the data to batches: what to call the network with, labels, mask and size (by `samples`)."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from ketwork.networks.activations.experiment import Trial
from ketwork.networks.activations.failures import name_layer
from ketwork.networks.activations.integers import refused_integers
from ketwork.networks.activations.labels import next_tokens
from ketwork.networks.activations.masks import GIVEN, Mask, PositionMask, masks_of, towers
from ketwork.networks.activations.outputs import map_tensors
from ketwork.networks.activations.samples import carriers, count, take, with_own_caches
from ketwork.networks.activations.texts import Texts

Forward = Callable[[nn.Module, Any], Any]

LABEL_KEYS = ("labels", "label")


@dataclass(frozen=True)
class Batch:
    """One batch: `content` as it came (on the network's device), what of it are labels, which positions exist.

    `fed` is the key of labels that the network is given, as encoder-decoders are that make the decoder's input of them.
    `elsewhere` says that another process takes it in; it is not on the device then. `shifted` says that labels were the
    tokens themselves, and are now those of the next position.
    """

    content: Any
    labels: Any
    masks: tuple[PositionMask, ...]
    size: int
    elsewhere: bool = False
    fed: str | None = None
    shifted: bool = False

    @property
    def mask(self) -> Tensor | None:
        """The mask (samples, positions) of the network's own output: the decoder's if there is one, else the first."""
        decoder = self.fed is not None or (
            isinstance(self.content, Mapping) and any(str(key).startswith("decoder_") for key in self.content)
        )
        masks = [mask for mask in self.masks if mask.of_decoder == decoder or mask.name == GIVEN]
        return masks[0].present if masks else None

    def run(self, model: nn.Module, forward: Forward | None, without: str | None = None) -> Any:
        """Calls the network: `model(x)`, `model(**mapping)` less the labels, or `forward(model, batch)`.

        `without` is the key of labels that go by another name.
        """
        return self.call(model, self.content, forward, without)

    def call(
        self, model: nn.Module, content: Any, forward: Forward | None, without: str | None = None
    ) -> Any:
        """Calls the network on another batch like this one; an error says in which layer it was raised."""
        try:
            return self._call(model, content, forward, without)
        except Exception as error:
            name_layer(model, error)
            raise

    def _call(self, model: nn.Module, content: Any, forward: Forward | None, without: str | None) -> Any:
        content = with_own_caches(content)
        if forward is not None:
            return forward(model, content)
        inputs = self._inputs(content, without)
        held_back = isinstance(content, Mapping) and len(inputs) < len(content)
        try:
            if isinstance(inputs, Mapping):
                return model(**inputs)
            return model(*inputs) if _are_several(model, inputs) else model(inputs)
        except RuntimeError as error:
            refused = refused_integers(model, inputs, error)
            if refused is None:
                raise
            raise refused from error
        except (TypeError, ValueError) as error:
            if not held_back:
                raise
            names = ", ".join(f"`{key}`" for key in content if key not in inputs)
            raise type(error)(
                f"{error} (Of the batch, {names} were held back as labels; "
                "`forward=lambda model, batch: model(**batch)` gives the network all of it.)"
            ) from error

    def trial(self, forward: Forward | None, without: str | None = None) -> Trial:
        """The batch for experiments."""
        inputs = self.content if forward is not None else self._inputs(self.content, without)
        groups = {}
        if isinstance(inputs, Mapping):
            carried = {path[0]: inputs[path[0]] for path in carriers(inputs, self.size)}
            groups = {name: {(key,) for key in keys} for name, keys in towers(self.masks, carried).items()}

        def run(model: nn.Module, content: Any) -> Any:
            return self.call(model, content, forward, without)

        return Trial(self.content, self.size, run, carriers(self.content, self.size), groups)

    @property
    def is_pair(self) -> bool:
        """Whether it is a pair whose second entry is labels, unless it is an input."""
        return isinstance(self.content, (tuple, list)) and self.labels is not None

    def _inputs(self, content: Any, without: str | None) -> Any:
        """What of a batch the network is given: entries by name, several in a tuple, or one."""
        if isinstance(content, Mapping):
            held_back = {*LABEL_KEYS, without} - {self.fed}
            return {key: value for key, value in content.items() if key not in held_back}
        return _inputs(content)


class EmptyDataError(ValueError):
    """The data hold no sample."""


def batches(
    data: Any,
    *,
    batch_size: int,
    max_samples: int | None = None,
    mask: Mask = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    mine: Callable[[int], bool] | None = None,
    feed_labels: bool = False,
) -> Iterator[Batch]:
    """The batches of `data`, at most `max_samples` samples of it.

    Args:
        data: an array or tensor (samples first), a mapping of them, a tuple (inputs, labels) of them (labels
            may be a list or a pandas column too), a `Dataset` or anything with a length and samples by number, a
            `DataLoader`, or any iterable of batches or of samples. A batch is a tensor, a packed sequence, a tuple or
            list (x, y), a mapping, or a list of texts.
        batch_size: for data that is not batched yet.
        max_samples: stop after so many.
        mask: where positions exist: the key of a mapping (None: each `attention_mask` that there is), an
            array (all samples, positions), or a callable batch -> (samples, positions).
        dtype: what floating NumPy arrays become (they are float64 by habit, networks are not); complex ones
            too, if it is complex.
        device: where tensors go.
        mine: which batches, by number, are taken in here; None for all.
        feed_labels: the network makes the decoder's input of the labels where a batch has none.

    Raises:
        TypeError, ValueError: data that is none of these, or holds no sample.
    """
    left = max_samples
    start = 0
    number = 0
    for content in _contents(data, batch_size):
        elsewhere = mine is not None and not mine(number)
        content = _as_tensors(content, dtype)
        if not elsewhere:
            content = map_tensors(content, lambda tensor: tensor.to(device))
        size = _size(content)
        if left is not None and size > left:
            content, size = take(content, range(left), carriers(content, size)), left
        if size == 0:
            continue
        fed = _fed(content) if feed_labels else None
        present = () if elsewhere else masks_of(content, mask, start, size, device, fed)
        labels = _labels(content)
        shifted = next_tokens(content, labels) if fed is None else None
        labels = labels if shifted is None else shifted
        yield Batch(content, labels, present, size, elsewhere, fed, shifted is not None)
        start += size
        number += 1
        if left is not None:
            left -= size
            if left == 0:
                return
    if start == 0:
        raise EmptyDataError("Argument `data` must hold at least one sample, but is empty.")


def _contents(data: Any, batch_size: int) -> Iterable[Any]:
    if isinstance(data, (np.ndarray, Tensor)):
        if data.ndim == 0:
            raise ValueError("Argument `data` must have samples on its first axis, but is a single number.")
        return (data[i : i + batch_size] for i in range(0, len(data), batch_size))
    if isinstance(data, DataLoader):
        return _loaded(data)
    if isinstance(data, tuple) and _are_inputs_and_plain_labels(data):
        data = data[0], np.array(data[1])  # a copy, since a pandas column cannot be written to
    if isinstance(data, Mapping) or (isinstance(data, tuple) and _are_arrays(data)):
        values = list(data.values()) if isinstance(data, Mapping) else list(data)
        lengths = [len(value) for value in values]
        if len(set(lengths)) > 1:
            raise ValueError(
                f"Argument `data` must hold arrays with one entry a sample, but their lengths are {lengths}."
            )
        return (_slice(data, i, i + batch_size) for i in range(0, lengths[0] if lengths else 0, batch_size))
    if holds_samples(data):
        # A loader without a generator draws a seed for its workers from the global one.
        together = data.collate if isinstance(data, Texts) else collated
        return DataLoader(data, batch_size=batch_size, collate_fn=together, generator=torch.Generator())
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return _batched(iter(data), batch_size)
    raise TypeError(
        "Argument `data` must be an array, a tensor, a Dataset, a DataLoader or an iterable of batches, "
        f"but is a {type(data).__name__}."
    )


def holds_samples(data: Any) -> bool:
    """Whether data are a set of single samples: a `Dataset`, or what has a length and items by number, and is no list.

    Hugging Face's datasets are no `Dataset` of PyTorch.
    """
    if isinstance(data, (Dataset, IterableDataset)):
        return True
    plain = (list, tuple, Mapping, Tensor, np.ndarray, str, bytes, DataLoader)
    return not isinstance(data, plain) and hasattr(data, "__getitem__") and hasattr(data, "__len__")


def collated(samples: list[Any]) -> Any:
    """The batch of some samples, as PyTorch makes it; lists of numbers are arrays with an entry a position.

    Raises:
        ValueError: samples of several lengths.
    """
    try:
        return default_collate([_arrays(sample) for sample in samples])
    except RuntimeError as error:
        raise ValueError(
            f"Argument `data` must hold samples of one shape, to be put together in batches ({error}). Pad them, or "
            "give a DataLoader with a `collate_fn` that does."
        ) from error


def _arrays(sample: Any) -> Any:
    """A sample with its lists of numbers as tensors."""
    if isinstance(sample, Mapping):
        return {key: _arrays(value) for key, value in sample.items()}
    if isinstance(sample, list) and sample and not isinstance(sample[0], (str, bytes, Mapping)):
        try:
            return torch.as_tensor(sample)
        except (TypeError, ValueError):
            return sample
    if isinstance(sample, (list, tuple)) and not hasattr(sample, "_fields"):
        return type(sample)(_arrays(value) for value in sample)
    return sample


def _batched(items: Iterator[Any], batch_size: int) -> Iterator[Any]:
    """The batches of an iterable, whether it yields batches or single samples."""
    first = next(items, None)
    if first is None:
        return
    items = itertools.chain([first], items)
    if not _single(first):
        yield from items
        return
    while some := list(itertools.islice(items, batch_size)):
        yield some if isinstance(first, str) else collated(some)


def _single(item: Any) -> bool:
    """Whether an item is one sample, not a batch: it is a text, or a part of it is a number or a text."""
    if isinstance(item, Mapping):
        return any(_number_or_text(value) for value in item.values())
    if isinstance(item, tuple) and not hasattr(item, "_fields"):
        return any(_number_or_text(value) for value in item)
    return isinstance(item, str)


def _number_or_text(value: Any) -> bool:
    single = isinstance(value, (Tensor, np.ndarray)) and value.ndim == 0
    return single or isinstance(value, (str, bytes, int, float, np.generic))


def _loaded(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader; where a worker of it died before its last one was taken over, the error says so."""
    try:
        yield from loader
    except (OSError, EOFError) as error:
        if not loader.num_workers or "DataLoader worker" in str(error):
            raise
        raise RuntimeError(f"A DataLoader worker ended before its batch was taken over ({error}).") from error


def _are_arrays(data: tuple[Any, ...]) -> bool:
    return len(data) == 2 and all(
        isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0 for value in data
    )


def _are_inputs_and_plain_labels(data: tuple[Any, ...]) -> bool:
    """Whether it is an array and a list (or pandas column) of single labels, which no batch could be."""
    if len(data) != 2 or not isinstance(data[0], (np.ndarray, Tensor)):
        return False
    labels = data[1]
    if isinstance(labels, list):
        return bool(labels) and all(isinstance(label, (str, int, float, np.generic)) for label in labels)
    return isinstance(labels, pd.Series)


def _slice(data: Any, start: int, stop: int) -> Any:
    if isinstance(data, Mapping):
        return {key: value[start:stop] for key, value in data.items()}
    return tuple(value[start:stop] for value in data)


def _as_tensors(content: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(content, np.ndarray) and content.dtype.kind in "biufc":  # labels may be strings
        tensor = torch.from_numpy(np.ascontiguousarray(content))
        if dtype is None:
            return tensor
        return (
            tensor.to(dtype)
            if tensor.is_floating_point() or (tensor.is_complex() and dtype.is_complex)
            else tensor
        )
    if isinstance(content, Mapping):
        return {key: _as_tensors(value, dtype) for key, value in content.items()}
    if isinstance(content, (tuple, list)) and not hasattr(content, "_fields"):
        return type(content)(_as_tensors(value, dtype) for value in content)
    return content


def _size(content: Any) -> int:
    size = count(content, _labels(content))
    if size is None:
        raise TypeError(
            "A batch must be a tensor, a tuple (x, y), a mapping, or a list with an entry a sample, but is a "
            f"{type(content).__name__}, of which nothing tells how many samples it holds. Yield such batches with "
            "what the network takes, and use `forward=` to call it."
        )
    return size


def _inputs(content: Any) -> Any:
    """What of a batch that is no mapping the network is given: several inputs in a tuple, or one."""
    if isinstance(content, PackedSequence):
        return content
    if isinstance(content, (tuple, list)):
        if len(content) > 2:
            raise TypeError(
                f"A batch must be a tensor, (x, y) or a mapping, but is a {type(content).__name__} of "
                f"{len(content)}. Use `forward=lambda model, batch: model(...)` to say what the network takes."
            )
        return content[0]
    return content


def _are_several(model: nn.Module, inputs: Any) -> bool:
    """Whether a tuple holds the network's arguments, which it then takes as many of."""
    if type(inputs) is not tuple:
        return False
    try:
        inspect.signature(model.forward).bind(*inputs)
    except (TypeError, ValueError):
        return False
    return True


def _fed(content: Any) -> str | None:
    """The key of labels that an encoder-decoder makes the decoder's input of, where that is not there itself."""
    if not isinstance(content, Mapping) or {"decoder_input_ids", "decoder_inputs_embeds"} & content.keys():
        return None
    return next(
        (key for key in LABEL_KEYS if isinstance(content.get(key), Tensor) and content[key].ndim == 2), None
    )


def _labels(content: Any) -> Any:
    if isinstance(content, Mapping):
        return next((content[key] for key in LABEL_KEYS if key in content), None)
    if isinstance(content, (tuple, list)) and len(content) == 2 and not isinstance(content, PackedSequence):
        return None if isinstance(content[0], (str, bytes)) else content[1]
    return None
