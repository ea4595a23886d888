"""Σ r†r over rows, summed in float64 from products in the rows' own precision, where small parts survive a large one.

A common direction v (activations share a mean, often 0.999 of their weight) would leave its rounding errors, 6e−8 of
itself in float32, on everything smaller. So each row is split as r = a v + s with one number a, and only the
products s†s are left to the rows' precision; what v takes part in is summed in float64:

    Σ r†r = Σ s†s + v†(Σ ā s) + (Σ ā s)†v + (Σ |a|²) v†v.

The identity holds for any v and a, whatever rounding they suffered. Here v is the mean of the rows turned to agree
with the first one that is not 0, so that a mean of either sign or phase is found, and a = ⟨v, r⟩ keeps s small. Real v
and a are cut to half of their digits (Dekker 1971, Numer. Math. 18): a v is exact then, and s rounded as itself, not
as r.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_LONGEST_SUM = 4096  # rows summed in their own precision before the float64 sum takes over
_ROWS_OF_A_MEAN = 256
_BLOCKED_FROM = 256  # from this width on only the upper block triangle is computed
_BLOCKS = 4


def add_gram(upper: Tensor, rows: Tensor) -> None:
    """Adds Σ r†r of the rows (n, d) to the upper block triangle of `upper` (d, d), in float64 or complex128.

    5/8 of the products of the full square. Cost O(n d²) in the rows' precision, O(n d + d²) in float64.
    """
    d = rows.shape[1]
    if not len(rows):
        return
    common = _halved(_common(rows))
    wide = common.to(upper)
    step = d if d < _BLOCKED_FROM else -(-d // _BLOCKS)
    cross, power = torch.zeros_like(wide), wide.real.new_zeros(())
    for chunk in rows.split(_LONGEST_SUM):
        shares = _halved(chunk @ common.conj())
        rest = _less(chunk, shares, common)
        cross += shares.conj() @ rest
        power += shares.to(upper).abs().square().sum()
        for start in range(0, d, step):
            stop = min(start + step, d)
            upper[start:stop, start:] += rest[:, start:stop].mH @ rest[:, start:]
    half = cross + wide * (power / 2)  # what v takes part in is v†half + half†v
    left, right = torch.stack([wide.conj(), half.conj()], dim=1), torch.stack([half, wide])  # (d, 2), (2, d)
    for start in range(0, d, step):
        stop = min(start + step, d)
        upper[start:stop, start:].addmm_(left[start:stop], right[:, start:])


def gram(rows: Tensor) -> Tensor:
    """Σ r†r of the rows (n, d), (d, d) in float64 or complex128."""
    wide = torch.complex128 if rows.is_complex() else torch.float64
    upper = torch.zeros(rows.shape[1], rows.shape[1], dtype=wide, device=rows.device)
    add_gram(upper, rows)
    return mirrored(upper)


def mirrored(upper: Tensor) -> Tensor:
    """The Hermitian matrix of which `upper` fills the upper triangle."""
    above = upper.triu(1)
    matrix = above + above.mH
    matrix.diagonal().copy_(upper.diagonal().real)
    return matrix


def packed(upper: Tensor, at_once: int = _LONGEST_SUM) -> Tensor:
    """The upper triangle of a matrix (d, d), row by row, (d (d + 1)/2,); so many rows are taken at once."""
    return torch.cat([block[above] for block, above in _triangle(upper, at_once)])


def unpacked(triangle: Tensor, d: int, at_once: int = _LONGEST_SUM) -> Tensor:
    """The matrix (d, d) whose upper triangle `packed` gave, 0 below it."""
    upper = triangle.new_zeros(d, d)
    for block, above in _triangle(upper, at_once):
        count = int(above.sum())
        block[above], triangle = triangle[:count], triangle[count:]
    return upper


def _triangle(matrix: Tensor, at_once: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of some rows at a time, from their diagonal on, and what of them is on or above it."""
    for start in range(0, len(matrix), at_once):
        block = matrix[start : start + at_once, start:]
        yield block, torch.ones_like(block, dtype=torch.bool).triu()


def _less(rows: Tensor, shares: Tensor, common: Tensor) -> Tensor:
    """r − a v of each row, rounded once."""
    if not rows.is_complex():
        return torch.addr(rows, shares, common, alpha=-1)
    wide = (
        torch.complex128
    )  # products of complex numbers are sums of two, which would be rounded alike in all rows
    return torch.addr(rows.to(wide), shares.to(wide), common.to(wide), alpha=-1).to(rows)


def _halved(numbers: Tensor) -> Tensor:
    """The leading half of the digits of real numbers, so that products of two such are exact."""
    if numbers.is_complex():
        return numbers
    factor = 2.0 ** (12 if numbers.dtype == torch.float32 else 27) + 1
    scaled = numbers * factor
    return scaled - (scaled - numbers)


def _common(rows: Tensor) -> Tensor:
    """A unit vector near the leading direction of the rows, where one leads (0 where all of the first ones are 0)."""
    some = rows[:_ROWS_OF_A_MEAN]
    longer = torch.linalg.vector_norm(some, dim=1) > 0
    first = some.index_select(0, longer.byte().argmax(dim=0, keepdim=True))[0]
    turned = (some @ first.conj()).conj() @ some
    return turned / torch.linalg.vector_norm(turned).clamp(min=torch.finfo(turned.dtype).tiny)
