"""What an operator does to its basis: whether it leaves the space, and the signs of its ground state.

Both are read off its matrix elements: all of them where the space has up to 4,096 configurations, else those of 1,024
random configurations and of what these reach.
"""

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.operators import Operator

LISTED = 2**12
PROBES = 1024


def leak(operator: Operator) -> tuple[Tensor, Tensor] | None:
    """A configuration of the space and one outside it that the operator joins to it; None where none was found."""
    space = operator.space
    if not (space.conserved or space.forbidden):
        return None
    for x, reached, element in _rows(operator):
        row, place = torch.nonzero(element, as_tuple=True)
        outside = ~space.contains(reached[row, place])
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            return x[row[first]], reached[row[first], place[first]]
    return None


def check_closed(operator: Operator) -> None:
    """Refuses an operator that leads out of its space: its expectation values there would be of another operator."""
    if "_closed" not in operator.__dict__:
        result = leak(operator)
        if result is not None:
            inside, outside = ([f"{value:g}" for value in x.tolist()] for x in result)
            raise ValueError(
                "Argument `operator` must keep to its space, but leads out of it: "
                f"({_short(inside)}) is joined to ({_short(outside)}). Put it on a space without these fixed sums, "
                "or take its restriction with `waves.Projected(operator)`."
            )
        operator.__dict__["_closed"] = True


def sign_rule(operator: Operator) -> frozenset[int] | None:
    """Sites whose sign rule makes every off-diagonal element negative or 0; empty where they are, None where none does.

    With the signs (−1)^(sum of the levels on these sites) the ground state is then positive, by Perron and Frobenius:
    on a bipartite antiferromagnet it is Marshall's rule (1955, DOI 10.1098/rspa.1955.0200), for a transverse field
    that points the other way all sites, and a frustrated or complex operator has none. Found as the solution of
    linear equations modulo 2, one for each kind of element: Σ_sites Δlevel·a = [element > 0].

    >>> from ketwork.waves import chain, heisenberg, ising
    >>> sorted(sign_rule(heisenberg(chain(6), sign_rule=False)))
    [0, 2, 4]
    >>> sign_rule(ising(chain(6), field=1.0)), len(sign_rule(ising(chain(6), field=-1.0)))
    (frozenset(), 6)
    >>> sign_rule(heisenberg(chain(5), magnetization=1)) is None
    True
    """
    if "_sign_rule" not in operator.__dict__:
        operator.__dict__["_sign_rule"] = _solved(operator)
    rule: frozenset[int] | None = operator.__dict__["_sign_rule"]
    return rule


def _solved(operator: Operator) -> frozenset[int] | None:
    space, equations = operator.space, set()
    for x, reached, element in _rows(operator):
        row, place = torch.nonzero(element, as_tuple=True)
        change = (space.level(reached[row, place]) - space.level(x[row])) % 2
        value = element[row, place]
        moved = (reached[row, place] != x[row]).any(1)
        if value.is_complex() and bool((value.imag.abs()[moved] > 1e-10).any()):
            return None
        table = torch.cat([change, (value.real > 0).long()[:, None]], 1)[moved]
        equations |= {line.tobytes() for line in np.packbits(table.bool().numpy(), axis=1)}
    if not equations:
        return frozenset()
    packed = np.frombuffer(b"".join(sorted(equations)), dtype=np.uint8).reshape(len(equations), -1)
    return _solution(np.unpackbits(packed, axis=1, count=space.sites + 1).astype(bool))


def excitation_energy(operator: Operator) -> float:
    """⟨r|H − E|r⟩/⟨r|r⟩ with r = (H − E)|x⟩ and E = ⟨x|H|x⟩ for the basis state x of least energy; small spaces only.

    The mean energy, above that of x, of what H joins to it: |x⟩ − r/ω is the step along r that lowers the energy most,
    but for the norm. 0 where nothing is joined to x.

    >>> from ketwork.waves import chain, ising
    >>> excitation_energy(ising(chain(6), field=0.5))  # a spin against both of its neighbours: 4J
    4.0
    """
    matrix = operator.matrix
    diagonal = matrix.diagonal().real
    x = int(diagonal.argmin())
    r = matrix[:, [x]].toarray()[:, 0]
    r[x] = 0
    weight = float((r.conj() @ r).real)
    return float((r.conj() @ (matrix @ r)).real) / weight - float(diagonal[x]) if weight else 0.0


def _solution(table: np.ndarray) -> frozenset[int] | None:
    """A solution of A a = b modulo 2 from rows (A | b), its free unknowns 0; None where there is none."""
    table, pivots = table.copy(), []
    row = 0
    for column in range(table.shape[1] - 1):
        below = np.flatnonzero(table[row:, column])
        if not len(below):
            continue
        table[[row, row + below[0]]] = table[[row + below[0], row]]
        others = np.flatnonzero(table[:, column])
        table[others[others != row]] ^= table[row]
        pivots.append(column)
        row += 1
        if row == len(table):
            break
    if table[row:, -1].any():
        return None
    return frozenset(column for k, column in enumerate(pivots) if table[k, -1])


def _rows(operator: Operator) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Configurations, what they reach and the elements, of all or of random ones and their neighbours."""
    space = operator.space
    if space.size <= LISTED:
        parts = space.states(torch.float64).split(max(1, 2**20 // max(1, operator.width)))
        return [(x, *operator.connected(x)) for x in parts]
    result = []
    x = space.random(max(16, min(PROBES, 2**20 // max(1, operator.width))), seed=0, dtype=torch.float64)
    for _ in range(2):
        if not len(x):
            break
        reached, element = operator.connected(x)
        result.append((x, reached, element))
        row, place = torch.nonzero(element, as_tuple=True)
        beyond = reached[row, place]
        beyond = beyond[space.contains(beyond)]
        pick = torch.randperm(len(beyond), generator=torch.Generator().manual_seed(1))[: len(x)]
        x = beyond[pick]
    return result


def _short(values: list[str]) -> str:
    return ", ".join(values if len(values) <= 12 else [*values[:12], "…"])
