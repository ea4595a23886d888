"""Networks copied and taken apart: deep copies, modules replaced, BatchNorm folded into what is before it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

_FOLDED = (
    1e-4  # relative; surgery that changes the output by more was unsound: something else reads the layer too
)


def copied(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that shares nothing with the network.

    Raises:
        TypeError: the network cannot be copied.
    """
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise TypeError(
            f"Argument `model` must be a network that `copy.deepcopy` can copy, but a {type(model).__name__} "
            f"says: {error}."
        ) from error
    return twin.eval()


def replace(model: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """Puts each module in its place, by dotted path."""
    for path, module in modules.items():
        parent, _, name = path.rpartition(".")
        model.get_submodule(parent)._modules[name] = module


def fold_batchnorm(model: nn.Module, call: Callable[[nn.Module], Tensor]) -> dict[str, str]:
    """Folds each BatchNorm into the convolution or linear layer whose output it takes; which one, by path.

    A BatchNorm becomes an `nn.Identity`. Who feeds whom is seen in one `call(model)`, which must return a
    tensor; a fold that changes it (the layer's output is also used elsewhere) is taken back.
    """
    feeds = _feeders(model, call)
    if not feeds:
        return {}
    with torch.no_grad():
        before = call(model)
        undo = {norm: _fold(model, layer, norm) for norm, layer in feeds.items()}
        if same(before, call(model)):
            return feeds
        for norm in undo:
            replace(model, undo[norm])
        kept = {}
        for norm, layer in feeds.items():
            back = _fold(model, layer, norm)
            if same(before, call(model)):
                kept[norm] = layer
            else:
                replace(model, back)
    return kept


def _feeders(model: nn.Module, call: Callable[[nn.Module], Any]) -> dict[str, str]:
    """For each BatchNorm the layer whose output tensor was its input."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are kept, so that no id is used twice
    feeds: dict[str, str] = {}
    calls: dict[str, int] = {}

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                maker = made.get(id(inputs[0]))
                if maker is not None:
                    feeds[path] = maker[0]
            else:
                made[id(output)] = (path, output)

        return hook

    norms = [
        (path, module)
        for path, module in model.named_modules()
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) and module.running_var is not None
    ]
    if not norms:
        return {}
    makers = [(p, m) for p, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv1d, nn.Conv2d)]
    handles = [module.register_forward_hook(note(path)) for path, module in [*norms, *makers]]
    try:
        with torch.no_grad():
            call(model)
    finally:
        for handle in handles:
            handle.remove()
    once = {norm: layer for norm, layer in feeds.items() if calls[norm] == calls[layer] == 1}
    return {norm: layer for norm, layer in once.items() if _shared_by(layer, once.values()) == 1}


def _shared_by(layer: str, layers: Iterable[str]) -> int:
    return sum(layer == other for other in layers)


def _fold(model: nn.Module, layer: str, norm: str) -> dict[str, nn.Module]:
    """Folds one, and returns what `replace` needs to take it back."""
    old, batchnorm = model.get_submodule(layer), model.get_submodule(norm)
    fuse = fuse_linear_bn_eval if isinstance(old, nn.Linear) else fuse_conv_bn_eval
    replace(model, {layer: fuse(old, batchnorm), norm: nn.Identity().eval()})  # type: ignore[type-var, arg-type]
    return {layer: old, norm: batchnorm}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs differ by rounding alone."""
    scale = a.double().norm()
    return bool((a.double() - b.double()).norm() <= _FOLDED * scale)


def read_directly(
    model: nn.Module, paths: Iterable[tuple[str, ...]], call: Callable[[nn.Module], Any]
) -> dict[str, str]:
    """The layers, by their first path, in whose place no `nn.Sequential` can stand: other code reads their weight.

    Each is put into an `nn.Sequential` of its own and `call(model)` run: all together, and one by one where that fails.
    """
    modules = {path: model.get_submodule(path[0]) for path in paths}

    def fails(tried: Iterable[tuple[str, ...]]) -> str | None:
        for path in tried:
            replace(model, dict.fromkeys(path, nn.Sequential(modules[path]).eval()))
        try:
            with torch.no_grad():
                call(model)
        except (AttributeError, TypeError) as error:
            return f"the network's code reads its weight itself ({error})"
        finally:
            for path in tried:
                replace(model, dict.fromkeys(path, modules[path]))
        return None

    if fails(modules) is None:
        return {}
    reasons = {path[0]: fails([path]) for path in modules}
    return {path: reason for path, reason in reasons.items() if reason is not None}
