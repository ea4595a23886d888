"""Names and arguments of version 0.1 go on working, and warn."""

import pytest
import torch

from ketwork import waves

ISING = waves.ising(waves.chain(6), 1.0)


def wave() -> waves.Wave:
    return waves.Wave(waves.RBM(), ISING.space)


def test_arguments_of_a_run(tmp_path) -> None:
    seen: list[waves.Step] = []
    new = waves.ground_state(ISING, wave(), steps=6, n_samples=64, optimizer=waves.SR(rate=0.3))
    with pytest.warns(FutureWarning, match="of `ground_state` is now called") as told:
        old = waves.ground_state(
            ISING, wave(), steps=6, samples=64, optimiser=waves.SR(rate=0.3), callback=seen.append
        )
    assert len(told) == 3
    assert old.energy == new.energy
    assert len(seen) == 6
    path = tmp_path / "run"
    with pytest.warns(FutureWarning, match="`every` and `resume` are now in"):
        waves.ground_state(ISING, wave(), steps=3, n_samples=64, checkpoint=path, every=1)
    with pytest.warns(FutureWarning, match="`every` and `resume` are now in"):
        rest = waves.ground_state(ISING, wave(), steps=6, n_samples=64, resume=path)
    assert len(rest.history) == 6
    assert [s.index for s in rest.history[:3]] == [0, 1, 2]


def test_arguments_of_waves_spaces_and_samplers() -> None:
    generator = torch.Generator().manual_seed(4)
    with pytest.warns(FutureWarning, match="is now called `seed`"):
        old = waves.Wave(waves.RBM(), ISING.space, generator=generator)
    assert torch.equal(old.vector(), waves.Wave(waves.RBM(), ISING.space, seed=4).vector())
    with pytest.warns(FutureWarning, match="is now called `magnetization`"):
        assert waves.spins(4, magnetisation=0) == waves.spins(4, magnetization=0)
    with pytest.warns(FutureWarning, match="is now called `magnetization`"):
        assert waves.heisenberg(waves.chain(4), magnetisation=None).space == waves.spins(4)
    with pytest.warns(FutureWarning, match="of `Sampler.sample` is now called|of `sample` is now called"):
        drawn = waves.Metropolis().sample(old, samples=10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn.flat, waves.Metropolis().sample(old, 10, seed=0).flat)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Estimate", "Expectation"),
        ("Optimiser", "Optimizer"),
        ("Symmetrised", "Symmetrized"),
        ("magnetisations", "magnetizations"),
    ],
)
def test_names(old, new) -> None:
    with pytest.warns(FutureWarning, match=f"is now called `waves.{new}`"):
        assert getattr(waves, old) is getattr(waves, new)


def test_attributes_of_estimates_and_measurements() -> None:
    energy = waves.Expectation(-1.5, 0.1, variance=0.2)
    with pytest.warns(FutureWarning, match="is now `value`"):
        assert energy.mean == -1.5
    with pytest.warns(FutureWarning, match="is now `stderr`"):
        assert energy.error == 0.1
    measured = waves.Measured(torch.ones(2), torch.zeros(2))
    with pytest.warns(FutureWarning, match="is now `value`"):
        assert measured.mean is measured.value
    with pytest.warns(FutureWarning, match="is now `stderr`"):
        assert measured.error is measured.stderr


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = waves.nonsense
