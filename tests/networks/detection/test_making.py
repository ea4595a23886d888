"""What a detector is made of, what calibrates it, and what is refused in words."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import ketwork as kw
from ketwork.networks.detection import METHODS
from ketwork.networks.detection.weighing import Weighing

from .conftest import drawn


@pytest.fixture(scope="module")
def tokens() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A layer of positions, and data with a label a sample."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh()).double()
    return network, torch.randn(400, 4, 5, dtype=torch.float64) + 0.5, torch.arange(400) % 2


def test_false_alarms_are_those_that_alpha_allows(three: nn.Sequential, labelled: kw.Study) -> None:
    """Within three standard errors of 8,000 new samples and of the calibration ones, and not far below."""
    new, _ = drawn(8000, 4)
    for method in ("combined", *METHODS):
        detector = labelled.detector(method)
        frame = detector.score(three, new, alpha=0.05, batch_size=1000)
        held = len(detector.calibration_scores)
        error = np.sqrt(0.05 * 0.95 * (1 / 8000 + 1 / held))
        assert held == 512
        assert frame["alarm"].mean() == pytest.approx(0.05, abs=3 * error)
        assert (frame["alarm"] == (frame["p_value"] <= 0.05)).all()
        # Calibration and new scores are of one law.
        assert stats.ks_2samp(detector.calibration_scores.numpy(), frame["score"]).pvalue > 0.003


def test_the_samples_that_calibrate_are_no_part_of_the_moments(
    three: nn.Sequential, labelled: kw.Study
) -> None:
    x, _ = drawn(6000, 1)
    detector = labelled.detector("mahalanobis", layers="2")
    places = labelled["2"].accumulator.labelled.held.samples
    assert len(places) == 1024
    assert detector.references[0].samples == 6000 - 1024
    scores = detector.score(three, x[places])["score"].to_numpy()
    np.testing.assert_allclose(np.sort(scores), detector.calibration_scores.sort().values.numpy(), rtol=1e-8)


def test_given_calibration_samples_let_all_studied_ones_in(three: nn.Sequential, labelled: kw.Study) -> None:
    fresh, _ = drawn(300, 5)
    detector = labelled.detector("mahalanobis", layers="2", model=three, calibration=fresh)
    assert detector.references[0].samples == 6000
    assert detector.settings["calibration"] == "given data"
    scores = detector.score(three, fresh)["score"].to_numpy()
    np.testing.assert_allclose(np.sort(scores), detector.calibration_scores.sort().values.numpy(), rtol=1e-9)


def test_half_of_the_calibration_samples_weigh_several_terms(labelled: kw.Study) -> None:
    detector = labelled.detector()
    assert [term.method for term in detector.terms] == 3 * ["mahalanobis", "relative", "residual"]
    assert (detector.fitted, len(detector.calibration_scores)) == (512, 512)
    one = labelled.detector("residual", layers="1")
    assert (one.fitted, len(one.calibration_scores)) == (0, 1024)


def test_the_third_of_the_layers_that_tell_unseen_classes_best_counts_by_itself_too(
    three: nn.Sequential,
) -> None:
    """The classes differ along one axis, which two of three layers have lost."""
    torch.manual_seed(0)
    blind, kept = nn.Linear(6, 6).double(), nn.Linear(6, 6).double()
    with torch.no_grad():
        blind.weight.copy_(torch.eye(6))
        blind.weight[:3] = 0  # the centres of the classes lie there
        kept.weight.copy_(torch.eye(6))

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blind, self.kept, self.also = blind, kept, nn.Linear(6, 6).double()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.also(self.blind(x)) + 0 * self.kept(x)

    study = kw.study(Fork(), drawn(3000, 1), layers=["blind", "kept", "also"])
    detector = study.detector()
    assert [detector.labels[place] for place in detector.leading] == ["kept"]
    unseen = detector.table().set_index("layer")["unseen"]
    assert unseen["kept"] > 0.9
    assert unseen[["blind", "also"]].max() < 0.6
    parts = detector.weighing.parts(detector.calibration)
    leading = [i for i, term in enumerate(detector.terms) if detector.labels[term.layer] == "kept"]
    means = torch.stack([parts.mean(1), parts[:, leading].mean(1)], 1)
    larger = Weighing.from_terms(means[: detector.fitted]).parts(means[detector.fitted :]).amax(1)
    torch.testing.assert_close(detector.calibration_scores, larger, rtol=1e-12, atol=0)
    fresh = drawn(400, 2)[0]
    given = study.detector(model=Fork(), calibration=fresh)
    assert given.leading == detector.leading
    assert study.detector("mahalanobis").leading == study.detector(layers="kept").leading == ()


def test_relative_takes_part_from_three_classes_on(three: nn.Sequential) -> None:
    x, y = drawn(1000, 1)
    two = kw.study(three, (x, (y > 0).long())).detector(layers="2")
    assert [term.method for term in two.terms] == ["mahalanobis", "residual"]
    assert kw.study(three, (x, (y > 0).long())).detector("relative", layers="2").method == "relative"


def test_a_study_without_labels_takes_given_samples(three: nn.Sequential) -> None:
    study = kw.study(three, drawn(2000, 1)[0])
    with pytest.raises(
        ValueError, match=r"Argument `calibration` must be given, since the study was made without"
    ):
        study.detector()
    detector = study.detector(model=three, calibration=drawn(1000, 2)[0])
    assert {term.method for term in detector.terms} == {"typicality", "residual"}
    frame = detector.score(three, drawn(2000, 3)[0], alpha=0.1)
    assert "nearest_class" not in frame
    assert frame["alarm"].mean() == pytest.approx(0.1, abs=3 * np.sqrt(0.09 * (1 / 2000 + 1 / 500)))


def test_numbers_as_labels_hold_samples_out_too(three: nn.Sequential) -> None:
    x, _ = drawn(1000, 1)
    study = kw.study(three, (x, x[:, :2]))
    detector = study.detector()
    assert {term.method for term in detector.terms} == {"typicality", "residual"}
    assert detector.settings["calibration"] == "samples that the study held out"
    with pytest.raises(
        ValueError, match=r"needs class moments, but the study has labels of the kind 'values'"
    ):
        study.detector("mahalanobis")


def test_positions_are_pooled_or_each_counts(tokens: tuple) -> None:
    network, x, y = tokens
    study = kw.study(network, (x[:300], y[:300]), layers=["1"])
    pooled = study.detector("residual")
    assert [term.positions for term in pooled.terms] == ["mean"]
    with torch.no_grad():
        kets = nn.functional.normalize(network(x[300:]).mean(1))
    space = pooled.references[0].state
    outside = 1 - (kets @ space.vectors[:, : space.rank]).square().sum(1)
    found = pooled.score(network, x[300:])["score"].to_numpy()
    np.testing.assert_allclose(found, outside.clamp(min=0).sqrt(), atol=1e-7)
    with pytest.raises(
        ValueError, match="Argument `positions` is 'worst', but of its held-out samples the study kept"
    ):
        study.detector("residual", positions="worst")
    given = {"model": network, "calibration": x[300:]}
    worst = study.detector("residual", positions="worst", **given)
    space = worst.references[0].every
    with torch.no_grad():
        each = nn.functional.normalize(network(x[300:]), dim=-1)
    outside = 1 - (each @ space.vectors[:, : space.rank]).square().sum(-1)
    found = worst.score(network, x[300:])["score"].to_numpy()
    np.testing.assert_allclose(found, outside.clamp(min=0).sqrt().amax(1), atol=1e-7)
    both = study.detector(positions="both", **given)
    assert [(term.method, term.positions) for term in both.terms] == [
        *(("mahalanobis", "mean"), ("residual", "mean"), ("residual", "worst")),
    ]


def test_complex_layers_are_compared_by_real_and_imaginary_parts() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5, dtype=torch.complex128))
    x = torch.randn(800, 4, dtype=torch.complex128)
    y = torch.arange(800) % 2
    x[y == 1] += 1j
    detector = kw.study(network, (x, y)).detector("mahalanobis")
    assert detector.references[0].paired
    frame = detector.score(network, x)
    held = kw.study(network, (x, y))[0].accumulator.labelled.held
    np.testing.assert_allclose(
        np.sort(frame["score"].to_numpy()[held.samples.numpy()]),
        detector.calibration_scores.sort().values,
        rtol=1e-8,
    )
    state = kw.study(network, x).detector("typicality", model=network, calibration=x[:100])
    assert not state.references[0].paired
    assert state.references[0].state.vectors.is_complex()


def test_layers_are_chosen_by_name_or_glob(labelled: kw.Study) -> None:
    assert labelled.detector(layers=["2", "0"]).labels == ["0", "2"]
    assert labelled.detector(layers="[01]").labels == ["0", "1"]
    with pytest.raises(
        ValueError, match=r"Argument `layers` must name layers of the study, but 'x' is none\. The near"
    ):
        labelled.detector(layers="x")
    with pytest.raises(TypeError, match="Argument `layers` must hold names of layers, but holds 3"):
        labelled.detector(layers=[3])


def test_a_layer_that_cannot_be_scored_is_skipped_with_the_reason() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    study = kw.study(network, (torch.randn(400, 4), torch.arange(400) % 2))
    detector = study.detector()
    assert detector.labels == ["0"]
    assert detector.skipped == {"1": "it has a single feature, of which the ket is always the same"}
    with pytest.raises(
        ValueError, match="must name a layer that can be scored, but '1' cannot: it has a single feature"
    ):
        study.detector(layers="1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "knn"}, r"Argument `method` must be one of \('combined', .* but is 'knn'"),
        (
            {"positions": "all"},
            r"Argument `positions` must be one of \('mean', 'worst', 'both'\), but is 'all'",
        ),
        (
            {"calibration": torch.zeros(2, 6)},
            "Argument `calibration` must come with `model`, but that is None",
        ),
        ({"model": nn.Linear(6, 2)}, "Argument `model` must come with `calibration`, but that is None"),
    ],
)
def test_wrong_arguments(options: dict, message: str, labelled: kw.Study) -> None:
    with pytest.raises(ValueError, match=message):
        labelled.detector(**options)


def test_a_study_without_labels_has_no_distances(three: nn.Sequential) -> None:
    study = kw.study(three, drawn(100, 1)[0])
    with pytest.raises(
        ValueError, match=r"Argument `method` is 'relative', which needs class moments, but .* no labels"
    ):
        study.detector("relative")


def test_too_few_calibration_samples(three: nn.Sequential, labelled: kw.Study) -> None:
    small = kw.study(three, drawn(60, 1))
    with pytest.raises(
        ValueError, match=r"Argument `study` must have at least 40 calibration samples \(20 to weigh 9"
    ):
        small.detector()
    with pytest.raises(
        ValueError, match="Argument `calibration` must have at least 20 calibration samples, but has 19"
    ):
        labelled.detector("residual", layers="0", model=three, calibration=drawn(19, 2)[0])


def test_a_position_with_a_label_each_is_no_sample_with_one(tokens: tuple) -> None:
    network, x, _ = tokens
    study = kw.study(network, (x, torch.arange(1600).reshape(400, 4) % 2))
    with pytest.raises(
        ValueError, match=r"the study was made with a label a position and so held out no samples"
    ):
        study.detector("residual")
