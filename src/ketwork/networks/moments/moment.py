"""Streaming second moments: Σ w |ψ⟩⟨ψ| over any number of kets, in memory set by their width alone.

While few kets have been seen they are kept themselves (n × d numbers say everything that d × d would); from
n = d/2 on their d × d moment is (see `gram` for its precision), or of kets that lie in a known span the moment in its
coordinates (see `range_moment`). Where that would not fit, a limit of ℓ puts a sketch in its place from n = 2ℓ on (see
`frequent_directions` for its error).
Moments form a monoid under `+`: batches, processes and studies add up in any order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ketwork.networks.activations import LinearRange, pieces
from ketwork.networks.moments.device_numbers import Place, numbers_of, read_numbers
from ketwork.networks.moments.frequent_directions import FrequentDirections
from ketwork.networks.moments.grams import add_gram, mirrored, packed, unpacked
from ketwork.networks.moments.leading_states import LeadingStates, missing_states
from ketwork.networks.moments.positions import total, wide
from ketwork.networks.moments.range_moment import Coordinates, RangeMoment
from ketwork.networks.moments.stored_moment import StoredMoment

_ROWS_OF_A_BATCH = 2  # a batch's n kets stay as they are up to n = 2d, where its d × d moment is smaller


class Moment:
    """Σ w, Σ √w ψ and Σ w |ψ⟩⟨ψ| over n kets of d features.

    With w = ‖a‖² these are Σ ‖a‖², Σ a and Σ a a†, so that centring gives the covariance of the activations.
    The last is held as `rows` (√w ⟨ψ| each, n × d, a list of batches), as `upper`: the d × d matrix in
    float64 of which only the upper block triangle is filled, of kets in a smaller span as `ranged`, or, with a `limit`
    ℓ, as a `sketch` of at most 2ℓ rows. Beside the latter two `populations` (d,) has the exact diagonal. Of a moment
    from a small file the `leading` states and the diagonal are left: what needs more raises `MissingStatesError`. The
    `span` is that of a batch, and `inside` the coordinates of its rows: neither takes part in sums.
    """

    Stored = StoredMoment

    def __init__(
        self,
        d: int,
        n: int,
        weight: float,
        first: Tensor,  # (d,) float64 or complex128
        rows: list[Tensor] | None,
        upper: Tensor | None,
        limit: int | None = None,
        sketch: FrequentDirections | None = None,
        populations: Tensor | None = None,
        leading: LeadingStates | None = None,
        ranged: RangeMoment | None = None,
        span: LinearRange | None = None,
    ) -> None:
        self.d, self.n, self.weight, self.first = d, n, weight, first
        self.rows, self.upper, self.limit = rows, upper, limit
        self.sketch, self.populations, self.leading = sketch, populations, leading
        self.ranged, self.span = ranged, span
        self.inside: Coordinates | None = None

    @classmethod
    def from_vectors(
        cls,
        kets: Tensor,
        weights: Tensor | None = None,
        limit: int | None = None,
        span: LinearRange | None = None,
    ) -> Moment:
        """The moment of a batch of kets (n, d) with weights (n,), 1 each by default; exact unless it has a `limit`.

        Cost O(n d²), of kets that lie in a `span` of r dimensions O(n d r), with a limit O(n d limit).
        """
        moment = cls.from_batch(kets, weights, limit, span)
        read_numbers(moment.unread())
        moment.settle()
        return moment

    @classmethod
    def from_batch(
        cls,
        kets: Tensor,
        weights: Tensor | None = None,
        limit: int | None = None,
        span: LinearRange | None = None,
        before: Moment | None = None,
    ) -> Moment:
        """The same inside a hook, where nothing is read off the device: `unread` is, and then `settle` called.

        Rows may be 0. `before` is the moment that this one will be added to.
        """
        n, d = kets.shape
        scaled = kets if weights is None else kets * weights.sqrt()[:, None]
        rows = scaled.conj() if scaled.is_complex() else scaled
        moment = cls(d, n, float(n), total(scaled), [rows], None, limit, span=span)
        if weights is not None:
            moment.weight = weights.sum(dtype=torch.float64)  # type: ignore[assignment]
        if limit is None and span is None and n > _ROWS_OF_A_BATCH * d:
            moment.condense()
        elif limit is None and span is not None:
            joins = before is not None and (before.ranged is not None or before.n + n > span.rank)
            if joins or n > _ROWS_OF_A_BATCH * span.rank:
                moment.inside = Coordinates.of(rows, span.states)
        return moment

    def unread(self) -> list[Place]:
        """What of a batch is on the device still."""
        return numbers_of([self] if self.inside is None else [self, self.inside])

    def settle(self, zeros: int = 0, alike: bool = True) -> None:
        """Drops a batch's zero rows, which weigh 1 each if all are `alike`, and goes over to the form for the rest."""
        self.n -= zeros
        if alike:
            self.weight -= zeros
        if zeros and self.rows is not None:
            some = (self.rows[0] != 0).any(dim=1)
            self.rows = [self.rows[0][some]]
            if self.inside is not None:
                self.inside.z = self.inside.z[some]
        if self.inside is not None and not self.inside.within:
            self.inside = None
        side = self.d if self.span is None else self.span.rank
        if self.rows is None or self.n <= (_ROWS_OF_A_BATCH * side if self.limit is None else 2 * self.limit):
            return
        if self.inside is None or self.span is None:
            self.condense()
            return
        self.populations, self.ranged, self.rows = self.diagonal(), RangeMoment.empty(self.span.states), None
        self.ranged.add(self.inside.z)

    @classmethod
    def empty(cls, d: int, like: Tensor) -> Moment:
        """The moment of no kets, which any other of the same width can be added to."""
        first = torch.zeros(d, dtype=wide(like.dtype), device=like.device)
        return cls(d, 0, 0.0, first, [], None)

    def __iadd__(self, other: Moment) -> Moment:
        if other.d != self.d:
            raise ValueError(f"Moments of {self.d} and of {other.d} features cannot be added.")
        for moment in (self, other):
            moment._need_all("adding it up")
        self.n += other.n
        self.weight += other.weight
        self.first = self.first + other.first
        self.limit = max(filter(None, (self.limit, other.limit)), default=None)
        if self.rows is not None and other.rows is not None and not self._crowded(other.span):
            self.rows = self.rows + other.rows
            return self
        self.condense(other.span or other.ranged)
        if self.sketch is not None and self.populations is not None:
            for rows in other.factors():
                self.sketch.add(rows)
            if other.sketch is not None:
                self.sketch.absorb(other.sketch)
            self.populations = self.populations + other.diagonal()
            return self
        if self.ranged is not None:
            if self._add_within(self.ranged, other):
                return self
            self._widen(self.ranged)
        assert self.upper is not None
        if other.upper is not None:
            self.upper += other.upper
        else:
            for rows in other.factors():
                add_gram(self.upper, rows)
        return self

    def condense(self, span: LinearRange | RangeMoment | None = None) -> None:
        """Goes over to the moment in the `span` of its kets, the d × d one, or where there is a limit a sketch."""
        self._need_all("adding it up")
        if self.limit is None and self.upper is None and self.ranged is None:
            if span is not None and self._enter(RangeMoment.empty(span.states)):
                return
            upper = torch.zeros(self.d, self.d, dtype=self.first.dtype, device=self.first.device)
            for rows in self.factors():
                add_gram(upper, rows)
            self.rows, self.upper = None, upper
        elif self.limit is not None and self.sketch is None:
            populations = self.diagonal()
            sketch = FrequentDirections.empty(self.d, rank=self.limit, like=self.first)
            for rows in self.factors():
                sketch.add(rows)
            self.rows, self.upper, self.ranged = None, None, None
            self.sketch, self.populations = sketch, populations

    def factors(self) -> list[Tensor]:
        """Parts (n, d) whose Σ r†r together are the moment, or what a sketch keeps of it. O(d³) of a dense one."""
        self._need_all("this")
        if self.rows is not None:
            return self.rows
        if self.sketch is not None:
            return [self.sketch.rows]
        if self.ranged is not None:
            return [self.ranged.rows]
        values, vectors = torch.linalg.eigh(self.matrix())
        kept = values > 0
        return [(vectors[:, kept] * values[kept].sqrt().to(vectors)).mH]

    @property
    def slack(self) -> float:
        """The most by which `matrix()` falls short of the moment in any direction: 0 unless sketched."""
        return self.sketch.slack if self.sketch is not None else 0.0

    def factor(self) -> Tensor | None:
        """Rows r with Σ r†r the moment, in float64, (n, d): √w ⟨ψ|, or what a sketch or a range has; None if dense."""
        self._need_all("this")
        if self.sketch is not None:
            return self.sketch.rows
        if self.ranged is not None:
            return self.ranged.rows
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
                for some in pieces(rows):
                    numbers = some.to(self.first.dtype)
                    total += (numbers.abs() if numbers.is_complex() else numbers).square().sum(dim=0)
            return total
        assert self.upper is not None
        return self.upper.diagonal().real.clone()

    def stored(self) -> StoredMoment:
        """The moment for a file."""
        rows = lengths = upper = None
        if self.rows is not None:
            rows = torch.cat(
                [self.first.new_zeros(0, self.d, dtype=_narrow(self.rows, self.first)), *self.rows]
            )
            lengths = torch.tensor([len(part) for part in self.rows], dtype=torch.int64)
        elif self.upper is not None:
            upper = packed(self.upper)
        return StoredMoment(
            self.d,
            self.n,
            self.weight,
            self.first,
            rows,
            lengths,
            upper,
            self.limit,
            self.sketch,
            self.populations,
            self.leading,
            self.ranged,
        )

    def cut(self, leading: LeadingStates) -> Moment:
        """What a small file keeps: these leading states and the diagonal, and of a sketch its certified error."""
        sketch = self.sketch
        if sketch is not None:
            sketch = FrequentDirections(sketch.rank, sketch.slack, sketch.lost, sketch.rows[:0])
        return Moment(
            self.d, self.n, self.weight, self.first, None, None, self.limit, sketch, self.diagonal(), leading
        )

    @classmethod
    def restored(cls, stored: StoredMoment) -> Moment:
        """The moment that `stored` gave."""
        s = stored
        moment = cls(
            s.d, s.n, s.weight, s.first, None, None, s.limit, s.sketch, s.populations, s.leading, s.ranged
        )
        if s.leading is not None or s.ranged is not None:
            return moment
        if s.sketch is not None:
            moment.limit = s.sketch.rank
        elif s.upper is not None:
            moment.upper = unpacked(s.upper, s.d)
        else:
            lengths = [] if s.lengths is None else s.lengths.tolist()
            moment.rows = [] if s.rows is None else list(s.rows.split(lengths)) if lengths else []
        return moment

    def _need_all(self, what: str) -> None:
        if self.leading is not None:
            raise missing_states(len(self.leading.states), what)

    def _crowded(self, span: LinearRange | None) -> bool:
        side = self.d // 2 if span is None else span.rank
        return self.n > (side if self.limit is None else 2 * self.limit)

    def _enter(self, ranged: RangeMoment) -> bool:
        """Goes over to the span of a moment that has no kets yet; False where the kets do not lie in it."""
        parts = [Coordinates.of(rows, ranged.states) for rows in self.rows or ()]
        if not all(part.within for part in parts):
            return False
        for part in parts:
            ranged.add(part.z)
        self.populations, self.rows, self.ranged = self.diagonal(), None, ranged
        return True

    def _add_within(self, ranged: RangeMoment, other: Moment) -> bool:
        """Adds what lies in the same span; False where the other does not."""
        assert self.populations is not None
        if other.ranged is not None and ranged.joins(other.ranged):
            ranged.upper = ranged.upper + other.ranged.upper
        elif other.upper is not None:
            return False
        else:
            if other.inside is not None and other.span is not None and other.span.states is ranged.states:
                parts = [other.inside]
            else:
                parts = [Coordinates.of(rows, ranged.states) for rows in other.factors()]
            if not all(part.within for part in parts):
                return False
            ranged.upper = ranged.upper.clone()  # which another moment may share
            for part in parts:
                ranged.add(part.z)
        self.populations = self.populations + other.diagonal()
        return True

    def _widen(self, ranged: RangeMoment) -> None:
        """Goes over to the d × d moment."""
        upper = torch.zeros(self.d, self.d, dtype=self.first.dtype, device=self.first.device)
        add_gram(upper, ranged.rows)
        self.upper, self.ranged, self.populations = upper, None, None


def _narrow(rows: list[Tensor], first: Tensor) -> torch.dtype:
    return rows[0].dtype if rows else first.dtype
