"""Names of version 0.1: each gives what the new one gives, and warns at the line that has it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


NET, OTHER = network(), network(1)
X = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
POSITIONS = torch.randn(20, 5, 6, generator=torch.Generator().manual_seed(1))


def old(call: Callable[[], Any], *messages: str) -> Any:
    """What the call gives, which warns so, each time at the line of the call itself."""
    with pytest.warns(FutureWarning) as caught:
        result = call()
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == len(messages), texts
    for text, message in zip(texts, messages, strict=True):
        assert message in text
    lines = {line for _, _, line in call.__code__.co_lines()}
    for warning in caught:
        assert warning.filename == __file__
        assert warning.lineno in lines
    return result


def same_study(one: kw.Study, other: kw.Study) -> None:
    pd.testing.assert_frame_equal(one.table(), other.table(), check_exact=True)
    assert one.settings == other.settings


def same_comparison(one: kw.Comparison, other: kw.Comparison) -> None:
    pd.testing.assert_frame_equal(one.table(), other.table(), check_exact=True)
    assert one.settings == other.settings


# study


def test_the_old_default_of_a_generator() -> None:
    study = old(lambda: kw.study(NET, X, generator=None), "`generator` of `study` is now called `seed`")
    same_study(study, kw.study(NET, X))
    compared = old(
        lambda: kw.compare(NET, X, generator=None), "`generator` of `compare` is now called `seed`"
    )
    same_comparison(compared, kw.compare(NET, X))


def test_arguments_of_study() -> None:
    found = old(
        lambda: kw.study(NET, X, samples=30), "Argument `samples` of `study` is now called `max_samples`."
    )
    same_study(found, kw.study(NET, X, max_samples=30))
    seen: list[Any] = []
    found = old(
        lambda: kw.study(
            NET, X, planned=seen.append, memory="1MB", generator=torch.Generator().manual_seed(3)
        ),
        "`generator` of `study` is now called `seed`",
        "`planned` of `study` is now called `on_plan`",
    )
    same_study(found, kw.study(NET, X, memory="1MB", seed=3))
    assert seen == [found.plan]


@pytest.mark.parametrize(
    "value", [{"calls": "pooled"}, {"skip_bad": True}, {"feature_axis": 1}, {"device": "cpu"}]
)
def test_parts_of_the_reading(value: dict[str, Any]) -> None:
    ((name, given),) = value.items()
    found = old(
        lambda: kw.study(NET, X, **value),
        f"Argument `{name}` of `study` is now a part of `reading`: `reading=Reading(…, {name}=…)`.",
    )
    same_study(found, kw.study(NET, X, reading=kw.Reading(**{name: given})))


def test_parts_of_the_checkpoint(tmp_path: Path) -> None:
    batches = list(X.split(10))

    def fails() -> Any:
        yield from batches[:4]
        raise OSError("disk gone")

    with pytest.raises(kw.StudyError):
        old(
            lambda: kw.study(NET, fails(), checkpoint=tmp_path, every=2),
            "`every` of `study` is now a part of",
        )
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "after-2-batches.safetensors",
        "after-4-batches.safetensors",
    ]
    found = old(
        lambda: kw.study(NET, batches, checkpoint=tmp_path, resume=True),
        "`resume` of `study` is now a part of `checkpoint`: `checkpoint=Checkpoint(…, resume=…)`.",
    )
    same_study(found, kw.study(NET, batches))
    with pytest.raises(ValueError, match="Argument `resume` needs `checkpoint` beside it"):
        kw.study(NET, X, resume=True)
    same_study(kw.study(NET, X, resume=False, every=5), kw.study(NET, X))  # of something that is not used


def test_processes_need_a_job_under_either_name() -> None:
    message = "Argument `distributed` is 'split', but this process is in no job"
    with pytest.raises(ValueError, match=message):
        old(
            lambda: kw.study(NET, X, processes="split", timeout=5.0),
            "`processes` of `study` is now called `distributed`",
            "`timeout` of `study` is now a part of `distributed`: `distributed=Distributed(…, timeout=…)`",
        )
    same_study(kw.study(NET, X, timeout=5.0), kw.study(NET, X))  # as it was without a job


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(TypeError, match="`samples` is the old name of `max_samples`, which was given too"):
        kw.study(NET, X, samples=3, max_samples=3)


# compare


TWO = "`compare(a, b, data)` is now `compare(model, data, other=None)`."


def test_comparing_with_itself() -> None:
    expected = kw.compare(NET, X)
    same_comparison(old(lambda: kw.compare(NET, None, X), TWO), expected)
    same_comparison(old(lambda: kw.compare(NET, None, data=X), TWO), expected)
    same_comparison(old(lambda: kw.compare(model_a=NET, model_b=None, data=X), TWO), expected)


def test_comparing_two_models() -> None:
    expected = kw.compare(NET, X, OTHER)
    assert not expected.itself
    same_comparison(old(lambda: kw.compare(NET, OTHER, X), TWO), expected)
    same_comparison(old(lambda: kw.compare(NET, OTHER, data=X), TWO), expected)
    same_comparison(old(lambda: kw.compare(NET, model_b=OTHER, data=X), TWO), expected)
    options = {"layers": "0", "layers_b": "2", "data_b": X + 1, "samples": 40}
    found = old(
        lambda: kw.compare(NET, OTHER, X, **options),
        "`samples` of `compare` is now called `max_samples`",
        "`layers_b` of `compare` is now called `other_layers`",
        "`data_b` of `compare` is now called `other_data`",
        TWO,
    )
    new = kw.compare(NET, X, OTHER, layers="0", other_layers="2", other_data=X + 1, max_samples=40)
    same_comparison(found, new)


@pytest.mark.parametrize(("name", "unit"), [("positions", "position"), ("flatten", "flat")])
def test_units_of_comparison(name: str, unit: str) -> None:
    options = {name: True}
    found = old(
        lambda: kw.compare(NET, POSITIONS, **options),
        f"Argument `{name}` of `compare` is now `unit={unit!r}`.",
    )
    same_comparison(found, kw.compare(NET, POSITIONS, unit=unit))
    same_comparison(kw.compare(NET, POSITIONS, **{name: False}), kw.compare(NET, POSITIONS))


def test_two_units_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="Argument `unit` must be one of"):
        old(
            lambda: kw.compare(NET, POSITIONS, positions=True, flatten=True), "unit='position'", "unit='flat'"
        )


def test_other_arguments_of_compare() -> None:
    found = old(
        lambda: kw.compare(NET, X, generator=torch.Generator().manual_seed(2), calls="pooled"),
        "`generator` of `compare` is now called `seed`",
        "`calls` of `compare` is now a part of `reading`",
    )
    expected = kw.compare(NET, X, seed=torch.Generator().manual_seed(2), reading=kw.Reading(calls="pooled"))
    same_comparison(found, expected)


# collapse


def test_arguments_of_collapse() -> None:
    study = kw.study(NET, X, normalize="ensemble")

    def run(context: Any) -> torch.Tensor:
        with context:
            return NET(X)

    expected = run(kw.collapse(NET, {"0": 2}, study=study, center=True))
    found = old(
        lambda: kw.collapse(NET, measured={"0": 2}, study=study, around="mean"),
        "`measured` of `collapse` is now called `targets`",
        "`around` of `collapse` is now called `center`",
    )
    assert torch.equal(run(found), expected)
    plain = old(lambda: kw.collapse(NET, {"0": 2}, study=study, around=None), "now called `center`")
    assert torch.equal(run(plain), run(kw.collapse(NET, {"0": 2}, study=study)))
    drawn = old(
        lambda: kw.collapse(NET, {"0": [0, 1]}, "sample", generator=torch.Generator().manual_seed(4)),
        "`generator` of `collapse` is now called `seed`",
    )
    assert torch.equal(run(drawn), run(kw.collapse(NET, {"0": [0, 1]}, "sample", seed=4)))
    with pytest.raises(ValueError, match="Argument `around` must be None or 'mean', but is 'median'"):
        kw.collapse(NET, {"0": 2}, study=study, around="median")


def test_arguments_of_collapse_curve() -> None:
    found = old(
        lambda: kw.collapse_curve(NET, X, layers="0", ranks=[2], around="mean", samples=30, feature_axis=1),
        "`around` of `collapse_curve` is now called `center`",
        "`samples` of `collapse_curve` is now called `max_samples`",
        "`feature_axis` of `collapse_curve` is now a part of `reading`",
    )
    reading = kw.Reading(feature_axis=1)
    expected = kw.collapse_curve(NET, X, layers="0", ranks=[2], center=True, max_samples=30, reading=reading)
    assert found.table().equals(expected.table())
    assert (
        old(lambda: found.untouched, "`CollapseCurve.untouched` is now called `original`") == found.original
    )


# results


def test_names_of_results() -> None:
    layer = kw.study(NET, (X, torch.arange(60) % 2))["0"]
    assert old(lambda: layer.knowledge, "`Layer.knowledge` is now called `labels`.") is layer.labels
    assert (
        old(lambda: layer.statistics, "`Layer.statistics` is now called `accumulator`.") is layer.accumulator
    )
    assert (
        old(lambda: layer.all_estimates, "`Layer.all_estimates` is now called `estimates`.")
        is layer.estimates
    )


def test_what_errors_kept() -> None:
    def interrupted() -> Any:
        yield X
        raise KeyboardInterrupt

    with pytest.raises(kw.StudyInterrupted) as failure:
        kw.study(NET, interrupted())
    assert old(lambda: failure.value.study, "`StudyInterrupted.study` is now called `partial`.").samples == 60
    error = kw.ProcessError("process 1 failed", "kept")
    assert old(lambda: error.found, "`ProcessError.found` is now called `partial`.") == "kept"


@pytest.mark.parametrize("seed", [1, torch.Generator().manual_seed(1)])
def test_seeds_of_the_probe(seed: Any) -> None:
    labels, state = (X[:, 0] > 0).long(), torch.Generator().manual_seed(1).get_state()
    found = old(lambda: kw.probe(X, labels, generator=seed), "`generator` of `probe` is now called `seed`")
    if isinstance(seed, torch.Generator):
        seed.set_state(state)
    assert str(found) == str(kw.probe(X, labels, seed=seed))
