import pytest
import torch

from ketwork import waves
from ketwork.waves import reconfiguration
from ketwork.waves.local_energy import full_local_energies
from ketwork.waves.optimizers import SR, Adam
from ketwork.waves.reconfiguration import centered, natural_step, stacked


def problem(n: int, count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, count, dtype=dtype, generator=generator), torch.randn(
        n, dtype=dtype, generator=generator
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize(("n", "count"), [(30, 12), (12, 30)])
def test_parameter_space_sample_space_and_least_squares_agree(n, count, dtype) -> None:
    o, energies = problem(n, count, dtype)
    shift = 1e-2
    both = [natural_step(o, energies, shift=shift, solver=s) for s in ("parameters", "samples", "auto")]
    damping = shift * float(o.abs().square().sum()) / count
    expected = torch.linalg.solve(o.mH @ o + damping * torch.eye(count, dtype=dtype), o.mH @ energies)
    for step in both:
        torch.testing.assert_close(step, expected)


def test_spring_solves_its_own_least_squares() -> None:
    """d minimises |O d − ε|² + λ |d − μ d₋|² (Goldshlager et al. 2024, eq. 17)."""
    o, energies = problem(8, 20, torch.float64)
    previous = torch.randn(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shift, mu = 0.05, 0.9
    damping = shift * float(o.square().sum()) / 20
    step = natural_step(o, energies, shift=shift, previous=previous, momentum=mu)
    gradient = o.T @ (o @ step - energies) + damping * (step - mu * previous)
    torch.testing.assert_close(gradient, torch.zeros(20, dtype=torch.float64), atol=1e-9, rtol=0)


def test_equations_without_a_solution_give_nan_and_not_a_number() -> None:
    o, energies = problem(5, 3, torch.float64)
    assert natural_step(o * torch.nan, energies, shift=0.1).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_force_is_the_gradient_of_the_energy(dtype) -> None:
    operator = waves.ising(waves.chain(6), 0.9)
    wave = waves.Wave(waves.RBM(std=0.2, dtype=dtype), operator.space)

    def energy() -> float:
        energies, weights = full_local_energies(operator, wave)
        return float((energies * weights).sum().real)

    energies, weights = full_local_energies(operator, wave)
    o, e = stacked(
        centered(wave.jacobian(operator.space.states()), weights),
        centered(energies, weights),
        wave.holomorphic,
    )
    force = 2 * (o.mH @ e)
    start = wave.vector()
    for k in range(0, wave.count, 7):
        for direction in (1.0, 1j) if dtype.is_complex else (1.0,):
            step = torch.zeros_like(start)
            step[k] = 1e-5 * direction
            wave.set_vector(start + step)
            up = energy()
            wave.set_vector(start - step)
            slope = (up - energy()) / 2e-5
            wave.set_vector(start)
            # dE = Re(F* dθ): along i the imaginary part of the force
            assert slope == pytest.approx(float((force[k].conj() * direction).real), abs=1e-7)


def test_a_step_never_turns_the_state_further_than_its_angle() -> None:
    o, energies = problem(50, 10, torch.float64)
    o, energies = centered(o, None), centered(energies, None)
    step, _ = SR(rate=1e6, angle=0.1).update(o, energies, {}, scale=1.0, progress=0.0)
    assert float(torch.linalg.vector_norm(o @ step)) == pytest.approx(0.1)


def test_the_step_does_not_depend_on_the_unit_of_energy() -> None:
    o, energies = problem(50, 10, torch.float64)
    for optimizer in (SR(), Adam()):
        one, _ = optimizer.update(o, energies, {}, scale=2.0, progress=0.3)
        two, _ = optimizer.update(o, 100 * energies, {}, scale=200.0, progress=0.3)
        torch.testing.assert_close(one, two)


def test_adam_is_torchs_adam() -> None:
    start = torch.randn(10, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameter = torch.nn.Parameter(start.clone())
    theirs = torch.optim.Adam([parameter], lr=0.01)
    ours, state = Adam(rate=0.01, schedule=waves.constant), {}
    mine = start.clone()
    for k in range(5):
        o, energies = problem(20, 10, torch.float64)
        energies = energies * (k + 1)
        parameter.grad = 2 * o.T @ energies
        theirs.step()
        update, state = ours.update(o, energies, state, scale=1.0, progress=0.0)
        mine = mine + update
    torch.testing.assert_close(mine, parameter.detach())


@pytest.mark.parametrize(
    "make",
    [
        lambda: waves.RBM(std=0.2, dtype=torch.float64),
        lambda: waves.RBM(std=0.2, dtype=torch.complex128),
        lambda: waves.FeedForward((4,), phase=True, dtype=torch.float64),
    ],
)
def test_condensed_rows_have_the_same_averages(make, monkeypatch) -> None:
    operator = waves.ising(waves.chain(8), 0.9)
    wave = waves.Wave(make(), operator.space)
    energies, weights = full_local_energies(operator, wave)
    x = operator.space.states(torch.float64)
    whole = reconfiguration.rows(wave, x, energies, weights)
    monkeypatch.setattr(reconfiguration, "HELD", 1000)  # many small parts
    small = reconfiguration.rows(wave, x, energies, weights)
    assert small[0].shape == (wave.count, wave.count)
    torch.testing.assert_close(small[0].mH @ small[0], whole[0].mH @ whole[0])
    torch.testing.assert_close(small[0].mH @ small[1], whole[0].mH @ whole[1])
    steps = [natural_step(*r, shift=1e-3, previous=wave.vector(), momentum=0.5) for r in (whole, small)]
    torch.testing.assert_close(steps[0], steps[1], rtol=1e-5, atol=1e-7)
