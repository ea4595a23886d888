"""Networks inside wrappers: `torch.compile`, data-parallel training, parameters that are sharded over processes."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `torch.compile` and data-parallel wrappers.

    Raises:
        TypeError: not an `nn.Module`, a TorchScript one, or one whose parameters are sharded over processes.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Argument `model` must be a torch.nn.Module, but is a {type(model).__name__}.")
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        if "_orig_mod" in model._modules:
            model = model._orig_mod  # type: ignore[assignment]
        elif isinstance(model, wrappers):
            model = model.module
        else:
            break
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            "Argument `model` is a TorchScript module, which refuses forward hooks. "
            "Pass the Python module that it was scripted or traced from."
        )
    if isinstance(model, torch.fx.GraphModule) and "eval" in vars(model):
        raise TypeError(
            "Argument `model` is the module of an exported program (torch.export), which shows no module inside it. "
            "Pass the network that it was exported from."
        )
    if _sharded(model):
        raise TypeError(
            "Argument `model` is sharded over processes (FSDP or tensor parallelism): no process has a whole layer, "
            "and every forward pass needs all processes at once, so that one with more data than another would wait "
            "for ever. Load the weights into the network before it is sharded; "
            "`torch.distributed.checkpoint.state_dict.get_model_state_dict` gathers them with `full_state_dict=True`."
        )
    return model


def _sharded(model: nn.Module) -> bool:
    """Whether parts of the network's parameters are elsewhere; asked of what is loaded, since loading it takes long."""
    tensor, fsdp = (sys.modules.get(f"torch.distributed.{name}") for name in ("tensor", "fsdp"))
    parts = tensor is not None and any(isinstance(p, tensor.DTensor) for p in model.parameters())
    return parts or (
        fsdp is not None and any(isinstance(m, fsdp.FullyShardedDataParallel) for m in model.modules())
    )


def eager(model: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """A context in which no part of the network runs compiled.

    Compiled parts run past the hooks, so they run eagerly here: the same network, not compiled."""
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in model.modules())
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


def device_of(model: nn.Module) -> torch.device:
    """The device of the network's first parameter or buffer; the CPU where it has none."""
    first = next(itertools.chain(model.parameters(), model.buffers()), None)
    return first.device if first is not None else torch.device("cpu")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the network's first floating parameter, else PyTorch's default."""
    dtypes = (p.dtype for p in model.parameters() if p.is_floating_point() or p.is_complex())
    return next(dtypes, torch.get_default_dtype())


@contextlib.contextmanager
def placed(model: nn.Module, device: torch.device | str | None) -> Iterator[torch.device]:
    """The network on a device (None: where it is), and back where it was afterwards; yields the device."""
    home = device_of(model)
    if device is None:
        yield home
        return
    target = torch.device(device)
    try:
        model.to(target)
        yield target
    finally:
        model.to(home)


_EVALUATING: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()
_FLAGS: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()
_LOCK = threading.Lock()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The network in evaluation mode; its training flags are what they were once the last of such contexts ends.

    Several may be open at once, in several threads, on networks that share modules.
    """
    modules = list(model.modules())
    with _LOCK:
        for module in modules:
            if not _EVALUATING.get(module):
                _FLAGS[module] = module.training
            _EVALUATING[module] = _EVALUATING.get(module, 0) + 1
        model.eval()
    try:
        yield
    finally:
        with _LOCK:
            for module in modules:
                _EVALUATING[module] -= 1
                if not _EVALUATING[module]:
                    module.training = _FLAGS.pop(module)


def needs_labels(model: nn.Module) -> bool:
    """Whether a network is an encoder-decoder of transformers, which makes the decoder's input of labels."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))
