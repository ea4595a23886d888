"""What is no data, or not the network that was studied, is refused in words."""

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw

from .conftest import drawn


@pytest.fixture(scope="module")
def detector(labelled: kw.Study) -> kw.Detector:
    return labelled.detector()


def test_another_architecture(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(8, 3)
    with pytest.raises(
        ValueError, match=r"Argument `model` must be of the architecture .* lacks a layer of it"
    ):
        detector.score(three[:2], x)
    wider = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 5)).double()
    with pytest.raises(
        ValueError, match="whose layer '0' has 10 features on axis 1, but there it has 12 on axis 1"
    ):
        detector.score(wider, x)

    class Skips(nn.Sequential):
        def forward(self, x):
            return self[1](self[0](x))

    with pytest.raises(
        ValueError, match="must run the layers that were studied, but '2' gave no vectors: it never ran"
    ):
        detector.score(Skips(*three), x)


def test_empty_data(three: nn.Sequential, detector: kw.Detector) -> None:
    for data in (torch.zeros(0, 6, dtype=torch.float64), [], np.zeros((0, 6))):
        with pytest.raises(ValueError, match="Argument `data` must hold at least one sample, but is empty"):
            detector.score(three, data)


def test_values_that_are_not_finite(three: nn.Sequential, detector: kw.Detector) -> None:
    x, _ = drawn(20, 3)
    x[13, 2] = torch.nan
    with pytest.raises(
        kw.DetectionError, match=r"Layer '0' put out NaN or infinite values for sample 13 \(counted"
    ):
        detector.score(three, x, batch_size=10)
    with pytest.raises(
        ValueError, match=r"Layer '0' put out NaN .* sample 13 .* `reading=kw.Reading\(skip_bad=True\)`"
    ):
        detector.score(three, x)
    frame = detector.score(three, x, alpha=0.05, reading=kw.Reading(skip_bad=True))
    assert np.flatnonzero(frame["score"].isna()).tolist() == [13]
    assert np.flatnonzero(frame["p_value"].isna()).tolist() == [13]
    assert frame["alarm"][13]
    assert frame["nearest_class"][13] is None
    rest = detector.score(three, torch.cat([x[:13], x[14:]]))
    np.testing.assert_allclose(frame["score"].drop(13), rest["score"], rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "Argument `batch_size` must be at least 1, but is 0"),
        ({"max_samples": 0}, "Argument `max_samples` must be at least 1, but is 0"),
        ({"alpha": 2}, "Argument `alpha` must lie between 0 and 1, but is 2"),
    ],
)
def test_wrong_arguments(options: dict, message: str, three: nn.Sequential, detector: kw.Detector) -> None:
    with pytest.raises(ValueError, match=message):
        detector.score(three, drawn(8, 3)[0], **options)


def test_padding_is_no_part_of_a_sample() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.Linear(4, 6)

        def forward(self, x, attention_mask):
            return self.inner(x)

    network, x = Masked(), torch.randn(400, 5, 4)
    mask = torch.arange(5)[None] < torch.randint(1, 6, (400, 1))
    study = kw.study(network, {"x": x, "attention_mask": mask.long(), "labels": torch.arange(400) % 2})
    detector = study.detector("mahalanobis")
    frame = detector.score(network, {"x": x, "attention_mask": mask.long()})
    padded = torch.where(mask[..., None], x, 9.0)
    other = detector.score(network, {"x": padded, "attention_mask": mask.long()})
    np.testing.assert_allclose(frame["score"], other["score"], rtol=1e-5)
    assert (
        detector.score(network, {"x": padded, "attention_mask": 0 * mask.long() + 1})["score"]
        > 2 * frame["score"]
    )[(mask.sum(1) < 3).numpy()].mean() > 0.5
    with detector.watch(network) as watch:
        network(x=padded[:50], attention_mask=mask[:50].long())
    np.testing.assert_allclose(watch.last["score"], frame["score"][:50], rtol=1e-4)
