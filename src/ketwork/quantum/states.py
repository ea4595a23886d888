"""Pure and mixed states: `Ket` and `Density`, frozen values over tensors, with any leading batch axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._checks import ArrayLike, Subsystems
from ketwork.quantum._spectra import abs2, product, real_dtype, right_svd, shannon, wide
from ketwork.quantum._spectral_state import SpectralState
from ketwork.quantum._state import BaseState, kron
from ketwork.quantum._subsystems import partial_trace, split


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Ket(BaseState):
    """A pure state |ψ⟩ = Σᵢ cᵢ|i⟩: amplitudes c (*batch, d) with Σ|cᵢ|² = 1.

    `dims` names the subsystems, with product d, the first one varying slowest (as in `torch.kron` and QuTiP).
    Real or complex, float32 or float64; float16 and bfloat16 amplitudes are promoted to float32, integers are
    refused. The norm must be 1 within √eps of the dtype; `Ket.normalized` takes any non-zero vector.

    >>> plus = Ket.normalized([1.0, 1.0])
    >>> plus.probabilities()
    tensor([0.5000, 0.5000])
    """

    amplitudes: Tensor
    dims: tuple[int, ...]

    def __init__(self, amplitudes: ArrayLike, dims: Sequence[int] | None = None) -> None:
        c = check.floating(amplitudes, "amplitudes")
        check.axes(c, "amplitudes", "(*batch, d)", 1)
        norm = torch.linalg.vector_norm(c.detach(), dim=-1)
        check.unit(norm, "amplitudes", "norm", "Use `Ket.normalized(...)`.", check.tolerance(c))
        object.__setattr__(self, "amplitudes", c)
        object.__setattr__(self, "dims", check.dims_of(dims, c.shape[-1]))

    @classmethod
    def normalized(cls, x: ArrayLike, dims: Sequence[int] | None = None) -> Self:
        """Returns the ket x/‖x‖ of any non-zero vectors x (*batch, d); safe from under- and overflow.

        Raises ValueError where a vector is zero: it has no direction, so leave it out first.
        """
        c = check.floating(x, "x")
        check.axes(c, "x", "(*batch, d)", 1)
        scale = c.detach().abs().amax(-1, keepdim=True)  # constant: x/‖x‖ does not depend on it
        if bool((scale == 0).any()):
            raise ValueError(
                "Argument `x` must have no zero vector, "
                f"but {int((scale == 0).sum())} of its {scale.numel()} vectors are zero. Leave them out."
            )
        c = c / scale
        return cls(c / torch.linalg.vector_norm(c, dim=-1, keepdim=True), dims)

    @classmethod
    def basis(
        cls,
        i: int | Tensor,
        d: int,
        dims: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Self:
        """Returns |i⟩ in d dimensions; a tensor i of shape (*batch,) gives a batch."""
        index = torch.as_tensor(i, device=device)
        if bool(((index < 0) | (index >= d)).any()):
            raise ValueError(f"Argument `i` must lie in 0 … {d - 1}, but is {i}.")
        hot = torch.nn.functional.one_hot(index.long(), d)
        return cls(hot.to(dtype or torch.get_default_dtype()), dims)

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes."""
        return self.amplitudes.shape[:-1]

    def probabilities(self, basis: Tensor | None = None) -> Tensor:
        """Returns Born's probabilities |⟨bᵢ|ψ⟩|² (*batch, d), with bᵢ the columns of `basis` (None: |i⟩)."""
        if basis is None:
            return abs2(self.amplitudes)
        return abs2(product(self.amplitudes, check.orthonormal(basis, "basis", self.d, self._tensor).conj()))

    def collapse(self, outcome: int | Tensor) -> "Ket":
        """Returns the ket after outcome i of a measurement in the computational basis: (cᵢ/|cᵢ|)|i⟩.

        `outcome` is an int or int64 (*batch,). Raises ValueError where it has probability 0.
        """
        index = torch.as_tensor(outcome, device=self.amplitudes.device).expand(self.batch_shape)
        if bool(((index < 0) | (index >= self.d)).any()):
            raise ValueError(f"Argument `outcome` must lie in 0 … {self.d - 1}, but is {outcome}.")
        hot = torch.nn.functional.one_hot(index.long(), self.d)
        left = self.amplitudes * hot
        if bool((left.detach() == 0).all(-1).any()):
            raise ValueError(
                "Argument `outcome` must have positive probability, but has probability 0. Use `.measure()`."
            )
        return Ket.normalized(left, self.dims)

    def overlap(self, other: "Ket") -> Tensor:
        """Returns the amplitude ⟨self|other⟩ = Σᵢ c̄ᵢ c'ᵢ, (*batch,)."""
        check.same_size(self.d, other.d, "self", "other")
        return (self.amplitudes.conj() * other.amplitudes).sum(-1)

    def expect(self, op: Tensor) -> Tensor:
        """Returns the real ⟨ψ|op|ψ⟩ (*batch,) of a Hermitian op (d, d)."""
        return self.density().expect(op)

    def density(self) -> "Density":
        """Returns |ψ⟩⟨ψ|, kept as a factor of one row."""
        return _from_factor(self.amplitudes.conj().unsqueeze(-2), self.dims)

    def reduced(self, keep: Subsystems) -> "Density":
        """Returns the state of the subsystems `keep` alone, in ascending order: the partial trace.

        `keep` is a number n (the first n subsystems) or a collection of indices. The factor has as many rows
        as the rest has dimensions, so nothing d×d is formed.

        >>> bell = Ket.normalized([1.0, 0, 0, 1.0], dims=(2, 2))
        >>> bell.reduced(1).matrix()
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
        """
        kept = check.subsystems(keep, len(self.dims), "keep")
        parts = split(self.amplitudes.conj(), self.dims, kept)  # (*batch, d_rest, d_keep)
        return _from_factor(parts, tuple(self.dims[i] for i in kept))

    def schmidt(self, cut: Subsystems) -> Tensor:
        """Returns the Schmidt coefficients across a cut, descending, (*batch, min(d_A, d_B)); Σs² = 1.

        `cut` is a number n (the first n subsystems against the rest) or a collection. The Schmidt vectors are
        the eigenstates of the two sides: `ket.reduced(cut).eigenstates(k)`.

        >>> Ket.normalized([1.0, 0, 0, 1.0], dims=(2, 2)).schmidt(1)
        tensor([0.7071, 0.7071])
        """
        kept = check.subsystems(cut, len(self.dims), "cut", proper=True)
        values: Tensor = torch.linalg.svdvals(wide(split(self.amplitudes, self.dims, kept)))
        return values.to(real_dtype(self.amplitudes))

    def entanglement_entropy(self, cut: Subsystems, base: float = 2) -> Tensor:
        """Returns the entropy of either side of a cut (*batch,): 0 for a product, log min(d_A, d_B) at most.

        Cost: O(d · min(d_A, d_B)). In bits; `base=math.e` gives nats.
        """
        kept = check.subsystems(cut, len(self.dims), "cut", proper=True)
        return self.reduced(kept).entropy(base)

    def bloch(self) -> Tensor:
        """Returns a qubit's Bloch vector (⟨X⟩, ⟨Y⟩, ⟨Z⟩), real (*batch, 3), of length 1."""
        return self.density().bloch()

    def tensor(self, other: "Ket") -> "Ket":
        """Returns |self⟩ ⊗ |other⟩, with the subsystems of both."""
        outer = self.amplitudes.unsqueeze(-1) * other.amplitudes.unsqueeze(-2)
        return Ket(outer.flatten(-2), self.dims + other.dims)

    def __repr__(self) -> str:
        return self._summary()

    @property
    def _tensor(self) -> Tensor:
        return self.amplitudes

    def _with(self, tensor: Tensor) -> Self:
        return type(self)(tensor, self.dims)


@dataclass(frozen=True, eq=False, repr=False)
class Density(SpectralState):
    """A mixed state ρ ≥ 0, Tr ρ = 1, kept as a factor A (*batch, r, d), ρ = A†A, if r < d, else as ρ.

    Made by `from_kets`, `from_factor`, `from_matrix` or `maximally_mixed`, which check and choose; the
    constructor itself takes what it is given. The rows of A are √pₖ⟨ψₖ|, conjugated kets; for real data that
    is the data matrix with unit rows over √N. Results are the same for either form; the cost of a factored
    state is O(r² d) where a dense one takes O(d³).

    >>> Density.from_kets(torch.eye(3)[:2])
    Density(d=3, rank≤2, float32)
    """

    data: Tensor
    factored: bool
    dims: tuple[int, ...]

    @classmethod
    def from_kets(
        cls, kets: Ket | ArrayLike, weights: ArrayLike | None = None, dims: Sequence[int] | None = None
    ) -> "Density":
        """Returns the mixture Σₖ wₖ|ψₖ⟩⟨ψₖ| of kets (*batch, N, d) with weights (*batch, N), else 1/N."""
        kets = kets if isinstance(kets, Ket) else Ket(kets)
        if not kets.batch_shape or kets.batch_shape[-1] == 0:
            raise ValueError(
                "Argument `kets` must have shape (*batch, N, d) with N ≥ 1, "
                f"but has {tuple(kets.amplitudes.shape)}. "
                "For one ket use `ket.density()`."
            )
        count = kets.batch_shape[-1]
        if weights is None:
            rows = kets.amplitudes.conj() / math.sqrt(count)
        else:
            w = check.probabilities(weights, "weights", like=kets.amplitudes)
            check.same_size(w.shape[-1], count, "weights", "kets")
            rows = kets.amplitudes.conj() * w.sqrt().unsqueeze(-1)
        return _from_factor(rows, kets.dims if dims is None else check.dims_of(dims, kets.d))

    @classmethod
    def from_factor(
        cls, a: ArrayLike, dims: Sequence[int] | None = None, normalize: bool = False
    ) -> "Density":
        """Returns ρ = A†A of A (*batch, r, d) with ‖A‖_F = 1, or any non-zero A with `normalize=True`.

        With `normalize=True` and real data X (N, d) this is XᵀX/Tr XᵀX: rows weigh by their squared norms.
        """
        rows = check.floating(a, "a")
        check.axes(rows, "a", "(*batch, r, d)", 2)
        # Rows first, then their norms in double precision: a float32 sum over a large A is off by 1e−4.
        norm = torch.linalg.vector_norm(wide(torch.linalg.vector_norm(rows, dim=-1)), dim=-1)
        if normalize:
            if bool((norm.detach() == 0).any()):
                raise ValueError("Argument `a` must not be zero, but is. Leave out states without data.")
            rows = rows / norm[..., None, None].to(real_dtype(rows))
        else:
            check.unit(
                norm.square(),
                "a",
                "trace A†A",
                "Use `from_factor(a, normalize=True)`.",
                check.tolerance(rows),
            )
        return _from_factor(rows, check.dims_of(dims, rows.shape[-1]))

    @classmethod
    def from_matrix(
        cls, m: ArrayLike, dims: Sequence[int] | None = None, normalize: bool = False, positive: bool = False
    ) -> "Density":
        """Returns the state of a matrix (*batch, d, d): square, Hermitian, trace 1, no negative eigenvalue.

        `normalize=True` divides by the trace first. `positive=True` vouches for the eigenvalues, as with any
        M = XᵀX, and saves their O(d³) check. All checks allow √eps of the dtype.
        """
        rho = check.hermitian(check.floating(m, "m"), "m")
        trace = torch.einsum("...ii->...", rho).real
        tol = check.tolerance(rho)
        if normalize:
            if bool((trace.detach() <= 0).any()):
                raise ValueError(
                    f"Argument `m` must have positive trace, but has trace {trace.min().item():.3g}."
                )
            rho = rho / trace[..., None, None]
        else:
            check.unit(trace, "m", "trace", "Use `from_matrix(m, normalize=True)`.", tol)
        if not positive:
            least = torch.linalg.eigvalsh(wide(rho.detach()))[..., 0]
            if bool((least < -tol).any()):
                raise ValueError(
                    f"Argument `m` must have no negative eigenvalue, but has {least.min().item():.3g}, "
                    f"{check.beyond(-least.min().item(), tol)}. Use a factor, `from_factor(x, normalize=True)`."
                )
        return cls(rho, False, check.dims_of(dims, rho.shape[-1]))

    @classmethod
    def maximally_mixed(
        cls,
        d: int,
        dims: Sequence[int] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "Density":
        """Returns 1/d, the state of which nothing is known."""
        check.at_least_one(d, "d")
        return cls(torch.eye(d, dtype=dtype, device=device) / d, False, check.dims_of(dims, d))

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes."""
        return self.data.shape[:-2]

    def matrix(self) -> Tensor:
        """Returns ρ, dense (*batch, d, d)."""
        return self.data.mH @ self.data if self.factored else self.data

    @torch.no_grad()
    def eigenstates(self, k: int) -> tuple[Tensor, Ket]:
        """Returns the k largest eigenvalues (*batch, k), descending, and their kets (*batch, k, d).

        Kets are fixed up to phases and rotations within equal eigenvalues; no gradient passes.
        """
        if not 1 <= k <= self.d:
            raise ValueError(f"Argument `k` must lie in 1 … {self.d}, but is {k}.")
        if self.factored:
            s, vh = right_svd(wide(self.data), full=k > self.data.shape[-2])
            values = torch.nn.functional.pad(s.square(), (0, max(k - s.shape[-1], 0)))
            kets = vh.conj()
        else:
            w, v = torch.linalg.eigh(wide(self.data))
            values, kets = w.flip(-1).clamp(min=0), v.flip(-1).mT
        return values[..., :k].to(real_dtype(self.data)), Ket(kets[..., :k, :].to(self.dtype), self.dims)

    def probabilities(self, basis: Tensor | None = None) -> Tensor:
        """Returns Born's probabilities ⟨bᵢ|ρ|bᵢ⟩ (*batch, d), with bᵢ the columns of `basis` (None: |i⟩)."""
        b = None if basis is None else check.orthonormal(basis, "basis", self.d, self._tensor)
        if self.factored:
            return abs2(self.data if b is None else product(self.data, b)).sum(-2)
        if b is None:
            return torch.diagonal(self.data, dim1=-2, dim2=-1).real.clamp(min=0)
        return (product(self.data, b) * b.conj()).sum(-2).real.clamp(min=0)

    def coherence(self, basis: Tensor | None = None, base: float = 2) -> Tensor:
        """Returns the relative entropy of coherence S(diagonal of ρ in `basis`) − S(ρ) (*batch,), in bits.

        0 where ρ is diagonal in the basis, log d for the uniform superposition (Baumgratz, Cramer and Plenio
        2014, arXiv 1311.0275).
        """
        log_base = check.log_base(base)
        mixed = shannon(wide(self.probabilities(basis)), log_base)
        return (mixed - shannon(self._eigenvalues(), log_base)).to(real_dtype(self.data))

    def expect(self, op: Tensor) -> Tensor:
        """Returns the real Tr ρ·op (*batch,) of a Hermitian op (d, d)."""
        op = check.hermitian(check.floating(op, "op", self._tensor), "op")
        check.same_size(op.shape[-1], self.d, "op", "self")
        rows = product(self.data, op)
        return (
            (rows * self.data.conj()).sum((-2, -1)) if self.factored else torch.einsum("...ii->...", rows)
        ).real

    def reduced(self, keep: Subsystems) -> "Density":
        """Returns the state of the subsystems `keep` alone, in ascending order: the partial trace.

        `keep` is a number n (the first n subsystems) or a collection of indices.
        """
        kept = check.subsystems(keep, len(self.dims), "keep")
        sizes = tuple(self.dims[i] for i in kept)
        if not self.factored:
            return Density(partial_trace(self.data, self.dims, kept), False, sizes)
        return _from_factor(split(self.data, self.dims, kept).flatten(-3, -2), sizes)

    def bloch(self) -> Tensor:
        """Returns a qubit's Bloch vector (Tr ρX, Tr ρY, Tr ρZ), real (*batch, 3); length² = 2 Tr ρ² − 1."""
        if self.d != 2:
            raise ValueError(f"A Bloch vector needs a qubit, d = 2, but the state has d = {self.d}.")
        m = self.matrix()
        x = 2 * m[..., 0, 1].real
        y = -2 * m[..., 0, 1].imag if m.is_complex() else torch.zeros_like(x)
        return torch.stack([x, y, (m[..., 0, 0] - m[..., 1, 1]).real], -1)

    def tensor(self, other: "Density | Ket") -> "Density":
        """Returns ρ ⊗ σ, with the subsystems of both."""
        sigma = other.density() if isinstance(other, Ket) else other
        dims = self.dims + sigma.dims
        if self.factored and sigma.factored:
            return _from_factor(kron(self.data, sigma.data), dims)
        return Density(kron(self.matrix(), sigma.matrix()), False, dims)

    def mix(self, other: "Density | Ket", weight: float | Tensor) -> "Density":
        """Returns (1 − w)ρ + wσ for a weight w in [0, 1], a number or (*batch,)."""
        sigma = other.density() if isinstance(other, Ket) else other
        check.same_size(self.d, sigma.d, "self", "other")
        w = torch.as_tensor(weight, dtype=real_dtype(self.data, sigma.data), device=self.data.device)
        if bool(((w < 0) | (w > 1)).any()):
            raise ValueError(f"Argument `weight` must lie in [0, 1], but is {weight}.")
        w = w[..., None, None]
        if not (self.factored and sigma.factored):
            return Density((1 - w) * self.matrix() + w * sigma.matrix(), False, self.dims)
        a, b = (1 - w).sqrt() * self.data, w.sqrt() * sigma.data
        batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        dtype = torch.promote_types(a.dtype, b.dtype)
        rows = [x.expand(*batch, *x.shape[-2:]).to(dtype) for x in (a, b)]
        return _from_factor(torch.cat(rows, -2), self.dims)

    def __repr__(self) -> str:
        return self._summary(f", rank≤{self.data.shape[-2]}" if self.factored else "")

    @property
    def _tensor(self) -> Tensor:
        return self.data

    def _with(self, tensor: Tensor) -> Self:
        return type(self)(tensor, self.factored, self.dims)

    def _small(self) -> Tensor:
        data = wide(self.data)
        return data @ data.mH if self.factored else data


State = Ket | Density


def _from_factor(a: Tensor, dims: tuple[int, ...]) -> Density:
    r, d = a.shape[-2:]
    if r < d:
        return Density(a, True, dims)
    double = wide(a)
    return Density((double.mH @ double).to(a.dtype), False, dims)
