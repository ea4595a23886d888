"""A detector scores, is saved and loaded, and says what went wrong."""

import math
from pathlib import Path

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


def test_the_frame_says_what_its_definitions_do(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(50, 3)
    frame = detector.score(three, x, alpha=0.05, layers=True)
    assert frame.index.name == "sample"
    assert list(frame) == [
        *("score", "p_value", "nearest_class", "layer", "alarm"),
        *("surprisal:0", "surprisal:1", "surprisal:2"),
    ]
    assert set(frame) - {"surprisal:0", "surprisal:1", "surprisal:2"} <= detector.definitions.keys()
    lead = frame[["surprisal:0", "surprisal:1", "surprisal:2"]].to_numpy().argmax(1)
    assert frame["layer"].tolist() == [str(place) for place in lead]
    assert list(detector.score(three, x)) == ["score", "p_value", "nearest_class", "layer"]


def test_batches_change_nothing_and_the_network_is_as_it_was(
    three: nn.Sequential, detector: kw.Detector
) -> None:
    x, y = drawn(100, 3)
    three.train()
    before = {name: value.clone() for name, value in three.state_dict().items()}
    frame = detector.score(three, x, batch_size=7)
    assert three.training
    three.eval()
    assert all(torch.equal(value, before[name]) for name, value in three.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in three.modules())
    others = [
        detector.score(three, (x, y)),
        detector.score(three, x.numpy()),
        detector.score(three, list(x.split(33))),
    ]
    for other in others:
        pd.testing.assert_frame_equal(frame, other, rtol=1e-9)
    assert len(detector.score(three, x, max_samples=9)) == 9


def test_samples_of_another_kind_stand_out(three: nn.Sequential, detector: kw.Detector) -> None:
    far = torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 4
    frame = detector.score(three, far, alpha=0.05)
    assert frame["alarm"].mean() > 0.95
    assert frame["p_value"].min() == pytest.approx(1 / 513)


def test_the_threshold_is_where_alarms_begin(three: nn.Sequential, detector: kw.Detector) -> None:
    frame = detector.score(three, drawn(500, 3)[0], alpha=0.1)
    threshold = detector.threshold(0.1)
    assert ((frame["score"] > threshold) == frame["alarm"]).all()
    assert (detector.calibration_scores > threshold).sum() == int(0.1 * 513) - 1
    assert detector.threshold(1e-4) == math.inf
    for alpha in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="Argument `alpha` must lie between 0 and 1"):
            detector.threshold(alpha)


def test_what_is_loaded_scores_alike(three: nn.Sequential, detector: kw.Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "detector")
    again = kw.Detector.load(tmp_path / "detector")
    x, _ = drawn(50, 3)
    pd.testing.assert_frame_equal(again.score(three, x), detector.score(three, x), check_exact=True)
    pd.testing.assert_frame_equal(again.table(), detector.table(), check_exact=True)
    assert repr(again) == repr(detector)
    with pytest.raises(ValueError, match="must be a saved study"):
        kw.Study.load(tmp_path / "detector")


def test_the_table_has_a_row_a_layer(detector: kw.Detector, labelled: kw.Study) -> None:
    table = detector.table()
    assert table["layer"].tolist() == ["0", "1", "2"]
    assert table["d"].tolist() == [10, 10, 5]
    assert table["N"].tolist() == [6000 - 1024] * 3
    assert table["weight"].sum() == pytest.approx(1)
    assert table["classes"].tolist() == [3] * 3
    assert set(table) - {"layer", "call", "kind", "methods"} <= detector.definitions.keys()


def test_names_of_classes_are_those_of_the_labels(three: nn.Sequential) -> None:
    x, y = drawn(2000, 1)
    names = np.array(["ant", "bee", "cat"])[y.numpy()]
    detector = kw.study(three, (x, names.tolist())).detector("mahalanobis", layers="2")
    new, kinds = drawn(300, 2)
    found = detector.score(three, new)["nearest_class"]
    assert (found == np.array(["ant", "bee", "cat"])[kinds.numpy()]).mean() > 0.9


def test_a_zero_vector_says_nothing_and_alone_gives_no_score() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    x, y = torch.randn(800, 4) + 1, torch.arange(800) % 2
    with torch.no_grad():
        network[0].bias += 0.5
    study = kw.study(network, (x, y))
    zero = torch.linalg.lstsq(network[0].weight, -network[0].bias[:, None] - 1).solution.T.detach()
    with torch.no_grad():
        zero = next(z for z in (zero, *(torch.randn(20000, 4) * 9).split(1)) if not network(z).any())
    one = study.detector("residual", layers="1")
    frame = one.score(network, zero, alpha=0.05)
    assert np.isnan(frame["score"][0])
    assert np.isnan(frame["p_value"][0])
    assert frame["layer"][0] is None
    assert frame["alarm"][0]
    frame = study.detector("residual").score(network, zero, layers=True)
    assert frame["layer"][0] == "0"
    assert np.isnan(frame["surprisal:1"][0])
    assert np.isfinite(frame["score"][0])


def test_an_error_after_a_batch_keeps_what_was_scored(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(20, 3)

    def broken():
        yield x[:8]
        yield x[8:16]
        raise OSError("the disk is gone")

    with pytest.raises(
        kw.DetectionError, match=r"OSError: the disk is gone\. The scores of 16 samples"
    ) as raised:
        detector.score(three, broken())
    pd.testing.assert_frame_equal(raised.value.partial, detector.score(three, x[:16]), rtol=1e-9)
    assert isinstance(raised.value.__cause__, OSError)

    def interrupted():
        yield x[:8]
        raise KeyboardInterrupt

    with pytest.raises(kw.DetectionInterrupted) as stopped:
        detector.score(three, interrupted())
    assert len(stopped.value.partial) == 8
