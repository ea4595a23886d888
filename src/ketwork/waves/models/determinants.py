"""Waves of fermions: Slater determinants with a Jastrow factor, and neural backflow, which lets a network move the
orbitals.

In the occupation basis of `electrons(…)`, or of any space whose conserved groups say how many fermions of each kind
there are, a determinant of the occupied rows of an orbital matrix (sites × fermions) is an amplitude with its sign:
the creation operators stand in the order of the sites, as in Jordan–Wigner's transformation.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ketwork.waves.factored import Factors, products
from ketwork.waves.models.network import Network, normal
from ketwork.waves.spaces import Space


class Backflow(Network):
    """ψ(n) = e^{J(n)} Σ_k Π_g det[(M_g + F_gk(n)) at the occupied sites]: neural backflow on Slater determinants.

    M_g (sites × fermions of kind g) starts from `orbitals`, F from a dense network of the occupations with layers of
    `widths` (none: a Slater determinant), J is a sum over pairs of sites. Luo & Clark 2019 (DOI
    10.1103/PhysRevLett.122.226401).

    Args:
        widths: of the hidden layers of F.
        determinants: how many are summed: one does not hold the several determinants of broken bonds and strong
            interactions, and each more costs as much again.
        orbitals: a matrix (sites of the kind, fermions) for each kind; the first sites unless given, which is
            Hartree–Fock in a molecule's own orbitals. `free_orbitals` has those of a hopping Hamiltonian.
        jastrow: whether there is a J.
        std: the deviation of the orbitals' noise at first, and of F's.
        dtype: float64 unless given: energies of molecules have seven digits before a millihartree.

    The Jacobian is analytic but for the determinants' own, which is one backward pass for all configurations.
    """

    signed = True

    def __init__(
        self,
        widths: Sequence[int] = (64,),
        *,
        determinants: int = 4,
        orbitals: Sequence[Any] | None = None,
        jastrow: bool = True,
        std: float = 0.02,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if determinants < 1:
            raise ValueError(f"Argument `determinants` must be at least 1, but is {determinants}.")
        self.widths, self.determinants, self.jastrow = tuple(widths), determinants, jastrow
        self.orbitals, self.std, self.dtype = orbitals, std, dtype

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes M (kinds), the layers of F, and J (pairs)."""
        self.kinds = _kinds(space)
        given = [None] * len(self.kinds) if self.orbitals is None else list(self.orbitals)
        if len(given) != len(self.kinds):
            raise ValueError(
                f"Argument `orbitals` must have a matrix for each of {len(self.kinds)} kinds, but has {len(given)}."
            )
        self.m = nn.ParameterList()
        for (sites, count), matrix in zip(self.kinds, given, strict=True):
            start = (
                torch.eye(len(sites), dtype=self.dtype)[:, :count]
                if matrix is None
                else _real(matrix, self.dtype)
            )
            if start.shape != (len(sites), count):
                raise ValueError(
                    f"Argument `orbitals` must have matrices ({len(sites)}, {count}) here, but has "
                    f"{tuple(start.shape)}."
                )
            noise = torch.randn(start.shape, generator=generator, dtype=self.dtype) * self.std
            self.m.append(nn.Parameter(start + noise))
        self.outputs = self.determinants * sum(len(sites) * count for sites, count in self.kinds)
        if self.widths:
            sizes = [space.sites, *self.widths, self.outputs]
            layers = [nn.Linear(a, b, dtype=self.dtype) for a, b in pairwise(sizes)]
            with torch.no_grad():
                for layer in layers:
                    last = layer is layers[-1]
                    deviation = (self.std if last else 1.0) * layer.in_features**-0.5
                    layer.weight.normal_(0, deviation, generator=generator)
                    layer.bias.normal_(
                        0, self.std if last and self.determinants > 1 else 0.0, generator=generator
                    )
            self.layers = nn.ModuleList(layers)
        self.rows, self.columns = torch.triu_indices(space.sites, space.sites, 1)
        if self.jastrow:
            self.j = normal(len(self.rows), std=0.0, generator=generator, dtype=self.dtype)
        self.crossed = _crossed(self.kinds, space.sites)

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): complex (batch,), its imaginary part 0 or π."""
        log, sign = self.log_and_sign(x)
        return torch.complex(log, (1 - sign) / 2 * math.pi)

    def log_and_sign(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |ψ| and the sign of ψ (batch,), both real; −∞ where ψ is 0."""
        level = self.space.level(x)
        moved, _ = self._moved(x)
        log, sign = self._determinants(level, [m + f for m, f in zip(self.m, moved, strict=True)])
        if self.jastrow:
            log = log + self._pairs(level) @ self.j
        return log, sign

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log |ψ|/∂(J, M, F) of each configuration (batch, parameters), in the order of `named_parameters`."""
        return products(self.factors(x))

    def factors(self, x: Tensor) -> Factors:
        """The same, each layer's weights by what comes back and what went in."""
        level = self.space.level(x)
        with torch.no_grad():
            moved, inputs = self._moved(x)
        matrices = [
            (m.detach() + f).expand(len(x), -1, -1, -1).clone().requires_grad_()
            for m, f in zip(self.m, moved, strict=True)
        ]
        with torch.enable_grad():
            log, _ = self._determinants(level, matrices)
            seen = torch.where(torch.isfinite(log), log, 0.0)
            slopes = torch.autograd.grad(seen.sum(), matrices, allow_unused=True)
        given = [torch.zeros_like(w) if s is None else s for s, w in zip(slopes, matrices, strict=True)]
        given = [torch.where(torch.isfinite(log.detach())[:, None, None, None], s, torch.nan) for s in given]
        parts: dict[str, tuple[Tensor, Tensor | None]] = {
            f"m.{k}": (s.sum(1).flatten(1), None) for k, s in enumerate(given)
        }
        if self.jastrow:
            parts["j"] = self._pairs(level), None
        if self.widths:
            delta = torch.cat([s.flatten(2) for s in given], 2).flatten(1)  # (batch, outputs)
            for k in range(len(self.layers) - 1, -1, -1):
                parts[f"layers.{k}.weight"] = delta, inputs[k]
                parts[f"layers.{k}.bias"] = delta, None
                if k:
                    weight: Tensor = self.layers[k].weight  # type: ignore[assignment]
                    delta = (delta @ weight) * (1 - inputs[k].square())  # tanh' = 1 − tanh²
        return [parts[name] for name, p in self.named_parameters() if p.requires_grad]

    def _moved(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """F (batch, determinants, sites, fermions) of each kind, and what each layer reads."""
        if not self.widths:
            zero = [x.new_zeros(1, self.determinants, *m.shape, dtype=self.dtype) for m in self.m]
            return zero, []
        h, inputs = self.features(x).to(self.dtype), []
        for layer in self.layers:
            inputs.append(h)
            h = layer(h)
            if layer is not self.layers[-1]:
                h = torch.tanh(h)
        result, start = [], 0
        shaped = h.unflatten(1, (self.determinants, -1))
        for m in self.m:
            result.append(shaped[:, :, start : start + m.numel()].unflatten(2, m.shape))
            start += m.numel()
        return result, inputs

    def _determinants(self, level: Tensor, matrices: list[Tensor]) -> tuple[Tensor, Tensor]:
        """log |Σ_k Π_g det| and its sign from orbital matrices (batch or 1, determinants, sites, fermions)."""
        log = level.new_zeros(len(level), self.determinants, dtype=self.dtype)
        sign = torch.ones_like(log)
        for (sites, count), matrix in zip(self.kinds, matrices, strict=True):
            if not count:
                continue
            occupied = torch.argsort(level[:, sites], dim=1, descending=True, stable=True)[:, :count]
            index = occupied[:, None, :, None].expand(-1, self.determinants, -1, count)
            chosen = torch.gather(matrix.expand(len(level), -1, -1, -1), 2, index)
            one, size = torch.linalg.slogdet(chosen)
            log, sign = log + size, sign * one
        top = log.detach().amax(1)
        top = torch.where(torch.isfinite(top), top, 0.0)
        total = (sign * torch.exp(log - top[:, None])).sum(1)
        parity = ((level.to(self.dtype) @ self.crossed.to(level.device)) * level).sum(1) % 2
        return top + torch.log(total.abs()), torch.sign(total.detach()) * (1 - 2 * parity)

    def _pairs(self, level: Tensor) -> Tensor:
        n = level.to(self.dtype)
        return n[:, self.rows] * n[:, self.columns]


class Slater(Backflow):
    """ψ(n) = e^{J(n)} Π_g det[M_g at the occupied sites]: a Slater determinant with a Jastrow factor, `Backflow`
    without F."""

    def __init__(
        self,
        *,
        orbitals: Sequence[Any] | None = None,
        jastrow: bool = True,
        std: float = 0.02,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__((), determinants=1, orbitals=orbitals, jastrow=jastrow, std=std, dtype=dtype)


def free_orbitals(hopping: Any, fermions: int) -> np.ndarray:
    """The lowest eigenvectors (sites, fermions) of a hopping matrix (sites, sites): a Slater determinant without
    interaction.

    Where the last level is degenerate, the choice among its orbitals is that of a fixed small perturbation.
    """
    matrix = np.asarray(hopping, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 0 <= fermions <= len(matrix):
        raise ValueError(
            f"Argument `hopping` must be a square matrix of at least {fermions} sites, but has shape {matrix.shape}."
        )
    noise = np.random.default_rng(0).normal(size=matrix.shape) * 1e-3 * np.abs(matrix).max(initial=1e-12)
    vectors = np.linalg.eigh(matrix + noise + noise.T)[1]
    return vectors[:, :fermions]


def _kinds(space: Space) -> list[tuple[list[int], int]]:
    """The sites of each kind of fermions, and how many there are of it."""
    kinds = [(list(group), total) for group, total in space.conserved]
    if space.levels != 2 or sorted(site for sites, _ in kinds for site in sites) != list(range(space.sites)):
        raise ValueError(
            "A determinant needs two levels a site, and a fixed number of fermions on all sites: use `electrons(…)` or "
            "`qubits(sites, ones=…)`."
        )
    return kinds


def _crossed(kinds: list[tuple[list[int], int]], sites: int) -> Tensor:
    """Pairs of sites i < j of which j belongs to an earlier kind: both occupied, they cost a sign."""
    kind = torch.empty(sites, dtype=torch.int64)
    for k, (own, _) in enumerate(kinds):
        kind[own] = k
    later = kind[:, None] > kind[None]
    return torch.triu(later, 1).to(torch.float64)


def _real(matrix: Any, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(np.asarray(matrix), dtype=dtype)
