"""What a module must do before it is taken as a wave, tried on a few configurations."""

from collections.abc import Callable

import torch
from torch import Tensor

from ketwork.waves.spaces import Space


def tried(evaluate: Callable[[Tensor], Tensor], space: Space, x: Tensor) -> Tensor:
    """The log-amplitudes of x (n, sites), after checks of shape, dtype, finiteness and dependence on x alone.

    Raises:
        ValueError: naming what is wrong with the module, and what to do.
    """
    try:
        out = evaluate(x)
    except RuntimeError as error:
        raise ValueError(
            f"Argument `module` must take configurations (batch, {space.sites}) of {x.dtype}, but raised: {error}"
        ) from error
    count = len(x)
    if not isinstance(out, Tensor) or out.shape != (count,):
        shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"Argument `module` must give one log-amplitude a configuration, shape ({count},) for {count} of them, "
            f"but gave {shape}. Sum or squeeze its last axis."
        )
    if not (out.is_floating_point() or out.is_complex()):
        raise ValueError(f"Argument `module` must give real or complex floats, but gave {out.dtype}.")
    if not usable(out):
        raise ValueError(
            "Argument `module` must give finite log-amplitudes (−∞ for an amplitude of 0), but gave NaN or Inf."
        )
    if not torch.equal(out, evaluate(x)):
        raise ValueError(
            "Argument `module` must give the same output when evaluated again, but does not. "
            "Use `.eval()`, or take dropout out."
        )
    some, again = out[:3], evaluate(x[:3])
    seen = torch.isfinite(some.real)
    if not torch.allclose(again[seen], some[seen], rtol=1e-3, atol=1e-4):
        raise ValueError(
            "Argument `module` must judge each configuration by itself, but its output changes with the others "
            "in the batch. Use `.eval()`, or take batch normalisation out."
        )
    if space.size > 1 and bool((out == out[0]).all()) and len(torch.unique(x, dim=0)) > 1:
        raise ValueError(
            "Argument `module` must tell configurations apart, but gives all the same amplitude. "
            "Its gradient is then zero or symmetric; start its parameters at random."
        )
    return out


def usable(log: Tensor) -> bool:
    """Whether log-amplitudes are finite, or −∞ (an amplitude of 0) for some of them."""
    real = log.real if log.is_complex() else log
    phase = log.imag if log.is_complex() else torch.zeros_like(real)
    zero = real == -torch.inf
    return bool(
        (torch.isfinite(real) | zero).all() and (torch.isfinite(phase) | zero).all() and not zero.all()
    )
