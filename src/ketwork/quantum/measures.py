"""Measures of one state, of one state's parts, and of an ensemble; each takes a `Ket` or a `Density`.

Entropies are in bits (`base=2`); All are differentiable, and batched over leading axes.
"""

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._checks import ArrayLike, Subsystems
from ketwork.quantum._spectra import real_dtype, shannon, wide
from ketwork.quantum._subsystems import partial_transpose, rest
from ketwork.quantum.states import Ket, State


def shannon_entropy(p: ArrayLike, base: float = 2) -> Tensor:
    """Returns H(p) = −Σ p log p (*batch,) of probabilities p (*batch, n), in bits.

    >>> shannon_entropy([0.5, 0.25, 0.25])
    tensor(1.5000)
    """
    q = check.probabilities(p, "p")
    return shannon(wide(q), check.log_base(base)).to(q.dtype)


def entropy(state: State, base: float = 2) -> Tensor:
    """Returns the von Neumann entropy (*batch,), in bits; see `Density.entropy`. 0 for a ket."""
    if isinstance(state, Ket):
        check.log_base(base)
        return state.amplitudes.real.new_zeros(state.batch_shape)
    return state.entropy(base)


def purity(state: State) -> Tensor:
    """Returns Tr ρ² (*batch,), from 1/d to 1; see `Density.purity`. 1 for a ket."""
    return _ones(state) if isinstance(state, Ket) else state.purity()


def effective_rank(state: State) -> Tensor:
    """Returns exp S(ρ), S in nats (*batch,), from 1 to d; see `Density.effective_rank`. 1 for a ket."""
    return _ones(state) if isinstance(state, Ket) else state.effective_rank()


def participation_ratio(state: State) -> Tensor:
    """Returns 1/Tr ρ² (*batch,), from 1 to d; see `Density.participation_ratio`. 1 for a ket."""
    return _ones(state) if isinstance(state, Ket) else state.participation_ratio()


def coherence(state: State, basis: Tensor | None = None, base: float = 2) -> Tensor:
    """Returns the relative entropy of coherence (*batch,), in bits; see `Density.coherence`.

    For a ket it is the Shannon entropy of the outcomes in the basis.

    >>> coherence(Ket.normalized(torch.ones(8)))
    tensor(3.)
    """
    if isinstance(state, Ket):
        p = wide(state.probabilities(basis))
        return shannon(p, check.log_base(base)).to(real_dtype(state.amplitudes))
    return state.coherence(basis, base)


def mutual_information(state: State, a: Subsystems, b: Subsystems | None = None, base: float = 2) -> Tensor:
    """Returns S(A) + S(B) − S(AB) (*batch,), in bits, of two disjoint groups of subsystems.

    `a` and `b` are numbers n (the first n subsystems) or collections; B is all that is not in A where None.

    >>> mutual_information(Ket.normalized([1.0, 0, 0, 1.0], dims=(2, 2)), [0])
    tensor(2.)
    """
    count = len(state.dims)
    part_a = check.subsystems(a, count, "a", proper=True)
    part_b = rest(state.dims, part_a) if b is None else check.subsystems(b, count, "b", proper=True)
    shared = set(part_a) & set(part_b)
    if shared:
        raise ValueError(f"Arguments `a` and `b` must be disjoint, but share {sorted(shared)}.")
    both = (*part_a, *part_b)
    joint = entropy(state if len(both) == count else state.reduced(both), base)
    return state.reduced(part_a).entropy(base) + state.reduced(part_b).entropy(base) - joint


def negativity(state: State, cut: Subsystems) -> Tensor:
    """Returns the negativity (‖ρ^T_A‖₁ − 1)/2 (*batch,) across a cut: 0 if separable, 1/2 for a Bell pair.

    `cut` is a number n (the first n subsystems) or a collection. A density operator goes dense, O(d³); a ket
    has ((Σ s)² − 1)/2 from its Schmidt coefficients s. (Vidal and Werner 2002, quant-ph/0102117; the same as
    QuTiP's `negativity`, half of its trace-norm excess.)
    """
    part = check.subsystems(cut, len(state.dims), "cut", proper=True)
    if isinstance(state, Ket):
        return (state.schmidt(part).sum(-1).square() - 1) / 2
    transposed = partial_transpose(wide(state.matrix()), state.dims, part)
    values = torch.linalg.eigvalsh(transposed)
    return (-values).clamp(min=0).sum(-1).to(real_dtype(state.data))


def _ones(ket: Ket) -> Tensor:
    return ket.amplitudes.real.new_ones(ket.batch_shape)
