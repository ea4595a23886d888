"""Measurements: projective, coarse-grained, general, and the two that read labels out of states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ketwork._compat import renamed
from ketwork.quantum import _checks as check
from ketwork.quantum._born import draw
from ketwork.quantum._pairs import densities, joint_frame, root
from ketwork.quantum._spectra import EPS, abs2, inverse_sqrt, noise, product, psd_eigh, shannon, wide
from ketwork.quantum.ensembles import Ensemble
from ketwork.quantum.seeding import Seed, generator_or_none
from ketwork.quantum.states import Density, Ket, State


@dataclass(frozen=True, eq=False, repr=False)
class Measurement:
    """A measurement with m outcomes (a POVM): effects Eₖ = Mₖ†Mₖ ≥ 0 with Σ Eₖ = 1.

    `operators` (m, r, d) holds the Mₖ with orthogonal rows, so that many labels and a wide d stay in memory.
    With `shares_rest` the projector P = 1 − Σ Mⱼ†Mⱼ is shared out equally: Eₖ = Mₖ†Mₖ + P/m.
    Made by `projective`, `from_effects`, `pretty_good` and `helstrom`, which see to all that.

    >>> z = Measurement.projective(torch.eye(2))
    >>> z.probabilities(Ket.normalized(torch.tensor([3.0, 4.0])))
    tensor([0.3600, 0.6400])
    """

    operators: Tensor
    shares_rest: bool = False

    @classmethod
    def projective(cls, basis: Tensor, groups: Sequence[Sequence[int]] | None = None) -> "Measurement":
        """Returns the measurement in an orthonormal basis, the columns of `basis` (d, d).

        `groups` partitions the columns: outcome k is "in the span of group k", and superpositions inside a
        group survive. Without it each column is an outcome.
        """
        rows = check.orthonormal(basis, "basis").mH
        if groups is None:
            return cls(rows.unsqueeze(1).contiguous())
        members = sorted(i for group in groups for i in group)
        if members != list(range(len(rows))):
            raise ValueError(
                f"Argument `groups` must hold each of the {len(rows)} columns once, but holds {members}. "
                "Gather the columns left over in a group of their own."
            )
        return cls(pad_sequence([rows[list(group)] for group in groups], batch_first=True))

    @classmethod
    def from_effects(cls, effects: Tensor) -> "Measurement":
        """Returns the measurement of effects (m, d, d): Hermitian, no negative eigenvalue, with sum 1."""
        e = check.hermitian(check.floating(effects, "effects"), "effects")
        if e.ndim != 3:
            raise ValueError(f"Argument `effects` must have shape (m, d, d), but has {tuple(e.shape)}.")
        tol = check.tolerance(e)
        off = (e.detach().sum(0) - torch.eye(e.shape[-1], dtype=e.dtype, device=e.device)).abs().max().item()
        if off > tol:
            raise ValueError(
                f"Argument `effects` must sum to the identity, but is {check.beyond(off, tol)}. "
                "Add the effect `1 - effects.sum(0)`."
            )
        w, v, keep = psd_eigh(wide(e), noise(e.shape[-1], e.real.dtype))
        if bool((w < -tol).any()):
            raise ValueError(
                f"Argument `effects` must have no negative eigenvalue, but has {w.min().item():.3g}, "
                f"{check.beyond(-w.min().item(), tol)}. Use `m.mH @ m` of any m, which has none."
            )
        rows = w.clamp(min=0).sqrt().unsqueeze(-1) * v.mH
        rank = max(int(keep.sum(-1).max()), 1)  # eigenvalues ascend: the last ones are kept
        return cls((rows * keep.unsqueeze(-1))[:, -rank:].to(e.dtype))

    @classmethod
    @torch.no_grad()
    def pretty_good(cls, ensemble: Ensemble) -> "Measurement":
        """Returns the pretty good (square-root) measurement, Eₖ = ρ̄^(−1/2) pₖρₖ ρ̄^(−1/2), ρ̄ = Σ pₖρₖ.

        It guesses the label with P_opt² ≤ P ≤ P_opt (Hausladen and Wootters 1994; Barnum and Knill 2002,
        quant-ph/0004088). The kernel of ρ̄ is shared out equally. In factors it is the polar isometry of the
        stacked √pₖAₖ (K·r, d), on its smaller side: O(min(K·r, d)² max(K·r, d)). No gradient passes.
        """
        states = ensemble.states
        if len(states.batch_shape) != 1:
            raise ValueError(
                "Argument `ensemble` must have one label axis, "
                f"but has batch shape {tuple(states.batch_shape)}. "
                "Index the batch first."
            )
        a = wide(states.amplitudes.conj()).unsqueeze(-2) if isinstance(states, Ket) else root(states)
        a = wide(ensemble.probabilities).sqrt()[:, None, None] * a  # (K, r, d)
        c = a.flatten(0, 1)
        if c.shape[0] < c.shape[1]:
            m = inverse_sqrt(c @ c.mH, noise(c.shape[0])) @ c
        else:
            m = c @ inverse_sqrt(c.mH @ c, noise(c.shape[1]))
        return cls(_orthogonal_rows(m.reshape(a.shape)).to(states.dtype), _leaves_rest(m))

    @classmethod
    @torch.no_grad()
    def helstrom(cls, rho: State, sigma: State, p: float = 0.5) -> "Measurement":
        """Returns the best measurement to tell ρ, of probability p, (outcome 0) from σ (outcome 1).

        It projects on the positive and the negative part of pρ − (1 − p)σ and succeeds with probability
        (1 + ‖pρ − (1 − p)σ‖₁)/2 (Helstrom 1969). The kernel is shared out equally.
        """
        if not 0 <= p <= 1:
            raise ValueError(f"Argument `p` must lie in [0, 1], but is {p}.")
        a, b, _ = densities(rho, sigma)
        if a.batch_shape or b.batch_shape:
            raise ValueError("Arguments `rho` and `sigma` must have no batch axes. Index the batch first.")
        x, y, q = joint_frame(a, b)
        w, v = torch.linalg.eigh(p * x - (1 - p) * y)
        rows = v.mH if q is None else product(q, v).mH
        level = len(w) * EPS
        sides = pad_sequence([rows[w > level], rows[w < -level]], batch_first=True)  # (2, r, d), r ≥ 0
        dtype = torch.promote_types(a.dtype, b.dtype)
        return cls(sides.to(dtype), _leaves_rest(sides))

    @property
    def d(self) -> int:
        """The dimension of the space."""
        return self.operators.shape[-1]

    def __len__(self) -> int:
        return self.operators.shape[0]

    def __repr__(self) -> str:
        m, r, d = self.operators.shape
        return (
            f"Measurement(outcomes={m}, d={d}, rank≤{r}, {str(self.operators.dtype).removeprefix('torch.')})"
        )

    def effects(self) -> Tensor:
        """Returns the effects, dense (m, d, d)."""
        e = self.operators.mH @ self.operators
        if not self.shares_rest:
            return e
        return e + (torch.eye(self.d, dtype=e.dtype, device=e.device) - e.sum(0)) / len(self)

    def probabilities(self, state: State) -> Tensor:
        """Returns Born's probabilities Tr Eₖρ (*batch, m); differentiable in the state."""
        check.same_size(state.d, self.d, "state", "self")
        rows = self.operators.flatten(0, 1)  # (m·r, d)
        if isinstance(state, Ket):
            weights = abs2(product(state.amplitudes, rows.mT))
        elif state.factored:
            weights = abs2(product(state.data, rows.mH)).sum(-2)
        else:
            weights = (product(rows, state.data) * rows.conj()).sum(-1).real.clamp(min=0)
        p = weights.unflatten(-1, self.operators.shape[:2]).sum(-1)
        if not self.shares_rest:
            return p
        rest = 1 - p.sum(-1, keepdim=True)
        return p + torch.where(rest > self.d * torch.finfo(p.dtype).eps, rest, 0.0) / len(self)

    @renamed(generator="seed")
    def measure(self, state: State, *, seed: Seed | None = None) -> tuple[Tensor, State]:
        """Returns an outcome (*batch,), drawn by Born's rule, and the state after it (see `collapse`)."""
        outcome = draw(self.probabilities(state), None, generator_or_none(seed, state.device))
        return outcome, self.collapse(state, outcome)

    def collapse(self, state: State, outcome: int | Tensor) -> State:
        """Returns √Eₖ ρ √Eₖ / Tr Eₖρ, the state after outcome k (Lüders's rule); a ket stays a ket.

        `outcome` is an int or int64 (*batch,). A projective measurement repeated on the result gives the same
        outcome. Raises ValueError where the outcome has probability 0.
        """
        index = torch.as_tensor(outcome, device=self.operators.device).expand(state.batch_shape)
        if bool(((index < 0) | (index >= len(self))).any()):
            raise ValueError(f"Argument `outcome` must lie in 0 … {len(self) - 1}, but is {outcome}.")
        p = self.probabilities(state).detach().gather(-1, index.unsqueeze(-1))
        eps = torch.finfo(p.dtype).eps
        rounding = eps if isinstance(state, Density) and not state.factored else self.d * eps**2
        if bool((p <= rounding).any()):
            raise ValueError(
                "Argument `outcome` must have positive probability, but has probability 0. Use `.measure()`."
            )
        if isinstance(state, Ket):
            after = self._root(state.amplitudes.unsqueeze(-2), index).squeeze(-2)
            return Ket.normalized(after, state.dims)
        rows = self._root(state.data.conj(), index).conj()  # A √Eₖ, or ρ √Eₖ
        if state.factored:
            return Density.from_factor(rows, state.dims, normalize=True)
        both = self._root(rows.mT, index).mT  # √Eₖ ρ √Eₖ
        return Density.from_matrix(both, state.dims, normalize=True, positive=True)

    def success(self, ensemble: Ensemble) -> Tensor:
        """Returns Σₖ pₖ Tr Eₖρₖ (*batch,), the probability that the outcome is the label."""
        check.same_size(len(self), len(ensemble), "self", "ensemble")
        hits = torch.diagonal(self.probabilities(ensemble.states), dim1=-2, dim2=-1)
        return (ensemble.probabilities * hits).sum(-1)

    def information(self, ensemble: Ensemble, base: float = 2) -> Tensor:
        """Returns the mutual information of label and outcome (*batch,), in bits; never above χ."""
        log_base = check.log_base(base)
        outcomes = self.probabilities(ensemble.states)
        joint = wide(ensemble.probabilities.unsqueeze(-1) * outcomes)  # (*batch, K, m)
        parts = shannon(joint.sum(-1), log_base) + shannon(joint.sum(-2), log_base)
        return (parts - shannon(joint.flatten(-2), log_base)).to(outcomes.dtype)

    def _root(self, kets: Tensor, index: Tensor) -> Tensor:
        """√Eₖ on kets (*batch, n, d), one outcome for each batch entry.

        Mₖ has orthogonal rows of lengths s, so √(Mₖ†Mₖ) = Mₖ†(1/s)Mₖ; a shared rest acts on the kernel of
        all Mₖ, where its root is P/√m.
        """
        m = self.operators[index]  # (*batch, r, d)
        s = torch.linalg.vector_norm(m, dim=-1)
        scale = torch.where(s > 0, 1 / torch.where(s > 0, s, torch.ones_like(s)), 0.0).unsqueeze(-2)
        image = product(product(kets, m.mT) * scale, m.conj())
        if not self.shares_rest:
            return image
        rows = self.operators.flatten(0, 1)
        rest = kets - product(product(kets, rows.mT), rows.conj())
        return image + rest / len(self) ** 0.5


def _leaves_rest(m: Tensor) -> bool:
    """Whether isometric pieces leave a part of the space over: the trace of that part is an integer."""
    return m.shape[-1] - float(abs2(m).sum()) > 0.5


def _orthogonal_rows(m: Tensor) -> Tensor:
    """Each (r, d) of `m` turned so that its rows are orthogonal, which leaves M†M as it is."""
    if m.shape[-2] == 1:
        return m
    return torch.linalg.eigh(m @ m.mH).eigenvectors.mH @ m
