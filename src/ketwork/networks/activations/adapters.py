"""Networks with adapters of the peft library, recognized by what they have, so that it need not be installed."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn


def base_of(model: nn.Module) -> nn.Module | None:
    """The network that adapters were put into; None where the model is none with adapters, or they are learnt prompts.

    Its modules have the names that they had, and it puts out what the model does.
    """
    if not hasattr(model, "peft_config") or not callable(getattr(model, "get_base_model", None)):
        return None
    config = getattr(model, "active_peft_config", None)
    if config is None or config.is_prompt_learning:
        return None  # which the model itself puts before each text
    return model.get_base_model()  # type: ignore[operator]


def switch(model: Any, other: Any) -> tuple[_Switch, _Switch]:
    """What each of two models runs in: of a model with adapters and the base they were put into, without for the base.

    Both are then one network, which needs no second copy.
    """
    return _of(model, other), _of(other, model)


_Switch = Callable[[], contextlib.AbstractContextManager[None]]


def _of(model: Any, other: Any) -> _Switch:
    if isinstance(other, nn.Module) and model is not other and base_of(other) is model:
        return lambda: _without(other)
    return contextlib.nullcontext


@contextlib.contextmanager
def _without(model: Any) -> Iterator[None]:
    """The network without its adapters.

    Raises:
        ValueError: they are merged into its weights.
    """
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise ValueError(
            "Argument `other` is the network that the adapters of `model` were put into, but they are merged into its "
            "weights. Call `unmerge_adapter()` first."
        )
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():
            yield
    finally:
        for parameter, before in wanted:
            if parameter.requires_grad is not before:
                parameter.requires_grad_(before)


def adapts(model: nn.Module) -> bool:
    """Whether a network computes with adapters: some are in it, and not switched off."""
    return any(
        _adapter(module) and not getattr(module, "disable_adapters", False) for module in model.modules()
    )


def weights_of(model: nn.Module, adapters: bool = True) -> dict[str, Callable[[], Tensor]]:
    """What gives each weight that a network computes with, by its name, adapters merged into it or (False) without.

    Names are those of the network that the adapters were put into; a weight that two modules share has both.

    >>> [(name, tuple(weight().shape)) for name, weight in weights_of(nn.Linear(3, 2)).items()]
    [('weight', (2, 3)), ('bias', (2,))]
    """
    weights: dict[str, Callable[[], Tensor]] = {}

    def add(module: nn.Module, path: str) -> None:
        if _adapter(module):
            add_adapted(module, path)
            return
        if hasattr(module, "modules_to_save") and isinstance(
            getattr(module, "original_module", None), nn.Module
        ):
            active = [name for name in _active(module) if name in module.modules_to_save]  # type: ignore
            used = adapters and active and not getattr(module, "disable_adapters", False)
            add(module.modules_to_save[active[0]] if used else module.original_module, path)  # type: ignore
            return
        for name, parameter in module._parameters.items():
            if parameter is not None:
                weights[f"{path}.{name}".lstrip(".")] = lambda parameter=parameter: parameter.detach()  # type: ignore[misc]
        for name, child in module._modules.items():
            if child is not None:
                add(child, f"{path}.{name}".lstrip("."))

    def add_adapted(module: Any, path: str) -> None:
        def merged(name: str) -> Tensor:
            used = adapters and not getattr(module, "disable_adapters", False)
            if used == bool(module.merged):
                return module.get_base_layer().get_parameter(name).detach()
            changed = _copied(module)
            changed.merge() if used else changed.unmerge()
            return changed.get_base_layer().get_parameter(name).detach()

        for name, _ in module.get_base_layer().named_parameters():
            weights[f"{path}.{name}".lstrip(".")] = lambda name=name: merged(name)  # type: ignore[misc]

    add(model, "")
    return weights


def _adapter(module: nn.Module) -> bool:
    """Whether a module is one of peft's that computes what another did, and something more."""
    return all(callable(getattr(module, name, None)) for name in ("get_base_layer", "merge", "unmerge"))


def _copied(module: nn.Module) -> Any:
    """A copy without the hooks of the module, which belong to whoever put them there."""
    hooks = {
        id(value): type(value)()
        for part in module.modules()
        for name, value in vars(part).items()
        if name.endswith("hooks") and isinstance(value, dict)
    }
    return copy.deepcopy(module, dict(hooks))


def _active(module: Any) -> list[str]:
    """The adapters in use; before PEFT 0.17 a module that is saved has a single one."""
    names = module.active_adapters if hasattr(module, "active_adapters") else module.active_adapter
    return [names] if isinstance(names, str) else list(names)
