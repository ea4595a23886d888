"""One layer's best modules in every form, with the error of each: what a smaller layer costs its output.

A convolution's kernel may be split between two convolutions (`forms`). With P the first one's matrix, r × c f for f
taps,
and x̃ = P applied at each of the second one's s taps, the best second matrix for given P is the regression of the
output on
x̃, W C T ᵀ (T C Tᵀ)⁻¹ with x̃ = T x. P itself holds the leading directions of V S Vᵀ: V (m s × c f) is W with its
second
taps stacked on its outputs, and S the covariance of one f-tap patch, averaged over the s places; that is the optimum
where what the taps contribute is uncorrelated, and exact for f = a, where it is `factors`. Since P's rows are nested,
one triangular factor of T C Tᵀ gives the errors of all ranks. Where both sides are truncated (`both`), the regression's
residual is uncorrelated with what it explains, so that the two errors add up exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Factors, Metric, from_inputs, from_outputs, leading
from ketwork.networks.compression.forms import SPLITS, Form, taps

_RIDGES = (1e-9, 1e-7, 1e-5, 1e-3)  # of the largest variance: the first with which a factor exists
_INNER_RANKS = 6  # inner ranks of `both` that are tried
_RANKS = 12  # ranks of a split by regression that are offered
ROUNDED = (
    1e-4  # of a layer's whole weight: what rounding is taken to cost where its inputs' moments are not kept
)


class Reducing(Protocol):
    """What all reductions of a layer have; `Reductions` are those of a matrix of its own."""

    @property
    def total(self) -> float:
        """What is lost where nothing is kept but the mean."""

    def forms(self, multiple_of: int) -> Iterator[Form]:
        """The forms with ranks that are multiples of that number."""

    def error(self, form: Form) -> float:
        """What the best matrices in that form lose, in the layer's metric."""

    def share(self, form: Form) -> float:
        """That as a share of `total`."""

    def cut(self, form: Form) -> tuple[list[Tensor], Tensor]:
        """The matrices of the form's modules, and the bias."""


@dataclass
class Reductions:
    """W (m, k), b and the moments of a layer, reduced in any form.

    `inputs` are the moments of x (k), or None, `outputs` those of y (m), or None: one of the two is there.
    `channels` are
    those of the channels of a convolution whose x has too many entries, or None. `target` is the mean output to keep,
    where it is not the layer's own; `kept` is given what is computed, to keep.
    """

    weight: Tensor
    bias: Tensor
    kernel: tuple[int, ...]
    metric: Metric
    inputs: Scatter | None = None
    outputs: Scatter | None = None
    channels: Scatter | None = None
    target: Tensor | None = None
    splits: tuple[str, ...] = SPLITS
    kept: Callable[[Tensor], Tensor] = field(default=lambda tensor: tensor, repr=False)
    _truncated: Factors | None = field(default=None, repr=False)
    _split: dict[str, Split] = field(default_factory=dict, repr=False)
    _rounded: dict[str, list[tuple[int, float]]] = field(default_factory=dict, repr=False)

    @property
    def truncated(self) -> Factors:
        """The truncations of the output."""
        if self._truncated is None:
            if self.inputs is None:
                assert self.outputs is not None
                result = from_outputs(self.weight, self.bias, self.outputs, self.metric)
            else:
                result = from_inputs(self.weight, self._own_bias(), self.inputs, self.metric)
            self._truncated = replace(result, first=self.kept(result.first), second=self.kept(result.second))
        return self._truncated

    def _own_bias(self) -> Tensor:
        if self.target is None:
            return self.bias
        assert self.inputs is not None
        return self.target - self.weight @ self.inputs.left

    @property
    def total(self) -> float:
        """What is lost where nothing of the output is kept but its mean."""
        return self.truncated.total

    def available(self) -> list[str]:
        """The splits whose moments are there."""
        known = []
        for name in self.splits:
            if (
                name == "outputs"
                or self.inputs is not None
                or (name == "inputs" and self.channels is not None)
            ):
                known.append(name)
        return known

    def forms(self, multiple_of: int) -> Iterator[Form]:
        """The forms with ranks that are multiples of that number, a choice of them where there are many.

        Of a layer whose output is constant, those of rank 1, which lose nothing.
        """
        if self.total == 0:
            yield from (Form(name, 1) for name in self.available())
            return
        m, area = len(self.weight), prod(self.kernel)
        c = self.weight.shape[1] // area
        for name in self.available():
            first, second = (prod(part) for part in taps(name, self.kernel))
            ranks = list(range(multiple_of, min(m * second, c * first) + 1, multiple_of))
            for rank in ranks if name == "outputs" else _spread(ranks, _RANKS):
                yield Form(name, rank)
        if area > 1 and self.inputs is not None and "inputs" in self.splits:
            inner = list(range(multiple_of, c, multiple_of))
            outer = list(range(multiple_of, m, multiple_of))
            for q in _spread(inner, _INNER_RANKS):
                for r in _spread(outer, _RANKS):
                    yield Form("both", r, q)

    def error(self, form: Form) -> float:
        """E ‖H (W x − W′ x)‖² of the best W′ in that form, both centred, with what rounding to its bits adds."""
        return self._truncation(form) + (self._rounding(form) if form.bits else 0.0)

    def _truncation(self, form: Form) -> float:
        if form.rank is None:
            return 0.0
        if form.name == "outputs":
            return self.truncated.tail(form.rank)
        if form.name == "both":
            assert form.inner is not None
            split = self.split("inputs")
            return split.error(form.inner) + float(split.spectrum(form.inner)[form.rank :].sum())
        return self.split(form.name).error(form.rank)

    def _rounding(self, form: Form) -> float:
        """What weights of 8 bits add: exact at a few ranks, and between these in proportion."""
        if self.inputs is None:
            return ROUNDED * self.total
        if form.name == "both":
            return self._rounding(Form("inputs", form.inner)) + self._rounding(Form("outputs", form.rank))
        if form.rank is None:
            rounded = rounded_to_bits(self.weight)
            return self._distance(rounded - self.weight)
        if form.name not in self._rounded:
            most = (
                self.truncated.first.shape[0] if form.name == "outputs" else len(self.split(form.name).first)
            )
            ranks = sorted({1, max(1, most // 4), most})
            self._rounded[form.name] = [(r, self._exact_rounding(Form(form.name, r))) for r in ranks]
        known = self._rounded[form.name]
        return float(np.interp(form.rank, [r for r, _ in known], [error for _, error in known]))

    def _exact_rounding(self, form: Form) -> float:
        matrices, _ = self.cut(form)
        order, s = _order(form.name, self.weight.shape[1], self.kernel)
        products = []
        for first, second in (matrices, [rounded_to_bits(matrix) for matrix in matrices]):
            stacked = second.reshape(len(second), -1, s).permute(0, 2, 1) @ first  # (m, s, c f)
            products.append(torch.empty_like(self.weight).index_copy_(1, order, stacked.flatten(1)))
        return self._distance(products[1] - products[0])

    def _distance(self, change: Tensor) -> float:
        """E ‖H δ x‖², x centred."""
        assert self.inputs is not None
        weighted = self.metric.times(change)
        return float((weighted @ self.inputs.covariance() * weighted).sum())

    def share(self, form: Form) -> float:
        """That as a share of the layer's whole weight; 0 where the layer is constant."""
        return self.error(form) / self.total if self.total > 0 else 0.0

    def cut(self, form: Form) -> tuple[list[Tensor], Tensor]:
        """The matrices of the form's modules, (outputs, channels · taps) each, and the bias of the last."""
        assert form.rank is not None
        if form.name == "outputs":
            first, second, bias = self.truncated.cut(form.rank)
            return [first, second], bias
        if form.name == "both":
            assert form.inner is not None
            return self.split("inputs").cut_both(form.inner, form.rank)
        return self.split(form.name).cut(form.rank)

    def split(self, name: str) -> Split:
        """The factors of a split."""
        if name not in self._split:
            if self.inputs is None:
                assert self.channels is not None
                self._split[name] = Split.from_channels(
                    self.weight, self.bias, self.channels, self.kernel, self.metric
                )
            else:
                self._split[name] = Split.from_inputs(
                    name, self.weight, self._own_bias(), self.inputs, self.kernel, self.metric
                )
        return self._split[name]


@dataclass
class Split:
    """The factors of one split, all ranks.

    `first` (R, c f) has nested rows. With moments of x: `lower` is the triangular factor of the covariance of x̃,
    its entries
    in the order (rank, second tap), and `explained` (R s, m) what each entry adds to the weighted output. Without:
    `second` (m, R s) is given, and the errors are those of uncorrelated taps.
    """

    metric: Metric
    first: Tensor
    second_taps: int
    errors: Tensor
    target: Tensor
    mean: Tensor
    lower: Tensor | None = None
    explained: Tensor | None = None
    second: Tensor | None = None
    _spectra: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def from_inputs(
        cls, name: str, weight: Tensor, bias: Tensor, inputs: Scatter, kernel: tuple[int, ...], metric: Metric
    ) -> Split:
        """By regression, of a layer whose inputs' moments are known."""
        order, s = _order(name, weight.shape[1], kernel)
        m, wide = len(weight), weight.shape[1] // s
        weighted = metric.times(weight)[:, order]  # (m, s · c f)
        covariance = inputs.covariance()[order][:, order].reshape(s, wide, s, wide)
        one_tap = torch.einsum("apaq->pq", covariance) / s
        _, basis = leading(weighted.reshape(m * s, wide), one_tap)
        first = basis.T @ weighted.reshape(m * s, wide)  # (R, c f)
        return cls.from_first(first, weight, bias, inputs, metric, order, s)

    @classmethod
    def from_first(
        cls,
        first: Tensor,
        weight: Tensor,
        bias: Tensor,
        inputs: Scatter,
        metric: Metric,
        order: Tensor,
        s: int,
    ) -> Split:
        """With that first matrix (R, c f); `order` sorts the columns of W by second taps."""
        count, wide = first.shape
        weighted = metric.times(weight)[:, order]
        covariance = inputs.covariance()[order][:, order].reshape(s, wide, s, wide)
        one_tap = torch.einsum("apaq->pq", covariance) / s
        across = torch.einsum("rp,apbq->rabq", first, covariance)
        product = torch.einsum("rabq,tq->ratb", across, first).reshape(count * s, count * s)
        lower = _factor(product, torch.kron(first @ first.T, torch.eye(s).to(first)), one_tap)
        onto = across.reshape(count * s, s * wide) @ weighted.T  # (R s, m)
        explained = torch.linalg.solve_triangular(lower, onto, upper=False)
        total = float((weighted @ covariance.reshape(s * wide, s * wide) * weighted).sum())
        gained = explained.square().sum(1).reshape(count, s).sum(1).cumsum(0)
        errors = (total - torch.cat([gained.new_zeros(1), gained])).clamp(min=0)
        mean = (inputs.left[order].reshape(s, wide) @ first.T).T.reshape(-1)
        target = bias + weight @ inputs.left
        return cls(metric, first, s, errors, target, mean, lower, explained)

    @classmethod
    def from_channels(
        cls, weight: Tensor, bias: Tensor, channels: Scatter, kernel: tuple[int, ...], metric: Metric
    ) -> Split:
        """Inputs truncated, of a convolution of whose inputs only the channels' moments are known."""
        order, s = _order("inputs", weight.shape[1], kernel)
        m, wide = len(weight), weight.shape[1] // s
        weighted = metric.times(weight)[:, order].reshape(m * s, wide)
        values, basis = leading(weighted, channels.covariance())
        first = basis.T @ weighted
        count = len(first)
        tails = values.flip(0).cumsum(0).flip(0)
        errors = torch.cat([tails, tails.new_zeros(1)])[: count + 1]
        stacked = basis.reshape(m, s, count)
        second = metric.over(stacked.permute(0, 2, 1).reshape(m, count * s))
        mean = (first @ channels.left).repeat_interleave(s)
        target = bias + weight.reshape(m, -1, s).sum(-1) @ channels.left
        return cls(metric, first, s, errors, target, mean, second=second)

    def error(self, rank: int) -> float:
        """What that rank loses of the weighted output."""
        return float(self.errors[rank])

    def cut(self, rank: int) -> tuple[list[Tensor], Tensor]:
        """Both matrices at that rank, and the bias."""
        second = self.metric.over(self._weighted_second(rank)) if self.second is None else None
        if second is None:
            assert self.second is not None
            second = self.second[:, : rank * self.second_taps]
        bias = self.target - second @ self.mean[: rank * self.second_taps]
        return [self.first[:rank], second], bias

    def spectrum(self, inner: int) -> Tensor:
        """The eigenvalues in falling order of what inner rank q leaves of the weighted output's covariance."""
        return self._spectrum(inner)[0]

    def cut_both(self, inner: int, rank: int) -> tuple[list[Tensor], Tensor]:
        """The three matrices of a truncation of both sides, and the bias."""
        basis = self._spectrum(inner)[1][:, :rank]
        core = basis.T @ self._weighted_second(inner)
        last = self.metric.over(basis)
        bias = self.target - last @ (core @ self.mean[: inner * self.second_taps])
        return [self.first[:inner], core, last], bias

    def _weighted_second(self, rank: int) -> Tensor:
        """H times the regression on the first entries of x̃, (m, r s)."""
        assert self.lower is not None
        assert self.explained is not None
        n = rank * self.second_taps
        return torch.linalg.solve_triangular(self.lower[:n, :n].T, self.explained[:n], upper=True).T

    def _spectrum(self, inner: int) -> tuple[Tensor, Tensor]:
        if inner not in self._spectra:
            assert self.explained is not None
            part = self.explained[: inner * self.second_taps]
            values, vectors = torch.linalg.eigh(part.T @ part)
            self._spectra[inner] = values.flip(0).clamp(min=0), vectors.flip(-1)
        return self._spectra[inner]


def _order(name: str, k: int, kernel: tuple[int, ...]) -> tuple[Tensor, int]:
    """The columns of W in the order (second taps, channels, first taps), and the number of second taps."""
    _, second = taps(name, kernel)
    c, n = k // prod(kernel), len(kernel)
    index = torch.arange(k).reshape(c, *kernel)
    # An axis belongs to the first kernel or to the second, and has size 1 in the other.
    late = [1 + axis for axis in range(n) if second[axis] > 1]
    early = [1 + axis for axis in range(n) if second[axis] == 1]
    return index.permute(*late, 0, *early).reshape(-1), prod(second)


def _factor(product: Tensor, squares: Tensor, covariance: Tensor) -> Tensor:
    """The lower triangular factor of T C Tᵀ, with a ridge ρ on C and one on the product that are as small as will do.

    `squares` is T Tᵀ, `covariance` a diagonal block of C.
    """
    product = (product + product.T) / 2
    scales = [float(matrix.diagonal().max()) or 1.0 for matrix in (covariance, product)]
    eye = torch.eye(len(product), dtype=product.dtype, device=product.device)
    for ridge in _RIDGES:
        lower, failed = torch.linalg.cholesky_ex(product + ridge * (scales[0] * squares + scales[1] * eye))
        if not int(failed):
            return lower
    raise ArithmeticError("The covariance of a layer's inputs has large negative eigenvalues.")


def _spread(values: Sequence[int], count: int) -> list[int]:
    """At most `count` of the values, evenly spaced, the first among them."""
    if len(values) <= count:
        return list(values)
    return sorted({values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)})


def rounded_to_bits(matrix: Tensor) -> Tensor:
    """The matrix with each row rounded to 255 even levels, symmetric about 0: integers of 8 bits times a scale.

    >>> rounded_to_bits(torch.tensor([[127.0, -3.4]]))
    tensor([[127.,  -3.]])
    """
    scale = scales_of(matrix).reshape(-1, *[1] * (matrix.ndim - 1))
    return (matrix / scale).round().clamp(-127, 127) * scale


def scales_of(matrix: Tensor) -> Tensor:
    """The scale of each row: what the integer 1 stands for."""
    return matrix.flatten(1).abs().amax(1).clamp(min=torch.finfo(matrix.dtype).tiny) / 127
