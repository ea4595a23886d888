"""`probe` and its estimators: scikit-learn's own checks, and the same numbers as a study's readouts."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import ketwork as kw
from ketwork.networks.measures.readouts import LINEAR, MIXINGS, PRETTY_GOOD, RIDGES, read_out
from ketwork.networks.moments.labelled_moments import HELD_SHARE

from ..labelling import labelled

EXCEPTIONS: dict[str, str] = {}
"""Checks of scikit-learn's that do not hold, and why: none. One is skipped, since it needs SCIPY_ARRAY_API set."""


@pytest.mark.filterwarnings("ignore")  # some checks warn on purpose
@pytest.mark.parametrize("estimator", [kw.Probe(), kw.Probe("pretty good"), kw.ProbeRegressor()], ids=repr)
def test_estimators_are_scikit_learns(estimator: object) -> None:
    results = check_estimator(estimator, expected_failed_checks=EXCEPTIONS, on_skip=None)
    assert len(results) > 45
    failed = {result["check_name"] for result in results if result["status"] != "passed"}
    assert failed <= {"check_array_api_input"}  # which some versions pass


def made(n: int = 600, d: int = 10, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    y = generator.integers(k, size=n)
    return generator.normal(size=(n, d)) + 2.5 * np.eye(d)[y], np.array(["ham", "spam", "egg", "tea"])[y]


@pytest.mark.parametrize("kind", [LINEAR, PRETTY_GOOD])
def test_probe_reads_what_a_study_reads(kind: str) -> None:
    x, y = made()
    found = kw.probe(x, y, kind=kind, seed=torch.Generator().manual_seed(4))
    keys = torch.rand(len(x), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    names, codes = np.unique(y, return_inverse=True)
    statistics = labelled(torch.from_numpy(x)[:, None], torch.from_numpy(codes), keys)
    readout = read_out(statistics, statistics.fitting())[kind]
    assert found.strength_ == readout.strength
    held = statistics.held
    assert found.held_out_.tolist() == held.samples.sort().values.tolist()
    scores = readout.scores(held.kets)
    right = names[scores.argmax(dim=1)] == y[held.samples]
    assert found.scores_["accuracy"].value == pytest.approx(right.mean())
    assert found.scores_["accuracy"].value == pytest.approx(
        found.score(x[found.held_out_], y[found.held_out_])
    )
    assert found.confusion_.sum() == len(found.held_out_)
    assert np.trace(found.confusion_) == right.sum()
    assert found.scores_["balanced"].value > 0.85
    assert len(found.held_out_) / len(x) == pytest.approx(HELD_SHARE, abs=0.05)
    probabilities = found.predict_proba(x)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert probabilities.min() >= 0
    assert (found.classes_[probabilities.argmax(axis=1)] == found.predict(x)).all()
    assert f"accuracy {found.scores_['accuracy']}" in repr(found)


def test_held_out_rows_influence_nothing() -> None:
    x, y = made()
    before = kw.probe(x, y)
    changed, other = x.copy(), y.copy()
    changed[before.held_out_] = np.random.default_rng(1).normal(size=(len(before.held_out_), 10)) * 100
    other[before.held_out_] = np.roll(y[before.held_out_], 1)
    after = kw.probe(changed, other)
    assert after.held_out_.tolist() == before.held_out_.tolist()
    assert after.decision_function(x) == pytest.approx(before.decision_function(x), abs=1e-12)
    assert after.scores_["balanced"].value < 0.5


def test_regression_is_ridge_on_kets() -> None:
    x, _ = made()
    kets = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.stack([kets[:, 0] - kets[:, 1], np.sin(9 * kets[:, 2])], axis=1)
    ours = kw.ProbeRegressor(strength=1e-2).fit(x, y)
    spread = kets.var(axis=0).sum()
    theirs = Ridge(alpha=1e-2 * spread * len(x)).fit(kets, y)
    assert ours.predict(x) == pytest.approx(theirs.predict(kets), abs=1e-9)
    assert ours.score(x, y) == pytest.approx(theirs.score(kets, y), abs=1e-9)
    found = kw.probe(x, y[:, 0])
    assert isinstance(found, kw.ProbeRegressor)
    assert found.scores_["r2"].value > 0.999
    assert found.predict(x).shape == (600,)
    assert kw.probe(x, y).predict(x).shape == (600, 2)
    with pytest.raises(ValueError, match="must be 'linear' where labels are numbers, but is 'pretty good'"):
        kw.probe(x, y, kind=PRETTY_GOOD)


def test_strength_is_chosen_or_given() -> None:
    x, y = made()
    assert kw.Probe().fit(x, y).strength_ in RIDGES
    assert kw.Probe(PRETTY_GOOD).fit(x, y).strength_ in MIXINGS
    given = kw.Probe(strength=0.5).fit(x, y)
    assert given.strength_ == 0.5
    assert (
        abs(given.decision_function(x)).max()
        < abs(kw.Probe(strength=1e-6).fit(x, y).decision_function(x)).max()
    )


def test_estimators_serve_in_pipelines_and_survive_pickling() -> None:
    x, y = made()
    assert cross_val_score(make_pipeline(StandardScaler(), kw.Probe()), x, y).mean() > 0.85
    found = kw.probe(torch.from_numpy(x), list(y))
    again = pickle.loads(pickle.dumps(found))
    assert (again.predict(x) == found.predict(x)).all()
    assert again.scores_ == found.scores_


def test_labels_are_read_as_a_study_reads_them() -> None:
    x, y = made()
    some = np.unique(y, return_inverse=True)[1]
    some[:100] = -100
    found = kw.probe(x, some)
    assert set(found.classes_) == {0, 1, 2}
    assert found.held_out_.min() >= 100
    assert set(kw.probe(x, y == "ham").classes_) == {False, True}


def test_bad_input() -> None:
    x, y = made(60)
    for features, labels, said in (
        (
            x[:, :, None],
            y,
            r"`features` must be real, of shape \(samples, features\), but is float64 of shape",
        ),
        (x + 1j, y, "must be real"),
        (x, y[:59], "has 59 for at least 60 samples"),
        (x, np.append(y, "ham"), "has 61 for 60 samples"),
        (x, ["one"] * 60, "must hold at least 2 classes, but has 1 class"),
        (x, np.full(60, np.nan), "the label of sample 0 is NaN"),
        (np.where(x > 2, np.nan, x), y, "contains NaN"),
        (x, None, "must hold one class a row, or numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            kw.probe(features, labels)
    with pytest.raises(ValueError, match=r"`kind` must be one of \('linear', 'pretty good'\), but is 'good'"):
        kw.Probe("good").fit(x, y)


def test_few_rows_are_read_at_the_default_strength() -> None:
    x, _ = made(3, k=2)
    labels = ["a", "b", "a"]
    found = kw.Probe().fit(x, labels)
    assert found.strength_ == RIDGES[0]
    assert list(found.predict(x)) == labels


def test_the_split_does_not_follow_labels_drawn_from_a_small_seed() -> None:
    x = np.random.default_rng(0).normal(size=(1000, 4))
    drawn = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = kw.probe(x, drawn < HELD_SHARE)  # as the split would be, were it drawn from seed 0 alike
    assert float((drawn < HELD_SHARE)[found.held_out_].double().mean()) == pytest.approx(0.25, abs=0.06)


def test_features_in_bfloat16_are_those_in_float32() -> None:
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = x[:, 0] > 0
    half, single = kw.probe(x, labels), kw.probe(x.float(), labels)
    assert half.scores_["accuracy"] == single.scores_["accuracy"]
    assert half.scores_["accuracy"] > 0.9
