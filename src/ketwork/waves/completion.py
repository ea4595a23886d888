"""Peaked states: the few configurations that chains see, with all that the operator joins to them, by their own |ψ|².

Chains of a state that hardly leaves a few configurations (a molecule near its Hartree–Fock determinant, a magnet in a
small field) say nothing of the amplitudes beside them, though the local energies depend on these: their gradient is
lost, and an amplitude that has vanished never comes back. The list of what was seen and what is joined to it has known
weights |ψ|², so nothing has to be sampled. What the list leaves out is estimated, and widens the error.
"""

import torch

from ketwork.waves.local_energy import distinct
from ketwork.waves.operators import Operator
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave

FEW = 12
"""A state is peaked where its samples have fewer distinct configurations than their number over this."""

ELEMENTS = 2**18
"""The most matrix elements that are looked at to complete a list."""


def completed(operator: Operator, wave: Wave, drawn: Samples) -> Samples:
    """The samples themselves where they are many; else the list of their configurations and all joined to them.

    The list keeps the heaviest configurations, at most as many as there were samples (256 at least). The share left out
    is what was cut off, and the larger of (W₁/W₀)²/2 for what is two steps away, where W₁ is the weight of the
    configurations joined and W₀ that of those seen, and of one sample's weight for what is joined to none of them; 0
    where the list is all of the space.
    """
    if drawn.weights is not None:
        return drawn
    x = drawn.flat
    first, _ = distinct(wave, x)
    if len(first) > len(x) / FEW or len(first) * operator.width > ELEMENTS:
        return drawn
    seen = x[first]
    reached, elements = operator.connected(seen)
    row, place = torch.nonzero(elements, as_tuple=True)
    both = torch.cat([seen, reached[row, place]])
    first, _ = distinct(wave, both)
    both = both[first.sort().values]
    log = wave.log_and_sign(both)[0].real.double()
    # Which of them were seen: `distinct` may keep either of two equal rows, so they are looked up.
    mark, where = distinct(wave, torch.cat([both, seen]))
    old = torch.zeros(len(mark), dtype=torch.bool, device=both.device)
    old[where[len(both) :]] = True
    old = old[where[: len(both)]]
    weight = torch.exp(2 * (log - log.max()))
    order = weight.argsort(descending=True)[: max(256, len(x))]
    total, kept = float(weight.sum()), float(weight[order].sum())
    ratio = float(weight[~old].sum()) / max(float(weight[old].sum()), 1e-300)
    beyond = max(0.5 * ratio**2, 1 / len(x)) if len(both) < wave.space.size else 0.0
    missing = min(1.0, 1 - kept / total + beyond)
    return Samples(
        both[order][None], drawn.acceptance, weights=weight[order][None] / kept, missing=max(0.0, missing)
    )
