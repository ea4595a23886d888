"""Which axis of an output holds the features: by the module that made it, or by the one that reads it.

During one forward pass `Flow` follows tensors from module to module, through views of the same memory. What settles an
axis, in this order:

1. the type of the module that put the tensor out (a convolution's channels, a linear layer's last axis), also through
   modules that keep every entry in its place (activation functions, normalizations);
2. the types of modules that read it, or such a view of it, where they agree;
3. the module's own parameters, where exactly one axis has the size of one of theirs;
4. the tensor that the module was given, where it has the same shape; else what its inner layers agree on: those whose
   outputs have its sizes, where these differ, in this order alone; or all, where the axis is the only one with the
   width of one of them;
5. other modules of its class;
6. where no module of the whole pass says anything (`nn.Identity`, activation functions alone), the convention for data:
   features last.

Sizes alone settle nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ketwork.networks.activations.selectors import DROP_NAMES
from ketwork.networks.activations.spots import ROOT

# How many position axes the module's name promises; its output has one axis of channels before them.
_CHANNELS_FIRST: tuple[tuple[type, int | None], ...] = (
    *((t, 1) for t in (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d)),
    *((t, 2) for t in (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)),
    *((t, 3) for t in (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d)),
    *((t, n) for n, t in enumerate((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), 1)),
    (nn.modules.batchnorm._NormBase, None),
    (nn.GroupNorm, None),
    (nn.LocalResponseNorm, None),
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
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
_LAYER_NORMS = (nn.LayerNorm, nn.RMSNorm)
# By name, so that transformers need not be installed: its Conv1D is a linear layer with the features last.
_FEATURES_LAST_NAMES = ("Conv1D",)
_LAYER_NORM_NAMES = ("RMSNorm", "LayerNorm")
# Of these every entry of the output stands where the one that it is made from stood.
_MIXING = (nn.Module, nn.MultiheadAttention, nn.GLU, nn.Softmax, nn.LogSoftmax, nn.Softmax2d)
_IN_PLACE = (
    *(
        kind
        for kind in vars(nn.modules.activation).values()
        if isinstance(kind, type) and issubclass(kind, nn.Module) and kind not in _MIXING
    ),
    nn.modules.dropout._DropoutNd,
    nn.Identity,
)


def decides(module: nn.Module) -> bool:
    """Whether a module's type says where the features of what it reads or puts out are."""
    kinds = (*(kind for kind, _ in _CHANNELS_FIRST), *_FEATURES_LAST, *_LAYER_NORMS, *_IN_PLACE)
    return (
        isinstance(module, kinds)
        or type(module).__name__ in _FEATURES_LAST_NAMES
        or type(module).__name__.endswith((*_LAYER_NORM_NAMES, *DROP_NAMES))
    )


@dataclass(frozen=True)
class Axis:
    """An axis of features, and what settled it."""

    number: int
    by: str


@dataclass
class _Node:
    """One tensor of the pass: its memory and how it lies there, and what modules say of its axes."""

    memory: StorageWeakRef
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    made: Axis | None = None
    read: list[Axis] = field(default_factory=list)
    sized: list[int] = field(default_factory=list)  # axes of the size of a parameter of the module's own
    same: list[int] = field(default_factory=list)  # nodes whose entries stand at the same places
    given: list[int] = field(default_factory=list)  # inputs of the same shape
    inner: list[int] = field(default_factory=list)  # outputs inside the module with as many axes
    kind: str = ""
    state: bool = False  # what a recurrent layer returns beside its output


@dataclass
class Flow:
    """The tensors of one forward pass, and which axes of them are known to hold features."""

    _nodes: list[_Node] = field(default_factory=list)
    _at: dict[int, list[int]] = field(default_factory=dict)
    _outputs: list[tuple[str, int]] = field(default_factory=list)

    def see(self, path: str, module: nn.Module, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Takes note of one call: the tensors that the module was given and put out."""
        inputs = [self._node(tensor) for tensor in given if tensor.is_floating_point() or tensor.is_complex()]
        first = True
        for tensor in outputs:
            node = self._node(tensor)
            if tensor.ndim == 0:
                continue  # a loss comes before the scores that it is of
            self._note(path, module, node, inputs, first)
            self._nodes[node].state |= isinstance(module, nn.RNNBase) and not first
            first = False
        if inputs and (axis := _read(module, self._nodes[inputs[0]].shape)) is not None:
            self._nodes[inputs[0]].read.append(Axis(axis, f"read by {type(module).__name__}"))
        if isinstance(module, nn.MultiheadAttention):
            for node in inputs[1:3]:
                self._nodes[node].read.append(Axis(len(self._nodes[node].shape) - 1, "read by attention"))

    def node(self, output: Tensor) -> int:
        """The node of an output, for `settled` once the pass is over."""
        return self._node(output)

    def is_state(self, node: int) -> bool:
        """Whether an output is what a recurrent layer returns beside its own."""
        return self._nodes[node].state

    def is_single(self, node: int) -> bool:
        """Whether an output is one that a module made with a single feature, without the axis of that feature."""
        here = self._nodes[node]
        for other in self._at[here.memory.cdata]:
            each = self._nodes[other]
            if each.made is None or each.shape[each.made.number] != 1 or each.offset != here.offset:
                continue
            axes = list(zip(each.shape, each.strides, strict=True))
            del axes[each.made.number]
            if axes == list(zip(here.shape, here.strides, strict=True)):
                return True
        return False

    def settled(self, node: int, samples: int) -> Axis | None:
        """The axis of features of an output whose samples stand on another axis; None where nothing settles it."""
        shape = self._nodes[node].shape
        left = [axis for axis in range(len(shape)) if axis != samples]
        if len(left) == 1:
            return Axis(left[0], "the only other axis")
        feature_axis = self._settled(node, samples, set())
        if feature_axis is None:
            kind = self._nodes[node].kind
            alike = {
                other.number
                for place, each in enumerate(self._nodes)
                if each.kind == kind and kind and len(each.shape) == len(shape)
                if (other := self._settled(place, -1, set())) is not None
            }
            feature_axis = Axis(alike.pop(), f"as other {kind}") if len(alike) == 1 else None
        if feature_axis is None and not any(each.made or each.read or each.sized for each in self._nodes):
            feature_axis = Axis(len(shape) - 1, "the convention for data: features last")
        return None if feature_axis is None or feature_axis.number == samples else feature_axis

    def _settled(self, node: int, samples: int, seen: set[int]) -> Axis | None:
        here = self._nodes[node]
        group = self._same(node)
        if (made := _agreed([each.made for each in group if each.made is not None])) is not None:
            return made
        if (read := _agreed([axis for each in group for axis in each.read])) is not None:
            return read
        sized = [axis for axis in here.sized if axis != samples]
        if len(sized) == 1:
            return Axis(sized[0], "the size of its parameters")
        if node in seen:
            return None
        seen.add(node)
        given = [axis for other in here.given if (axis := self._settled(other, samples, seen)) is not None]
        if (agreed := _agreed(given)) is not None:
            return Axis(agreed.number, "as its input")
        inner = [
            (axis, self._nodes[other].shape)
            for other in here.inner
            if (axis := self._settled(other, samples, seen)) is not None
        ]
        sizes = [size for axis, size in enumerate(here.shape) if axis != samples]
        alike = [(axis, shape) for axis, shape in inner if sorted(shape) == sorted(here.shape)]
        agreed = _agreed([axis for axis, _ in alike])
        if (
            agreed is not None
            and len({*sizes}) == len(sizes)
            and {shape for _, shape in alike} == {here.shape}
        ):
            return Axis(agreed.number, "as its inner layers")
        agreed = _agreed([axis for axis, _ in inner])
        widths = {shape[axis.number] for axis, shape in inner}
        fits = [axis for axis, size in enumerate(here.shape) if axis != samples and size in widths]
        if agreed is not None and fits == [agreed.number]:
            return Axis(agreed.number, "as its inner layers")
        return None

    def _same(self, node: int) -> list[_Node]:
        """The node and all whose entries stand at the same places, with their axes as those of the node."""
        group, known = [], {node}
        todo: list[tuple[int, tuple[int | None, ...]]] = [(node, tuple(range(len(self._nodes[node].shape))))]
        while todo:
            place, axes = todo.pop()
            here = self._nodes[place]
            group.append(_moved(here, axes))
            views = [
                (other, mapped)
                for other in self._at[here.memory.cdata]
                if other not in known and (mapped := _as_view(self._nodes[other], here, axes)) is not None
            ]
            for other, mapped in [*((same, axes) for same in here.same if same not in known), *views]:
                known.add(other)
                todo.append((other, mapped))
        return group

    def _note(self, path: str, module: nn.Module, node: int, inputs: list[int], first: bool) -> None:
        here = self._nodes[node]
        same = [place for place in inputs if self._nodes[place].shape == here.shape and place != node]
        made = made_axis(module, here.shape, first)
        if made is not None and here.made is None:
            here.made = Axis(made, type(module).__name__)
        if _keeps(module) and inputs and inputs[0] in same:
            here.same.append(inputs[0])
            self._nodes[inputs[0]].same.append(node)
        if first:
            here.kind = here.kind or type(module).__name__
            here.given += [place for place in same if place not in here.given]
            inside = "" if path == ROOT else f"{path}."
            inner = [place for name, place in self._outputs if name.startswith(inside) and name != path]
            here.inner += [p for p in inner if p != node and len(self._nodes[p].shape) == len(here.shape)]
            here.sized = here.sized or _sized(module, here.shape)
        self._outputs.append((path, node))

    def _node(self, tensor: Tensor) -> int:
        memory = StorageWeakRef(tensor.untyped_storage())
        shape, strides = tuple(tensor.shape), tuple(tensor.stride())
        offset = int(tensor.storage_offset())
        places = self._at.setdefault(memory.cdata, [])
        for place in places:
            node = self._nodes[place]
            if (node.shape, node.strides, node.offset) == (shape, strides, offset):
                return place
        self._nodes.append(_Node(memory, shape, strides, offset))
        places.append(len(self._nodes) - 1)
        return len(self._nodes) - 1


def _moved(node: _Node, axes: tuple[int | None, ...]) -> _Node:
    """What is known of a node with its axes renamed; `axes` has the new name of each, None for one that has none."""
    moved = _Node(node.memory, node.shape, node.strides, node.offset)
    if node.made is not None and axes[node.made.number] is not None:
        moved.made = Axis(axes[node.made.number], node.made.by)  # type: ignore[arg-type]
    moved.read = [Axis(new, axis.by) for axis in node.read if (new := axes[axis.number]) is not None]
    return moved


def _as_view(other: _Node, here: _Node, axes: tuple[int | None, ...]) -> tuple[int | None, ...] | None:
    """The names of another node's axes that lies in the same memory, by those of `here`; None if none is shared."""
    if other.offset != here.offset:
        return None
    places = list(zip(here.shape, here.strides, strict=True))
    mapped = tuple(
        axes[places.index(place)] if place[0] > 1 and places.count(place) == 1 else None
        for place in zip(other.shape, other.strides, strict=True)
    )
    return mapped if any(axis is not None for axis in mapped) else None


def _agreed(axes: list[Axis]) -> Axis | None:
    """The axis that all say, None where they differ or there is none."""
    return axes[0] if axes and len({axis.number for axis in axes}) == 1 else None


def made_axis(module: nn.Module, shape: tuple[int, ...], first: bool = True) -> int | None:
    """The axis of features of what a module puts out, where its type says."""
    if isinstance(module, nn.RNNBase):
        return len(shape) - 1
    if not first:
        return None
    if isinstance(module, (nn.Softmax, nn.LogSoftmax)):
        return None if module.dim is None else module.dim % len(shape)
    return _channels(module, shape)


def _read(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The axis of features of what a module reads, where its type says."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return None
    return _channels(module, shape)


def _channels(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    for kind, positions in _CHANNELS_FIRST:
        if isinstance(module, kind):
            if positions is None:
                return min(1, len(shape) - 1)
            return max(len(shape) - 1 - positions, 0)
    if isinstance(module, _LAYER_NORMS):
        # Subclasses for images move the channels to the front again.
        own = type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward)
        return len(shape) - 1 if own and len(module.normalized_shape) == 1 else _last(module, shape)
    if isinstance(module, _FEATURES_LAST) or type(module).__name__ in _FEATURES_LAST_NAMES:
        return len(shape) - 1
    return _last(module, shape) if type(module).__name__.endswith(_LAYER_NORM_NAMES) else None


def _last(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """The last axis, where a normalization's weight has its size and no other axis has."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 1:
        return None
    return len(shape) - 1 if shape.count(len(weight)) == 1 and shape[-1] == len(weight) else None


def _keeps(module: nn.Module) -> bool:
    """Whether each entry of a module's output stands where the one that it is made from stood."""
    norms = (nn.modules.batchnorm._NormBase, nn.GroupNorm, *_LAYER_NORMS)
    names = (*_LAYER_NORM_NAMES, *DROP_NAMES)
    return isinstance(module, (*_IN_PLACE, *norms)) or type(module).__name__.endswith(names)


def _sized(module: nn.Module, shape: tuple[int, ...]) -> list[int]:
    """The axes that have the size of an axis of a module's own parameters."""
    sizes = {size for weight in module.parameters(recurse=False) for size in weight.shape if size > 1}
    return [axis for axis, size in enumerate(shape) if size in sizes]
