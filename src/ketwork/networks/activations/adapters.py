"""Networks with adapters of the peft library, recognized by what they have, so that it need not be installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


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
