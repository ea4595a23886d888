"""Standard errors of CKA and R²: against the jackknife, the spread over data sets, and what positions change."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.comparison.result import ComparedLayer, Comparison
from ketwork.networks.measures.clusters import Clusters
from ketwork.networks.measures.pair_errors import Evidence
from ketwork.networks.moments import PairMoments, sample_keys

from ..related import Fan, compared, related

NAMES = ("cka", "r2", "r2_reverse")


def jackknife(layers: list[Tensor], name: str) -> float:
    """The standard error of a measure of the first two layers by deleting one sample at a time."""
    n = len(layers[0])
    values = [
        float(compared([torch.cat([x[:i], x[i + 1 :]]) for x in layers], batch=n)[0].frame(name).iloc[0, 1])
        for i in range(n)
    ]
    return math.sqrt((n - 1) / n * float(np.sum((np.array(values) - np.mean(values)) ** 2)))


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_those_of_deleting_one_sample_at_a_time(name: str) -> None:
    layers = related(70, [4, 7])
    found, _ = compared(layers)
    # Deleting counts the chance of what is of second order twice, so that it is a little larger.
    assert found.stderr(name).iloc[0, 1] == pytest.approx(jackknife(layers, name), rel=0.12)


@pytest.mark.parametrize("strength", [0.0, 1.0])
@pytest.mark.parametrize("always", [0, 1 << 24])
def test_errors_are_the_spread_over_data_sets(strength: float, always: int) -> None:
    """Of unrelated layers too, where the first order vanishes; from kept samples beside the moments too."""
    values: dict[str, list[float]] = {name: [] for name in NAMES}
    errors: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(80):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(150, 6, generator=generator)
        y = strength * x[:, :5] + torch.randn(150, 5, generator=generator)
        found, form = compared([x, y], batch=150, always=always)
        assert form == ("rows" if always else "moments")
        for name in NAMES:
            values[name].append(found.frame(name).iloc[0, 1])
            errors[name].append(found.stderr(name).iloc[0, 1])
    for name in NAMES:
        assert np.median(errors[name]) == pytest.approx(np.std(values[name], ddof=1), rel=0.3)


def test_an_error_is_students_where_few_samples_decide() -> None:
    shares = torch.randn(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares[0] = 9.0
    evidence = Evidence(Clusters.from_keys(torch.arange(40)), [shares[:, None]], None, 400, 400)
    squares = (shares - shares.mean()).square()
    nu = 2 / (float(squares.square().sum() / squares.sum() ** 2) - 1 / 40)
    assert nu < 6
    assert evidence.stderr(shares) == pytest.approx(
        math.sqrt(float(shares.var()) / 400) * stats.t.ppf(0.975, nu) / 1.959964, rel=5e-3
    )


def test_estimates_are_pythons_numbers() -> None:
    found, _ = compared(related(60, [4, 7]))
    for name in (*NAMES, "bures", "bures_corrected"):
        estimate = found.estimate(name, 0, 1)
        assert type(estimate.value) is type(estimate.stderr) is float


def of_positions(layers: list[Tensor], times: int) -> Comparison:
    """The comparison where each sample has so many positions, all alike."""
    pairs = PairMoments(clustered=True)
    keys = sample_keys(0, len(layers[0]))
    rows = {f"a{i}": x.repeat_interleave(times, dim=0) for i, x in enumerate(layers)}
    pairs.add(rows, keys=keys.repeat_interleave(times))
    named = {key: ComparedLayer(key, "", x.shape[1], x.shape[1]) for key, x in rows.items()}
    return Comparison.from_pairs(pairs, named, {"model": "a", "other": "a", "unit": "position"}, {})


@pytest.mark.parametrize("name", ["cka", "bures", "bures_corrected", "bures_null", "r2", "r2_reverse"])
def test_positions_that_are_all_alike_say_no_more_than_one(name: str) -> None:
    layers = related(60, [4, 7])
    alone, alike = compared(layers)[0], of_positions(layers, 5)
    assert (alike.n, alike.independent) == (300, 60)
    assert alike.frame(name).iloc[0, 1] == pytest.approx(alone.frame(name).iloc[0, 1], rel=2e-3)
    if name != "bures_null":  # what vanishes between unrelated layers is not taken off of positions
        assert alike.stderr(name).iloc[0, 1] == pytest.approx(alone.stderr(name).iloc[0, 1], rel=0.12)


@pytest.mark.parametrize("samples", [24, 80])
def test_unrelated_layers_of_alike_positions_are_at_their_chance_levels(samples: int) -> None:
    found = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        own = torch.randn(samples, 1, 16, generator=generator)
        x = own + 0.4 * torch.randn(samples, 9, 16, generator=generator)
        record = kw.compare(Fan([8, 8]), x, unit="position", reading=kw.Reading(feature_axis=-1))
        found.append([record.frame(name).iloc[0, 1] for name in ("cka", "r2", "bures", "bures_null")])
    values = np.array(found)
    error = values.std(axis=0, ddof=1) / math.sqrt(20)
    assert (np.abs(values[:, :2].mean(axis=0)) < 3.5 * error[:2]).all()
    assert values[:, 2].mean() == pytest.approx(values[:, 3].mean(), rel=0.05)


@pytest.mark.parametrize("n", [300, 4000])
@pytest.mark.parametrize("largest", [3e3, 1e6])
def test_an_exact_linear_map_of_inputs_in_other_units_explains_all(n: int, largest: float) -> None:
    torch.manual_seed(0)
    sizes = torch.logspace(0, math.log10(largest), 12)
    x = torch.randn(n, 12, generator=torch.Generator().manual_seed(1)) * sizes
    y = (x / sizes)[:, :8].double() @ torch.randn(8, 4, dtype=torch.float64)
    for always in (0, 1 << 26):
        found, form = compared([x, y.float()], batch=n, always=always, measures=["r2"])
        assert form == ("rows" if always else "moments")
        assert found.rows[0].rank == 12
        assert found.r2.iloc[0, 1] == pytest.approx(1, abs=1e-5)
        assert found.table().loc[0, ["rank", "rank_other"]].tolist() == [12, 4]


def test_a_light_axis_that_is_no_feature_is_no_rounding_either() -> None:
    """Turned, the heavy and the light directions are in every feature."""
    generator = torch.Generator().manual_seed(2)
    turn = torch.linalg.qr(torch.randn(10, 10, generator=generator))[0]
    light = torch.randn(3000, 10, generator=generator) * torch.tensor([3e3] + [1.0] * 9)
    found, form = compared([light @ turn, light[:, 1:4]], batch=3000, always=0, measures=["r2"])
    assert form == "moments"
    assert found.r2.iloc[0, 1] == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_told_has_its_reason() -> None:
    few, _ = compared(related(6, [2, 3]))
    assert few.stderr("cka").isna().iloc[0, 1]
    assert "No standard errors (–): 6 samples, fewer than 8, do not show" in " ".join(few.warnings)
    assert few.long()["stderr"].isna().all()
    enough, _ = compared(related(60, [2, 3]))
    assert enough.unknown is None
    assert not enough.stderr("cka").isna().any(axis=None)
    with pytest.raises(ValueError, match=r"one with standard errors \(cka, .*but is 'bures_null'"):
        enough.stderr("bures_null")


def test_small_budgets_keep_fewer_samples_or_say_why_there_are_none() -> None:
    widths = [200, 300]
    roomy, _ = compared(related(900, widths), memory=1 << 20)
    assert roomy.errors  # projected
    assert roomy.stderr("cka").iloc[0, 1] > 0
    tight, form = compared(related(900, widths), memory=9_000)
    assert form == "moments"
    assert tight.unknown is not None
    assert tight.stderr("cka").isna().iloc[0, 1]


def test_batches_change_no_error() -> None:
    data = torch.cat(related(200, [4, 6]), dim=1)
    found = [kw.compare(Fan([4, 6]), data, batch_size=size).stderr("cka").iloc[0, 1] for size in (200, 17)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_errors_are_in_every_table_and_come_back_from_a_file(tmp_path: object) -> None:
    found = kw.compare(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)), torch.randn(60, 6))
    table, long = found.table(), found.long()
    row = table.iloc[0]
    for name in ("cka", "bures", "bures_corrected", "r2", "r2_reverse", "cka_distance", "bures_distance"):
        assert row[f"{name}_stderr"] == found.stderr(name).loc[row["layer"], row["other"]] > 0
        line = long[(long["measure"] == name) & (long["layer"] == row["layer"])].iloc[0]
        assert (line["low"], line["high"]) == pytest.approx(
            (line["value"] - 1.959964 * line["stderr"], line["value"] + 1.959964 * line["stderr"])
        )
    assert "cka_biased_stderr" not in table
    angle = row["cka_stderr"] / math.sqrt(1 - row["cka"] ** 2)
    assert row["cka_distance_stderr"] == pytest.approx(angle)
    path = f"{tmp_path}/c.safetensors"
    found.save(path)
    again = kw.Comparison.load(path)
    np.testing.assert_array_equal(again.table().to_numpy(), table.to_numpy())
    assert again.rows == found.rows
