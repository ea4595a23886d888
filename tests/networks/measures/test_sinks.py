"""Sinks and massive dimensions against loops, planted ones, and repeated draws."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import are_sinks


def planted(n: int = 60, t: int = 12, d: int = 8, seed: int = 0) -> Tensor:
    """Rows of norm about √d, of which the first of each sample, and the sixth of one, is 1,000 times as long."""
    x = torch.randn(n, t, d, generator=torch.Generator().manual_seed(seed))
    x[:, 0] = 0
    x[:, 0, 2] = 2000 + 100 * torch.rand(n, generator=torch.Generator().manual_seed(seed + 1))
    x[3, 5] *= 1000
    return x


def by_hand(x: Tensor, mask: Tensor) -> list[tuple[int, int]]:
    """Sample and position of each sink, from loops and sorting."""
    result = []
    for i, (rows, present) in enumerate(zip(x.double(), mask, strict=True)):
        squares = [float(row @ row) for row in rows]
        known = sorted(s for s, there in zip(squares, present, strict=True) if there and s > 0)
        if known:
            median = known[(len(known) - 1) // 2]
            result += [(i, j) for j, s in enumerate(squares) if present[j] and s > 100 * median]
    return result


@pytest.mark.parametrize("masked", [False, True])
def test_planted_sinks_are_found_counted_and_weighed(masked: bool) -> None:
    x = planted()
    mask = torch.ones(60, 12, dtype=torch.bool)
    if masked:
        mask[:20, :3] = False  # padding on the left: their first is no sink
        mask[30:, 9:] = False
        x[40, 1:8] = 0  # zero vectors count in no median
    sinks = by_hand(x, mask)
    assert len(sinks) == (41 if masked else 61)
    layer = kw.study(nn.Identity(), x, mask=mask, batch_size=13)["(model)"]
    squares = torch.where(mask, x.double().square().sum(dim=2), 0)
    at = tuple(torch.tensor(sinks).T)
    assert layer.sinks == pytest.approx(len(sinks) / int(mask.sum()), rel=1e-12)
    assert layer.sink_weight == pytest.approx(float(squares[at].sum() / squares.sum()), rel=1e-6)
    places = layer.accumulator.sums["sinks"].places.tolist()  # among the positions that a sample has
    first = 40 if masked else 60
    assert places[0] == first
    assert sum(places) == len(sinks)
    assert places[2 if masked else 5] == 1


def test_each_sample_is_judged_by_its_own_median() -> None:
    squares = torch.tensor(
        [[1e6, 1.0, 1.0, 1.0], [1e6, 1e6, 1e6, 1e6], [0.0, 0.0, 0.0, 5.0], [1.0, 101.0, 1.0, 100.0]]
    )
    assert are_sinks(squares).nonzero().tolist() == [[0, 0], [3, 1]]
    assert are_sinks(torch.full((2, 3), math.nan)).tolist() == [[False] * 3] * 2
    together = kw.study(nn.Identity(), planted(), batch_size=60)[0].sink_weight
    assert kw.study(nn.Identity(), planted(), batch_size=7)[0].sink_weight == pytest.approx(
        together, rel=1e-12
    )


def test_the_error_of_their_share_is_that_of_repeated_data() -> None:
    values, errors = [], []
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(50, 6, 16, generator=draw)
        x[torch.rand(50, generator=draw) < 0.4, 0] *= 30
        layer = kw.study(nn.Identity(), x)[0]
        values.append(torch.tensor([layer.sinks.value, layer.sink_weight.value]))
        errors.append(torch.tensor([layer.sinks.stderr, layer.sink_weight.stderr]))
    spread, said = torch.stack(values).std(dim=0), torch.stack(errors).mean(dim=0)
    assert torch.allclose(said, spread, rtol=0.15)


def test_what_they_hold_of_the_state_is_said_and_what_is_left_without_them() -> None:
    x = planted(d=6)
    study = kw.study(nn.Identity(), x, normalize="ensemble")
    layer = study[0]
    assert layer.sink_weight > 0.999
    assert layer.effective_rank < 1.3  # of six dimensions
    table = study.sinks()
    assert table.loc[0, ["layer", "sinks", "places"]].tolist() == ["(model)", 61, "0 (60), 5 (1)"]
    assert table.loc[0, "share"] == layer.sink_weight.value
    assert table.loc[0, "dimensions"] == [2]
    (warning,) = [each for each in study.warnings if each.startswith("Sinks at (model)")]
    assert 'positions="no-sinks"' in warning
    assert f"{layer.sink_weight:.1%} of ρ" in warning
    without = kw.study(nn.Identity(), x, normalize="ensemble", positions="no-sinks")
    rest = x[
        ~torch.tensor([[(i, j) in by_hand(x, torch.ones(60, 12)) for j in range(12)] for i in range(60)])
    ].double()
    values = torch.linalg.eigvalsh(rest.T @ rest)
    values = values / values.sum()
    assert without[0].kets == 60 * 12 - 61
    assert without[0].effective_rank.plain == pytest.approx(
        2 ** float(-(values * values.log2()).sum()), rel=1e-5
    )
    assert without[0].sinks == 0
    assert without.sinks().empty
    assert not [each for each in without.warnings if "Sinks" in each]
    assert kw.study(nn.Identity(), x).sinks().loc[0, "share"] == 61 / 720  # every ket has weight 1


def test_massive_dimensions_are_those_of_the_state() -> None:
    x = torch.randn(400, 40, generator=torch.Generator().manual_seed(2))
    x[:, 7] *= 50
    x[:, 9] = 0
    layer = kw.study(nn.Identity(), x, normalize="ensemble")[0]
    share = x[:, 7].double().square().sum() / x.double().square().sum()
    assert layer.massive == pytest.approx(float(share), rel=1e-6)
    assert 0 < layer.massive.stderr < 0.01
    assert kw.study(nn.Identity(), x[:, :7], normalize="ensemble")[0].massive == 0
    assert math.isnan(layer.sinks)  # samples of one vector have none


def test_parts_add_up_also_from_files(tmp_path: Path) -> None:
    x = planted()
    a, b = kw.study(nn.Identity(), x[:20]), kw.study(nn.Identity(), x[20:])
    a.save(tmp_path / "a")
    total, complete = (kw.Study.load(tmp_path / "a") + b)[0], kw.study(nn.Identity(), x)[0]
    for name in ("sinks", "sink_weight", "massive"):
        one, other = total.estimates[name], complete.estimates[name]
        assert (one.value, one.stderr) == pytest.approx((other.value, other.stderr), rel=1e-6, abs=1e-11)
