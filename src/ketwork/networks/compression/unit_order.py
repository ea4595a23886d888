"""The units of a layer in the order in which the layers that read them miss them least, with those layers repaired.

A unit is a neuron or a channel; a layer that reads it has one or several columns for it. With all units gone but
those whose columns are S, the least of E ‖H (W x − W′ x_S − b′)‖² over W′ and b′ is reached at
W′ = W D[:, S] D[S, S]⁻¹, with D = C + δ the covariance of x and a ridge that holds W′ to W. The units are eliminated
one after another, each time the one whose going costs least after the others have taken over what they can of it:
with V = H W′ and Q = D[S, S]⁻¹ unit B costs tr V_B (Q_BB)⁻¹ V_Bᵀ (Hassibi and Stork 1992, NIPS 5; for whole
structures Kurtić, Frantar and Alistarh 2023, arXiv 2302.04089). A unit that is constant, or a linear
combination of others, costs nothing: its variance, given the others, is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric

_RIDGE = 1e-9  # of the largest variance: what is linearly dependent is then seen as that
_RIDGES = range(-9, 1)  # powers of ten, times the largest variance
_AT_ONCE = 0.5  # of the units that are left go before Q and V are computed anew from D: that keeps them small and exact
_WAITING = 48  # columns of Q that are taken away together


@dataclass(frozen=True)
class Reader:
    """A layer that reads units: its W (m, k), the moments of its inputs, its metric, each unit's columns (units, b).

    Columns that are no unit's stay.
    """

    weight: Tensor
    inputs: Scatter
    metric: Metric
    columns: Tensor


@dataclass(frozen=True)
class Order:
    """Units by worth: `order` has the one first that is to go last. `errors[n]` is what keeping the first n costs.

    Errors are E ‖H (W x − W′ x)‖² summed over the readers; half of that is in nats a prediction.
    """

    order: Tensor
    errors: Tensor

    def kept(self, count: int) -> Tensor:
        """The units that stay, in their own order."""
        return self.order[:count].sort().values

    def error(self, count: int) -> float:
        """What keeping so many costs."""
        return float(self.errors[count])

    def share(self, count: int) -> float:
        """That over the error of keeping none; 0 where the units say nothing."""
        total = float(self.errors[0])
        return self.error(count) / total if total > 0 else 0.0


def ordered(readers: Sequence[Reader]) -> Order:
    """The units in the order of a greedy backward elimination. O(units · k²) for each reader.

    >>> x = torch.randn(50, 1, dtype=torch.float64).repeat(1, 2) * torch.tensor([1.0, 2.0])
    >>> x = torch.cat([x, torch.randn(50, 1, dtype=torch.float64)], 1)
    >>> weight = torch.eye(3, dtype=torch.float64)
    >>> reader = Reader(weight, Scatter.of(x), Metric.none(weight), torch.arange(3)[:, None])
    >>> bool(ordered([reader]).error(2) < 1e-6)
    True
    """
    work = [_Elimination.of(reader) for reader in readers]
    alive = torch.arange(len(readers[0].columns), device=readers[0].columns.device)
    going: list[int] = []
    spent = [0.0]
    while len(alive):
        for one in work:
            one.begin(alive)
        present = torch.ones_like(alive, dtype=torch.bool)
        for _ in range(max(1, int(_AT_ONCE * len(alive)))):
            costs = torch.stack([one.costs() for one in work]).sum(0).masked_fill(~present, torch.inf)
            unit = int(costs.argmin())
            for one in work:
                one.eliminate(unit)
            present[unit] = False
            going.append(int(alive[unit]))
            spent.append(spent[-1] + max(float(costs[unit]), 0.0))
        alive = alive[present]
    return Order(alive.new_tensor(going[::-1]), torch.tensor(spent[::-1], dtype=torch.float64))


def repaired(weight: Tensor, bias: Tensor, inputs: Scatter, stay: Tensor) -> tuple[Tensor, Tensor]:
    """W′ (m, columns that stay) and b′ by least squares, for inputs with these moments. O(k³).

    What the other columns carried is regressed on those that stay, with the ridge that generalised cross-validation
    takes for the best (Golub, Heath and Wahba 1979, Technometrics 21, 215).
    """
    covariance = inputs.covariance()
    gone = torch.ones(len(covariance), dtype=torch.bool, device=stay.device)
    gone[stay] = False
    carried = weight[:, gone]
    values, vectors = torch.linalg.eigh(covariance[stay][:, stay])
    values = values.clamp(min=0)
    across = carried @ covariance[gone][:, stay] @ vectors
    explained, total = across.square().sum(0), float((carried @ covariance[gone][:, gone] * carried).sum())
    largest = float(covariance.diagonal().max()) or 1.0
    best, ridge = torch.inf, largest
    for power in _RIDGES:
        damped = values + 10.0**power * largest
        rest = total - float((explained * (2 * damped - values) / damped.square()).sum())
        freedom = 1 - (1 + float((values / damped).sum())) / inputs.n
        score = max(rest, 0.0) / freedom**2 if freedom > 0 else torch.inf
        if score < best:
            best, ridge = score, 10.0**power * largest
    small = weight[:, stay] + (across / (values + ridge)) @ vectors.T
    return small, bias + weight @ inputs.left - small @ inputs.left[stay]


def staying(columns: Tensor, kept: Tensor, k: int) -> Tensor:
    """Which of k columns (in their order) stay with these units: theirs, and those that are no unit's."""
    stay = torch.ones(k, dtype=torch.bool, device=columns.device)
    stay[columns.flatten()] = False
    stay[columns[kept].flatten()] = True
    return stay.nonzero()[:, 0]


@dataclass
class _Elimination:
    """What one reader loses: V = H W′ and Q, their columns those that stay, unit after unit.

    An elimination changes V and the blocks Q_BB at once; Q itself waits for several, which are then one product.
    """

    weighted: Tensor  # H W (min(m, k), k)
    covariance: Tensor  # D
    columns: Tensor
    v: Tensor = field(init=False)  # (rows, stay)
    q: Tensor = field(init=False)  # (stay, stay), less left @ right
    blocks: Tensor = field(init=False)  # (units, b, b)
    free: int = field(init=False)  # columns that are no unit's
    left: list[Tensor] = field(init=False)
    right: list[Tensor] = field(init=False)

    @classmethod
    def of(cls, reader: Reader) -> _Elimination:
        """Before anything went."""
        weighted = reader.metric.times(reader.weight)
        if len(weighted) > weighted.shape[1]:
            weighted = torch.linalg.qr(weighted, mode="r").R
        return cls(weighted, _damped(reader.inputs), reader.columns)

    def begin(self, alive: Tensor) -> None:
        """V and Q computed from D for the units that are left; the free columns come first."""
        own = self.columns[alive].flatten()
        free = torch.ones(len(self.covariance), dtype=torch.bool, device=own.device)
        free[self.columns.flatten()] = False
        stay = torch.cat([free.nonzero()[:, 0], own])
        self.free = len(stay) - len(own)
        self.q = _inverse(self.covariance[stay][:, stay])
        self.v = self.weighted @ self.covariance[:, stay] @ self.q
        count, b = len(alive), self.columns.shape[1]
        self.blocks = (
            self.q[self.free :, self.free :]
            .reshape(count, b, count, b)
            .diagonal(dim1=0, dim2=2)
            .movedim(-1, 0)
            .clone()
        )
        self.left, self.right = [], []

    def costs(self) -> Tensor:
        """What each unit's going costs now."""
        own = self.v[:, self.free :].reshape(len(self.v), *self.blocks.shape[:2])
        if self.blocks.shape[1] == 1:
            return own[:, :, 0].square().sum(0) / self.blocks[:, 0, 0]
        own = own.permute(1, 2, 0)
        return (own * torch.linalg.solve(self.blocks, own)).sum((1, 2))

    def eliminate(self, unit: int) -> None:
        """One unit goes."""
        count, b, _ = self.blocks.shape
        here = slice(self.free + unit * b, self.free + (unit + 1) * b)
        row = self.q[here]
        if self.left:
            row = row - torch.cat([part[here] for part in self.left], 1) @ torch.cat(self.right)
        solved = torch.linalg.solve(row[:, here], row)
        self.v -= self.v[:, here] @ solved
        self.v[:, here] = 0
        others, theirs = (part[:, self.free :].reshape(b, count, b) for part in (row, solved))
        self.blocks -= torch.einsum("iup,iuq->upq", others, theirs)
        self.blocks[unit] = torch.eye(b, dtype=row.dtype, device=row.device)
        self.left.append(row.T)
        self.right.append(solved)
        if len(self.left) * b >= _WAITING:
            self.q -= torch.cat(self.left, 1) @ torch.cat(self.right)
            self.left, self.right = [], []


def _damped(inputs: Scatter) -> Tensor:
    """C + δ. Of fewer than two rows a dimension many a combination seems to be dependent: there δ is up to tr C / n."""
    covariance = inputs.covariance()
    variances = covariance.diagonal()
    ridge = _RIDGE * float(variances.max()) or 1.0
    if inputs.n < 2 * len(covariance):
        values = torch.linalg.eigvalsh(covariance)
        rank = int((values > _RIDGE * values[-1]).sum())
        ridge += max(0.0, 2 * rank / inputs.n - 1) * float(variances.sum()) / inputs.n
    return covariance + ridge * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse of a damped covariance."""
    values, vectors = torch.linalg.eigh(matrix)
    floor = _RIDGE * values[-1] / len(values) if len(values) else 0.0  # below it is rounding
    return (vectors / values.clamp(min=floor)) @ vectors.T
