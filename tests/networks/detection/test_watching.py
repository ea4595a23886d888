"""Live calls get the scores that a pass over the same data gives, and nothing else of them changes."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw

from .conftest import drawn


@pytest.fixture(scope="module")
def detector(labelled: kw.Study) -> kw.Detector:
    return labelled.detector()


def test_live_scores_are_those_of_a_pass(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(40, 3)
    expected = detector.score(three, x, alpha=0.05)
    plain = three(x)
    seen = []
    with detector.watch(three, on_scores=seen.append) as watch:
        outputs = [three(part) for part in x.split(16)]
        assert torch.equal(torch.cat(outputs), plain)
        pd.testing.assert_frame_equal(watch.last, expected.iloc[32:], rtol=1e-9)
        one = three(x[:1])  # a single sample
        assert torch.equal(one, three(x[:1]))
    assert (watch.calls, watch.samples, watch.missed) == (5, 42, 0)
    pd.testing.assert_frame_equal(watch.table().iloc[:40], expected, rtol=1e-9)
    assert [len(frame) for frame in seen] == [16, 16, 8, 1, 1]
    pd.testing.assert_frame_equal(watch.alarms, watch.table()[watch.table()["alarm"]])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in three.modules())
    three(x)
    assert watch.samples == 42


def test_gradients_flow_and_hooks_come_off_after_an_error(
    three: nn.Sequential, detector: kw.Detector
) -> None:
    x, _ = drawn(6, 3)
    x.requires_grad_(True)
    three(x).sum().backward()
    plain = x.grad.clone()
    x.grad = None
    with detector.watch(three) as watch:
        three(x).sum().backward()
        with pytest.raises(RuntimeError, match="mat1 and mat2"):
            three(torch.zeros(2, 7, dtype=torch.float64))
    assert torch.equal(x.grad, plain)
    assert watch.calls == 1
    three.zero_grad()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in three.modules())


def test_only_the_last_samples_are_kept(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(100, 3)
    with detector.watch(three, keep=25) as watch:
        for part in x.split(10):
            three(part)
    table = watch.table()
    assert table.index.tolist() == list(range(75, 100))
    np.testing.assert_allclose(table["score"], detector.score(three, x)["score"][75:], rtol=1e-9)
    with (
        pytest.raises(ValueError, match="Argument `keep` must be at least 1, but is 0"),
        detector.watch(three, keep=0),
    ):
        pass


def test_a_call_that_does_not_reach_every_layer_is_counted(
    detector: kw.Detector, three: nn.Sequential
) -> None:
    class Branch(nn.Sequential):
        def forward(self, x, short=False):
            return self[1](self[0](x)) if short else super().forward(x)

    network = Branch(*three)
    x, _ = drawn(12, 3)
    with detector.watch(network) as watch:
        network(x)
        network(x, short=True)
        network[0](x)  # a part that is called by itself is no call of the network
    assert (watch.calls, watch.missed) == (1, 1)
    assert len(watch.table()) == 12


def test_what_is_not_finite_is_an_alarm(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(5, 3)
    x[2] = torch.inf
    with detector.watch(three) as watch:
        three(x)
    assert np.flatnonzero(watch.last["score"].isna()).tolist() == [2]
    assert watch.last["alarm"][2]


def test_another_architecture(three: nn.Sequential, detector: kw.Detector) -> None:
    message = "Argument `model` must be of the architecture that was studied"
    with pytest.raises(ValueError, match=message), detector.watch(three[:1]):
        pass
    wider = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5)).double()
    with (
        pytest.raises(ValueError, match="has 10 features on axis 1, but there it has 12"),
        detector.watch(wider),
    ):
        wider(drawn(5, 3)[0])


def test_pooled_calls_cannot_be_watched(three: nn.Sequential) -> None:
    study = kw.study(three, drawn(500, 1), reading=kw.Reading(calls="pooled"))
    detector = study.detector()
    assert len(detector.score(three, drawn(5, 2)[0])) == 5
    with pytest.raises(ValueError, match="but the study pooled them"), detector.watch(three):
        pass


def test_images_of_a_convolution_are_watched_with_their_axes(labelled: kw.Study) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)).eval()
    x = torch.randn(400, 1, 6, 6)
    detector = kw.study(network, (x, torch.arange(400) % 2)).detector()
    with detector.watch(network) as watch:
        network(x[:30])
        network(x[:1])
    expected = detector.score(network, x[:30])["score"].to_numpy()
    np.testing.assert_allclose(watch.table()["score"], [*expected, expected[0]], rtol=1e-3, atol=1e-4)


def test_scores_under_autocast_are_in_full_precision() -> None:
    network = nn.Sequential(nn.ReLU())
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 1
    detector = kw.study(network, (x, torch.arange(400) % 2)).detector()
    with detector.watch(network) as watch, torch.autocast("cpu", dtype=torch.bfloat16):
        network(x[:20])
    np.testing.assert_allclose(
        watch.last["score"], detector.score(network, x[:20])["score"], rtol=1e-4, atol=1e-5
    )
