"""Local energies E(x) = Σ_x' ⟨x|H|x'⟩ ψ(x')/ψ(x), whose mean over |ψ|² is the energy."""

import torch
from torch import Tensor

from ketwork.waves.operators import Operator
from ketwork.waves.pauli import PauliSum
from ketwork.waves.wave import Wave


def local_energies(operator: Operator, wave: Wave, x: Tensor) -> Tensor:
    """E(x) of configurations (batch, sites), in double precision: (batch,), complex where the wave is.

    A network with compiled flips (`RBM.tables`) takes a Pauli sum's patterns at once. Otherwise the connected
    configurations are evaluated, each distinct one once, in chunks of x so that memory is bounded.
    """
    check_same_space(operator, wave)
    x = x.to(wave.dtype)
    tables = wave.tables()
    if tables is not None and isinstance(operator, PauliSum):
        parts = (
            tables.local_energies(p, operator.patterns, operator.elements(p)) for p in x.split(wave.chunk)
        )
        return _double(torch.cat(list(parts)))
    rows = max(1, 8 * wave.chunk // max(1, operator.width))
    return torch.cat([_by_connection(operator, wave, part) for part in x.split(rows)])


def full_local_energies(
    operator: Operator, wave: Wave, amplitudes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E on every state, (H ψ)/ψ by the sparse matrix, and |ψ|² normalised (size,); E is 0 where ψ is.

    `amplitudes` are the wave's own where they are at hand.
    """
    check_same_space(operator, wave)
    psi = wave.amplitudes() if amplitudes is None else amplitudes
    image = torch.from_numpy(operator.matrix @ psi.numpy())
    return torch.where(psi == 0, 0.0, image / psi), psi.abs().square()


def _by_connection(operator: Operator, wave: Wave, x: Tensor) -> Tensor:
    reached, elements = operator.connected(x)
    row, place = torch.nonzero(elements, as_tuple=True)
    space = wave.space
    used = torch.cat([x, reached[row, place]])
    if space.levels**space.sites < 2**62:
        key, where = torch.unique(space.key(space.level(used)), return_inverse=True)
    else:
        key, where = torch.unique(used, dim=0, return_inverse=True)
    first = torch.empty(len(key), dtype=torch.int64)
    first[where] = torch.arange(len(used))
    log = _double(wave.log_amplitude(used[first]))[where]
    terms = _double(elements[row, place]) * torch.exp(log[len(x) :] - log[: len(x)][row])
    return torch.zeros(len(x), dtype=terms.dtype).index_add_(0, row, terms)


def check_same_space(operator: Operator, wave: Wave) -> None:
    """Refuses an operator and a wave on different spaces."""
    if operator.space != wave.space:
        raise ValueError(
            f"An operator and a wave must be on the same space, but the operator is on {operator.space} and "
            f"the wave on {wave.space}. Make the wave with `Wave(module, operator.space)`."
        )


def _double(values: Tensor) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64)
