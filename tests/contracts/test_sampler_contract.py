"""The contract of samplers and of proposals: draws from |ψ|², by the seed, from a state that can be kept."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ketwork import waves

SPACE = waves.qubits(5, ones=2)


def machine() -> waves.Wave:
    return waves.Wave(waves.RBM(std=0.4, dtype=torch.float64), SPACE, seed=3)


def causal() -> waves.Wave:
    return waves.Wave(waves.MaskedDense(4, dtype=torch.float64), SPACE, seed=3)


SAMPLERS: dict[str, tuple[Callable[[], waves.Sampler], Callable[[], waves.Wave]]] = {
    "Metropolis": (lambda: waves.Metropolis(chains=64), machine),
    "Metropolis, own rule": (lambda: waves.Metropolis(Swap(), chains=64), machine),
    "Tempering": (lambda: waves.Tempering(chains=32), machine),
    "Direct": (waves.Direct, causal),
    "FullSum": (waves.FullSum, machine),
    "WithoutReplacement": (waves.WithoutReplacement, machine),
    "WithoutReplacement, autoregressive": (waves.WithoutReplacement, causal),
}
COUNT = 3000


class Swap(waves.Rule):
    """Exchanges the levels of two sites, drawn apart."""

    def propose(self, space: waves.Space, x: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        pair = torch.rand(len(x), space.sites, generator=generator).argsort(1)[:, :2]
        return x.scatter(1, pair, x.gather(1, pair.flip(1)))


@pytest.fixture(params=SAMPLERS, scope="module")
def made(request: pytest.FixtureRequest) -> tuple[waves.Sampler, waves.Wave]:
    sampler, wave = SAMPLERS[request.param]
    return sampler(), wave()


def test_averages_are_those_of_the_state(made: tuple[waves.Sampler, waves.Wave]) -> None:
    sampler, wave = made
    drawn = sampler.sample(wave, COUNT, seed=1)
    exact = waves.magnetizations(waves.FullSum().sample(wave, 1)).value
    found = waves.magnetizations(drawn)
    assert bool(((found.value - exact).abs() <= 4.5 * found.stderr + 1e-12).all())
    assert float(found.value.sum()) == pytest.approx(2, abs=1e-9)  # the number of ones


def test_draws_are_in_the_space_and_of_the_form_that_is_stated(
    made: tuple[waves.Sampler, waves.Wave],
) -> None:
    sampler, wave = made
    drawn = sampler.sample(wave, 200, seed=0)
    assert drawn.configurations.shape == (drawn.chains, drawn.flat.shape[0] // drawn.chains, 5)
    assert bool(SPACE.contains(drawn.flat).all())
    assert 0 < drawn.acceptance <= 1
    assert drawn.flat.dtype == wave.dtype
    if drawn.weights is None:
        assert len(drawn.flat) >= 200
    else:
        assert drawn.weights.shape == drawn.configurations.shape[:2]
        assert len(torch.unique(drawn.flat, dim=0)) == len(drawn.flat)


def test_the_seed_decides_all(made: tuple[waves.Sampler, waves.Wave]) -> None:
    sampler, wave = made
    one, two, other = (sampler.sample(wave, 8, seed=s).flat for s in (5, 5, 6))
    assert torch.equal(one, two)
    if not isinstance(sampler, waves.FullSum):
        assert one.shape != other.shape or not torch.equal(one, other)


def test_a_draw_continues_from_its_state(made: tuple[waves.Sampler, waves.Wave]) -> None:
    """State and generator are all that the next draw depends on: a run can be resumed from them."""
    sampler, wave = made
    generator = torch.Generator().manual_seed(2)
    state = sampler.start(wave, 64, generator=generator)
    _, state = sampler.draw(wave, 64, state, generator=generator)
    kept, seed = state.clone(), generator.get_state()
    first, _ = sampler.draw(wave, 64, state, generator=generator)
    again = torch.Generator()
    again.set_state(seed)
    second, _ = sampler.draw(wave, 64, kept, generator=again)
    assert torch.equal(first.flat, second.flat)


def test_a_count_below_one_is_refused(made: tuple[waves.Sampler, waves.Wave]) -> None:
    sampler, wave = made
    with pytest.raises(ValueError, match="`n_samples` must be at least 1"):
        sampler.sample(wave, 0)


RULES = {
    "Flip": (waves.Flip(), waves.spins(4)),
    "Flip all": (waves.Flip(invert=True), waves.spins(4)),
    "Flip of three levels": (waves.Flip(), waves.spin_one(3)),
    "Exchange": (waves.Exchange(), SPACE),
    "Exchange of bosons": (waves.Exchange(), waves.bosons(3, 2, 3)),
    "own": (Swap(), SPACE),
}


@pytest.mark.parametrize("name", RULES)
def test_proposals_are_as_likely_there_as_back(name: str) -> None:
    rule, space = RULES[name]
    rule.check(space)
    states = space.states(torch.float64)
    generator, repeats = torch.Generator().manual_seed(0), 4000
    x = states.repeat_interleave(repeats, 0)
    moved = rule.propose(space, x, generator=generator)
    counts = np.zeros((space.size, space.size))
    np.add.at(counts, (space.index(x).numpy(), space.index(moved).numpy()), 1)
    gap, spread = np.abs(counts - counts.T), np.sqrt(counts + counts.T) + 1e-9
    assert (gap / spread).max() < 4.8
    assert (counts.sum(1) == repeats).all()
