"""The contract of optimizers: an update that goes down, from a state that is handed on and can be kept."""

from collections.abc import Callable

import pytest
import torch

from ketwork import waves

OPTIMIZERS: dict[str, Callable[[], waves.Optimizer]] = {
    "SR": waves.SR,
    "SR in samples": lambda: waves.SR(solver="samples"),
    "SPRING": lambda: waves.SR(momentum=0.8),
    "Adam": waves.Adam,
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request: pytest.FixtureRequest) -> waves.Optimizer:
    return OPTIMIZERS[request.param]()


@pytest.fixture(params=[torch.float64, torch.complex128], ids=["real", "complex"])
def problem(request: pytest.FixtureRequest) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    o = torch.randn(40, 12, dtype=request.param, generator=generator)
    return (o - o.mean(0)) / 40**0.5, torch.randn(40, dtype=request.param, generator=generator) / 40**0.5


def test_the_first_step_goes_down(
    optimizer: waves.Optimizer, problem: tuple[torch.Tensor, torch.Tensor]
) -> None:
    o, energies = problem
    update, _ = optimizer.update(o, energies, {}, scale=2.0, progress=0.0)
    assert update.shape == (12,)
    assert update.dtype == o.dtype
    slope = 2 * torch.real(torch.vdot(o.mH @ energies, update))  # dE = 2 Re F†δθ
    assert float(slope) < 0


def test_state_in_state_out(optimizer: waves.Optimizer, problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The state holds tensors alone, is not written to, and is all that a later step depends on."""
    o, energies = problem
    _, state = optimizer.update(o, energies, {}, scale=1.0, progress=0.0)
    kept = {name: value.clone() for name, value in state.items()}
    one, _ = optimizer.update(0.5 * o, energies, state, scale=1.0, progress=0.3)
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    two, _ = optimizer.update(0.5 * o, energies, kept, scale=1.0, progress=0.3)
    assert torch.equal(one, two)


def test_the_unit_of_energy_does_not_matter(
    optimizer: waves.Optimizer, problem: tuple[torch.Tensor, torch.Tensor]
) -> None:
    o, energies = problem
    one, _ = optimizer.update(o, energies, {}, scale=1.0, progress=0.0)
    two, _ = optimizer.update(o, 1000 * energies, {}, scale=1000.0, progress=0.0)
    torch.testing.assert_close(one, two)


def test_late_steps_are_smaller(
    optimizer: waves.Optimizer, problem: tuple[torch.Tensor, torch.Tensor]
) -> None:
    o, energies = problem
    early, late = (
        optimizer.update(1e-3 * o, energies, {}, scale=1.0, progress=p)[0].norm() for p in (0.6, 1.0)
    )
    assert float(late) < 0.2 * float(early)


def test_no_step_turns_by_more_than_the_angle(problem: tuple[torch.Tensor, torch.Tensor]) -> None:
    o, energies = problem
    for optimizer in (waves.SR(rate=100.0, angle=0.05), waves.SR(rate=100.0, angle=0.05, momentum=0.9)):
        update, _ = optimizer.update(o, energies, {}, scale=1.0, progress=0.0)
        assert float(torch.linalg.vector_norm(o @ update)) <= 0.05 + 1e-12
