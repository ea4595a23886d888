"""Entanglement of a sample's positions with its features: the exact entropies of some samples, taken as they pass.

A sample's activation A (T × d) of norm 1 is a state Σ aₜⱼ|t⟩|j⟩. Its entanglement entropy is that of the eigenvalues of
AA† (T × T) or A†A (d × d), whichever is smaller, over all positions that exist. Only the entropy is kept. Of which
samples is decided by their random keys, as in the reservoir: the first so many, so that layers of one pass have the
same samples, and parts add up to those of all (see `_kept`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from torch import Tensor

from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.entropy_solver import EntropySolver, entropies_of
from ketwork.networks.moments.positions import Positions
from ketwork.records import Count, Form, Malformed

MOST = 128
"""At most so many samples: the standard error of a mean over 128 is itself good to about 6 %."""

LEAST = 16
"""So many at least, whatever they cost."""

WORK = 4 * 10**9
"""Beyond `LEAST`, multiplications for all samples of a layer together (`_work`)."""

_EIGEN = 4  # an eigenvalue problem of n dimensions takes as long as so many times n³ multiplications
_STEP = 8  # samples whose numbers of positions agree when rounded up to this are decomposed together
_NUMBERS = 1 << 20  # of samples that are decomposed together, or one sample's if that is more


@dataclass
class Entanglements:
    """Entropies (R,) in bits of R samples with their keys and numbers of positions that are not zero, by their keys.

    A sample whose key is not below `cut` would not stay; None where any would.
    """

    d: Count
    keys: Annotated[Tensor, Form("real r")]
    positions: Annotated[Tensor, Form("int r")]
    entropies: Annotated[Tensor, Form("real r")]
    cut: float | None = None

    def check(self) -> None:
        """No entropy is beyond what so many positions and features allow."""
        if not bool((self.positions > 0).all()):
            raise Malformed("an entanglement entropy must be of samples with positions")
        within = (self.entropies >= 0) & (self.entropies <= self.sides.double().log2() + 1e-6)
        if not bool(within.all()) or len(self.keys) > MOST:
            raise Malformed(
                f"entanglement entropies must lie in 0 … log2 of the smaller side, of {MOST} samples at most"
            )

    @classmethod
    def from_batch(
        cls,
        values: Tensor,
        positions: Positions,
        keys: BatchKeys,
        solver: EntropySolver,
        cut: float | None = None,
        nonzero: Tensor | None = None,
    ) -> Self:
        """Those of one batch: activations (N, T, d), positions that exist, keys (N,).

        `cut` is that of the batches before, `nonzero` (N,) are the positions that are not zero, where these are fewer.
        The entropies are there when the `solver` has run, and samples without them drop out when these counts are on
        the host (`settle`). Cost: O(T d s + s³) a sample that is kept, s = min(T, d); memory O(T d).
        """
        d = values.shape[2]
        counts = positions.sizes
        order = keys.first(len(keys), _number(cut))
        order = order[counts[order] > 0]
        kept = _kept(counts[order], d)
        if kept < len(order):
            cut = float(keys.values[order[kept]])
        order = order[:kept]
        there = counts[order] if nonzero is None else nonzero[order.to(values.device)]
        result = cls(d, keys.values[order], there, torch.zeros(len(order), dtype=torch.float64), cut)
        _hand_over(values, positions, order, solver, result.entropies)
        return result

    def settle(self) -> None:
        """Drops samples all of whose vectors are zero, once their counts are on the host."""
        some = self.positions > 0
        if not bool(some.all()):
            self.keys, self.positions = self.keys[some], self.positions[some]
            self.entropies = self.entropies[some]

    @classmethod
    def from_grams(cls, keys: Tensor, counts: Tensor, grams: Tensor, sides: Tensor, d: int) -> Self | None:
        """Those of normalised Gram matrices (R, s, s), as version 0.1 kept them; None where they lack positions."""
        some = sides > 0
        if bool((sides < counts.clamp(max=d)).any()) or not len(keys):
            return None
        order = some.nonzero().squeeze(1)[keys[some].argsort()]
        wide = torch.complex128 if grams.is_complex() else torch.float64
        entropies = entropies_of(torch.linalg.eigvalsh(grams[order].to(wide)))
        return cls(d, keys[order], counts[order], entropies, math.nextafter(float(keys.max()), math.inf))

    @property
    def sides(self) -> Tensor:
        """The smaller number of each sample's positions and features, (R,)."""
        return self.positions.clamp(max=self.d)

    def __iadd__(self, other: Self) -> Self:
        keys = torch.cat([self.keys, other.keys])
        cut = min(_number(self.cut), _number(other.cut))
        order = keys.argsort(stable=True)
        order = order[keys[order] < cut]
        positions = torch.cat([self.positions, other.positions])
        kept = _kept(positions[order], self.d)
        if kept < len(order):
            cut = float(keys[order[kept]])
        self.cut = None if math.isinf(cut) else cut
        order = order[:kept]
        self.keys, self.positions = keys[order], positions[order]
        self.entropies = torch.cat([self.entropies, other.entropies])[order]
        return self


def _number(cut: float | None) -> float:
    return math.inf if cut is None else cut


def _kept(positions: Tensor, d: int) -> int:
    """How many of the first samples (R,) in the order of their keys stay.

    A sample stays if it is among the first `LEAST`, or if it is among the first `MOST` and all up to it take no more
    than `WORK`. Each of these grows with what comes before, so that the first of a part hold all of it that is
    among the first of the whole: parts may be cut before they are added.
    """
    work = _work(positions.double(), d).cumsum(0)
    place = torch.arange(len(positions), device=positions.device)
    return int(((place < LEAST) | ((place < MOST) & (work <= WORK))).sum())


def _work(positions: Tensor, d: int) -> Tensor:
    """Multiplications that samples of so many positions take, (R,): the Gram matrix and its eigenvalues."""
    side = positions.clamp(max=d)
    return positions * d * side + _EIGEN * side**3


def _hand_over(
    values: Tensor, positions: Positions, which: Tensor, solver: EntropySolver, result: Tensor
) -> None:
    """Gives a solver these samples (R,) of (n, T, d), whose entropies go to `result` (R,).

    Samples of about as many positions go together, those that they lack being 0, which adds eigenvalues of 0 alone.
    """
    t, d = values.shape[1:]
    counts = positions.sizes[which]
    sizes = (-(-counts // _STEP) * _STEP).clamp(max=t)
    for size in sizes.unique().tolist():
        for some in (sizes == size).nonzero().squeeze(1).split(max(1, _NUMBERS // max(1, size * d))):
            samples = which[some].to(values.device)
            if positions.present is None:
                rows = values[samples]
            else:
                rows = values[samples[:, None], positions.order[samples, :size]]
                missing = torch.arange(size, device=values.device) >= counts[some, None].to(values.device)
                rows.masked_fill_(missing[..., None], 0)
            solver.add(_gram(rows), result, some)


def _gram(rows: Tensor) -> Tensor:
    """The smaller Gram matrix of each (T, d) of (n, T, d), in 64 bits a number."""
    if rows.dtype in (torch.float64, torch.complex128):  # whose squares may be out of range
        scale = rows.abs().amax(dim=(1, 2), keepdim=True)
        rows = rows / torch.where(scale > 0, scale, 1.0)
    rows = rows.to(torch.complex128 if rows.is_complex() else torch.float64)
    return rows.mH @ rows if rows.shape[2] < rows.shape[1] else rows @ rows.mH
