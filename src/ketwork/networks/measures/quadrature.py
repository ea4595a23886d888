"""What is known of a wide state without its decomposition: leading eigenstates, and quadrature for all the others.

The k leading eigenpairs come from a block Krylov space (Musco and Musco 2015, arXiv 1504.05477). Of the rest A, the
state without them, random vectors z of independent signs have E z†f(A)z = Tr f(A) (Hutchinson 1990), and s steps of
Lanczos from each give Gauss's rule for z†f(A)z, exact for polynomials of degree 2s − 1 (Golub and Meurant 2010; Ubaru,
Chen and Saad 2017, DOI 10.1137/16M1104974). Tr A and Tr A² are known exactly, and what they explain of f over the
vectors is taken off (control variates). Cost: some 1,500 d² multiplications in place of 9 d³.

Numbers so estimated come with an interval: the value ± Student's quantile for 99.7 % of the spread over the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ketwork._lazy import cached_property
from ketwork.quantum import Interval

WIDE = 4096
"""Dimensions beyond which a state is not decomposed, unless exact numbers are wanted."""

LEADING = 64
_MORE = 16  # columns of a block beside those that are wanted
_BLOCKS = 6
_PROBES = 24
_STEPS = 40
_SURE = 0.9985  # both sides: 99.7 %
_CONVERGED = 1e-4  # residuals of leading eigenpairs, of the largest eigenvalue: their squares enter
_NOTHING = 1e-300


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A state (d, d) of which `values` (k,) and `states` (k, d) lead, with residuals (k,) ‖ρv − λv‖.

    `nodes` and `weights` (m, s) are the rules of the m random vectors for the rest, of which `trace` and `squares` are
    Tr A and Tr A²; `square` is Tr ρ².
    """

    values: Tensor
    states: Tensor
    residuals: Tensor
    nodes: Tensor
    weights: Tensor
    trace: float
    squares: float
    square: float
    d: int

    @classmethod
    def from_matrix(cls, rho: Tensor, leading: int = LEADING) -> Quadrature:
        """Of a state (d, d) in float64 or complex128. The random vectors are the same at every call."""
        d = len(rho)
        values, states, residuals = leading_pairs(rho, min(leading, d // 4))
        purity = float(torch.linalg.matrix_norm(rho) ** 2)
        trace = max(1.0 - float(values.sum()), 0.0)
        squares = max(purity - float(values.square().sum()), 0.0)
        nodes, weights = _rules(rho, states)
        return cls(values, states, residuals, nodes, weights, trace, squares, purity, d)

    @classmethod
    def from_factor(cls, rows: Tensor) -> Quadrature:
        """Of the state A†A of rows A (r, d), r ≤ d, whose spectrum is that of AA†. Cost O(r² d) beside."""
        inner = cls.from_matrix(rows @ rows.mH)
        states = (inner.states @ rows.conj()) / inner.values.clamp(min=_NOTHING).sqrt()[:, None].to(rows)
        return replace(inner, states=states)

    @cached_property
    def surprise(self) -> tuple[float, float]:
        """−Σ λ log₂ λ of the state, and the half width of its interval."""
        rest, half = self._trace_of(lambda x: -torch.special.xlogy(x, x) / math.log(2))
        return float(-torch.special.xlogy(self.values, self.values).sum()) / math.log(2) + rest, half

    @cached_property
    def middle(self) -> Tensor:
        """A spectrum (d,) of sum 1 with these leading eigenvalues, and below them the density of the rules.

        Its shape is bent so that it has the entropy that is estimated.
        """
        n = self.d - len(self.values)
        nodes, order = self.nodes.flatten().clamp(min=0).sort(descending=True)
        counts = self.weights.flatten()[order].cumsum(0)
        places = (torch.arange(n, dtype=counts.dtype, device=counts.device) + 0.5) * counts[-1] / n
        rest = nodes[torch.searchsorted(counts, places).clamp(max=len(nodes) - 1)]
        rest = rest.clamp(min=_NOTHING) / rest.sum().clamp(min=_NOTHING)
        if self.trace <= 0 or not bool(rest.max() > rest.min()):
            return torch.cat([self.values, rest * self.trace])
        wanted = self.surprise[0] * math.log(2) + float(torch.special.xlogy(self.values, self.values).sum())
        wanted = wanted / self.trace + math.log(self.trace)  # of the rest as a state
        low, high = 0.2, 5.0
        logs = rest.log()
        for _ in range(40):
            power = (low * high) ** 0.5
            shares = torch.softmax(power * logs, dim=0)
            entropy = -float(torch.special.xlogy(shares, shares).sum())
            low, high = (power, high) if entropy > wanted else (low, power)
        tail = torch.softmax((low * high) ** 0.5 * logs, dim=0) * self.trace
        return torch.cat([self.values, tail])

    def entropy(self) -> Interval:
        """Of −Σ λ log₂ λ, in bits."""
        value, half = self.surprise
        return max(value - half, 0.0), min(value + half, math.log2(self.d))

    def purity(self) -> Interval:
        """Tr ρ², exact."""
        return self.square, self.square

    def top(self) -> Interval:
        """Of the largest eigenvalue: what is there is at most a residual too small."""
        return float(self.values[0]), float(self.values[0] + self.residuals[0])

    def of_rank(self, of: Callable[[Tensor], int]) -> Interval:
        """Of a rank that is a number of a spectrum, by the spread over the random vectors."""
        each = [of(self._of_one(i).middle) for i in range(len(self.nodes))]
        ranks = torch.tensor(each, dtype=torch.float64)
        half = _quantile(len(each) - 1) * float(ranks.std()) / math.sqrt(len(each))
        value = of(self.middle)
        return max(value - half, 1.0), min(value + half, float(self.d))

    @property
    def surprisal_elsewhere(self) -> float:
        """−⟨ψ|log₂ ρ|ψ⟩ of a vector outside of the leading states, in the mean over all data."""
        lead = -float(torch.special.xlogy(self.values, self.values).sum()) / math.log(2)
        return (self.surprise[0] - lead) / self.trace if self.trace > 0 else 0.0

    @property
    def value_elsewhere(self) -> float:
        """⟨ψ|ρ|ψ⟩ of such a vector, in the mean over all data."""
        return self.squares / self.trace if self.trace > 0 else 0.0

    def _of_one(self, i: int) -> Quadrature:
        one = slice(i, i + 1)
        parts = (self.values, self.states, self.residuals, self.nodes[one], self.weights[one])
        return Quadrature(*parts, self.trace, self.squares, self.square, self.d)

    def _trace_of(self, f: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Tr f(A) for f(0) = 0, and the half width of its interval."""
        nodes = self.nodes.clamp(min=0)
        each = (self.weights * f(nodes)).sum(dim=1)
        m = len(each)
        known = torch.stack([(self.weights * nodes**power).sum(dim=1) for power in (1, 2)], dim=1)
        truth = torch.tensor([self.trace, self.squares], dtype=each.dtype, device=each.device)
        if m < 8:  # as of one vector alone: scaled to the trace
            return float(each.mean() * self.trace / known[:, 0].mean().clamp(min=_NOTHING)), math.inf
        scale = truth.clamp(min=_NOTHING)
        design = torch.cat([torch.ones_like(known[:, :1]), known / scale - 1], dim=1)
        fit = torch.linalg.lstsq(
            design, each[:, None], driver="gelsd" if design.device.type == "cpu" else None
        )
        rest = each - (design @ fit.solution)[:, 0]
        spread = math.sqrt(float(rest.square().sum()) / (m - 3) / m)
        return float(fit.solution[0, 0]), _quantile(m - 3) * spread


def leading_pairs(rho: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The at most k leading eigenvalues, the largest first, their states (k, d) and residuals ‖ρv − λv‖.

    Those whose residual is small; two at least. Cost: `_BLOCKS` products with k + `_MORE` vectors.
    """
    d = len(rho)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(d, min(k + _MORE, d), generator=generator, dtype=torch.float64).to(rho)
    basis: list[Tensor] = []
    images: list[Tensor] = []
    block = torch.linalg.qr(rho @ block)[0]
    for _ in range(max(1, min(_BLOCKS, d // block.shape[1]))):
        basis.append(block)
        images.append(rho @ block)
        every = torch.cat(basis, dim=1)
        block = images[-1]
        # Where the space is exhausted, what is left is any vectors, which must be outside too: three times.
        for _ in range(3):
            block = torch.linalg.qr(block - every @ (every.mH @ block))[0]
    every, image = torch.cat(basis, dim=1), torch.cat(images, dim=1)
    inside = every.mH @ image
    values, turns = torch.linalg.eigh((inside + inside.mH) / 2)
    values, turns = values.flip(0)[:k], turns.flip(1)[:, :k]
    states = every @ turns
    residuals = torch.linalg.vector_norm(image @ turns - states * values.to(states), dim=0)
    good = residuals <= _CONVERGED * values[0]
    kept = max(int(good.cumprod(0).sum()), min(2, k))
    return values[:kept].clamp(min=0), states[:, :kept].mT.contiguous(), residuals[:kept]


def _rules(rho: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights (m, s) of Gauss's rules for z†f(A)z, A being ρ without these states."""
    d = len(rho)
    generator = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (d, _PROBES), generator=generator, dtype=torch.float64) * 2 - 1
    outside = _without(signs.to(rho), states)
    length = torch.linalg.vector_norm(outside, dim=0)
    steps = min(_STEPS, d - len(states))
    past = outside.new_empty(steps + 1, *outside.shape)
    past[0] = outside / length
    alphas, betas = [], []
    for i in range(steps):
        w = _without(rho @ past[i], states)
        alphas.append((past[i].conj() * w).sum(dim=0).real)
        before = past[: i + 1]
        for _ in range(2):
            w = w - (before * (before.conj() * w).sum(dim=1, keepdim=True)).sum(dim=0)
        beta = torch.linalg.vector_norm(w, dim=0)
        betas.append(beta)
        past[i + 1] = w / beta.clamp(min=_NOTHING).to(w)
    tridiagonal = torch.diag_embed(torch.stack(alphas, dim=1))
    off = torch.stack(betas[:-1], dim=1) if steps > 1 else alphas[0].new_zeros(_PROBES, 0)
    tridiagonal = tridiagonal + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    return nodes, vectors[:, 0].square() * length.square()[:, None]


def _without(vectors: Tensor, states: Tensor) -> Tensor:
    """Columns (d, m) less their parts in these states (k, d)."""
    return vectors - states.mT @ (states.conj() @ vectors)


def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # slow to import, for wide layers alone

    return float(stdtrit(freedom, _SURE))
