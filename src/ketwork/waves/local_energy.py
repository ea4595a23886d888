"""Local energies E(x) = Σ_x' ⟨x|H|x'⟩ ψ(x')/ψ(x), whose mean over |ψ|² is the energy."""

import torch
from torch import Tensor

from ketwork.waves.operators import Operator
from ketwork.waves.pauli import PauliSum
from ketwork.waves.wave import Wave

NODE = 1e-100
"""Amplitudes below this share of the norm count as nodes."""

MATRIX = 2**17
"""Operators on spaces up to this size are kept as sparse matrices for draws of some of their rows."""


def local_energies(operator: Operator, wave: Wave, x: Tensor) -> Tensor:
    """E(x) of configurations (batch, sites), in double precision: (batch,), complex where the wave is.

    A network with compiled flips (`RBM.tables`) takes a Pauli sum's patterns at once. Otherwise the connected
    configurations are evaluated, each distinct one once, in chunks of x so that memory is bounded.
    """
    check_same_space(operator, wave)
    x = x.to(wave.device, wave.dtype)
    tables = wave.tables()
    if tables is not None and isinstance(operator, PauliSum) and tables.serves(operator.patterns):
        signed = operator.rotated(wave.signs) if wave.signs else operator
        parts = (tables.local_energies(p, signed.patterns, signed.elements(p)) for p in x.split(wave.chunk))
        return _double(torch.cat(list(parts)))
    rows = max(1, 8 * wave.chunk // max(1, operator.width))
    return torch.cat([_by_connection(operator, wave, part) for part in x.split(rows)])


def full_local_energies(
    operator: Operator, wave: Wave, amplitudes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """E on every state, (H ψ)/ψ by the sparse matrix, and |ψ|² normalised (size,).

    `amplitudes` are the wave's own where they are at hand. Where ψ is so small that its inverse has no square in double
    precision (a node), E is what makes |ψ|²|E|² the state's share of ‖Hψ‖², so that a variance counts what an operator
    leads to nodes.
    """
    check_same_space(operator, wave)
    psi = wave.amplitudes() if amplitudes is None else amplitudes
    image = torch.from_numpy(operator.matrix @ psi.numpy())
    node = psi.abs() < NODE
    weights = torch.where(node, NODE**2, psi.abs().square())
    return torch.where(node, image / NODE, image / psi), weights


def row_energies(operator: Operator, wave: Wave, amplitudes: Tensor, rows: Tensor) -> Tensor:
    """E of some configurations, by their places in `space.states()`, from the amplitudes of all of them."""
    check_same_space(operator, wave)
    psi = amplitudes[rows]
    if operator.space.size <= MATRIX:
        image = torch.from_numpy(operator.matrix[rows.numpy()] @ amplitudes.numpy())
    else:
        reached, elements = operator.connected(operator.space.rows(rows, torch.float64))
        row, place = torch.nonzero(elements, as_tuple=True)
        terms = elements[row, place] * amplitudes[operator.space.index(reached[row, place])]
        image = torch.zeros(len(rows), dtype=terms.dtype).index_add_(0, row, terms)
    return torch.where(psi.abs() < NODE, image / NODE, image / psi)


def listed_energies(operator: Operator, wave: Wave, x: Tensor) -> Tensor:
    """E(x) of a list of configurations whose amplitudes may differ by any factor, as `full_local_energies` has them."""
    _, psi, image = images(operator, wave, x)
    return torch.where(psi.abs() < NODE, image / NODE, image / psi)


def images(operator: Operator, wave: Wave, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log|ψ(x)|, ψ(x) and (Hψ)(x) of configurations (batch, sites), the last two over the largest |ψ| among them.

    Unlike a local energy, (Hψ)(x) is defined where ψ(x) = 0.
    """
    reached, elements = operator.connected(x.to(wave.dtype))
    row, place = torch.nonzero(elements, as_tuple=True)
    log, sign = _each_once(wave, torch.cat([x.to(wave.dtype), reached[row, place]]))
    here = log[: len(x)]
    top = here.real.max()
    psi = torch.exp(log - top) if sign is None else sign * torch.exp(log - top)
    terms = _double(elements[row, place]) * psi[len(x) :]
    image = torch.zeros(len(x), dtype=terms.dtype, device=terms.device).index_add_(0, row, terms)
    return here.real, psi[: len(x)], image


def _by_connection(operator: Operator, wave: Wave, x: Tensor) -> Tensor:
    reached, elements = operator.connected(x)
    row, place = torch.nonzero(elements, as_tuple=True)
    log, sign = _each_once(wave, torch.cat([x, reached[row, place]]))
    ratio = torch.exp(log[len(x) :] - log[: len(x)][row])
    if sign is not None:
        ratio = ratio * sign[len(x) :] * sign[: len(x)][row]
    terms = _double(elements[row, place]) * ratio
    return torch.zeros(len(x), dtype=terms.dtype, device=terms.device).index_add_(0, row, terms)


def _each_once(wave: Wave, used: Tensor) -> tuple[Tensor, Tensor | None]:
    """log-amplitudes (double) and signs of configurations, each distinct one evaluated once."""
    first, where = distinct(wave, used)
    log, sign = wave.log_and_sign(used[first])
    return _double(log)[where], None if sign is None else sign.to(torch.float64)[where]


def distinct(wave: Wave, x: Tensor) -> tuple[Tensor, Tensor]:
    """The row where each distinct configuration of x (n, sites) is first met, and which one each row is."""
    space = wave.space
    if space.levels**space.sites < 2**62:
        key, where = torch.unique(space.key(space.level(x)), return_inverse=True)
    else:
        key, where = torch.unique(x, dim=0, return_inverse=True)
    first = torch.empty(len(key), dtype=torch.int64, device=x.device)
    first[where] = torch.arange(len(x), device=x.device)
    return first, where


def check_same_space(operator: Operator, wave: Wave) -> None:
    """Refuses an operator and a wave on different spaces."""
    if operator.space != wave.space:
        raise ValueError(
            f"An operator and a wave must be on the same space, but the operator is on {operator.space} and "
            f"the wave on {wave.space}. Make the wave with `Wave(module, operator.space)`."
        )


def _double(values: Tensor) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64)
