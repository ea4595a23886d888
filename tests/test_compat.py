"""Names of version 0.1 go on working: each warns, names the new one, and gives what that gives."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork._compat import renamed

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def forward(model: nn.Module, batch: Tensor) -> Tensor:
    return model(batch)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"samples": 20}, {"max_samples": 20}, "Argument `samples` of `study` is now called `max_samples`."),
        (
            {"generator": torch.Generator().manual_seed(3)},
            {"seed": 3},
            "Argument `generator` of `study` is now called `seed`.",
        ),
        (
            {"calls": "pooled"},
            {"reading": kw.Reading(calls="pooled")},
            "`calls` of `study` is now a part of `reading`: `reading=Reading(…, calls=…)`.",
        ),
        (
            {"feature_axis": 1, "skip_bad": True},
            {"reading": kw.Reading(feature_axis=1, skip_bad=True)},
            "is now a part of `reading`",
        ),
        ({"device": "cpu"}, {"reading": kw.Reading(device="cpu")}, "`device` of `study` is now a part of"),
        ({"processes": None}, {}, "Argument `processes` of `study` is now called `distributed`."),
    ],
)
def test_arguments_of_study(old: dict[str, Any], new: dict[str, Any], words: str) -> None:
    with pytest.warns(FutureWarning) as warned:
        found = kw.study(network(), X, **old)
    assert any(words in str(warning.message) for warning in warned)
    assert {warning.filename for warning in warned} == {__file__}  # at the caller's line
    expected = kw.study(network(), X, **new)
    assert found.table().equals(expected.table())
    assert found.settings == expected.settings


def test_plans_and_checkpoints_of_study(tmp_path: Path) -> None:
    plans: list[Any] = []
    with pytest.warns(FutureWarning, match="`planned` of `study` is now called `on_plan`"):
        kw.study(network(), X, memory="100MB", planned=plans.append)
    assert len(plans) == 1
    with pytest.warns(FutureWarning, match="`every` of `study` is now a part of `checkpoint`"):
        kw.study(network(), X, batch_size=10, checkpoint=tmp_path / "a", every=1)
    assert len(list((tmp_path / "a").glob("after-*"))) == 2
    ran: list[int] = []
    with pytest.warns(FutureWarning, match=r"`checkpoint=Checkpoint\(…, resume=…\)`"):
        kw.study(network(), X, batch_size=10, checkpoint=tmp_path / "a", resume=True, progress=ran.append)
    assert ran == []
    with pytest.raises(ValueError, match=r"Argument `resume` needs `checkpoint` beside it\. Give both"):
        kw.study(network(), X, resume=True)
    kw.study(network(), X, every=5)  # of checkpoints that are not written: as before, nothing happens
    with pytest.raises(TypeError, match="`samples` is the old name of `max_samples`, which was given too"):
        kw.study(network(), X, samples=3, max_samples=4)


def test_a_part_of_an_argument_that_has_an_old_name_itself() -> None:
    with pytest.warns(FutureWarning) as warned, pytest.raises(ValueError, match="this process is in no job"):
        kw.study(network(), X, timeout=2, processes="own")
    assert {str(w.message).split("`")[1] for w in warned} == {"processes", "timeout"}
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="`timeout` must be positive, but is 0"):
        kw.compare(network(), X, timeout=0, processes="split")


def test_compare_with_another_model_before_the_data() -> None:
    other = nn.Sequential(nn.Linear(4, 6))
    expected = kw.compare(network(), X, other, unit="sample")
    itself = kw.compare(network(), X)
    for call, wanted in (
        (lambda: kw.compare(network(), other, X), expected),
        (lambda: kw.compare(network(), None, X), itself),
        (lambda: kw.compare(model_a=network(), model_b=other, data=X), expected),
        (lambda: kw.compare(network(), other, data=X), expected),
        (lambda: kw.compare(network(), model_b=None, data=X), itself),
        (lambda: kw.compare(network(), other, X, data_b=X, layers_b=["0"], forward_b=forward), expected),
    ):
        with warnings.catch_warnings(record=True, action="always") as warned:
            found = call()
        words = "`compare(a, b, data)` is now `compare(model, data, other=None)`."
        assert words in [str(warning.message) for warning in warned]
        assert {warning.filename for warning in warned} == {__file__}
        for name, matrix in wanted.matrices.items():
            torch.testing.assert_close(found.matrices[name], matrix, equal_nan=True)
        assert found.itself == wanted.itself


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"positions": True}, {"unit": "position"}),
        ({"flatten": True}, {"unit": "flat"}),
        ({"positions": False, "flatten": False}, {}),
        (
            {"samples": 20, "generator": torch.Generator().manual_seed(1)},
            {"max_samples": 20, "seed": torch.Generator().manual_seed(1)},
        ),
        ({"calls": "pooled"}, {"reading": kw.Reading(calls="pooled")}),
    ],
)
def test_arguments_of_compare(old: dict[str, Any], new: dict[str, Any]) -> None:
    x = torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True, action="always") as warned:
        found = kw.compare(network(), x, **old)
    assert {warning.filename for warning in warned} <= {__file__}
    assert any(old.values()) == any(issubclass(w.category, FutureWarning) for w in warned)
    expected = kw.compare(network(), x, **new)
    for name, matrix in expected.matrices.items():
        torch.testing.assert_close(found.matrices[name], matrix, equal_nan=True)
    assert found.settings["unit"] == expected.settings["unit"]


def test_both_units_at_once_are_refused() -> None:
    with pytest.warns(FutureWarning), pytest.raises(ValueError, match="`unit` must be one of"):
        kw.compare(network(), X, positions=True, flatten=True)


def test_probe() -> None:
    labels = X[:, 0] > 0
    with pytest.warns(FutureWarning, match="`generator` of `probe` is now called `seed`"):
        found = kw.probe(X, labels, generator=torch.Generator().manual_seed(2))
    expected = kw.probe(X, labels, seed=torch.Generator().manual_seed(2))
    assert found.held_out_.tolist() == expected.held_out_.tolist()


def test_collapse_and_its_curve() -> None:
    record = kw.study(network(), X, normalize="ensemble")
    net = network()
    with (
        pytest.warns(FutureWarning) as warned,
        kw.collapse(net, measured={"0": 2}, around="mean", study=record),
    ):
        found = net(X)
    assert {"`measured`", "`around`"} <= {str(w.message).split()[1] for w in warned}
    with kw.collapse(net, {"0": 2}, center=True, study=record):
        torch.testing.assert_close(net(X), found)
    with pytest.warns(FutureWarning, match="`samples` of `collapse_curve` is now called `max_samples`"):
        curve = kw.collapse_curve(network(), X, ranks=[1], samples=30)
    assert curve.samples == 30


def test_attributes_of_layers_and_errors() -> None:
    layer = kw.study(network(), (X, torch.arange(40) % 2))["0"]
    for old, new in (("knowledge", "labels"), ("statistics", "accumulator"), ("all_estimates", "estimates")):
        with pytest.warns(FutureWarning, match=f"`Layer.{old}` is now called `{new}`"):
            assert getattr(layer, old) is getattr(layer, new)
    for error, old in ((kw.StudyInterrupted, "study"), (kw.ProcessError, "found")):
        with pytest.warns(FutureWarning, match=f"`{error.__name__}.{old}` is now called `partial`"):
            assert getattr(error("it ended", layer), old) is layer


def test_what_was_not_renamed_is_as_wrong_as_before() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        kw.study(network(), X, nothing=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nothing'"):
        kw.compare(network(), X, nothing=1)


def test_the_wrapper_keeps_the_name_and_the_signature() -> None:
    @renamed(a="b")
    def function(b: int = 0) -> int:
        """Doubles."""
        return 2 * b

    assert (function.__name__, function.__doc__, function(b=2)) == ("function", "Doubles.", 4)
    with pytest.warns(FutureWarning, match="Argument `a` of `function` is now called `b`"):
        assert function(a=3) == 6
    assert "max_samples" in str(__import__("inspect").signature(kw.study))
