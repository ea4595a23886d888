"""Every measure against the textbook's N × N formulas, by each of the routes that compute it, and known answers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.comparison.result import Comparison
from ketwork.networks.measures.similarity import null_root_fidelity

from .. import reference
from ..related import compared, related

WIDTHS = [3, 12, 30, 80]


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


def test_moments_give_the_textbook_numbers() -> None:
    layers = related(700, WIDTHS)
    found, form = compared(layers, always=0)
    assert form == "moments"
    check(found, layers, layers, 1e-6)


@pytest.mark.parametrize("always", [0, 1 << 24])
def test_two_sides_give_the_textbook_numbers(always: int) -> None:
    layers, others = related(600, [4, 20]), related(600, [30, 2, 11], seed=0)
    found, form = compared(layers, others, always=always)
    assert form == ("rows" if always else "moments")
    assert found.cka.shape == (2, 3)
    check(found, layers, others, 1e-6)


@pytest.mark.parametrize("always", [0, 1 << 24])
def test_cka_alone_goes_another_way_to_the_same_numbers(always: int) -> None:
    memory = 8 * 3 * 600 * 100  # for the Gram matrices of three layers: six blocks of 100 rows
    layers, others = related(600, [4, 20]), related(600, [30])
    whole, _ = compared(layers, others, always=always, memory=memory)
    alone, form = compared(layers, others, always=always, memory=memory, measures=["cka"])
    assert form == ("rows" if always else "moments")
    assert list(alone.matrices) == ["cka", "cka_biased"]
    np.testing.assert_allclose(alone.cka, whole.cka, atol=1e-9)
    np.testing.assert_allclose(alone.cka_biased, whole.cka_biased, atol=1e-9)
    with pytest.raises(ValueError, match="Ask for it with `measures=`"):
        _ = alone.bures


@pytest.mark.parametrize(("n", "always"), [(30, 1 << 24), (600, 1 << 24), (600, 0)])
def test_uncentred_bures_is_of_the_states_as_they_are(n: int, always: int) -> None:
    layers = related(n, [4, 50])
    found, _ = compared(layers, center=False, always=always)
    x, y = (layer.double().numpy() for layer in layers)
    assert found.bures.iloc[0, 1] == pytest.approx(reference.root_fidelity(x, y, center=False), abs=1e-6)
    assert found.bures_null.isna().all(axis=None)


def test_a_large_offset_costs_no_digits() -> None:
    # Without an origin taken off, float32 products of values near 1,000 would hide all of this.
    layers = [layer + 1000 for layer in related(500, [4, 8])]
    found, form = compared(layers, always=0)
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


def test_independent_gaussians_are_unrelated_where_the_biased_measure_says_0_909() -> None:
    debiased, biased = [], []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        found, _ = compared([torch.randn(100, 1000, generator=generator) for _ in range(2)])
        debiased.append(found.cka.iloc[0, 1])
        biased.append(found.cka_biased.iloc[0, 1])
    assert max(map(abs, debiased)) < 0.02
    assert min(debiased) < 0  # chance goes both ways: nothing is clamped
    assert np.mean(biased) == pytest.approx(0.909, abs=0.003)


@pytest.mark.parametrize(("n", "expected"), [(32, 0.200), (64, 0.111), (128, 0.059), (256, 0.030)])
def test_biased_cka_of_independent_gaussians(n: int, expected: float) -> None:
    values = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        found, _ = compared([torch.randn(n, 8, generator=generator) for _ in range(2)], measures=["cka"])
        values.append(found.cka_biased.iloc[0, 1])
        assert values[-1] > found.cka.iloc[0, 1]
    assert np.mean(values) == pytest.approx(expected, rel=0.06)
    assert math.sqrt(8 * 8 / (n + 8) ** 2) == pytest.approx(expected, abs=5e-4)


def test_root_fidelity_is_the_quantum_rooms() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(12, d, generator=generator, dtype=torch.float64) for d in (5, 30))
    found, _ = compared([x, y], center=False)
    rho, sigma = (kw.Density.from_factor((layer / layer.norm()).mT) for layer in (x, y))
    expected = float(kw.root_fidelity(rho, sigma))
    assert found.bures.iloc[0, 1] == pytest.approx(expected, abs=1e-7)
    assert found.bures_distance.iloc[0, 1] == pytest.approx(math.acos(expected), abs=1e-6)


@pytest.mark.parametrize(("n", "d", "e"), [(200, 20, 40), (100, 100, 300), (60, 400, 400), (300, 150, 30)])
def test_null_of_bures_is_what_shuffled_samples_give(n: int, d: int, e: int) -> None:
    generator = torch.Generator().manual_seed(7)
    slope = torch.logspace(0, -1.5, d)
    x = torch.randn(n, d, generator=generator) * slope
    y = torch.randn(n, e, generator=generator)
    found, _ = compared([x, y])
    shuffled = [
        reference.root_fidelity(
            x.double().numpy(), y[torch.randperm(n, generator=generator)].double().numpy()
        )
        for _ in range(5)
    ]
    assert found.bures_null.iloc[0, 1] == pytest.approx(np.mean(shuffled), rel=0.02)


def test_null_of_bures_in_closed_form() -> None:
    # A projector on r of m dimensions against the full flat state: ‖P/√r · 1/√m‖_* = √(r/m), however it lies.
    for m, r in ((100, 100), (100, 25), (400, 16)):
        spectra = [torch.ones(r), torch.ones(m)]
        assert float(null_root_fidelity(spectra, m)[0, 1]) == pytest.approx(math.sqrt(r / m), rel=2e-3)
    # Two states of rank 1: (2/π)(4/3)/√m from the formula.
    assert float(null_root_fidelity([torch.ones(1)] * 2, 100)[0, 0]) == pytest.approx(
        8 / (30 * math.pi), rel=2e-3
    )


def test_identical_models_agree_layer_by_layer(chain: nn.Module) -> None:
    torch.manual_seed(5)
    found = kw.compare(chain, torch.randn(300, 6), chain)
    for frame in (found.cka, found.cka_biased, found.bures, found.r2, found.r2_reverse):
        np.testing.assert_allclose(np.diag(frame), 1, atol=1e-6)
    assert found.cka.iloc[0, 1] < 0.9999
    twice = kw.compare(chain, torch.randn(300, 6))
    np.testing.assert_array_equal(np.diag(twice.cka), 1)


def test_a_rotation_undone_in_the_next_layer_changes_nothing() -> None:
    torch.manual_seed(6)
    plain = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Tanh())
    turned = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.Tanh())
    turned.load_state_dict(plain.state_dict())
    rotation = torch.linalg.qr(torch.randn(9, 9))[0]
    with torch.no_grad():
        turned[0].weight.copy_(rotation @ plain[0].weight)
        turned[0].bias.copy_(rotation @ plain[0].bias)
        turned[1].weight.copy_(plain[1].weight @ rotation.T)
    data = torch.randn(500, 6)
    assert not torch.allclose(plain[0](data), turned[0](data), atol=0.1)
    found = kw.compare(plain, data, turned)
    for frame in (found.cka, found.bures, found.r2, found.r2_reverse):
        np.testing.assert_allclose(np.diag(frame), 1, atol=1e-6)
