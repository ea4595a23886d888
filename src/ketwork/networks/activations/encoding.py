"""Activations to kets and back: the one doorway between networks and quantum states.

Every number that ketwork states of a network passes through here, so each assumption is written down:

*Features.* One axis of the activation holds the features (neurons, channels). It becomes the axis of
amplitudes: |ψ⟩ = Σⱼ cⱼ|j⟩ with one basis state |j⟩ a neuron, in the order of the neurons.

*Positions.* Every other axis is a batch axis: each sample and each position of it (token, pixel) is a ket
of its own. Nothing is mixed over positions here.

*Normalisation.* c = a/‖a‖. The length ‖a‖ is returned beside the ket, so nothing is lost. A study then
weighs kets equally (`normalize="state"`) or by ‖a‖² (`normalize="ensemble"`, the density matrix
proportional to the plain second moment Σ a a†).

*Centring.* None by default: a quantum state has an origin, a cloud of points has not. `center=` subtracts a
given mean from the activation before it is normalised, and `decode` adds it back.

*Signs and phases.* A real activation gives real amplitudes; a negative one has phase π. A complex
activation keeps its phases.

*Zero vectors* have no direction. Their ket is |0⟩ by convention and their norm is 0, so that `decode`
returns them exactly; whatever averages kets leaves out those whose norm is 0 and counts them.

*Precision.* float16 and bfloat16 are widened to float32 first; other floating dtypes stay as they are.
Norms are computed without overflow or underflow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ketwork.quantum import Ket

_NARROW = (torch.float16, torch.bfloat16)
_CACHED = 1 << 18  # numbers
_WIDE = {torch.float32: torch.float64, torch.complex64: torch.complex128}


def encode(activation: Tensor, *, axis: int = -1, center: Tensor | None = None) -> tuple[Ket, Tensor]:
    """The kets of an activation, and their norms.

    c = a/‖a‖ along `axis`; see the module's docstring for each assumption.

    Args:
        activation: real or complex floating tensor; `axis` holds the features, d of them.
        axis: the feature axis (1 for the channels of a convolution's output).
        center: a mean of shape (d,) to subtract first; None leaves the origin where it is.

    Returns:
        (ket, norm): `ket.amplitudes` has shape (*other axes, d), `norm` has shape (*other axes).

    Raises:
        TypeError: an integer or boolean activation.
        ValueError: NaN or infinite values.

    Cost: O(size of the activation).

    >>> import torch
    >>> ket, norm = encode(torch.tensor([[3.0, -4.0], [0.0, 0.0]]))
    >>> ket.amplitudes.tolist()
    [[0.6..., -0.8...], [1.0, 0.0]]
    >>> norm.tolist()
    [5.0, 0.0]
    >>> decode(ket, norm).tolist()
    [[3.0, -4.0], [0.0, 0.0]]
    """
    rows = features_last(activation, axis)
    if center is not None:
        rows = rows - center.to(rows)
    kets, norm = unit(rows)
    if not torch.isfinite(norm).all():
        raise ValueError(
            "Argument `activation` must be finite, but holds NaN or infinite values. "
            "Find where they arise, or drop those samples first."
        )
    first = torch.zeros_like(kets[..., :1]).add_(1)
    kets = torch.cat([torch.where(norm[..., None] == 0, first, kets[..., :1]), kets[..., 1:]], dim=-1)
    return Ket(kets), norm


def decode(ket: Ket, norm: Tensor, *, axis: int = -1, center: Tensor | None = None) -> Tensor:
    """The activation whose `encode` gave this ket and norm, exact to rounding: a = ‖a‖ c (+ center).

    Args:
        ket: kets of shape (*other axes, d).
        norm: their norms, shape (*other axes).
        axis: where the feature axis goes.
        center: the mean that was subtracted.
    """
    rows = ket.amplitudes * norm[..., None]
    if center is not None:
        rows = rows + center.to(rows)
    return rows.movedim(-1, axis)


def features_last(activation: Tensor, axis: int) -> Tensor:
    """The activation with its features on the last axis, in a dtype wide enough to compute in."""
    if not (activation.is_floating_point() or activation.is_complex()):
        raise TypeError(
            "Argument `activation` must be a floating-point or complex tensor, "
            f"but has dtype {activation.dtype}. Convert it with `.float()` if its numbers are amplitudes."
        )
    rows = activation.movedim(axis, -1)
    if rows.dtype in _NARROW:
        return rows.float()
    return rows.to(torch.complex64) if rows.dtype == torch.complex32 else rows


def pieces(rows: Tensor) -> Sequence[Tensor]:
    """Rows split along their first axis so that a processor's cache holds a wider copy of each part.

    To get memory for a copy of many rows takes longer than to compute it. Rows on other devices are one part.
    """
    if rows.device.type != "cpu" or rows.ndim < 2 or rows.numel() <= _CACHED:
        return (rows,)
    return rows.split(max(1, _CACHED // max(1, rows[0].numel())))


def unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """(rows/‖row‖, ‖row‖) along the last axis; zero rows stay zero, non-finite rows get a non-finite norm."""
    wide = _WIDE.get(rows.dtype)
    if wide is not None:  # whose squares are in the range of
        norms = [torch.linalg.vector_norm(part, dim=-1, dtype=wide) for part in pieces(rows)]
        norm = (norms[0] if len(norms) == 1 else torch.cat(norms)).to(rows.real.dtype)
        return rows / torch.where(norm > 0, norm, 1.0)[..., None], norm
    # Squares below the smallest normal number lose digits, and above the largest overflow.
    info = torch.finfo(rows.dtype)
    low, high = info.tiny**0.5 / info.eps, info.max**0.5 * info.eps
    scale = rows.abs().amax(dim=-1, keepdim=True)
    usual = (scale > low) & (scale < high)
    safe = torch.where(usual | (scale == 0) | ~torch.isfinite(scale), 1.0, scale)
    scaled = rows / safe
    length = torch.linalg.vector_norm(scaled, dim=-1)
    return scaled / torch.where(length > 0, length, 1.0)[..., None], length * safe[..., 0]
