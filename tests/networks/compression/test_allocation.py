"""The allocation against all that can be chosen."""

import itertools
import random

import pytest

from ketwork.networks.compression.allocation import Choice, allocate
from ketwork.networks.compression.forms import DENSE, Form


def layers(seed: int, convex: bool) -> list[list[Choice]]:
    draw = random.Random(seed)
    made = []
    for _ in range(4):
        gains = [draw.uniform(0, 1) for _ in range(5)]
        if convex:
            gains.sort()
        dense = draw.randint(8, 12)
        errors = [sum(gains[: 5 - rank]) for rank in range(1, 6)]
        cheaper = [
            Choice(Form("outputs", rank), dense * rank / 6, error) for rank, error in enumerate(errors, 1)
        ]
        made.append([Choice(DENSE, dense, 0.0), *cheaper])
    return made


def cost(taken) -> float:
    return sum(choice.cost for choice in taken)


def error(taken) -> float:
    return sum(choice.error for choice in taken)


@pytest.mark.parametrize("seed", range(12))
def test_near_the_best_of_all_choices_and_within_the_budget(seed: int) -> None:
    choices = layers(seed, convex=seed % 2 == 0)
    everything = list(itertools.product(*choices))
    least, most = min(map(cost, everything)), sum(layer[0].cost for layer in choices)
    for share in (0.0, 0.2, 0.5, 0.8, 1.0):
        budget = least + share * (most - least)
        taken = allocate(choices, budget)
        assert cost(taken) <= budget * (1 + 1e-9)
        best = min(error(one) for one in everything if cost(one) <= budget * (1 + 1e-9))
        # What the multiplier leaves unspent is less than one step of one layer's hull; filled, it is little.
        assert error(taken) <= best + 0.05 * sum(layer[1].error for layer in choices)
    assert error(allocate(choices, most)) == 0


@pytest.mark.parametrize("seed", range(6))
def test_exact_where_the_budget_meets_the_hull(seed: int) -> None:
    choices = layers(seed, convex=True)
    everything = list(itertools.product(*choices))
    for multiplier in (0.05, 0.2, 1.0):
        taken = [min(layer, key=lambda c: c.error + multiplier * c.cost) for layer in choices]
        budget = cost(taken)
        best = min(error(one) for one in everything if cost(one) <= budget + 1e-9)
        assert error(allocate(choices, budget)) == pytest.approx(best, abs=1e-9)


def test_a_layer_may_stay_dense_while_another_gives_all() -> None:
    fragile = [Choice(DENSE, 10, 0.0), Choice(Form("outputs", 1), 2, 9.0)]
    tough = [Choice(DENSE, 10, 0.0), Choice(Form("outputs", 1), 2, 1e-6)]
    assert [choice.form.rank for choice in allocate([fragile, tough, tough], 15)] == [None, 1, 1]


def test_what_cannot_be_met_or_is_not_finite_is_refused() -> None:
    choices = [[Choice(DENSE, 10, 0.0), Choice(Form("outputs", 1), 4, 1.0)]] * 2
    with pytest.raises(ValueError, match="cost 8 at the least, which is above the budget of 7"):
        allocate(choices, 7)
    assert cost(allocate(choices, 8 - 1e-12)) == 8  # the rounding of a share
    with pytest.raises(ValueError, match="finite"):
        allocate([[Choice(DENSE, 10, 0.0), Choice(Form("outputs", 1), 4, float("nan"))]], 5)
