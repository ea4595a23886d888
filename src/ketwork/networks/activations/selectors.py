"""Which modules of a network are its layers: names, selectors, and the main layers, the default."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from torch import nn

from ketwork.networks.activations.decoders import Decoder, decoder_of
from ketwork.networks.activations.experts import expert_spots, number_of_experts
from ketwork.networks.activations.heads import HEAD, heads_of
from ketwork.networks.activations.naming import SelectorError, by_number
from ketwork.networks.activations.spots import ROOT, Spot, spot_of

Selector = str | re.Pattern[str] | nn.Module | type | Callable[[str, nn.Module], bool]
Layers = Selector | Iterable[Selector] | None

WRAPPED = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
"""What wrappers call the module inside them: those of `torch.compile`, of checkpoints and of FSDP."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NO_OPS = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.modules.dropout._DropoutNd,
)
_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
# By name, as each library has its own: stochastic depth, which drops whole branches in training.
DROP_NAMES = ("DropPath", "StochasticDepth")
# Layers that count as one whatever they have for children: convolutions are often subclassed with a padding
# module inside, and attention calls its projections' weights without calling the projections.
_SINGLE = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    *_NORMS,
    *_NO_OPS,
)
_ACTIVATIONS = tuple(
    kind
    for kind in vars(nn.modules.activation).values()
    if isinstance(kind, type)
    and issubclass(kind, nn.Module)
    and kind not in (nn.Module, nn.MultiheadAttention)
)
_NORM_NAME = re.compile(
    r"Norm(alization)?(\d?[dD])?$"
)  # LlamaRMSNorm, T5LayerNorm, LayerNorm2d, FrozenBatchNorm2d
_ADAPTED = re.compile(
    r"base_layer|original_module|lora_\w+", re.IGNORECASE
)  # what adapters call what they wrap and add


_WORDS = {
    "blocks": "repeated blocks",
    "decoder": "repeated blocks with attention in them",
    "experts": "module that is called with tokens and the experts that these go to",
    "heads": "attention whose heads can be seen (that of torch.nn calls no output projection)",
}
"""Words for parts of networks, and what they are."""


@dataclass(frozen=True)
class Selection:
    """The chosen modules by dotted path, in the network's order, and why each other one is skipped.

    A place in a module's input or output has the path with that behind it.
    """

    chosen: dict[str, nn.Module]
    skipped: dict[str, str]
    blocks: frozenset[str]


def select(model: nn.Module, layers: Layers = None) -> Selection:
    """The modules of `model` that `layers` names.

    Args:
        model: any module; it is not changed.
        layers: None for the main layers: the repeated blocks' outputs, and of what is in
            them everything that changes the representation: weighted layers, activations and pooling,
            in networks of repeated blocks with small units made of these (an attention's projections, say)
            counted as one; not dropout, identity, reshapes, nor normalisations, which rescale what the layer
            before them computed.
            `"all"` for every module, or selectors: `"blocks"` for the repeated blocks alone, `"decoder"` for the
            parts of a language model (see `ketwork.networks.activations.decoders`), `"heads"` for each head of its
            attention (`"layers.3.self_attn.head.5"`), `"experts"` for what each expert of a mixture is given
            (`"layers.3.mlp.experts:expert[5]"`), a dotted name,
            a glob (`"encoder.*.linear"`), a compiled pattern (searched for in the name), a module, a module
            type, a callable `(name, module) -> bool`, or a list of these. A name or glob with `:input` behind it
            (`"*.down_proj:input"`) is what the modules are called with, with `:output[1]` that part of what they put
            out, see `ketwork.networks.activations.spots`. A module that is called as one of these words is what
            such a name means.

    Raises:
        SelectorError: a selector matches nothing; the nearest names are listed.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Dropout(), nn.Linear(3, 2))
    >>> list(select(net).chosen)
    ['(model)', '0', '1', '3']
    >>> select(net).skipped
    {'2': 'Dropout does nothing in evaluation'}
    """
    modules = modules_of(model)
    blocks = _blocks(modules)
    if layers is None:
        return _default(modules, blocks)
    if isinstance(layers, str) and layers == "all":
        return Selection(modules, {}, blocks)
    heads = {
        spot.name: spot
        for each in heads_of(modules).values()
        for spot in each.spots
        if spot.name not in modules
    }
    chosen: dict[str, set[str]] = {}
    for selector in _as_list(layers):
        spots = list(_spots(selector, modules, blocks, heads))
        if not spots:
            place = spot_of(selector) if isinstance(selector, str) else None
            raise SelectorError(_nothing_matches(selector if place is None else place.path, modules))
        for spot in spots:
            chosen.setdefault(spot.path, set()).add(spot.name)
    rows = {name: modules[path] for path in modules for name in sorted(chosen.get(path, ()), key=by_number)}
    return Selection(rows, {}, blocks)


def places_of(model: nn.Module, names: Iterable[str]) -> dict[str, list[Spot]]:
    """The places that names of rows mean, by the path of the module; a module's own name is no place in another."""
    modules = modules_of(model)
    heads = {spot.name: spot for each in heads_of(modules).values() for spot in each.spots}
    places: dict[str, list[Spot]] = {}
    for name in names:
        spot = None if name in modules else heads.get(name) or spot_of(name)
        if spot is not None:
            places.setdefault(spot.path, []).append(spot)
    return places


def decoder(model: nn.Module) -> Decoder | None:
    """The parts of a language model's decoder, by their paths; None of another network."""
    modules = modules_of(model)
    return decoder_of(modules, _blocks(modules), _is_norm)


def _spots(
    selector: Selector, modules: dict[str, nn.Module], blocks: frozenset[str], heads: dict[str, Spot]
) -> Iterator[Spot]:
    """The places that a selector chooses.

    Raises:
        SelectorError: it is a word for parts that this network does not have.
    """
    if isinstance(selector, str) and selector not in modules:
        if selector in _WORDS:
            yield from _of_word(selector, modules, blocks, heads)
            return
        if HEAD in selector:  # a glob of modules does not choose heads too
            yield from (spot for name, spot in heads.items() if fnmatch.fnmatchcase(name, selector))
        spot = spot_of(selector)
        if spot is not None:
            for path, module in modules.items():
                if _matches(spot.path, path, module):
                    yield from (
                        expert_spots(path, module, spot)
                        if spot.side == "expert"
                        else [replace(spot, path=path)]
                    )
            return
    yield from (Spot(path, "output") for path, module in modules.items() if _matches(selector, path, module))


def _of_word(
    word: str, modules: dict[str, nn.Module], blocks: frozenset[str], heads: dict[str, Spot]
) -> Iterator[Spot]:
    if word == "blocks":
        places = [Spot(path, "output") for path in modules if path in blocks]
    elif word == "heads":
        places = list(heads.values())
    elif word == "experts":
        routing = [(path, m) for path, m in modules.items() if number_of_experts(m) is not None]
        places = [spot for path, m in routing for spot in expert_spots(path, m, Spot(path, "expert"))]
    else:
        parts = decoder_of(modules, blocks, _is_norm)
        places = [spot_of(name) or Spot(name, "output") for name in ([] if parts is None else parts.rows)]
    if not places:
        raise SelectorError(
            f"Argument `layers` is {word!r}, but this network has no {_WORDS[word]}. "
            f"Leave it out for the default, or name layers, such as {_some(modules)}."
        )
    yield from places


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """A network's modules by their paths, as users write them."""
    return {tidy(path): module for path, module in model.named_modules()}


def tidy(path: str) -> str:
    """A module's path as users write it: without wrappers of `torch.compile` and the like; `(model)` for the root."""
    return ".".join(part for part in path.split(".") if part not in WRAPPED) or ROOT


def _default(modules: dict[str, nn.Module], blocks: frozenset[str]) -> Selection:
    chosen, skipped = {}, {}
    for path, module in modules.items():
        reason = _left_out(path, module, modules, blocks)
        if reason is None:
            chosen[path] = module
        else:
            skipped[path] = reason
    return Selection(chosen, skipped, blocks)


def _left_out(
    path: str, module: nn.Module, modules: dict[str, nn.Module], blocks: frozenset[str]
) -> str | None:
    """Why the default selection leaves this module out, or None if it is a layer."""
    if path == ROOT:
        return None
    for parent in _ancestors(path):
        if _is_one(modules[parent]):
            return f"a part of {parent} ({type(modules[parent]).__name__})"
        if blocks and _is_unit(parent, modules, blocks):
            return f"inside {parent}, which counts as one layer"
    kind = type(module).__name__
    if isinstance(module, nn.modules.dropout._DropoutNd) or kind.endswith(DROP_NAMES):
        return f"{kind} does nothing in evaluation"
    if isinstance(module, _NO_OPS):
        return f"{kind} only passes on or reshapes"
    if _is_norm(module):
        return f"{kind} rescales the layer before it"
    if path in blocks or _is_unit(path, modules, blocks) or _is_one(module):
        return None
    if any(True for _ in module.children()):
        return f"{kind} only holds the layers inside it"
    return None


def _is_one(module: nn.Module) -> bool:
    """Whether a module counts as one layer whatever is inside it; so does a layer that an adapter (LoRA) wraps."""
    return isinstance(module, _SINGLE) or any(_ADAPTED.fullmatch(name) for name, _ in module.named_children())


def _is_norm(module: nn.Module) -> bool:
    """Whether a module only normalizes: by its forward, or by its name where that is not PyTorch's own.

    One with an activation function in it (timm's `BatchNormAct2d`) does more.
    """
    if any(not isinstance(child, _NO_OPS) for child in module.children()):
        return False
    if isinstance(module, _NORMS) and type(module).forward.__module__.startswith("torch."):
        return True
    return _NORM_NAME.search(type(module).__name__) is not None and all(
        p.ndim <= 1 for p in module.parameters()
    )


def _blocks(modules: dict[str, nn.Module]) -> frozenset[str]:
    """The repeated blocks, also where a stage holds a single one of what other stages of its class repeat.

    `modules` has parents first.
    """

    def kinds(path: str) -> tuple[type, type]:
        return type(modules[_parent(path)]), type(modules[path])

    repeated: set[str] = set()
    for path in modules:
        if _is_block(path, modules, inside=not repeated.isdisjoint(_ancestors(path))):
            repeated.add(path)
    known = {kinds(path) for path in repeated}
    return frozenset(repeated | {path for path in modules if path != ROOT and kinds(path) in known})


def _is_block(path: str, modules: dict[str, nn.Module], inside: bool) -> bool:
    """A composite that stands in an indexed container, or beside another of its own class.

    Inside a block (a stage of blocks) only where all in the container are of one class, or the siblings' names are
    numbered and they hold more than linear layers: a decoder's two attentions, and the parts of a block in a list,
    are none.
    """
    module = modules[path]
    if (
        path == ROOT
        or isinstance(module, _CONTAINERS)
        or _is_one(module)
        or not any(True for _ in module.children())
    ):
        return False
    parent = modules.get(_parent(path))
    if parent is None:
        return False
    siblings = Counter(type(child) for child in parent.children())
    if isinstance(parent, _CONTAINERS):
        return not inside or len(siblings) == 1
    if siblings[type(module)] < 2:
        return False
    return not inside or (path[-1].isdigit() and any(_is_nonlinear(part) for part in module.modules()))


def _is_nonlinear(module: nn.Module) -> bool:
    return _is_norm(module) or isinstance(module, _ACTIVATIONS)


def _is_unit(path: str, modules: dict[str, nn.Module], blocks: frozenset[str]) -> bool:
    """A composite of simple layers only, which a drawing would show as one box (an attention, a pooler)."""
    module = modules[path]
    if path == ROOT or path in blocks or isinstance(module, _CONTAINERS) or _is_one(module):
        return False
    children = list(module.children())
    simple = all(_is_one(child) or not any(True for _ in child.children()) for child in children)
    return bool(children) and simple and any(True for _ in module.parameters())


def _matches(selector: Selector, path: str, module: nn.Module) -> bool:
    if isinstance(selector, str):
        return path == (selector or ROOT) or fnmatch.fnmatchcase(path, selector)
    if isinstance(selector, re.Pattern):
        return selector.search(path) is not None
    if isinstance(selector, nn.Module):
        return module is selector
    if isinstance(selector, type):
        return isinstance(module, selector)
    if callable(selector):
        return bool(selector(path, module))
    raise TypeError(
        "Argument `layers` must be a name, a glob, a compiled pattern, a module, a module type, a callable "
        f"or a list of these, but holds a {type(selector).__name__}."
    )


def _nothing_matches(selector: Selector, modules: dict[str, nn.Module]) -> str:
    text = repr(selector.pattern) if isinstance(selector, re.Pattern) else repr(selector)
    if isinstance(selector, nn.Module):
        text = f"a {type(selector).__name__} that is not a part of this network"
    near: list[str] = []
    if isinstance(selector, (str, re.Pattern)):
        word = selector if isinstance(selector, str) else selector.pattern
        near = difflib.get_close_matches(word, modules, n=5, cutoff=0.3)
    hint = f"The nearest names are {', '.join(near)}." if near else f"Its modules are {_some(modules)}."
    return f"Argument `layers` must name modules of the network, but {text} matches none. {hint}"


def _some(modules: dict[str, nn.Module], most: int = 8) -> str:
    names = list(modules)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _as_list(layers: Layers) -> list[Selector]:
    if isinstance(layers, (str, re.Pattern, nn.Module, type)) or not isinstance(layers, Iterable):
        return [layers]  # type: ignore[list-item]
    selectors = list(layers)
    if not selectors:
        raise SelectorError(
            "Argument `layers` must name at least one layer, but is empty. Use None for the default."
        )
    return selectors


def _parent(path: str) -> str:
    return path.rpartition(".")[0] or ROOT


def _ancestors(path: str) -> Iterable[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path
