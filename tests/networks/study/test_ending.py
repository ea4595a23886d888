"""The end of a study and of a comparison can be interrupted: what was computed stays, the rest follows later."""

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.measures.overlaps import OverlapsOfRows
from ketwork.networks.runtime import left_behind
from ketwork.networks.study import ending
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.result import Study
from ketwork.records import terminable

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 2


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _signalling(function, number: int, at: int):
    """The function, at whose n-th call the signal comes."""
    calls = []

    def call(*given, **options):
        calls.append(None)
        if len(calls) == at:
            signal.raise_signal(number)
            time.sleep(0.3)  # until the main thread has heard it
        return function(*given, **options)

    return call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_layers_keeps_the_numbers_of_those_before(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one layer after the other
    whole = kw.study(net(), (X, Y), compare=True)
    with monkeypatch.context() as patch:
        patch.setattr(Layer, "from_accumulator", _signalling(Layer.from_accumulator, number, 3))
        with terminable(), pytest.raises(kw.StudyInterrupted) as raised:
            kw.study(net(), (X, Y), compare=True)
    partial = raised.value.partial
    done = torch.tensor([layer.finished for layer in partial]).numpy()
    count = int(done.sum())
    assert 2 <= count < 5
    assert (partial.finished, partial.complete, partial.samples) == (False, True, 60)
    assert partial.table()[done].equals(whole.table()[done])
    assert partial.table()["entropy"][~done].isna().all()
    assert f"The numbers of {5 - count} of 5 layers had not been computed when" in partial.warnings[0]
    assert partial.comparison is None

    # Nothing is lost, in memory or in a file, whatever was to be kept of it.
    finished = partial.finish()
    assert (finished.finished, finished.long().equals(whole.long())) == (True, True)
    assert finished.compare().table().equals(whole.compare().table())
    assert finished.warnings == whole.warnings
    assert finished.finish() is finished
    assert partial.save(tmp_path / "partial", states=2, pairs=False) is None
    loaded = Study.load(tmp_path / "partial")
    assert (loaded.finished, loaded.table().equals(partial.table())) == (False, True)
    loaded.finish().save(tmp_path / "finished")
    whole.save(tmp_path / "whole")
    assert (tmp_path / "finished").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_call_that_cannot_be_broken_takes_no_finished_layer_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free, made = threading.Event(), []

    def stuck(cls, *given):
        if len(made) == 2:
            signal.raise_signal(signal.SIGINT)
            free.wait(60)
        made.append(None)
        return original(*given)

    original = Layer.from_accumulator
    whole = kw.study(net(), (X, Y))
    with monkeypatch.context() as patch:
        patch.setattr(Layer, "from_accumulator", classmethod(stuck))
        with pytest.raises(kw.StudyInterrupted) as raised:
            kw.study(net(), (X, Y))
        partial = raised.value.partial
        assert left_behind()
        assert [layer.finished for layer in partial] == [True, True, False, False, False]
        partial.save(tmp_path / "partial")
        free.set()
        while left_behind():
            pass
        assert [layer.finished for layer in partial] == [True, True, False, False, False]
    assert Study.load(tmp_path / "partial").finish().long().equals(whole.long())


def test_a_study_interrupted_in_its_pass_has_the_numbers_that_a_second_gives() -> None:
    def data():
        yield X[:30]
        raise KeyboardInterrupt

    with pytest.raises(kw.StudyInterrupted) as raised:
        kw.study(net(), data())
    partial = raised.value.partial
    assert (partial.complete, partial.error, partial.finished, partial.samples) == (
        False,
        "interrupted",
        True,
        30,
    )
    assert partial.table().equals(kw.study(net(), X[:30]).table())


def test_numbers_that_take_longer_than_a_second_are_missing_pairs_after_an_interruption(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free, calls = threading.Event(), []

    def slow(*given):
        calls.append(None)
        if len(calls) == 2:
            free.wait(60)
        return original(*given)

    def data():
        yield X[:30]
        raise KeyboardInterrupt

    original = Layer.from_accumulator
    with monkeypatch.context() as patch:
        patch.setattr(Layer, "from_accumulator", slow)
        patch.setattr(ending, "GRACE", 2.0)
        with pytest.raises(kw.StudyInterrupted) as raised:
            kw.study(net(), data())
    free.set()
    partial = raised.value.partial
    assert [layer.finished for layer in partial] == [False, False, False, False, True]  # the shortest first
    assert partial.finish().table().equals(kw.study(net(), X[:30]).table())


def test_a_comparison_that_is_interrupted_has_the_pairs_of_the_nearest_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = kw.compare(net(), X)
    with monkeypatch.context() as patch:
        patch.setattr(OverlapsOfRows, "block", _signalling(OverlapsOfRows.block, signal.SIGINT, 6))
        with pytest.raises(kw.ComparisonInterrupted) as raised:
            kw.compare(net(), X)
    partial = raised.value.partial
    for name, matrix in partial.matrices.items():
        computed = ~matrix.isnan()
        assert torch.equal(matrix[computed], whole.matrices[name][computed])
    near = torch.ones(5, 5).triu(-1).tril(1).bool()
    assert bool((~partial.matrices["bures"].isnan())[near].all())
    assert not bool((~partial.matrices["bures"].isnan()).all())
    assert (
        "of 10 pairs of layers were compared before it was interrupted, the nearest first"
        in partial.warnings[0]
    )


def test_pairs_within_a_time_are_those_of_adjacent_layers_at_least() -> None:
    whole = kw.study(net(), X, compare=True).compare()
    some = kw.study(net(), X, compare=0.0)
    comparison = some.compare()
    near = torch.ones(5, 5).triu(-1).tril(1).bool()
    for name, matrix in comparison.matrices.items():
        assert torch.equal(matrix[near].isnan(), whole.matrices[name][near].isnan()), name
        torch.testing.assert_close(
            matrix[near], whole.matrices[name][near], rtol=1e-9, atol=1e-12, equal_nan=True
        )
        assert bool(matrix[~near].isnan().all()), name
    for name, errors in comparison.stderrs.items():
        assert bool(errors[~near].isnan().all()), name
    assert some.finished
    assert some.settings["pairs_seconds"] == 0.0
    assert comparison.warnings[0] == (
        "4 of 10 pairs of layers were compared in the 0 s that were given to them, the nearest first; the others are "
        "missing (–). `compare=True` (--compare) compares all."
    )
    assert kw.study(net(), X, compare=60.0).compare().missing_pairs is None


@pytest.mark.parametrize("compare", [-1, float("nan"), float("inf"), "all", None])
def test_what_is_no_time_for_pairs_is_refused(compare: object) -> None:
    with pytest.raises(
        ValueError, match="Argument `compare` must be True, False or a number of seconds for pairs"
    ):
        kw.study(net(), X, compare=compare)  # type: ignore[arg-type]
