"""Progress is a bar, or whatever the caller wants to hear of it."""

import pytest
import torch
import tqdm
import tqdm.auto
from torch import nn

import ketwork as kw
from ketwork.networks.runtime import Stage, show_progress, show_stage

X = torch.randn(50, 3)


def test_a_function_hears_of_every_batch_and_of_every_layer_at_the_end() -> None:
    heard: list[int] = []
    kw.study(nn.Identity(), X, batch_size=20, progress=heard.append)
    kw.compare(nn.Linear(3, 2), X, batch_size=20, progress=heard.append)
    assert heard == [20, 40, 50, 50, 20, 40, 50]


def test_a_bar_counts_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[tqdm.tqdm] = []

    class Kept(tqdm.auto.tqdm):
        """One that can be looked at afterwards."""

        def __init__(self, *given: object, **options: object) -> None:
            super().__init__(*given, **options)
            bars.append(self)

    monkeypatch.setattr(tqdm.auto, "tqdm", Kept)
    with show_progress(True, 100) as bar:
        assert bar is not None
        for done in (30, 70):
            bar(done)
            assert bars[0].n == done
    kw.study(nn.Identity(), X, batch_size=20, progress=True, max_samples=50)
    kw.compare(nn.Linear(3, 2), X, progress=True)
    assert [(bar.n, bar.total, bar.unit) for bar in bars] == [
        (70, 100, "sample"), (50, 50, "sample"), (1.0, 1.0, "it"), (50, None, "sample"),
    ]  # fmt: skip
    assert all(bar.disable for bar in bars)  # closed


def test_nobody_hears_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(False, None) as told:
        assert told is None
    kw.study(nn.Identity(), X)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("progress", [1, None, "yes", [print]])
def test_what_is_neither_a_truth_value_nor_a_function_is_refused(progress: object) -> None:
    with pytest.raises(TypeError, match="Argument `progress` must be True, False or a function, but is"):
        kw.study(nn.Identity(), X, progress=progress)  # type: ignore[arg-type]


def test_bars_say_how_many_layers_and_pairs_are_done_and_how_much_time_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[tuple[str, float, str]] = []
    monkeypatch.setattr(
        tqdm.auto.tqdm, "set_postfix_str", lambda self, words: shown.append((self.desc, self.n, words))
    )
    kw.study(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 8)), X, progress=True, compare=True)
    (first, early, one), (second, late, two), (pairs, done, of) = shown
    assert (first, one, second, two, pairs, of) == ("layers", "1 of 2", "layers", "2 of 2", "pairs", "1 of 1")
    assert 0 < early < late == done == 1.0
    assert abs(early - 0.5) > 0.2  # the narrow layer takes less of the time
    with show_progress(False, None) as bar:
        show_stage(bar, 50, Stage("layers", 1, 2, 0.5))
    assert len(shown) == 3


def test_an_object_with_a_method_for_stages_hears_of_the_end() -> None:
    heard: list[tuple[str, int, int]] = []

    class Hears:
        def __call__(self, done: int) -> None:
            heard.append(("samples", done, 50))

        def stage(self, stage: Stage) -> None:
            heard.append((stage.name, stage.done, stage.total))

    kw.compare(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 8), nn.ReLU()), X, progress=Hears())
    assert heard == [("samples", 50, 50), ("pairs", 1, 3), ("pairs", 2, 3), ("pairs", 3, 3)]
