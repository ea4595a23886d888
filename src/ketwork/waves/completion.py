"""Peaked states: the few configurations that chains see, with all that the operator joins to them, by their own |ψ|².

Chains of a state that hardly leaves a few configurations (a molecule near its Hartree–Fock determinant, a magnet in a
small field) say nothing of the amplitudes beside them, though the local energies depend on these: their gradient is
lost, and an amplitude that has vanished never comes back. The list of what was seen and what is joined to it has known
weights |ψ|², so nothing has to be sampled. What the list leaves out is estimated, and widens the error.
"""

import torch
from torch import Tensor

from ketwork.waves.local_energy import distinct
from ketwork.waves.operators import Operator
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave

FEW = 12
"""A state is peaked where its samples have fewer distinct configurations than their number over this."""

SHELLS = 3
"""So many times what is joined to the list is added to it."""

TAIL = 1e-7
"""A shell of a smaller share of |ψ|² is the last one."""

ELEMENTS = 2**18
"""The most matrix elements that are looked at to complete a list."""


def completed(operator: Operator, wave: Wave, drawn: Samples) -> Samples:
    """The samples themselves where they are many; else the list of their configurations and all joined to them.

    Few are fewer than a twelfth of the samples. What is joined to the list is added up to three times, while it matters
    and the list has space: for as many configurations as there were samples (256 at least), the heaviest of them. The
    share skipped is what was cut off, and the larger of what the next shell would weigh (by the ratio of the last
    two) and of one sample, for what is joined to none of them; 0 where the list is all of the space.
    """
    if drawn.weights is not None:
        return drawn
    x = drawn.flat
    first, _ = distinct(wave, x)
    if len(first) > len(x) / FEW or len(first) * operator.width > ELEMENTS:
        return drawn
    limit = max(256, len(x))
    listed = fresh = x[first.sort().values]
    log = _moduli(wave, listed)
    shells = [float(torch.exp(2 * (log - log.max())).sum())]  # weights over the heaviest |ψ|² seen
    for _ in range(SHELLS):
        reached, elements = operator.connected(fresh)
        row, place = torch.nonzero(elements, as_tuple=True)
        fresh = _new(wave, listed, reached[row, place])
        if not len(fresh):
            shells.append(0.0)
            break
        top, more = log.max(), _moduli(wave, fresh)
        listed, log = torch.cat([listed, fresh]), torch.cat([log, more])
        shells = [shell * float(torch.exp(2 * (top - log.max()))) for shell in shells]
        shells.append(float(torch.exp(2 * (more - log.max())).sum()))
        if shells[-1] < TAIL * sum(shells) or len(listed) >= limit or len(fresh) * operator.width > ELEMENTS:
            break
    weight = torch.exp(2 * (log - log.max()))
    order = weight.argsort(descending=True)[:limit]
    total, kept = float(weight.sum()), float(weight[order].sum())
    next_shell = shells[-1] ** 2 / max(shells[-2], 1e-300) / total
    beyond = max(next_shell, 1 / len(x)) if len(listed) < wave.space.size else 0.0
    missing = min(1.0, 1 - kept / total + beyond)
    return Samples(
        listed[order][None], drawn.acceptance, weights=weight[order][None] / kept, missing=max(0.0, missing)
    )


def _moduli(wave: Wave, x: Tensor) -> Tensor:
    return wave.log_and_sign(x)[0].real.double()


def _new(wave: Wave, listed: Tensor, result: Tensor) -> Tensor:
    """Those of the found configurations that are not listed, each once."""
    _, where = distinct(wave, torch.cat([listed, result]))
    count = int(where.max()) + 1
    old = torch.zeros(count, dtype=torch.bool, device=result.device)
    old[where[: len(listed)]] = True
    row = torch.zeros(count, dtype=torch.int64, device=result.device)
    row[where[len(listed) :]] = torch.arange(len(result), device=result.device)
    seen = torch.zeros(count, dtype=torch.bool, device=result.device)
    seen[where[len(listed) :]] = True
    return result[row[seen & ~old]]
