"""Ensembles: states with labels, and what one measurement can tell of the label."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._checks import ArrayLike
from ketwork.quantum._stacking import stack
from ketwork.quantum.measures import entropy
from ketwork.quantum.states import Density, Ket, State


@dataclass(frozen=True, eq=False, init=False)
class Ensemble:
    """K labelled states with probabilities: state ρₖ is sent with probability pₖ.

    `states` is a batched `Ket` or `Density` whose last batch axis is the label, or a sequence of K states of
    equal d (kept as kets if all are kets). `probabilities` is (K,) or (*batch, K), real, with sum 1.

    >>> trits = Ensemble([0.5, 0.25, 0.25], [Ket.basis(i, 3) for i in range(3)])
    >>> len(trits), trits.holevo()
    (3, tensor(1.5000))
    """

    probabilities: Tensor
    states: State

    def __init__(self, probabilities: ArrayLike, states: State | Sequence[State]) -> None:
        states = stack(states) if isinstance(states, Sequence) else states
        if not states.batch_shape:
            raise ValueError(
                "Argument `states` must have a label axis, (*batch, K), but has no batch axis. "
                "Use a list of states."
            )
        p = check.probabilities(probabilities, "probabilities", "(*batch, K)", states._tensor)
        check.same_size(p.shape[-1], states.batch_shape[-1], "probabilities", "states")
        object.__setattr__(self, "probabilities", p.expand(states.batch_shape))
        object.__setattr__(self, "states", states)

    def __len__(self) -> int:
        return self.probabilities.shape[-1]

    @property
    def d(self) -> int:
        """The dimension of the space."""
        return self.states.d

    def average(self) -> Density:
        """Returns Σₖ pₖρₖ, factored if its K·r rows are fewer than d."""
        states, p = self.states, self.probabilities
        if isinstance(states, Ket):
            return Density.from_kets(states, p)
        if states.factored:
            rows = p.sqrt()[..., None, None] * states.data
            # A sum of states of fewer bits than p may be off by more than its own precision allows.
            return Density.from_factor(rows.flatten(-3, -2), states.dims, normalize=True)
        mean = (p[..., None, None] * states.data).sum(-3)
        return Density(mean, False, states.dims)

    def holevo(self, base: float = 2) -> Tensor:
        """Returns the Holevo quantity χ = S(Σ pₖρₖ) − Σ pₖS(ρₖ) (*batch,), in bits; 0 ≤ χ ≤ H(p).

        One measurement of one copy never yields more than χ of the label (Holevo 1973).
        """
        return self.average().entropy(base) - (self.probabilities * entropy(self.states, base)).sum(-1)


def holevo(ensemble: Ensemble, base: float = 2) -> Tensor:
    """Returns the Holevo quantity of an ensemble (*batch,), in bits; see `Ensemble.holevo`."""
    return ensemble.holevo(base)
