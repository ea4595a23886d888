"""The page of a detector: its histograms, its most unlike samples and its layers are those of the scores."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.report.histograms import CALIBRATION, SCORED, score_histograms


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture(scope="module")
def detector(network):
    x = torch.randn(800, 4, generator=torch.Generator().manual_seed(1))
    return kw.study(network, (x + 1, torch.arange(800) % 2)).detector()


@pytest.fixture(scope="module")
def scores(network, detector):
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(2))
    x[:10] -= 6
    return detector.score(network, x + 1, alpha=0.05, layers=True)


def page_of(detector, path, **options):
    text = detector.report(path, **options).read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return text, json.loads(data[1])


def test_histograms_count_every_sample_once(detector, scores):
    known, scored = score_histograms(detector, scores)
    assert (known.name, scored.name) == (CALIBRATION, SCORED)
    assert (known.n, scored.n) == (len(detector.calibration_scores), 60)
    assert known.shares.sum() == pytest.approx(1)
    assert scored.shares.sum() == pytest.approx(1)
    expected, _ = np.histogram(detector.calibration_scores, known.edges)
    np.testing.assert_allclose(known.shares * known.n, expected)
    beyond = scores.assign(score=1e9)
    assert score_histograms(detector, beyond)[1].shares[-1] == 1
    assert len(score_histograms(detector, scores.assign(score=np.nan))) == 1


def test_the_most_unlike_samples_come_first(detector, scores, tmp_path):
    text, data = page_of(detector, tmp_path / "x.html", scores=scores, alpha=0.05)
    rows = re.findall(r"<code>sample (\d+)</code>", text)
    order = scores["score"].sort_values(ascending=False, kind="stable").index[:50]
    assert rows == [str(place) for place in order]
    alarms = int(scores["alarm"].sum())
    assert f"{alarms} of 60 samples ({100 * alarms / 60:.1f} ±" in text
    assert data["charts"].keys() == {"scores", "layers"}


def test_each_layers_curve_is_its_median_and_nine_of_ten(detector, scores, tmp_path):
    _, data = page_of(detector, tmp_path / "x.html", scores=scores)
    (points,) = data["charts"]["layers"]["datasets"].values()
    assert [(point["kind"], point["label"]) for point in points] == [
        (kind, label) for kind in (CALIBRATION, SCORED) for label in detector.labels
    ]
    for point in points[3:]:
        values = scores[f"surprisal:{point['label']}"]
        expected = values.quantile([0.05, 0.5, 0.95]).tolist()
        assert [point["low"], point["median"], point["high"]] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    threshold = [each for each in data["charts"]["scores"]["datasets"].values() if "level" in each[0]]
    assert threshold[0][0]["level"] == pytest.approx(detector.threshold(0.05), rel=1e-4)


def test_without_scores_it_shows_the_layers(detector, tmp_path):
    text, data = page_of(detector, tmp_path / "x.html")
    (points,) = data["charts"]["layers"]["datasets"].values()
    assert {point["kind"] for point in points} == {CALIBRATION}
    assert "Each layer</h2>" in text
    assert text.count("<code>1</code>") == 1


def test_it_opens_in_a_browser(detector, scores, tmp_path, open_page):
    page = open_page(detector.report(tmp_path / "x.html", scores=scores), 390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.locator("[data-chart] svg").count() == 2
    ticks = page.locator("[data-chart=layers] [aria-label^='X-axis'] text").all_text_contents()
    assert [text for text in ticks if text.isdecimal()] == ["1", "2", "3"]
    page.locator("#filter").fill("sample 5")
    words = [
        row
        for row in scores["score"].sort_values(ascending=False).index[:50]
        if f"sample {row}".startswith("sample 5")
    ]
    assert page.locator("#count").inner_text() == f"{len(words)} of 50"
