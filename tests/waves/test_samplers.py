"""Every sampler against exact |ψ|², by χ² on states that are independent enough."""

import math

import pytest
import torch
from torch import nn

from ketwork import waves


class Peaked(nn.Module):
    """A user's module that takes the general path, for any number of levels."""

    def __init__(self, sites: int) -> None:
        super().__init__()
        weights = torch.randn(sites, sites, generator=torch.Generator().manual_seed(3))
        self.weight = nn.Parameter(weights * 0.15)

    def forward(self, x):
        return torch.einsum("bi,ij,bj->b", x, self.weight, x) / 2 + x @ self.weight[0]


def chi_squared(wave: waves.Wave, x: torch.Tensor) -> float:
    """The χ² of counts against |ψ|², less its mean, in its standard deviations."""
    exact = wave.amplitudes().abs().square() * len(x)
    counts = torch.bincount(wave.space.index(x), minlength=wave.space.size).double()
    often = exact >= 5  # rarer states are pooled into one bin, as the test's asymptotics ask
    rest = (counts[~often].sum() - exact[~often].sum()) ** 2 / exact[~often].sum().clamp(min=1e-9)
    chi2 = float(((counts - exact)[often] ** 2 / exact[often]).sum() + (rest if (~often).any() else 0))
    freedom = int(often.sum()) - 1 + int((~often).any())
    return (chi2 - freedom) / math.sqrt(2 * freedom)


def rbm(space: waves.Space, dtype: torch.dtype = torch.float32) -> waves.Wave:
    return waves.Wave(waves.RBM(alpha=1, std=0.25, dtype=dtype), space)


def user(space: waves.Space) -> waves.Wave:
    return waves.Wave(Peaked(space.sites), space)


FREE, FIXED = waves.spins(6), waves.spins(8, magnetization=0)
APART = {"sweep": 40}  # proposals between kept configurations, so that they count as independent
CASES = {
    "compiled flips": (rbm(FREE), waves.Metropolis(**APART)),
    "compiled flips, complex": (rbm(FREE, torch.complex128), waves.Metropolis(**APART)),
    "compiled exchange": (rbm(FIXED), waves.Metropolis(**APART)),
    "compiled exchange on bonds": (
        rbm(FIXED),
        waves.Metropolis(rule=waves.Exchange(waves.chain(8).bonds()), sweep=120),
    ),
    "flips": (user(FREE), waves.Metropolis(chains=1000, **APART)),
    "exchange": (user(FIXED), waves.Metropolis(chains=1000, **APART)),
    "flips of three levels": (user(waves.spin_one(3)), waves.Metropolis(chains=1000, **APART)),
    "hopping bosons": (user(waves.bosons(4, 3, particles=4)), waves.Metropolis(chains=1000, sweep=60)),
    "electrons of two spins": (user(waves.electrons(3, 2, 1)), waves.Metropolis(chains=1000, sweep=60)),
    "tempering": (user(FREE), waves.Tempering(chains=400, replicas=3, sweep=20)),
    "tempering an rbm": (rbm(FIXED), waves.Tempering(chains=400, replicas=3, sweep=20)),
}


@pytest.mark.parametrize("name", CASES)
def test_frequencies_are_born_probabilities(name) -> None:
    wave, sampler = CASES[name]
    drawn = sampler.sample(wave, 8000, seed=torch.Generator().manual_seed(5))
    assert wave.space.contains(drawn.flat).all()
    assert drawn.flat.shape == (8000, wave.space.sites)
    assert 0 < drawn.acceptance <= 1
    assert abs(chi_squared(wave, drawn.flat)) < 4


def test_the_test_would_notice_a_wrong_distribution() -> None:
    wave = rbm(FREE)
    flat = FREE.random(8000, seed=torch.Generator().manual_seed(0))
    assert chi_squared(wave, flat) > 20


def test_a_full_sum_is_exact() -> None:
    wave = rbm(FREE)
    drawn = waves.FullSum().sample(wave, 1, seed=torch.Generator())
    assert drawn.weights is not None
    torch.testing.assert_close(drawn.weights.sum(), torch.tensor(1.0, dtype=torch.float64))
    assert torch.equal(drawn.flat, FREE.states())


def test_the_same_generator_draws_the_same() -> None:
    for wave, sampler in (CASES["compiled flips"], CASES["exchange"]):
        one, two = (sampler.sample(wave, 100, seed=torch.Generator().manual_seed(9)).flat for _ in range(2))
        assert torch.equal(one, two)
        other = sampler.sample(wave, 100, seed=torch.Generator().manual_seed(10)).flat
        assert not torch.equal(one, other)


def test_tempering_crosses_a_barrier_that_flips_do_not() -> None:
    """A cat state |↑…↑⟩ + |↓…↓⟩: all chains started up stay up under flips."""

    class Cat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.strength = nn.Parameter(torch.tensor(6.0))

        def forward(self, x):
            return self.strength * x.mean(1).square() * 2

    wave = waves.Wave(Cat(), waves.spins(10))
    up = torch.ones(64, 10)
    generator = torch.Generator().manual_seed(0)
    flips, _ = waves.Metropolis(chains=64).draw(wave, 640, up, generator=generator)
    assert flips.configurations[:, -1].mean() > 0.8
    tempering = waves.Tempering(chains=64, replicas=10)
    replicas = torch.ones(640, 10)
    drawn, _ = tempering.draw(wave, 6400, replicas, generator=generator)
    assert abs(float(drawn.configurations[:, -1].mean())) < 0.35


class Turning(waves.Rule):
    def propose(self, space, x, *, generator):
        return torch.cat([-x[:, :1], x[:, 1:]], 1)


@pytest.mark.parametrize("sampler", [waves.Metropolis(rule=waves.Flip()), waves.Tempering(rule=waves.Flip())])
def test_flips_would_leave_a_fixed_magnetization(sampler) -> None:
    with pytest.raises(ValueError, match=r"Flip would leave the space.*waves.Exchange\(\)"):
        sampler.sample(rbm(FIXED), 10, seed=torch.Generator())


def test_a_users_rule_is_checked() -> None:
    with pytest.raises(ValueError, match="Turning would leave the space"):
        waves.Metropolis(rule=Turning()).sample(rbm(FIXED), 10, seed=torch.Generator())


def test_bad_numbers() -> None:
    for sampler, message in (
        (waves.Metropolis(chains=0), "`chains` must be at least 1"),
        (waves.Metropolis(sweep=0), "`sweep` must be at least 1"),
        (waves.Tempering(replicas=1), "`replicas` must be at least 2"),
        (waves.Direct(), "needs an autoregressive network"),
    ):
        with pytest.raises(ValueError, match=message):
            sampler.sample(rbm(FREE), 10, seed=torch.Generator())
    with pytest.raises(ValueError, match="`n_samples` must be at least 1, but is 0"):
        waves.Metropolis().sample(rbm(FREE), 0, seed=torch.Generator())
