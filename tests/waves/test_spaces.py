import math

import pytest
import torch

from ketwork import waves

SPACES = [
    waves.spins(5),
    waves.spins(6, magnetization=0),
    waves.spins(5, magnetization=-3),
    waves.qubits(4, ones=1),
    waves.spin_one(4, magnetization=0),
    waves.spin_one(3),
    waves.bosons(4, most=3, particles=5),
    waves.bosons(3, most=2),
    waves.electrons(3, up=2, down=1),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_states_are_all_distinct_inside_and_indexed(space: waves.Space) -> None:
    states = space.states(torch.float64)
    assert states.shape == (space.size, space.sites)
    assert torch.unique(states, dim=0).shape == states.shape
    assert space.contains(states).all()
    assert torch.equal(space.index(states), torch.arange(space.size))
    everything = waves.Space(space.sites, space.levels, space.first, space.slope).states(torch.float64)
    assert int(space.contains(everything).sum()) == space.size


def test_sizes_are_the_binomials_and_trinomials() -> None:
    assert waves.spins(22, magnetization=0).size == math.comb(22, 11) == 705432
    assert waves.spins(5, magnetization=3).size == 5
    assert waves.electrons(4, 2, 2).size == math.comb(4, 2) ** 2
    assert waves.spin_one(4, magnetization=0).size == 19  # central trinomial coefficient
    assert waves.bosons(4, most=4, particles=4).size == math.comb(7, 3)


def test_values_of_each_kind() -> None:
    assert waves.spins(1).states().tolist() == [[1.0], [-1.0]]
    assert waves.qubits(1).states().tolist() == [[0.0], [1.0]]
    assert waves.spin_one(1).states().tolist() == [[1.0], [0.0], [-1.0]]
    assert waves.bosons(1, most=2).states().tolist() == [[0.0], [1.0], [2.0]]
    assert waves.electrons(2, 1, 1).states().tolist() == [
        [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 0, 0],
    ]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_random_configurations_are_uniform(space: waves.Space) -> None:
    drawn = space.random(200 * space.size, seed=torch.Generator().manual_seed(1))
    assert space.contains(drawn).all()
    counts = torch.bincount(space.index(drawn), minlength=space.size).double()
    chi2 = float(((counts - 200) ** 2 / 200).sum())
    freedom = space.size - 1
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


def test_odd_sites_cannot_have_zero_magnetization() -> None:
    with pytest.raises(ValueError, match="parity of the number of sites, but 5 spins ±1 cannot sum to 0"):
        waves.spins(5, magnetization=0)


@pytest.mark.parametrize(
    "make", [lambda: waves.qubits(3, ones=4), lambda: waves.bosons(2, most=2, particles=5)]
)
def test_an_unreachable_sum_is_refused(make) -> None:
    with pytest.raises(ValueError, match="there is no such configuration"):
        make()


def test_too_many_states_for_a_full_sum_names_the_limit_and_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"at most 4194304 configurations, .*waves.Metropolis\(\)"):
        waves.spins(40).states()


def test_a_space_of_100_sites_counts_draws_and_contains() -> None:
    space = waves.spins(100, magnetization=0)
    assert space.size == math.comb(100, 50) or math.isclose(space.size, math.comb(100, 50), rel_tol=1e-12)
    assert space.contains(space.random(10, seed=torch.Generator().manual_seed(0))).all()
