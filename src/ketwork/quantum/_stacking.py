"""Several states as one with a batch axis."""

from collections.abc import Sequence

import torch

from ketwork.quantum import _checks as check
from ketwork.quantum._state import stack_tensors
from ketwork.quantum.states import Density, Ket, State


def stack(states: Sequence[State]) -> State:
    """Returns states of equal d and batch as one state with a new last batch axis; a ket if all are kets."""
    if not states:
        raise ValueError("Argument `states` must hold at least one state, but is empty.")
    for state in states:
        check.same_size(state.d, states[0].d, "states[0]", "states[k]")
    dims = states[0].dims
    if all(isinstance(s, Ket) for s in states):
        return Ket(stack_tensors([s.amplitudes for s in states if isinstance(s, Ket)], -2), dims)
    rhos = [s.density() if isinstance(s, Ket) else s for s in states]
    if not all(rho.factored for rho in rhos):
        return Density(stack_tensors([rho.matrix() for rho in rhos], -3), False, dims)
    rows = max(rho.data.shape[-2] for rho in rhos)
    padded = [torch.nn.functional.pad(rho.data, (0, 0, 0, rows - rho.data.shape[-2])) for rho in rhos]
    return Density(stack_tensors(padded, -3), True, dims)
