"""Every measure against the textbook's N × N formulas, by each of the routes that compute it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ketwork.networks import ComparedLayer, Comparison, PairMoments, pairs

from . import reference
from .conftest import related

WIDTHS = [3, 12, 30, 80]


def compared(
    layers: list[Tensor], others: list[Tensor] | None = None, batch: int = 16, **options: object
) -> tuple[Comparison, str]:
    """The comparison of given activations, streamed in batches, and the form they were held in at the end."""
    moments = PairMoments()
    keyed = {f"a{i}": layer for i, layer in enumerate(layers)}
    second = {f"b{i}": layer for i, layer in enumerate(others)} if others is not None else None
    for start in range(0, len(layers[0]), batch):
        rows = [
            {key: layer[start : start + batch] for key, layer in side.items()}
            for side in (keyed, second)
            if side is not None
        ]
        moments.add(*rows)
    names = {
        key: ComparedLayer(key, "", x.shape[1], x.shape[1]) for key, x in (keyed | (second or {})).items()
    }
    return Comparison.of(moments, names, {"model": "a", "other": "b"}, {}, **options), moments.form  # type: ignore[arg-type]


def check(found: Comparison, layers: list[Tensor], others: list[Tensor], within: float) -> None:
    first, second = ([x.double().numpy() for x in side] for side in (layers, others))
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            assert found.cka.iloc[i, j] == pytest.approx(reference.cka(x, y), abs=within)
            assert found.cka_biased.iloc[i, j] == pytest.approx(reference.cka_biased(x, y), abs=within)
            assert found.bures.iloc[i, j] == pytest.approx(reference.root_fidelity(x, y), abs=within)
            fit, back = reference.explained(x, y), reference.explained(y, x)
            assert found.frame("r2_fit").iloc[i, j] == pytest.approx(fit, abs=within)
            assert found.frame("r2_fit_reverse").iloc[i, j] == pytest.approx(back, abs=within)


@pytest.mark.parametrize("n", [20, 60, 200])
def test_rows_give_the_textbook_numbers(n: int) -> None:
    layers = related(n, WIDTHS)
    found, form = compared(layers)
    assert form == "rows"
    check(found, layers, layers, 1e-6)


def test_moments_give_the_textbook_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "_ALWAYS", 0)
    layers = related(700, WIDTHS)
    found, form = compared(layers)
    assert form == "moments"
    check(found, layers, layers, 1e-6)


@pytest.mark.parametrize("always", [0, 1 << 24])
def test_two_sides_give_the_textbook_numbers(monkeypatch: pytest.MonkeyPatch, always: int) -> None:
    monkeypatch.setattr(pairs, "_ALWAYS", always)
    layers, others = related(600, [4, 20]), related(600, [30, 2, 11], seed=0)
    found, form = compared(layers, others)
    assert form == ("rows" if always else "moments")
    assert found.cka.shape == (2, 3)
    check(found, layers, others, 1e-6)


@pytest.mark.parametrize("always", [0, 1 << 24])
def test_cka_alone_goes_another_way_to_the_same_numbers(monkeypatch: pytest.MonkeyPatch, always: int) -> None:
    monkeypatch.setattr(pairs, "_ALWAYS", always)
    monkeypatch.setattr("ketwork.networks.overlaps._GRAM_BYTES", 8 * 3 * 600 * 100)  # six blocks of 100 rows
    layers, others = related(600, [4, 20]), related(600, [30])
    whole, _ = compared(layers, others)
    alone, _ = compared(layers, others, measures=["cka"])
    assert list(alone.matrices) == ["cka", "cka_biased"]
    np.testing.assert_allclose(alone.cka, whole.cka, atol=1e-9)
    np.testing.assert_allclose(alone.cka_biased, whole.cka_biased, atol=1e-9)
    with pytest.raises(ValueError, match="Ask for it with `measures=`"):
        _ = alone.bures


@pytest.mark.parametrize(("n", "always"), [(30, 1 << 24), (600, 1 << 24), (600, 0)])
def test_uncentred_bures_is_of_the_states_as_they_are(
    monkeypatch: pytest.MonkeyPatch, n: int, always: int
) -> None:
    monkeypatch.setattr(pairs, "_ALWAYS", always)
    layers = related(n, [4, 50])
    found, _ = compared(layers, center=False)
    x, y = (layer.double().numpy() for layer in layers)
    assert found.bures.iloc[0, 1] == pytest.approx(reference.root_fidelity(x, y, center=False), abs=1e-6)
    assert found.bures_null.isna().all(axis=None)


def test_a_large_offset_costs_no_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without an origin taken off, float32 products of values near 1,000 would hide all of this.
    monkeypatch.setattr(pairs, "_ALWAYS", 0)
    layers = [layer + 1000 for layer in related(500, [4, 8])]
    found, form = compared(layers)
    assert form == "moments"
    x, y = ((layer.double() - layer.double().mean(dim=0)).numpy() for layer in layers)
    assert found.cka.iloc[0, 1] == pytest.approx(reference.cka(x, y), abs=1e-6)
    assert found.bures.iloc[0, 1] == pytest.approx(reference.root_fidelity(x, y), abs=1e-6)


def test_adjusted_share_is_ezekiels() -> None:
    layers = related(100, [3, 8])
    found, _ = compared(layers)
    fit = reference.explained(*(layer.double().numpy() for layer in layers))
    assert found.r2.loc["a0", "a1"] == pytest.approx(1 - (1 - fit) * 99 / (99 - 3))


def test_adjusted_share_of_noise_is_zero_on_average_and_absent_where_samples_run_out() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(200, 60, generator=generator)
    y = torch.randn(200, 50, generator=generator)
    found, _ = compared([x, y, torch.randn(200, 185, generator=generator)])
    # Fifty independent columns: the mean of 50 adjusted shares, each with deviation √(2·60)/139.
    assert abs(found.r2.loc["a0", "a1"]) < 3 * math.sqrt(2 * 60 / 50) / 139
    assert found.frame("r2_fit").loc["a0", "a1"] == pytest.approx(60 / 199, abs=0.03)
    assert math.isnan(found.r2.loc["a2", "a0"])


def test_dependent_features_count_once() -> None:
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(300, 5, generator=generator)
    wide = x @ torch.randn(5, 400, generator=generator)  # 400 features, rank 5
    y = x + torch.randn(300, 5, generator=generator)
    found, _ = compared([x, wide, y])
    assert found.r2.loc["a1", "a2"] == pytest.approx(found.r2.loc["a0", "a2"], abs=1e-5)
    assert found.r2.loc["a1", "a0"] == pytest.approx(1, abs=1e-5)


@settings(max_examples=settings.default.max_examples // 4)
@given(n=st.integers(5, 40), d=st.integers(1, 12), e=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_bounds_symmetry_and_invariance(n: int, d: int, e: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(n, e, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]
    moved = 3 * x @ rotation + torch.randn(d, generator=generator, dtype=torch.float64)
    found, _ = compared([x, y, moved])
    for name in ("cka", "cka_biased", "bures"):
        frame = found.frame(name).to_numpy()
        np.testing.assert_allclose(frame, frame.T, atol=1e-12)
        np.testing.assert_allclose(frame[1, 0], frame[1, 2], atol=1e-6)
        np.testing.assert_allclose(frame[0, 2], 1, atol=1e-6)
        assert (np.abs(frame) <= 1 + 1e-6).all()
    for name in ("cka_biased", "bures"):
        assert (found.frame(name) >= -1e-12).all(axis=None)
    fits = found.frame("r2_fit").to_numpy()
    assert ((fits > -1e-9) & (fits < 1 + 1e-6)).all()
    np.testing.assert_allclose(found.frame("r2_fit_reverse").to_numpy(), fits.T)
