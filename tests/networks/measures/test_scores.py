"""Scores equal scikit-learn's, and their standard errors what resampling gives."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics
from torch import Tensor

from ketwork.networks.measures import scores as score


def made(n: int, k: int, *, seed: int = 0, ties: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(k, (n,), generator=generator)
    given = torch.rand(n, k, generator=generator, dtype=torch.float64)
    given[torch.arange(n), codes] += 0.4
    given = (given * 8).round() + 1 if ties else given
    return given / given.sum(dim=1, keepdim=True), codes


@pytest.mark.parametrize("k", [2, 3, 20])
@pytest.mark.parametrize("ties", [False, True])
def test_scores_are_those_of_scikit_learn(k: int, ties: bool) -> None:
    given, codes = made(300, k, ties=ties)
    read = given.argmax(dim=1)
    assert score.accuracy(given, codes).value == pytest.approx(metrics.accuracy_score(codes, read))
    assert score.balanced_accuracy(given, codes).value == pytest.approx(
        metrics.balanced_accuracy_score(codes, read)
    )
    expected = (
        metrics.roc_auc_score(codes, given[:, 1] - given[:, 0])
        if k == 2
        else metrics.roc_auc_score(codes, given, multi_class="ovr", average="macro")
    )
    assert score.macro_auc(given, codes).value == pytest.approx(expected, abs=1e-12)
    assert score.confusion(given, codes).numpy() == pytest.approx(
        metrics.confusion_matrix(codes, read, labels=range(k))
    )


def test_r_squared_is_that_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    guess = y + 0.5 * torch.randn(50, 1, generator=generator, dtype=torch.float64)
    assert score.r_squared(guess, y).value == pytest.approx(metrics.r2_score(y.numpy(), guess.numpy()))
    both, other = torch.cat([y, 3 * guess], 1), torch.cat([guess, 3 * y], 1)
    weighted = metrics.r2_score(both.numpy(), other.numpy(), multioutput="variance_weighted")
    assert score.r_squared(other, both).value == pytest.approx(weighted)


@pytest.mark.parametrize("measure", [score.accuracy, score.balanced_accuracy, score.macro_auc])
@pytest.mark.parametrize("k", [2, 4])
def test_standard_errors_are_those_of_resampling(measure: object, k: int) -> None:
    given, codes = made(400, k)
    assert callable(measure)
    found = measure(given, codes)
    generator = torch.Generator().manual_seed(1)
    draws = [torch.randint(400, (400,), generator=generator) for _ in range(600)]
    spread = np.std([measure(given[draw], codes[draw]).value for draw in draws])
    assert found.stderr == pytest.approx(
        spread, rel=0.12
    )  # 600 resamples say it to 3 %, the first order to 5 %


def test_standard_error_of_r_squared_is_that_of_resampling() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    guess = y + torch.randn(400, 2, generator=generator, dtype=torch.float64) * 0.7
    draws = [torch.randint(400, (400,), generator=generator) for _ in range(600)]
    spread = np.std([score.r_squared(guess[draw], y[draw]).value for draw in draws])
    assert score.r_squared(guess, y).stderr == pytest.approx(spread, rel=0.12)


def wilson(right: int, n: int) -> float:
    """The farther end of SciPy's Wilson interval, in standard errors."""
    found = stats.binomtest(right, n).proportion_ci(method="wilson")
    return float(max(right / n - found.low, found.high - right / n)) / 1.959964


@pytest.mark.parametrize(("right", "n"), [(15, 15), (14, 15), (0, 9), (60, 100), (1, 1)])
def test_the_error_of_an_accuracy_reaches_the_farther_end_of_wilsons_interval(right: int, n: int) -> None:
    given = torch.eye(2, dtype=torch.float64)[(torch.arange(n) >= right).long()]
    found = score.accuracy(given, torch.zeros(n, dtype=torch.int64))
    assert found.value == pytest.approx(right / n)
    assert found.stderr == pytest.approx(wilson(right, n), rel=1e-6)


def test_labels_with_a_single_row_are_not_certain() -> None:
    """Each alone among its kind, K rows read rightly are as sure as K rows of one label."""
    given, codes = torch.eye(8, dtype=torch.float64), torch.arange(8)
    given[:3] = given[[1, 2, 0]]  # 5 of 8 are right
    found = score.balanced_accuracy(given, codes)
    assert found.value == pytest.approx(5 / 8)
    assert found.stderr == pytest.approx(wilson(5, 8), rel=0.03)


@pytest.mark.parametrize("measure", [score.accuracy, score.balanced_accuracy, score.macro_auc])
def test_no_score_is_certain_and_positions_do_not_make_it_so(measure: object) -> None:
    """Twenty rows read rightly leave an error; nine rows of each sample, all alike, leave no smaller one."""
    codes = torch.arange(20) % 2
    given = torch.eye(2, dtype=torch.float64)[codes]
    assert callable(measure)
    found = measure(given, codes)
    assert found.value == 1
    assert 0.05 < found.stderr < 0.15
    rows = measure(
        given.repeat_interleave(9, dim=0), codes.repeat_interleave(9), torch.arange(20).repeat_interleave(9)
    )
    assert rows.stderr == pytest.approx(found.stderr, rel=1e-9)


def test_the_error_of_an_auc_is_delongs_away_from_one() -> None:
    """Against the variance of the structural components, written out."""
    given, codes = made(400, 2, seed=5)
    difference = (given[:, 1] - given[:, 0]).numpy()
    x, y = difference[codes == 1], difference[codes == 0]
    beats = (x[:, None] > y).astype(float) + 0.5 * (x[:, None] == y)
    delong = math.sqrt(beats.mean(1).var(ddof=1) / len(x) + beats.mean(0).var(ddof=1) / len(y))
    assert score.macro_auc(given, codes).stderr == pytest.approx(delong, rel=0.06)


@pytest.mark.parametrize(("n", "apart", "least"), [(12, 0.5, 0.9), (12, 1.0, 0.9), (50, 0.7, 0.93)])
def test_the_error_of_an_auc_of_few_rows_covers(n: int, apart: float, least: float) -> None:
    """Two normal laws: the area is Φ(apart/√2). DeLong's error covers it in 88 of 100 cases at 12 rows and 1 apart."""
    truth = stats.norm.cdf(apart / math.sqrt(2))
    codes = torch.arange(n) % 2
    generator = torch.Generator().manual_seed(3)
    held = 0
    for _ in range(1500):
        x = torch.randn(n, generator=generator, dtype=torch.float64) + apart * codes
        found = score.macro_auc(torch.stack([-x, x], dim=1), codes)
        held += abs(found.value - truth) <= 1.96 * found.stderr
    assert least < held / 1500 < 0.985


def test_scores_that_differ_by_rounding_alone_are_ties() -> None:
    """A readout that says the same of all rows, up to rounding, neither ranks nor tells them apart."""
    codes = torch.arange(60) % 3
    noise = 1e-15 * torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = torch.full((60, 3), 1 / 3, dtype=torch.float64) + noise
    assert score.macro_auc(given, codes).value == 0.5
    assert score.balanced_accuracy(given, codes).value == pytest.approx(1 / 3)
    assert score.accuracy(given, codes).value == pytest.approx(1 / 3)  # all are read as the first
    assert score.confusion(given, codes)[:, 0].tolist() == [20, 20, 20]


@pytest.mark.parametrize("measure", [score.accuracy, score.balanced_accuracy, score.macro_auc])
def test_positions_of_one_sample_count_as_one(measure: object) -> None:
    given, codes = made(100, 3)
    assert callable(measure)
    alone = measure(given, codes)
    samples = torch.arange(100).repeat_interleave(9)
    nine = measure(given.repeat_interleave(9, dim=0), codes.repeat_interleave(9), samples)
    assert nine.value == pytest.approx(alone.value)
    assert nine.stderr == pytest.approx(alone.stderr)


def test_what_cannot_be_scored_has_no_value() -> None:
    given, codes = made(10, 3)
    assert math.isnan(score.macro_auc(given, torch.zeros_like(codes)).value)  # no others to beat
    nothing = given[:0], codes[:0]
    assert all(math.isnan(measure(*nothing).value) for measure in score.MEASURES.values())
    assert math.isnan(score.r_squared(given, torch.ones_like(given)).value)  # nothing to explain


def test_labels_absent_from_the_held_out_part_do_not_count() -> None:
    given, codes = made(60, 4)
    two = codes % 2  # labels 2 and 3 never come
    read = given.argmax(dim=1)
    expected = np.mean([metrics.recall_score((two == c).numpy(), (read == c).numpy()) for c in (0, 1)])
    assert score.balanced_accuracy(given, two).value == pytest.approx(expected)
    areas = [metrics.roc_auc_score((two == c).numpy(), given[:, c].numpy()) for c in (0, 1)]
    assert score.macro_auc(given, two).value == pytest.approx(np.mean(areas))
