"""Time evolution of a wave by projected variational dynamics: the equation of motion, seen through the network.

Each instant, the parameters move so that the state moves as closely as it can to −iH|ψ⟩dt (real time) or
−H|ψ⟩dt (imaginary time), in the Fubini–Study distance (McLachlan 1964; Carleo et al. 2012, DOI
10.1038/srep00243).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ketwork._compat import renamed
from ketwork.waves.local_energy import check_same_space, full_local_energies
from ketwork.waves.operators import Operator
from ketwork.waves.reconfiguration import centered
from ketwork.waves.wave import Wave


@renamed(callback="on_step")
def evolve(
    operator: Operator,
    wave: Wave,
    time: float,
    *,
    steps: int,
    imaginary: bool = False,
    cutoff: float = 1e-9,
    on_step: Callable[[float, Wave], None] | None = None,
) -> None:
    """Moves `wave` in place through `time` in `steps` Runge–Kutta steps of fourth order, by full sums.

    With S = ⟨O†O⟩ and F = ⟨O†E⟩, centred: S θ̇ = −iF for holomorphic parameters, Re S θ̇ = Im F for real
    ones; in imaginary time S θ̇ = −F and Re S θ̇ = −Re F. Directions in which S is below `cutoff` times its
    largest eigenvalue do not move. For small spaces; real time needs a complex wave. Use double precision.
    `on_step(t, wave)` runs after each step.
    """
    check_same_space(operator, wave)
    if not operator.is_hermitian():
        raise ValueError("Argument `operator` must be Hermitian, but is not: its evolution is not unitary.")
    if steps < 1:
        raise ValueError(f"Argument `steps` must be at least 1, but is {steps}.")
    if not imaginary and not wave.complex:
        raise ValueError(
            "Evolution in real time needs complex amplitudes, but this wave is real. Use a complex `dtype`."
        )
    step = time / steps

    def velocity(vector: Tensor) -> Tensor:
        wave.set_vector(vector)
        return _velocity(operator, wave, imaginary, cutoff)

    for number in range(steps):
        start = wave.vector()
        a = velocity(start)
        b = velocity(start + step / 2 * a)
        c = velocity(start + step / 2 * b)
        d = velocity(start + step * c)
        wave.set_vector(start + step / 6 * (a + 2 * b + 2 * c + d))
        if on_step is not None:
            on_step((number + 1) * step, wave)


def _velocity(operator: Operator, wave: Wave, imaginary: bool, cutoff: float) -> Tensor:
    energies, weights = full_local_energies(operator, wave)
    o = centered(wave.jacobian(wave.space.states(wave.dtype)), weights)
    driven = centered(energies, weights).to(o.dtype) * (-1 if imaginary else -1j)
    if o.is_complex() and not wave.holomorphic:
        o, driven = torch.cat([o.real, o.imag]), torch.cat([driven.real, driven.imag])
    values, vectors = torch.linalg.eigh(o.mH @ o)
    kept = values > cutoff * values[-1]
    inverse = torch.where(kept, 1 / values, 0.0)
    return vectors @ (inverse * (vectors.mH @ (o.mH @ driven)))
