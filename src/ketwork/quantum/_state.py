"""What kets and density operators share: a tensor with leading batch axes, and the subsystems."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork.quantum._born import draw
from ketwork.quantum.seeding import Seed, generator_or_none


class BaseState(ABC):
    """A batch of states over one tensor, whose last axis is the space."""

    dims: tuple[int, ...]

    @property
    @abstractmethod
    def _tensor(self) -> Tensor:
        """The tensor that holds the state."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """The leading axes."""

    @abstractmethod
    def _with(self, tensor: Tensor) -> Self:
        """The same kind of state over another tensor."""

    @abstractmethod
    def probabilities(self, basis: Tensor | None = None) -> Tensor:
        """Returns Born's probabilities (*batch, d)."""

    @property
    def d(self) -> int:
        """The dimension of the space."""
        return self._tensor.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the state."""
        return self._tensor.dtype

    @property
    def device(self) -> torch.device:
        """The device of the state."""
        return self._tensor.device

    @renamed(generator="seed")
    def measure(
        self,
        shots: int | None = None,
        *,
        basis: Tensor | None = None,
        seed: Seed | None = None,
    ) -> Tensor:
        """Returns outcomes by Born's rule, int64, (*batch,) or with `shots` (*batch, shots).

        Outcome i stands for column i of `basis` (the computational basis where None). Each shot measures a
        fresh copy; for the state afterwards see `Ket.collapse` and `Measurement.measure`. `seed` is an integer or a
        generator; None is torch's global one.
        """
        if shots is not None and shots < 0:
            raise ValueError(f"Argument `shots` must be ≥ 0 or None, but is {shots}.")
        return draw(self.probabilities(basis), shots, generator_or_none(seed, self.device))

    def to(
        self, device: torch.device | str | torch.dtype | None = None, dtype: torch.dtype | None = None
    ) -> Self:
        """Returns the state on another device or in another floating-point dtype."""
        x = self._tensor
        if isinstance(device, torch.dtype):
            device, dtype = None, device
        dtype = dtype or x.dtype
        if not (dtype.is_complex or (dtype.is_floating_point and not x.is_complex())):
            wanted = "complex" if x.is_complex() else "floating-point or complex"
            raise TypeError(f"Argument `dtype` must be {wanted} for a state in {x.dtype}, but is {dtype}.")
        return self._with(x.to(device=device, dtype=dtype))

    def __getitem__(self, index: object) -> Self:
        """The states at an index of the batch."""
        if not self.batch_shape:
            raise IndexError("The state has no batch axis to index.")
        chosen = index if isinstance(index, tuple) else (index,)
        if not any(i is Ellipsis for i in chosen):
            chosen = (*chosen, Ellipsis)
        rest = (slice(None),) * (self._tensor.ndim - len(self.batch_shape))
        return self._with(self._tensor[(*chosen, *rest)])

    def _summary(self, rank: str = "") -> str:
        batch = f"batch={tuple(self.batch_shape)}, " if self.batch_shape else ""
        name = str(self.dtype).removeprefix("torch.")
        return f"{type(self).__name__}({batch}d={'×'.join(map(str, self.dims))}{rank}, {name})"


def stack_tensors(tensors: Sequence[Tensor], dim: int) -> Tensor:
    """Tensors of equal shape stacked in the dtype they promote to."""
    dtype = tensors[0].dtype
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return torch.stack([x.to(dtype) for x in tensors], dim)


def kron(a: Tensor, b: Tensor) -> Tensor:
    """Kronecker product of the last two axes, batched over the others."""
    return (a[..., :, None, :, None] * b[..., None, :, None, :]).flatten(-4, -3).flatten(-2, -1)
