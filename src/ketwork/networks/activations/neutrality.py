"""What the caller has set of PyTorch, and ketwork's own arithmetic and draws: neither changes the other.

*Precision.* Autocast lowers float32 products to 16 bits, and `torch.set_float32_matmul_precision` those of some
processors; a default device is where new tensors are made. The network runs with what its caller has set; ketwork's own
arithmetic does not.

*Autocast's cache.* What a network casts while gradients are off must not stay for the caller's next pass, which needs
them: the cache is off while the network runs here.

*Randomness.* The global generators (PyTorch's, NumPy's and Python's) are afterwards where they were. In other threads
than the main one they are not touched: threads share them, and would repeat each other's draws.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

_DEVICES = ("cpu", "cuda", "mps", "xpu")


@dataclass(frozen=True)
class _Settings:
    """The dtype of autocast by device, where it is on, and the precisions of float32 products that are lowered.

    `device` is the default one where that is not the CPU.
    """

    autocast: tuple[tuple[str, torch.dtype], ...]
    products: tuple[tuple[Any, str], ...]
    device: torch.device | None

    @classmethod
    def now(cls) -> _Settings:
        """Those of this thread."""
        autocast = tuple(
            (device, torch.get_autocast_dtype(device))
            for device in _DEVICES
            if torch.is_autocast_enabled(device)
        )
        # The get_default_device() of PyTorch 2.6 does not see `with torch.device(…)`.
        device = torch.empty(0).device
        return cls(autocast, tuple(_lowered()), None if device.type == "cpu" else device)


_CALLERS: ContextVar[_Settings | None] = ContextVar("callers", default=None)


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Arithmetic of ketwork's own: no autocast inside, float32 products in float32, and new tensors on the CPU."""
    settings = _Settings.now()
    if not (settings.autocast or settings.products or settings.device):
        yield
        return
    known = _CALLERS.get()
    token = _CALLERS.set(settings if known is None else known)
    try:
        with contextlib.ExitStack() as stack:
            for device, dtype in settings.autocast:
                stack.enter_context(torch.autocast(device, dtype, enabled=False))
            for place, before in settings.products:
                place.fp32_precision = "ieee"
                stack.callback(setattr, place, "fp32_precision", before)
            if settings.device is not None:
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        _CALLERS.reset(token)


@contextlib.contextmanager
def callers_precision() -> Iterator[None]:
    """What the network runs with, inside `full_precision`: what the code around that has set, but for the cache."""
    settings = _CALLERS.get() or _Settings.now()
    token = _CALLERS.set(None)
    try:
        with contextlib.ExitStack() as stack:
            for device, dtype in settings.autocast:
                stack.enter_context(torch.autocast(device, dtype, cache_enabled=False))
            for place, before in settings.products:
                stack.callback(setattr, place, "fp32_precision", place.fp32_precision)
                place.fp32_precision = before
            if settings.device is not None:
                stack.enter_context(settings.device)
            yield
    finally:
        _CALLERS.reset(token)


def _lowered() -> Iterator[tuple[Any, str]]:
    """What says how float32 products are computed, with its setting, where that is less than float32."""
    places = [getattr(backend, "matmul", None) for backend in (torch.backends.cuda, torch.backends.mkldnn)]
    if not all(hasattr(place, "fp32_precision") for place in places):
        places = [_Before29()]
    for place in places:
        if place.fp32_precision not in ("none", "ieee"):  # type: ignore[union-attr]
            yield place, place.fp32_precision  # type: ignore[union-attr]


class _Before29:
    """What PyTorch 2.9 calls the precision of each backend's products, in one setting."""

    @property
    def fp32_precision(self) -> str:
        """`"ieee"`, or `"high"` or `"medium"`."""
        precision = torch.get_float32_matmul_precision()
        return "ieee" if precision == "highest" else precision

    @fp32_precision.setter
    def fp32_precision(self, precision: str) -> None:
        torch.set_float32_matmul_precision("highest" if precision == "ieee" else precision)


@contextlib.contextmanager
def kept_randomness() -> Iterator[None]:
    """The global generators are afterwards where they were before."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  the global one, which is not ours
    try:
        with torch.random.fork_rng(_devices()):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def drawing(seed: int | None) -> Iterator[None]:
    """What the network draws inside is set by the seed, whatever was drawn before; None leaves it."""
    if seed is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with torch.random.fork_rng(_devices()):
        torch.manual_seed(seed % 2**63)
        yield


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """All of it: around what ketwork computes and draws; no tensor is made in inference mode.

    Gradients are recorded as the caller has it, so that a network that runs in the caller's data keeps no graph either.
    """
    grad = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(grad), full_precision(), kept_randomness():
        yield


def _devices() -> list[int]:
    """The CUDA devices in use."""
    return list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
