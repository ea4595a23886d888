"""What a run minimises: local values of drawn configurations, their mean, and what they weigh."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.waves.estimates import Expectation, estimate
from ketwork.waves.local_energy import full_local_energies, listed_energies, local_energies, row_energies
from ketwork.waves.operators import Operator
from ketwork.waves.processes import ALONE, Processes
from ketwork.waves.samplers.sampler import Samples
from ketwork.waves.wave import Wave


@dataclass(frozen=True)
class Local:
    """Local values (n,) of n configurations, their weights (None: alike), and their mean with its error."""

    values: Tensor
    weights: Tensor | None
    mean: Expectation


def local_of(operator: Operator, wave: Wave, drawn: Samples, processes: Processes = ALONE) -> Local:
    """The local energies of drawn configurations, and the energy; of chains each process computes a part."""
    weights = None if drawn.weights is None else drawn.weights.flatten()
    if drawn.rows is not None and drawn.amplitudes is not None:
        values = row_energies(operator, wave, drawn.amplitudes[0], drawn.rows)
    elif drawn.amplitudes is not None:
        values, weights = full_local_energies(operator, wave, drawn.amplitudes[0])
    elif weights is not None:
        values = listed_energies(operator, wave, drawn.flat)
    else:
        values = processes.mapped(lambda x: local_energies(operator, wave, x), drawn.flat)
    return Local(values, weights, summary(operator, wave, values, weights, drawn))


def summary(
    operator: Operator, wave: Wave, values: Tensor, weights: Tensor | None, drawn: Samples
) -> Expectation:
    """The mean of local values (n,) of drawn configurations, by weights (n,) where they have some."""
    chains = drawn.chains
    return estimate(
        values.reshape(chains, -1).cpu(),
        None if weights is None else weights.reshape(chains, -1).cpu(),
        inclusion=None if drawn.inclusion is None else drawn.inclusion.reshape(chains, -1).cpu(),
        missing=drawn.missing,
        sites=operator.space.sites,
        infinite=operator.mean,
        resolution=resolution(operator, wave, float(values.real.mean())),
    )


def resolution(operator: Operator, wave: Wave, energy: float) -> float:
    """The size of rounding in local energies: some 20 units in the last place of the wave's numbers."""
    return 20 * torch.finfo(wave.dtype).eps * max(abs(energy), operator.scale)
