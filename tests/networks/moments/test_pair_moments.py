"""Moments of pairs of layers: which side is kept, that none grows with N², what projecting costs, sums of parts."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.overlaps import overlaps_of
from ketwork.networks.measures.similarity import groups, similarities
from ketwork.networks.moments.pair_moments import WAITING, PairMoments
from ketwork.records.record import pack

from ..related import Fan, related


def stored(moments: PairMoments) -> int:
    """Bytes of all tensors that are held."""
    return sum(tensor.nbytes for tensor in pack(moments)[1].values())


def test_long_data_go_over_to_moments_and_stop_growing() -> None:
    moments = PairMoments(always=0)
    sizes = []
    for step in range(300):
        moments.add({"a": torch.randn(64, 10), "b": torch.randn(64, 20)})
        if step in (20, 299):
            moments.flush()
            sizes.append(stored(moments))
    assert moments.form == "moments"
    assert sizes[0] == sizes[1]
    assert moments.n == 300 * 64


def test_wide_layers_stay_rows() -> None:
    moments = PairMoments()
    for _ in range(10):
        moments.add({"a": torch.randn(8, 3000), "b": torch.randn(8, 5000)})
    assert moments.form == "rows"
    assert stored(moments) == 80 * 8000 * 4


@pytest.mark.parametrize("memory", [1 << 18, 1 << 20])
@pytest.mark.parametrize("batches", [4, 60])
def test_the_budget_holds(memory: int, batches: int) -> None:
    moments = PairMoments(memory=memory)
    for _ in range(batches):
        moments.add({"a": torch.randn(32, 300), "b": torch.randn(32, 400)}, {"c": torch.randn(32, 500)})
    # Beside the budget there are rows on their way into the moments, and those of half the width.
    waiting = WAITING * sum(moments.dims) * 4 * 3 // 2
    assert stored(moments) <= memory + (waiting if moments.form == "moments" else 0)
    if batches == 60:
        assert moments.projections
        assert max(moments.dims) < 300


def test_a_projection_says_its_error_and_the_error_is_right() -> None:
    """Each measure by itself: a projection scatters CKA, and lowers the others."""
    widths = [200, 200, 300]
    off = ~np.eye(3, dtype=bool)
    ratios: dict[str, list[float]] = {"cka": [], "bures": [], "r2": []}
    for seed in range(8):
        data = torch.cat(related(400, widths, seed), dim=1)
        exact = kw.compare(Fan(widths), data)
        rough = kw.compare(Fan(widths), data, memory=1 << 19, seed=seed)
        assert not exact.errors
        assert all(layer.held < layer.d for layer in rough.rows)
        assert any("Projected at random" in warning for warning in rough.warnings)
        assert "cka_error" in rough.table()
        for name, found in ratios.items():
            change = np.abs(rough.frame(name) - exact.frame(name)).to_numpy()
            found.extend(change[off] / rough.errors[name].numpy()[off])
    for name, found in ratios.items():
        assert max(found) < 3, name
        assert np.mean(np.array(found) < 1) >= 0.65, name
    assert np.median(ratios["cka"]) > 0.5  # a standard deviation: 0.67 of normal changes


def test_projected_equal_layers_stay_equal(chain: nn.Module) -> None:
    data = torch.cat([related(400, [300])[0]] * 2, dim=1)
    found = kw.compare(Fan([300, 300]), data, memory=1 << 18)
    assert found.rows[0].held < 300
    assert found.cka.iloc[0, 1] == pytest.approx(1, abs=1e-9)
    assert found.bures.iloc[0, 1] == pytest.approx(1, abs=1e-6)


def test_projection_is_seeded() -> None:
    data = torch.cat(related(300, [200, 300]), dim=1)

    def run(**options: object) -> float:
        return float(kw.compare(Fan([200, 300]), data, memory=1 << 18, **options).cka.iloc[0, 1])

    assert run() == run(seed=0) == run(seed=0)
    assert run(seed=1) == run(seed=1) != run(seed=2)
    drawn = [run(seed=torch.Generator().manual_seed(number)) for number in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_layers_must_agree_on_rows_and_widths() -> None:
    moments = PairMoments()
    with pytest.raises(ValueError, match="one row a sample"):
        moments.add({"a": torch.randn(4, 2), "b": torch.randn(5, 2)})
    moments = PairMoments()
    moments.add({"a": torch.randn(4, 2)})
    with pytest.raises(ValueError, match="had 2 features and now has 3"):
        moments.add({"a": torch.randn(4, 3)})
    with pytest.raises(ValueError, match="different keys"):
        PairMoments().add({"a": torch.randn(4, 2)}, {"a": torch.randn(4, 2)})


WIDTHS = {"a": 5, "b": 7, "c": 40, "d": 3}


def rows(n: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    found = {}
    for i, (name, d) in enumerate(WIDTHS.items()):
        mix = torch.randn(4, d, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        found[name] = base @ mix + 0.5 * torch.randn(n, d, generator=draw, dtype=torch.float64) + seed
    return found


def gathered(parts: Sequence[dict[str, Tensor]], split: bool = False, **options: Any) -> PairMoments:
    found = PairMoments(**options)
    for part in parts:
        names = list(part)
        both = [{name: part[name] for name in some} for some in (names[:2], names[2:])]
        found.add(*both) if split else found.add(part)
    return found


def same(one: PairMoments, other: PairMoments, split: bool = False) -> None:
    assert (one.n, one.keys, one.split, one.incomplete) == (
        other.n,
        other.keys,
        other.split,
        other.incomplete,
    )
    for a, b in ((one, other), (one.half, other.half)):
        if a is None or b is None:
            assert a is b
            continue
        found, expected = (similarities(overlaps_of(copy.deepcopy(p)), groups(), center=True) for p in (a, b))
        for name, matrix in expected.items():
            torch.testing.assert_close(found[name], matrix, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("sizes", [(20, 30), (400, 30), (30, 400), (300, 500), (2, 600)])
def test_parts_add_up_whatever_form_they_are_in(sizes: tuple[int, int], split: bool) -> None:
    parts = [rows(n, seed) for seed, n in enumerate(sizes)]
    a, b = (gathered([part], split, always=0) for part in parts)
    forms = {len(part["a"]): held.form for part, held in zip(parts, (a, b), strict=True)}
    assert all(form == ("moments" if n >= 300 else "rows") for n, form in forms.items())
    before = {name: tensor.clone() for name, tensor in pack(b)[1].items()}
    a += b
    same(a, gathered(parts, split, always=0))
    after = pack(b)[1]
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("sizes", [(30, 900), (900, 30), (700, 800), (3, 4)])
def test_projected_parts_add_up_to_the_projection_of_all(sizes: tuple[int, int]) -> None:
    parts = [rows(n, seed) for seed, n in enumerate(sizes)]
    memory = 14_000
    a, b = (gathered([part], memory=memory, seed=3, always=0) for part in parts)
    a += b
    whole = gathered(parts, memory=memory, seed=3, always=0)
    assert bool(whole.projections) == (max(sizes) > 100)
    same(a, whole)
    if whole.projections:
        with pytest.raises(
            ValueError, match=r"seed and memory are the same, but they are 3 and .* and 4 and"
        ):
            a += gathered([parts[0]], memory=memory, seed=4, always=0)


@pytest.mark.parametrize("form", ["rows", "moments"])
def test_layers_are_found_by_their_keys(form: str) -> None:
    always = 1 << 30 if form == "rows" else 0
    first, second = rows(400, 0), rows(500, 1)
    turned = {name: second[name] for name in ("d", "b", "a")}  # in another order, and one is missing
    a, b = gathered([first], always=always), gathered([turned], always=always)
    assert (a.form, b.form) == (form, form)
    a += b
    assert a.incomplete == {"c"}
    same(a, gathered([first, turned], always=always))
    with pytest.raises(ValueError, match="Layer 'a' has 5 features in one part and 6 in another"):
        a += gathered([{"a": torch.zeros(3, 6)}])


def test_nothing_is_neutral() -> None:
    part = rows(20, 0)
    a = gathered([])
    a += gathered([part])
    a += gathered([])
    same(a, gathered([part]))
