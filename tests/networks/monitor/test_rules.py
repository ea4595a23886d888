"""Each rule finds its change, and nothing that sampling noise, a start or a schedule makes."""

import math
from dataclasses import replace

import pytest

from ketwork.networks.monitor.alarms import Watch
from ketwork.networks.monitor.look import LayerLook, Look
from ketwork.networks.monitor.rules import RULES, Dying, Memorisation
from ketwork.quantum import Estimate


def looks(quantity: str, *rows: dict[str, float], stderr: float = math.nan) -> list[Look]:
    """One look for each row of values by layer."""
    return [
        Look(
            100 * i,
            0.0,
            tuple(
                LayerLook(name, 0, "Linear", 8, 64, 0, {quantity: Estimate(value, stderr)})
                for name, value in row.items()
            ),
        )
        for i, row in enumerate(rows)
    ]


def alarms(rule, given: list[Look]):
    rule = RULES[rule] if isinstance(rule, str) else rule
    watch = Watch([rule])
    # The last look goes on for as long as the rule asks.
    given = [*given, *(replace(given[-1], step=given[-1].step + i) for i in range(1, rule.lasting))]
    return [alarm for look in given for alarm in watch(look)]


def test_a_collapse_that_is_over_at_the_next_look_is_none():
    given = looks("spread", {"a": 0.8}, {"a": 0.004}, {"a": 0.5}, {"a": 0.004}, {"a": 0.004}, {"a": 0.004})
    watch = Watch([RULES["collapse"]])
    assert [alarm.step for look in given for alarm in watch(look)] == [400]


def test_a_collapse_is_measured_from_the_largest_spread():
    (alarm,) = alarms("collapse", looks("spread", {"a": 0.4}, {"a": 0.8}, {"a": 0.3}, {"a": 0.004}))
    assert (alarm.kind, alarm.layer, alarm.step, alarm.since) == ("collapse", "a", 301, 100)
    assert (alarm.before.value, alarm.after.value) == (0.8, 0.004)
    assert str(alarm).startswith(
        "Representation collapse at a, step 301: spread 0.8 → 0.004 since step 100. All inputs come to look alike"
    )
    assert alarms("collapse", looks("spread", {"a": 0.02}, {"a": 0.004})) == []  # small from the begin
    assert (
        alarms("collapse", looks("spread", {"a": 0.5}, {"a": 0.004}, stderr=0.2)) == []
    )  # within the errors
    assert alarms("collapse", looks("spread", {"a": 0.8}, {"a": 0.03})) == []  # narrow, but not collapsed


def test_a_rise_of_dead_neurons_counts_beyond_its_error():
    rise = ({"a": 0.02}, {"a": 0.01}, {"a": 0.3})
    (alarm,) = alarms("dying", looks("dead", *rise, stderr=0.02))
    assert (alarm.since, alarm.quantity) == (100, "dead")
    assert alarms("dying", looks("dead", *rise, stderr=0.06)) == []
    assert alarms("dying", looks("dead", {"a": 0.5}, {"a": 0.55})) == []
    assert alarms(Dying(rise=0.04), looks("dead", {"a": 0.5}, {"a": 0.55}))


def test_a_gap_between_the_probes_of_seen_and_unseen_samples_is_memorisation():
    (alarm,) = alarms(
        "memorisation", looks("linear_gap", {"a": 0.02}, {"a": -0.01}, {"a": 0.25}, stderr=0.03)
    )
    assert (alarm.since, alarm.before.value, alarm.after.value) == (100, -0.01, 0.25)
    assert "Stop here or go back to an earlier checkpoint" in str(alarm)
    wide = ({"a": 0.02}, {"a": 0.25})
    assert alarms("memorisation", looks("linear_gap", *wide, stderr=0.06)) == []  # within the errors
    assert alarms("memorisation", looks("linear_gap", {"a": 0.2}, {"a": 0.25})) == []  # as wide at the begin
    assert alarms("memorisation", looks("linear_gap", {"a": -0.2}, {"a": 0.05})) == []  # no gap
    assert alarms(Memorisation(gap=0.3), looks("linear_gap", *wide)) == []


def test_tokens_that_become_alike():
    (alarm,) = alarms("token_collapse", looks("rank_collapse", {"a": 0.3}, {"a": 0.97}))
    assert alarm.after.value == 0.97
    assert alarms("token_collapse", looks("rank_collapse", {"a": 0.9}, {"a": 0.97})) == []
    assert alarms("token_collapse", looks("rank_collapse", {"a": 0.3}, {"a": 0.9})) == []


def test_norms_may_grow_at_the_start_and_not_later():
    assert alarms("explosion", looks("norm", {"a": 0.1}, {"a": 60.0}, {"a": 200.0})) == []
    (alarm,) = alarms("explosion", looks("norm", {"a": 0.1}, {"a": 60.0}, {"a": 700.0}))
    assert (alarm.step, alarm.since) == (200, 100)
    (alarm,) = alarms("explosion", looks("norm", {"a": 0.1}, {"a": 110.0}))
    assert alarm.since == 0
    assert alarms("explosion", looks("norm", {"a": 0.0}, {"a": 60.0}, {"a": 61.0})) == []
    assert alarms("explosion", looks("norm", {"a": 5.0}, {"a": 6.0}, {"a": 61.0}, stderr=20.0)) == []


def test_a_layer_that_stands_still_beside_others_twice():
    still = {"a": 0.1, "b": 0.2, "c": 1e-6, "d": 0.1}
    nothing = dict.fromkeys("abcd", math.nan)
    assert alarms("stopped", looks("parameter_change", nothing, still)) == []
    (alarm,) = alarms("stopped", looks("parameter_change", nothing, {**still, "c": 0.3}, still, still, still))
    assert (alarm.layer, alarm.step, alarm.since, alarm.before.value) == ("c", 300, 100, 0.3)
    zero = {**still, "c": 0.0}
    assert [a.layer for a in alarms("stopped", looks("parameter_change", nothing, zero, zero))] == ["c"]
    # All slow down together, as the learning rate's schedule ends.
    ends = [{name: value * 10.0**-k for name, value in still.items() if name != "c"} for k in range(0, 9, 2)]
    assert alarms("stopped", looks("parameter_change", *ends)) == []
    assert alarms("stopped", looks("parameter_change", {"a": 0.1, "b": 0.0}, {"a": 0.1, "b": 0.0})) == []


def test_a_training_that_stands_still_in_all_layers_is_one_alarm():
    zero = dict.fromkeys("abc", 0.0)
    moving = dict.fromkeys("abc", 0.1)
    assert alarms("stopped", looks("parameter_change", moving, zero, moving, zero)) == []
    (alarm,) = alarms("stopped", looks("parameter_change", moving, zero, zero, zero))
    assert (alarm.layer, alarm.others, alarm.step) == ("c", (), 200)


def test_a_norm_that_vanishes_counts_from_its_largest():
    (alarm,) = alarms("vanishing", looks("norm", {"a": 4.0}, {"a": 8.0}, {"a": 0.3}, {"a": 0.1}))
    assert (alarm.step, alarm.since, alarm.before.value) == (300, 100, 8.0)
    assert alarms("vanishing", looks("norm", {"a": 8.0}, {"a": 0.2})) == []
    assert alarms("vanishing", looks("norm", {"a": 8.0}, {"a": 0.1}, stderr=2.0)) == []


def test_labels_that_the_last_layer_forgets():
    scores = [{"a": 0.9, "b": 0.5}, {"a": 0.9, "b": 0.95}, {"a": 0.9, "b": 0.7}, {"a": 0.9, "b": 0.7}]
    (alarm,) = alarms("forgetting", looks("linear_balanced", *scores, stderr=0.02))
    assert (alarm.layer, alarm.since, alarm.before.value, alarm.after.value) == ("b", 100, 0.95, 0.7)
    assert alarms("forgetting", looks("linear_balanced", *scores, stderr=0.05)) == []
    earlier = [
        {"a": 0.9, "b": 0.9},
        {"a": 0.3, "b": 0.9},
        {"a": 0.3, "b": 0.9},
    ]  # which the last one need not hold
    assert alarms("forgetting", looks("linear_balanced", *earlier, stderr=0.02)) == []
    once = [{"b": 0.95}, {"b": 0.5}, {"b": 0.9}]
    assert alarms("forgetting", looks("linear_balanced", *once, stderr=0.02)) == []


def test_bad_values_are_found_at_the_first_layer():
    def look(step: int, *bad: int) -> Look:
        rows = (LayerLook(name, 0, "Linear", 8, 64 - n, n, {}) for name, n in zip("ab", bad, strict=True))
        return Look(step, 0.0, tuple(rows))

    watch = Watch([RULES["not_finite"]])
    assert watch(look(0, 0, 0)) == ()
    (alarm,) = watch(look(100, 0, 16))
    assert (alarm.layer, alarm.before.value, alarm.after.value, alarm.since) == ("b", 0.0, 0.25, 0)
    (alarm,) = watch(look(200, 64, 64))
    assert (alarm.layer, alarm.others) == ("a", ())
    assert watch(look(300, 64, 64)) == ()


def test_an_alarm_is_raised_once_while_it_lasts_and_for_all_layers_together():
    given = looks(
        "rank_collapse",
        {"a": 0.5, "b": 0.6, "c": 0.7},
        {"a": 0.5, "b": 0.99, "c": 0.99},
        {"a": 0.99, "b": 0.99, "c": 0.99},
        {"a": 0.5, "b": 0.5, "c": 0.99},
        {"a": 0.5, "b": 0.99, "c": 0.99},
    )
    raised = [(a.step, a.layer, a.others) for a in alarms("token_collapse", given)]
    assert raised == [(100, "b", ("c",)), (200, "a", ()), (400, "b", ())]


@pytest.mark.parametrize("rule", list(RULES))
def test_a_first_look_and_missing_values_raise_nothing(rule):
    quantity = (*RULES[rule].needs, "spread")[0]
    assert alarms(rule, looks(quantity, {"a": 0.97})) == []
    assert alarms(rule, looks(quantity, {"a": math.nan}, {"a": math.nan}, {"a": 0.5})) == []
    assert alarms(rule, looks("other", {"a": 0.5}, {"a": 0.0001})) == []
    assert alarms(rule, looks(quantity, {"a": 0.5}, {"b": 0.0001})) == []


def test_a_collapse_onto_one_line_counts_unless_the_labels_are_still_read():
    def given(*reads: float) -> list[Look]:
        rows = zip((1.2, 3.0, 1.15), reads, strict=True)
        return [
            Look(
                100 * i,
                0.0,
                (
                    LayerLook(
                        "a",
                        0,
                        "Linear",
                        8,
                        64,
                        0,
                        {"effective_rank": Estimate(rank, 0.02), "linear_balanced": Estimate(read, 0.02)},
                    ),
                ),
            )
            for i, (rank, read) in enumerate(rows)
        ]

    (alarm,) = alarms("collapse", given(math.nan, math.nan, math.nan))
    assert (alarm.quantity, alarm.since, alarm.before.value, alarm.after.value) == (
        "effective_rank",
        100,
        3.0,
        1.15,
    )
    assert alarms("collapse", given(0.5, 0.9, 0.95)) == []
    assert alarms("collapse", given(0.5, 0.9, 0.85)) == []  # within the errors
    assert len(alarms("collapse", given(0.5, 0.9, 0.55))) == 1
    assert alarms("collapse", looks("effective_rank", {"a": 3.0}, {"a": 1.3})) == []
    assert len(alarms("collapse", looks("effective_rank", {"a": 9.0}, {"a": 1.49}))) == 1
    assert alarms("collapse", looks("effective_rank", {"a": 9.0}, {"a": 1.51})) == []
