"""The readouts are what their formulas say: ridge regression, and the pretty good measurement of reference kets."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor

import ketwork as kw
from ketwork.networks.measures.readouts import (
    LINEAR,
    MIXINGS,
    MOST_DIMENSIONS,
    PRETTY_GOOD,
    REFERENCE,
    RIDGES,
    Fit,
    read_out,
)
from ketwork.networks.moments.class_moments import ClassMoments
from ketwork.networks.moments.labelled_moments import CHECK_SHARE, HELD_SHARE, LabelledMoments, Rows, Sums


def clouds(n: int, d: int, k: int, *, seed: int = 0, apart: float = 0.3) -> tuple[Tensor, Tensor]:
    """Unit kets (n, d) in float64 around k centres, of unequal class sizes, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.multinomial(torch.arange(1, k + 1).double(), n, True, generator=generator)
    centres = apart * torch.randn(k, d, generator=generator, dtype=torch.float64)
    x = 1 + torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.2, d)
    return torch.nn.functional.normalize(x + centres[codes], dim=1), codes


def rows(x: Tensor, targets: Tensor, *, seed: int = 1000, held: bool = True) -> Rows:
    keys = torch.rand(len(x), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Rows(x, targets, keys if held else HELD_SHARE + (1 - HELD_SHARE) * keys, torch.arange(len(x)))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_linear_readout_is_ridge_with_equal_class_weights_and_a_free_constant(k: int) -> None:
    x, codes = clouds(500, 12, k)
    fit = Fit.from_sums(Sums.from_rows(rows(x, codes), k), None)
    weights = 1 / (k * torch.bincount(codes, minlength=k).double())[codes]
    for strength in RIDGES:
        alpha = strength * float(fit.values.sum())
        ridge = Ridge(alpha=alpha, solver="cholesky").fit(x, np.eye(k)[codes], sample_weight=weights.numpy())
        ours = fit.linear(strength, fit.points(x))
        assert ours.numpy() == pytest.approx(ridge.predict(x), abs=1e-9)
        assert ours.sum(dim=1).numpy() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", [LINEAR, PRETTY_GOOD])
@pytest.mark.parametrize(("n", "d"), [(60, 90), (90, MOST_DIMENSIONS + 8)])
def test_fewer_kets_than_dimensions_are_read_in_their_span(kind: str, n: int, d: int) -> None:
    """The same scores as in all dimensions, also of kets that lie outside of the span in part."""
    x, codes = clouds(n, d, 3)
    moments = LabelledMoments.from_rows(rows(x, codes))
    fitting = moments.fitting()
    for strength in (1e-3, 0.3):
        readout = read_out(moments, fitting, (kind,), strength)[kind]
        assert readout.fit.basis is not None
        assert len(readout.fit.values) == len(fitting.moments.rows) < d
        whole = Fit.from_sums(fitting, None)
        expected = whole.scores(kind, strength, whole.points(moments.held.kets))
        torch.testing.assert_close(readout.scores(moments.held.kets), expected, rtol=0, atol=1e-10)


def test_linear_readout_of_numbers_is_ridge() -> None:
    x, _ = clouds(300, 10, 2)
    y = torch.stack([x[:, 0] - 2 * x[:, 3], torch.sin(5 * x[:, 1])], dim=1)
    fit = Fit.from_sums(Sums.from_rows(rows(x, y), 1), None)
    alpha = 1e-3 * float(fit.values.sum()) * len(x)  # sklearn sums squares where we average them
    ridge = Ridge(alpha=alpha).fit(x, y)
    assert fit.linear(1e-3, fit.points(x)).numpy() == pytest.approx(ridge.predict(x), abs=1e-9)


def reference_kets(x: Tensor, codes: Tensor, k: int) -> Tensor:
    """(F(x − m), r) for each ket: m the mean of the class means, C the balanced covariance, F = C^(−¼)."""
    means = torch.stack([x[codes == c].mean(dim=0) for c in range(k)])
    shifted = x - means.mean(dim=0)
    covariance = sum(torch.cov(shifted[codes == c].T, correction=0) for c in range(k)) / k
    covariance += (means - means.mean(dim=0)).T @ (means - means.mean(dim=0)) / k
    fourth = scipy.linalg.sqrtm(scipy.linalg.sqrtm(covariance.numpy()))
    filtered = shifted @ torch.from_numpy(np.linalg.inv(fourth))
    spread = sum(filtered[codes == c].square().sum(dim=1).mean() for c in range(k)) / k
    reference = math.sqrt(REFERENCE * float(spread))
    return torch.cat([filtered, torch.full_like(x[:, :1], reference)], dim=1)


@pytest.mark.parametrize("k", [2, 5])
def test_pretty_good_measurement_is_that_of_the_quantum_room(k: int) -> None:
    x, codes = clouds(400, 8, k)
    vectors = reference_kets(x, codes, k)
    factors = [vectors[codes == c] / math.sqrt(int((codes == c).sum())) for c in range(k)]
    weights = torch.stack([factor.square().sum() for factor in factors])  # tr M_k: nearly equal priors
    states = [kw.Density.from_factor(f / f.square().sum().sqrt()) for f in factors]
    measurement = kw.Measurement.pretty_good(kw.Ensemble(weights / weights.sum(), states))
    asked = kw.Ket.normalized(vectors)

    fit = Fit.from_sums(Sums.from_rows(rows(x, codes), k), None)
    ours = fit.pretty_good(0.0, fit.points(x))
    assert ours.numpy() == pytest.approx(measurement.probabilities(asked).numpy(), abs=1e-8)
    for mixing in MIXINGS:  # mixed with the maximally mixed state, outcomes are still probabilities
        assert fit.pretty_good(mixing, fit.points(x)).sum(dim=1).numpy() == pytest.approx(1, abs=1e-10)


def test_pretty_good_measurement_turns_linear_with_three_quarters_of_the_whitening_as_the_reference_grows() -> (
    None
):
    x, codes = clouds(400, 8, 2)
    fit = Fit.from_sums(Sums.from_rows(rows(x, codes), 2), None)
    scores = fit.pretty_good(0.0, fit.points(x), reference=1e10) - 0.5
    apart = (fit.moments.means[1] - fit.moments.means[0]) @ fit.vectors
    line = fit.points(x) @ (apart / fit.values**0.75)
    correlation = torch.corrcoef(torch.stack([scores[:, 1], line]))[0, 1]
    assert float(correlation) == pytest.approx(1, abs=1e-6)


def test_matrices_read_like_the_kets_they_sum() -> None:
    x, codes = clouds(300, 6, 3)
    kets = ClassMoments.from_vectors(x[:12], codes[:12], 3)
    dense = ClassMoments.from_vectors(x, codes, 3)
    assert kets.dense is None
    assert dense.dense is not None
    for moments, n in ((kets, 12), (dense, 300)):
        own, labels = x[:n], codes[:n]
        for code in labels.unique().tolist():
            mine = own[labels == code]
            assert moments.means[code].numpy() == pytest.approx(mine.mean(dim=0).numpy(), abs=1e-12)
            read = moments.read(x)[:, code]
            assert read.numpy() == pytest.approx((x @ mine.T).square().mean(dim=1).numpy(), abs=1e-12)


def test_wide_layers_are_read_in_their_leading_dimensions() -> None:
    d, inside = MOST_DIMENSIONS + 88, 40
    x, codes = clouds(400, inside, 3)
    basis = torch.linalg.qr(torch.randn(d, inside, generator=torch.Generator().manual_seed(1)).double()).Q
    wide = LabelledMoments.from_rows(rows(x @ basis.T, codes))
    narrow = LabelledMoments.from_rows(rows(x, codes))
    found = read_out(wide, wide.fitting())[LINEAR]
    expected = read_out(narrow, narrow.fitting())[LINEAR]
    assert found.strength == expected.strength
    ours, theirs = found.scores(x @ basis.T), expected.scores(x)
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-4)


def test_strength_is_the_one_that_reads_the_checks_best_after_a_fit_without_them() -> None:
    x, codes = clouds(200, 30, 3, apart=0.1)
    given = rows(x, codes)
    statistics = LabelledMoments.from_rows(given)
    found = read_out(statistics, statistics.fitting())[LINEAR].strength
    check = given.keys >= 1 - CHECK_SHARE * (1 - HELD_SHARE)
    rest = (given.keys >= HELD_SHARE) & ~check
    trial = Fit.from_sums(Sums.from_rows(given[rest], 3), None)
    points = trial.points(x[check])
    worth = [
        np.mean([roc_auc_score(codes[check] == c, trial.linear(s, points)[:, c]) for c in range(3)])
        + balanced_accuracy_score(codes[check], trial.linear(s, points).argmax(dim=1))
        for s in RIDGES
    ]
    assert found == RIDGES[int(np.argmax(worth))]


def test_without_checks_that_can_tell_the_first_strengths_hold() -> None:
    x, codes = clouds(40, 5, 2)
    middle = rows(x, codes)
    middle = Rows(x, codes, torch.full_like(middle.keys, 0.5), middle.samples)  # nothing held out, no checks
    statistics = LabelledMoments.from_rows(middle)
    found = read_out(statistics, statistics.fitting())
    assert (found[LINEAR].strength, found[PRETTY_GOOD].strength) == (RIDGES[0], MIXINGS[0])
    all_checks = LabelledMoments.from_rows(Rows(x, codes, torch.full_like(middle.keys, 0.99), middle.samples))
    found = read_out(all_checks, all_checks.fitting())
    assert (found[LINEAR].strength, found[PRETTY_GOOD].strength) == (RIDGES[0], MIXINGS[0])
    keys = torch.where(codes == 0, 0.99, 0.5).double()  # the checks hold one label only, the rest the other
    statistics = LabelledMoments.from_rows(Rows(x, codes, keys, torch.arange(40)))
    found = read_out(statistics, statistics.fitting())
    assert (found[LINEAR].strength, found[PRETTY_GOOD].strength) == (RIDGES[0], MIXINGS[0])
    right = found[LINEAR].scores(x).argmax(dim=1) == codes
    assert float(right.double().mean()) > 0.7  # the fit itself has both


def test_labels_that_the_fit_has_not_seen_are_never_read() -> None:
    x, codes = clouds(200, 6, 2)
    fit = Fit.from_sums(Sums.from_rows(rows(x, codes), 3), None)  # label 2 has no kets
    linear, pretty_good = fit.linear(1e-3, fit.points(x)), fit.pretty_good(0.1, fit.points(x))
    assert not linear[:, 2].any()
    assert not pretty_good[:, 2].any()
    two = Fit.from_sums(Sums.from_rows(rows(x, codes), 2), None)
    assert linear[:, :2].numpy() == pytest.approx(two.linear(1e-3, two.points(x)).numpy(), abs=1e-12)
    assert not (linear.argmax(dim=1) == 2).any()
