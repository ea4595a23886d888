"""Which axis of a layer's output holds the features, and which the samples.

By module type where the type decides (channels of a convolution, the last axis of a linear layer). Everything
else (an activation function, a block, a custom module) takes over the layout of the latest decided layer of
this forward pass whose output had the same shape, or the same number of axes and of features; failing that
the last axis holds the features. The axis taken is in the record, and `feature_axis=` overrides it.

The samples are on the first axis; on the second where the network has modules that run on (positions,
samples, features) and the sizes say so, or, where both sizes are equal, where the tensor comes straight from
such a module. A longer first axis is read as (samples × windows) only if the module was given such a tensor:
what a module makes from nothing but a length (position embeddings, say) is no activation of a sample.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ketwork.networks.activations.encoding import features_last

FeatureAxis = int | Mapping[str, int] | Callable[[str, nn.Module, Tensor], int] | None

# How many position axes the module's name promises; its output has one axis of channels before them.
_CHANNELS_FIRST: tuple[tuple[type, int | None], ...] = (
    *((t, 1) for t in (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)),
    *((t, 2) for t in (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)),
    *((t, 3) for t in (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d)),
    *((t, n) for n, t in enumerate((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), 1)),
    (nn.modules.batchnorm._NormBase, None),
    (nn.GroupNorm, None),
    (nn.modules.upsampling.Upsample, None),
    (nn.PixelShuffle, 2),
    (nn.PixelUnshuffle, 2),
)
_FEATURES_LAST = (
    nn.Linear,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)
# Over one axis, which subclasses for images move to the front again: the sizes tell.
_LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)
# By name, so that transformers need not be installed: its Conv1D is a linear layer with the features last.
_FEATURES_LAST_NAMES = ("Conv1D",)


@dataclass(frozen=True)
class Grid:
    """One call's activation as samples × positions × features.

    `values` is (N, T, d); T is 1 and `positions` False where a sample has a single ket. `axis` is where the
    features stood, `second` says that the samples stood on the second of the other axes.
    """

    values: Tensor
    axis: int
    positions: bool
    second: bool = False

    def restored(self, values: Tensor, output: Tensor) -> Tensor:
        """Other values (N, T, d) in the shape, dtype and strides of the output that the grid was made from."""
        shape = output.movedim(self.axis, -1).shape  # of an unbatched sample too: its T and N are 1
        if self.second:
            values = values.reshape(shape[1], shape[0], *shape[2:]).movedim(0, 1)
        values = values.reshape(shape).movedim(-1, self.axis)
        return torch.empty_like(output).copy_(values)  # what follows may take a `view` of it


@dataclass
class Layouts:
    """Decides each output's layout during one forward pass over `samples` samples."""

    feature_axis: FeatureAxis
    sequence_first: frozenset[str]
    samples: int = 0
    _decided: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    _transposed: list[weakref.ref[Tensor]] = field(default_factory=list)

    def begin(self, samples: int) -> None:
        """Forgets the last forward pass."""
        self.samples = samples
        self._decided.clear()
        self._transposed.clear()

    def observe(self, path: str, module: nn.Module, output: Tensor, inputs: list[Tensor]) -> None:
        """Notes what the module's type and inputs tell of its output's layout."""
        axis = axis_by_type(module, output)
        if axis is not None:
            self._decided.append((tuple(output.shape), axis))
        if path in self.sequence_first or any(self._is_transposed(given) for given in inputs):
            self._transposed.append(weakref.ref(output))

    def axis(self, path: str, module: nn.Module, output: Tensor) -> int:
        """The feature axis of an output, counted from the front."""
        given = self._given(path, module, output)
        axis = given if given is not None else axis_by_type(module, output)
        if axis is None:
            axis = self._inherited(output)
        if not -output.ndim <= axis < output.ndim:
            raise ValueError(
                f"Argument `feature_axis` must be an axis of the output of layer {path!r}, which has shape "
                f"{tuple(output.shape)}, but is {axis}."
            )
        return axis % output.ndim

    def grid(
        self, path: str, module: nn.Module, output: Tensor, inputs: list[Tensor], batch_first: bool = False
    ) -> Grid | str:
        """The output as samples × positions × features, or a sentence that says why it has no such form.

        `inputs` are the tensors that the module was given; `batch_first` says that the samples lead for sure.
        """
        if output.ndim == 0:
            return "its output is a single number"
        axis = self.axis(path, module, output)
        values = features_last(output, axis)
        if values.ndim == 1:
            values = values[None]  # an unbatched sample
        batch = self.samples
        second = (
            not batch_first and bool(self.sequence_first) and values.ndim >= 3 and values.shape[1] == batch
        )
        second = second and (values.shape[0] != batch or self._is_transposed(output))
        if second:
            values = values.movedim(1, 0)
        lead = values.shape[0]
        positions = values.ndim > 2
        if lead != batch:
            windows = any(given.ndim > 1 and len(given) == lead for given in inputs)
            if lead == 1 or not windows:
                return f"its output {tuple(output.shape)} is shared by all {batch} samples of the batch"
            if lead % batch:
                return f"its output {tuple(output.shape)} does not have the batch's {batch} samples on its first axis"
            positions = True  # (samples × windows, …): the windows of a sample follow each other
        return Grid(values.reshape(batch, -1, values.shape[-1]), axis, positions, second)

    def _is_transposed(self, tensor: Tensor) -> bool:
        return any(known() is tensor for known in self._transposed)

    def _given(self, path: str, module: nn.Module, output: Tensor) -> int | None:
        chosen = self.feature_axis
        if chosen is None or isinstance(chosen, int):
            return chosen
        if isinstance(chosen, Mapping):
            return chosen.get(path)
        return chosen(path, module, output)

    def _inherited(self, output: Tensor) -> int:
        shape = tuple(output.shape)
        for seen, axis in reversed(self._decided):
            if seen == shape:
                return axis
        for seen, axis in reversed(self._decided):
            if len(seen) == len(shape) and seen[axis] == shape[axis]:
                return axis
        return len(shape) - 1


def axis_by_type(module: nn.Module, output: Tensor) -> int | None:
    """The feature axis that the module's type decides, or None."""
    for kind, positions in _CHANNELS_FIRST:
        if isinstance(module, kind):
            if positions is None:
                return min(1, output.ndim - 1)
            return max(output.ndim - 1 - positions, 0)
    if isinstance(module, _LAYER_NORMS):
        shape = tuple(module.normalized_shape)
        return output.ndim - 1 if len(shape) == 1 and output.shape[-1:] == shape else None
    if isinstance(module, _FEATURES_LAST) or type(module).__name__ in _FEATURES_LAST_NAMES:
        return output.ndim - 1
    return None


def decides(module: nn.Module) -> bool:
    """Whether a module's type, with the sizes of its output, can decide a layout."""
    kinds = (*(kind for kind, _ in _CHANNELS_FIRST), *_FEATURES_LAST, *_LAYER_NORMS)
    return isinstance(module, kinds) or type(module).__name__ in _FEATURES_LAST_NAMES


def sequence_first_paths(model: nn.Module, tidy: Callable[[str], str]) -> frozenset[str]:
    """The modules that run on (positions, samples, features): those with `batch_first=False`, and what is in them."""
    found: list[str] = []
    for path, module in model.named_modules():
        attention = getattr(module, "self_attn", module)
        if getattr(attention, "batch_first", True) is False:
            found.append(path)
    inside = (
        path
        for path, _ in model.named_modules()
        if any(path == top or path.startswith(f"{top}.") or top == "" for top in found)
    )
    return frozenset(tidy(path) for path in inside)


def as_mask(mask: Tensor, samples: int) -> Tensor:
    """A mask as booleans, (samples, positions); True where the position is real."""
    mask = mask if mask.dtype == torch.bool else mask != 0
    if mask.ndim != 2 or mask.shape[0] != samples:
        raise ValueError(
            f"Argument `mask` must have shape (samples, positions) with {samples} samples in this batch, "
            f"but has shape {tuple(mask.shape)}."
        )
    return mask
