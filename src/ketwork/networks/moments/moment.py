"""Streaming second moments: Σ w |ψ⟩⟨ψ| over any number of kets, in memory set by their width alone.

While few kets have been seen they are kept themselves (n × d numbers say everything that d × d would); from
n = d/2 on their d × d moment is (see `gram` for its precision). Where that would not fit, a limit of ℓ puts a sketch in
its place from n = 2ℓ on (see `frequent_directions` for its error).
Moments form a monoid under `+`: batches, processes and studies add up in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.networks.moments.frequent_directions import FrequentDirections
from ketwork.networks.moments.grams import add_gram, mirrored
from ketwork.records.checked import Malformed, check_tensors

_CHUNK = 4096
_ROWS_OF_A_BATCH = 2  # a batch's n kets stay as they are up to n = 2d, where its d × d moment is smaller


@dataclass
class Moment:
    """Σ w, Σ √w ψ and Σ w |ψ⟩⟨ψ| over n kets of d features.

    With w = ‖a‖² these are Σ ‖a‖², Σ a and Σ a a†, so that centring gives the covariance of the activations.
    The last is held as `rows` (√w ⟨ψ| each, n × d, a list of batches), as `upper`: the d × d matrix in
    float64 of which only the upper block triangle is filled, or, with a `limit` ℓ, as a `sketch` of at most 2ℓ
    rows, beside which `populations` (d,) has the exact diagonal.
    """

    d: int
    n: int
    weight: float
    first: Tensor  # (d,) float64 or complex128
    rows: list[Tensor] | None
    upper: Tensor | None
    limit: int | None = None
    sketch: FrequentDirections | None = None
    populations: Tensor | None = None

    @classmethod
    def of(cls, kets: Tensor, weights: Tensor | None = None, limit: int | None = None) -> Moment:
        """The moment of a batch of kets (n, d) with weights (n,), 1 each by default; exact unless it has a `limit`.

        Cost O(n d²), with a limit O(n d limit).
        """
        n, d = kets.shape
        if weights is None:
            total, scaled = float(n), kets
        else:
            total, scaled = float(weights.sum(dtype=torch.float64)), kets * weights.sqrt()[:, None]
        first = scaled.sum(dim=0, dtype=_wide(kets))
        rows = scaled.conj() if scaled.is_complex() else scaled
        moment = cls(d, n, total, first, [rows], None, limit)
        if n > (_ROWS_OF_A_BATCH * d if limit is None else 2 * limit):
            moment.condense()
        return moment

    @classmethod
    def empty(cls, d: int, like: Tensor) -> Moment:
        """The moment of no kets, which any other of the same width can be added to."""
        first = torch.zeros(d, dtype=_wide(like), device=like.device)
        return cls(d, 0, 0.0, first, [], None)

    def __iadd__(self, other: Moment) -> Moment:
        if other.d != self.d:
            raise ValueError(f"Moments of {self.d} and of {other.d} features cannot be added.")
        self.n += other.n
        self.weight += other.weight
        self.first = self.first + other.first
        self.limit = max(filter(None, (self.limit, other.limit)), default=None)
        if self.rows is not None and other.rows is not None and not self._crowded():
            self.rows = self.rows + other.rows
            return self
        self.condense()
        if self.sketch is not None and self.populations is not None:
            for rows in other.factors():
                self.sketch.add(rows)
            if other.sketch is not None:
                self.sketch.absorb(other.sketch)
            self.populations = self.populations + other.diagonal()
            return self
        assert self.upper is not None
        if other.upper is not None:
            self.upper += other.upper
        else:
            for rows in other.factors():
                add_gram(self.upper, rows)
        return self

    def condense(self) -> None:
        """Goes over to the d × d moment, or to the sketch where there is a limit."""
        if self.limit is None and self.upper is None:
            upper = torch.zeros(self.d, self.d, dtype=self.first.dtype, device=self.first.device)
            for rows in self.factors():
                add_gram(upper, rows)
            self.rows, self.upper = None, upper
        elif self.limit is not None and self.sketch is None:
            populations = self.diagonal()
            sketch = FrequentDirections.empty(self.d, rank=self.limit, like=self.first)
            for rows in self.factors():
                sketch.add(rows)
            self.rows, self.upper, self.sketch, self.populations = None, None, sketch, populations

    def factors(self) -> list[Tensor]:
        """Parts (n, d) whose Σ r†r together are the moment, or what a sketch keeps of it. O(d³) of a dense one."""
        if self.rows is not None:
            return self.rows
        if self.sketch is not None:
            return [self.sketch.rows]
        values, vectors = torch.linalg.eigh(self.matrix())
        kept = values > 0
        return [(vectors[:, kept] * values[kept].sqrt().to(vectors)).mH]

    @property
    def slack(self) -> float:
        """The most by which `matrix()` falls short of the moment in any direction: 0 unless sketched."""
        return self.sketch.slack if self.sketch is not None else 0.0

    def factor(self) -> Tensor | None:
        """The rows √w ⟨ψ|, or those of the sketch, in float64, (n, d); None where the moment is dense."""
        if self.sketch is not None:
            return self.sketch.rows
        if self.rows is None:
            return None
        return torch.cat([self.first.new_zeros(0, self.d), *self.rows])

    def matrix(self) -> Tensor:
        """Σ w |ψ⟩⟨ψ|, (d, d), in float64 or complex128; of a sketch B†B, which falls short by up to `slack`."""
        factor = self.factor()
        if factor is not None:
            return factor.mH @ factor
        assert self.upper is not None
        return mirrored(self.upper)

    def diagonal(self) -> Tensor:
        """Σ w |ψⱼ|² for each feature j, (d,), float64; exact in every form."""
        if self.populations is not None:
            return self.populations
        if self.rows is not None:
            total = self.first.real.new_zeros(self.d)
            for rows in self.rows:
                for chunk in rows.split(_CHUNK):
                    total += chunk.to(self.first.dtype).abs().square().sum(dim=0)
            return total
        assert self.upper is not None
        return self.upper.diagonal().real.clone()

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` needs, for a file."""
        if self.rows is not None:
            if not self.rows:
                return {"first": self.first}
            # Sums over rows go batch by batch: the same batches later give the same digits.
            lengths = torch.tensor([len(rows) for rows in self.rows])
            return {"first": self.first, "rows": torch.cat(self.rows), "lengths": lengths}
        if self.sketch is not None and self.populations is not None:
            told = [self.sketch.rank, self.sketch.slack, self.sketch.lost]
            return {
                "first": self.first,
                "sketch": self.sketch.rows,
                "certificate": torch.tensor(told, dtype=torch.float64),
                "populations": self.populations,
            }
        assert self.upper is not None
        packed = [block[above] for block, above in _triangle(self.upper)]
        return {"first": self.first, "upper": torch.cat(packed)}

    def _crowded(self) -> bool:
        return self.n > (self.d // 2 if self.limit is None else 2 * self.limit)

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, Tensor], *, d: int, n: int, weight: float, limit: int | None = None
    ) -> Moment:
        """The moment that `tensors` described, which goes over to a sketch of `limit` directions later on."""
        sizes = {"d": d, "n": n, "half": d * (d + 1) // 2}
        check_tensors(tensors, sizes, first="sum d", rows="ket n d?", upper="sum half?", sketch="sum r d?")
        first = tensors["first"]
        given = next((form for form in ("sketch", "upper") if form in tensors), "rows")
        if (given not in tensors and n > 0) or tensors.get(given, first).is_complex() != first.is_complex():
            raise Malformed(
                f"a moment of {n} kets must hold their rows, their upper triangle or a sketch, of its own kind"
            )
        if given == "rows":
            return cls(d, n, weight, first, _batches(tensors, n) if "rows" in tensors else [], None, limit)
        if given == "sketch":
            check_tensors(tensors, {"d": d, "three": 3}, certificate="real three", populations="real d")
            rank, slack, lost = tensors["certificate"].tolist()
            if not (rank == int(rank) and 1 <= rank <= d and 0 <= slack <= lost):
                raise Malformed(
                    f"a sketch cannot have rank {rank:g}, error {slack:g} and lost weight {lost:g}"
                )
            sketch = FrequentDirections(int(rank), slack, lost, tensors["sketch"], len(tensors["sketch"]))
            return cls(d, n, weight, first, None, None, int(rank), sketch, tensors["populations"])
        upper, packed = first.new_zeros(d, d), tensors["upper"]
        for block, above in _triangle(upper):
            count = int(above.sum())
            block[above], packed = packed[:count], packed[count:]
        return cls(d, n, weight, first, None, upper)


def _triangle(matrix: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Views of some rows at a time, from their diagonal on, and what of them is on or above it."""
    for start in range(0, len(matrix), _CHUNK):
        block = matrix[start : start + _CHUNK, start:]
        yield block, torch.ones_like(block, dtype=torch.bool).triu()


def _batches(tensors: dict[str, Tensor], n: int) -> list[Tensor]:
    """The rows batch by batch, as they were."""
    check_tensors(tensors, {}, lengths="int b")
    lengths = tensors["lengths"].tolist()
    if min(lengths, default=0) < 0 or sum(lengths) != n:
        raise Malformed(f"the batches of {n} rows cannot have lengths {lengths[:8]}")
    return list(tensors["rows"].split(lengths))


def _wide(kets: Tensor) -> torch.dtype:
    return torch.complex128 if kets.is_complex() else torch.float64
