"""Studies as frames: wide with an index of layers, long, and the few columns that are printed."""

import math
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))


X = torch.randn(120, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=["plain", "classes", "values"])
def record(request: pytest.FixtureRequest) -> kw.Study:
    labels: Any = {"plain": False, "classes": torch.arange(120) % 3, "values": X[:, :2]}[request.param]
    return kw.study(network(), X, labels=labels)


def test_a_row_is_found_by_its_layer(record: kw.Study) -> None:
    table = record.table()
    assert table.index.tolist() == table["layer"].tolist() == ["0", "1", "2"]
    for layer in record:
        row = table.loc[layer.name]
        assert row["entropy"] == layer.entropy.value
        assert row["entropy_stderr"] == layer.entropy.stderr
        assert [row[name] for name in ("call", "kind", "d", "N", "kets")] == [
            layer.call, layer.kind, layer.d, layer.N, layer.kets,
        ]  # fmt: skip
        assert row["n_per_d"] == layer.N_eff / layer.d


def test_the_columns_that_are_promised_are_there_and_defined(record: kw.Study) -> None:
    table = record.table()
    promised = ["layer", "call", "kind", "d", "N", "kets", "entropy", "entropy_stderr", "effective_rank"]
    promised += ["participation_ratio", "coherence", "top_weight", "dead", "zero", "entanglement"]
    if record.settings["task"] == "classes":
        promised += ["holevo", "holevo_null"]
        promised += [
            f"{kind}_{score}" for kind in ("pgm", "linear") for score in ("accuracy", "balanced", "auc")
        ]
    assert {*promised} <= {*table.columns}
    assert not any(column.endswith("_se") for column in table.columns)
    for column in table.columns:
        assert column.removesuffix("_stderr").removesuffix("_low").removesuffix("_high") in record.definitions
    units = table.attrs["units"]
    assert (units["entropy"], units["entropy_stderr"], units["effective_rank"]) == (
        "bit",
        "bit",
        "dimensions",
    )
    for measure in record.measures:
        assert units[measure.name] == measure.unit
        assert (f"{measure.name}_stderr" in table) == measure.stderr


def test_long_says_the_same_in_rows(record: kw.Study) -> None:
    table, long = record.table(), record.long()
    assert list(long.columns) == [
        "layer", "call", "quantity", "value", "stderr", "low", "high", "plain", "unit", "N", "d",
    ]  # fmt: skip
    assert len(long) == len(table) * len(record.measures)
    for row in long.itertuples():
        wide = table.loc[row.layer, row.quantity]
        assert wide == row.value or (math.isnan(wide) and math.isnan(row.value))
        if f"{row.quantity}_stderr" in table:
            error = table.loc[row.layer, f"{row.quantity}_stderr"]
            assert error == row.stderr or (math.isnan(error) and math.isnan(row.stderr))
        assert row.unit == table.attrs["units"][row.quantity]


def test_tables_are_made_anew_and_equal(record: kw.Study) -> None:
    first = record.table()
    first["entropy"] = 0.0
    assert (record.table()["entropy"] != 0).all()
    pd.testing.assert_frame_equal(record.table(), record.table())


def test_what_is_printed_is_short_and_has_its_units(record: kw.Study) -> None:
    shown = repr(record)
    assert shown.startswith("Study of Sequential: 3 layers, N = 120 samples\n")
    assert "entropy (bits)" in shown
    assert str(kw.Estimate(record["0"].entropy, record["0"].entropy.stderr)) in shown
    assert ("Holevo" in shown) == (record.settings["task"] == "classes")
    assert ("R²" in shown) == (record.settings["task"] == "values")
    assert len(shown.splitlines()) < 12
    assert record._repr_html_().count("<tr") == 4
