"""Random states and unitaries, uniform in the sense that their names say."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork.quantum.seeding import Seed, generator_or_none
from ketwork.quantum.states import Density, Ket


@renamed(generator="seed")
def random_ket(
    d: int,
    batch: Sequence[int] = (),
    *,
    dims: Sequence[int] | None = None,
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
    seed: Seed | None = None,
) -> Ket:
    """Returns Haar-random kets (*batch, d): uniform on the unit sphere of C^d, or of R^d for a real dtype.

    The two differ in their averages: for 2×2 the mean entanglement is 1/3 nat for complex kets (Page 1993)
    but 0.277 for real ones, the mean purity (m + n)/(mn + 1) but (m + n + 1)/(mn + 2).
    """
    return Ket.normalized(_gaussian((*batch, d), dtype, device, seed), dims)


@renamed(generator="seed")
def random_density(
    d: int,
    rank: int | None = None,
    batch: Sequence[int] = (),
    *,
    dims: Sequence[int] | None = None,
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
    seed: Seed | None = None,
) -> Density:
    """Returns random states of rank `rank` (None: d) by the induced measure: G†G/Tr G†G, with Gaussian G.

    It is a Haar-random ket of d × rank dimensions with the second part traced out; rank d is the
    Hilbert–Schmidt measure (Życzkowski and Sommers 2001, quant-ph/0012101). Real dtype: real states.
    """
    rows = d if rank is None else rank
    return Density.from_factor(_gaussian((*batch, rows, d), dtype, device, seed), dims, normalize=True)


@renamed(generator="seed")
def random_unitary(
    d: int,
    *,
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
    seed: Seed | None = None,
) -> Tensor:
    """Returns a Haar-random unitary (d, d), orthogonal for a real dtype (Mezzadri 2007, math-ph/0609050)."""
    q, r = torch.linalg.qr(_gaussian((d, d), dtype, device, seed))
    return q * torch.sgn(torch.diagonal(r))


def _gaussian(
    size: Sequence[int],
    dtype: torch.dtype,
    device: torch.device | str | None,
    seed: Seed | None,
) -> Tensor:
    generator = generator_or_none(seed, device or "cpu")
    return torch.randn(tuple(size), dtype=dtype, device=device, generator=generator)
