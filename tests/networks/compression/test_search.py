"""What is measured beside the estimates, and the plan that is made of both."""

import gc

import pytest
import torch
from torch import nn

from ketwork.networks.compression.calibration import calibrate
from ketwork.networks.compression.fits import Fits
from ketwork.networks.compression.forms import DENSE, Form
from ketwork.networks.compression.preparation import prepared
from ketwork.networks.compression.search import Work
from ketwork.networks.compression.surgery import copied
from ketwork.networks.compression.unit_removal import planned


@pytest.fixture(scope="module")
def work() -> Work:
    """Of a network without activations: an estimate of ½ ‖f − f′‖² is exact there but for the draws of samples."""
    torch.manual_seed(0)
    net = copied(nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 10))).requires_grad_(False)
    x = torch.randn(6000, 12) * torch.logspace(0.5, -0.5, 12)
    gathered = calibrate(net, x, samples=None, batch_size=100, loss="squared")
    gathered.remember(net, 2**30)
    found = prepared(
        net,
        gathered,
        layers="all",
        kind="parameters",
        multiple_of=1,
        memory=2**30,
        generator=torch.Generator().manual_seed(0),
    )
    assert found is not None
    return found


def test_measured_harms_are_the_estimates_where_these_are_exact(work: Work) -> None:
    forms = {"0": Form("outputs", 4), "1": Form("outputs", 3), "2": DENSE}
    assert all(scale == pytest.approx(1, abs=0.1) for scale in work._scales(1.0, forms).values())
    scales = work._unit_scales(1.0, {"0": 5, "1": 4})
    assert scales.keys() == {"0", "1"}
    assert all(scale == pytest.approx(1, abs=0.1) for scale in scales.values())


def test_a_removal_of_next_to_no_harm_is_not_measured(work: Work) -> None:
    order = work.narrowing.order(work.narrowing.feeds[0])
    assert order.error(12) < 1e-6 * order.error(4)  # of 16 units, made of 12 features
    assert work._unit_scales(100.0, {"0": 12, "1": 4}).keys() == {"1"}


def test_the_plan_removes_less_of_what_is_measured_to_matter_more(work: Work) -> None:
    def kept(of_units: dict[str, float], scales: dict[str, float]) -> dict[str, int]:
        plan = planned(work.narrowing, work.budget, room, 1, scales, of_units)
        assert plan is not None
        return {"0": 16, "1": 16} | plan[1]

    room = 0.5 * work.budget.total - work.budget.fixed
    same = dict.fromkeys(("0", "1", "2"), 1.0)
    plain = kept({}, same)
    for feed in ("0", "1"):
        assert kept({feed: 50.0}, same)[feed] > plain[feed]
    # Without a measurement of its own, a feed's harm is that of the layers that read it.
    assert kept({}, {**same, "1": 50.0})["0"] > plain["0"]


def test_the_moments_of_candidates_that_are_not_the_best_are_let_go(work: Work) -> None:
    def narrowed() -> int:
        return sum(type(one) is Fits and bool(one.rows) for one in gc.get_objects())

    before, names, most = narrowed(), [], 0
    for candidate in work.candidates(0.4 * work.budget.total):
        names.append(candidate.name)
        gc.collect()
        most = max(most, narrowed() - before)
    assert [name for name in names if "removal" in name][:3] == [
        "removal", "removal and ranks", "removal and ranks, all measured",
    ]  # fmt: skip
    assert most == 2  # the last one's, and the best one's


def test_as_much_is_fitted_in_sequence_as_the_memory_holds(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = work.calibration.held
    one = 80 * (16 + 16) * 4
    assert held == [one] * 60  # of each batch 80 samples of the widest layer's input and output
    monkeypatch.setattr(work.calibration, "held", [100 * one, *held[1:]])  # one of long samples
    for fits, expected in ((159, 60), (130, 31), (50, 1)):
        monkeypatch.setattr(work, "memory", 8 * one * fits)
        assert len(work.in_step()) == expected
    monkeypatch.setattr(work.calibration, "held", held)
    for fits in (30, 7, 1):
        monkeypatch.setattr(work, "memory", 8 * one * fits)
        assert len(work.in_step()) == fits
