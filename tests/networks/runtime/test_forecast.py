"""The plan's seconds: by hand from given speeds, near what a study takes on this machine, and said beforehand."""

import time
from typing import Any

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.runtime.forecast import Operations, Speed, with_seconds
from ketwork.networks.runtime.memory import Plan, Width, plan_memory, plan_without_limit
from ketwork.networks.study.layer import Layer

SPEED = Speed(products=1e9, decompositions=1e8, numbers=1e7, call=0.0)


def _planned(*widths: Width, **options: Any) -> tuple[Plan, dict[Any, Width]]:
    layers = {(width.layer, width.call): width for width in widths}
    return plan_without_limit(layers, {}, **options), layers


def test_seconds_are_operations_over_speeds() -> None:
    """d = 100: 500 × 100² × 5/4 and 6 × 500 × 100; 9 × 100³, 128 × 10 kept vectors on 100 states, and 128² pairs."""
    plan = with_seconds(*_planned(Width("a", 0, 100, False, 4, True, vectors=500, length=10)), speed=SPEED)
    assert plan.batch_seconds == pytest.approx(500 * 100**2 * 1.25 / 1e9 + 6 * 500 * 100 / 1e7)
    kept, pairs = 2 * 128 * 10 * 100**2, 4 * 128 * 100**2 * (2 * 128 + 10)
    assert plan.end_seconds == pytest.approx((kept + pairs) / 1e9 + 9 * 100**3 / 1e8)


def test_a_range_a_sketch_and_a_wide_layer_take_less() -> None:
    full = Width("a", 0, 6000, False, 4, False, vectors=100)
    ranged = Width("a", 0, 6000, False, 4, False, span=100, vectors=100)
    (plan, _), key = _planned(full), ("a", 0)
    exact = Operations.of(full, plan.shares[0], exact=True)
    wide = Operations.of(full, plan.shares[0])
    assert (exact.decompositions, wide.decompositions) == (9 * 6000**3, 3000 * 6000**2)
    inside = Operations.of(ranged, _planned(ranged)[0].shares[0])
    assert (inside.batch, inside.decompositions) == (2 * 100 * 6000 * 100 + 1.25 * 100 * 100**2, 9 * 100**3)
    sketched = plan_memory({key: full}, 30_000_000).shares[0]
    assert sketched.rank is not None
    assert Operations.of(full, sketched).decompositions == 9 * (2 * sketched.rank) ** 3
    assert Operations.of(Width("a", 0, 50, True, 8, False, vectors=9), plan.shares[0]).numbers == 6 * 9 * 100


def test_the_speed_is_that_of_the_clock() -> None:
    ticks = iter(range(1000))
    slow = Speed.measured(lambda: float(next(ticks)))  # each measurement takes one second
    assert slow.products == 2 * 1024 * 256**2
    assert slow.decompositions == 9 * 256**3
    assert (slow.numbers, slow.call) == (1024 * 256, 0.01)


@pytest.mark.parametrize("d", [256, 768])
def test_the_end_is_forecast_within_a_factor_of_three(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In seconds of the processor, which other programs do not lengthen; the speed is measured on both sides of it."""
    taken, speeds, plans = 0.0, [Speed.measured(time.process_time)], []
    numbers = Layer.from_accumulator

    def timed(*given: Any) -> Layer:
        nonlocal taken
        start = time.process_time()
        layer = numbers(*given)
        taken += time.process_time() - start
        return layer

    monkeypatch.setattr(Layer, "from_accumulator", timed)
    monkeypatch.setattr("ketwork.networks.runtime.forecast.speed_of_this_process", lambda: speeds[0])
    torch.manual_seed(0)
    kw.study(nn.Linear(d, d), torch.randn(256, 8, d), on_plan=plans.append)
    speeds.append(Speed.measured(time.process_time))
    ends = [plans[0].end_seconds * speeds[0].decompositions / speed.decompositions for speed in speeds]
    assert min(ends) / 3 < taken < 3 * max(ends)


def test_every_study_says_it_beforehand_and_only_once() -> None:
    calls, plans = [], []

    def forward(model: nn.Module, batch: torch.Tensor) -> Any:
        calls.append(len(batch))
        return model(batch)

    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    net = nn.Linear(6, 5)
    record = kw.study(net, x, forward=forward, on_plan=plans.append)
    assert record is not None
    assert len(plans) == 1
    assert plans[0].end_seconds > 0 < plans[0].batch_seconds
    assert plans[0].total == plans[0].memory
    assert record.plan is None  # nothing was limited
    assert sum(calls) - 200 == 64  # the first batch once more
    assert f"end of study ≈ {plans[0].end_seconds:.2g} s" in repr(plans[0])
    limited = kw.study(net, x, memory="1MB", on_plan=plans.append)
    assert limited is not None
    assert limited.plan == plans[1]
    assert limited.table().equals(record.table())


def test_a_plan_of_an_older_file_says_no_time() -> None:
    plan, _ = _planned(Width("a", 0, 10, False, 4, False))
    assert "end of study" not in repr(plan)
