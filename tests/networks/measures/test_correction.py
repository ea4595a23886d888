"""Corrected numbers: without the bias of finite data, with ± that cover, in their range; and where there are none."""

import math

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.correction import MOST_BIAS, ranged
from ketwork.networks.measures.deletion import Deletion
from ketwork.quantum import Estimate


def _layer(x: Tensor, **settings: object) -> kw.Layer:
    return kw.study(nn.Identity(), x, labels=False, **settings)[0]


def _spectrum(d: int) -> Tensor:
    falling = torch.arange(1, d + 1).double() ** -1
    return falling / falling.sum()


def test_the_bias_is_millers_and_madows_where_kets_are_basis_states() -> None:
    """Of counts the jackknife's bias is known by counting (Zahl 1977): (N − 1) Σ p (S₋ᵢ − S)."""
    counts = torch.tensor([40, 25, 20, 10, 5])
    x = torch.eye(5).repeat_interleave(counts, dim=0)
    layer = _layer(x)

    def entropy(c: Tensor) -> float:
        p = c.double() / c.sum()
        return -float(torch.special.xlogy(p, p).sum()) / math.log(2)

    full = entropy(counts)
    without = sum(float(n) / 100 * entropy(counts - torch.eye(5)[i]) for i, n in enumerate(counts))
    assert layer.entropy.plain == pytest.approx(full, abs=1e-12)
    expected = full - 99 * (without - full)
    changes = Deletion(layer.state()).entropy
    assert full - 0.99 / math.log(2) * float((changes.exact - changes.linear).sum()) == pytest.approx(
        expected, abs=2e-6
    )
    assert layer.entropy.value == pytest.approx(expected, abs=layer.entropy.stderr / 50)  # cut at log₂ 5
    assert layer.entropy.value - full == pytest.approx(4 / (2 * 100 * math.log(2)), rel=0.05)
    assert layer.coherence.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("positions", [1, 16])
def test_entropy_and_coherence_are_those_of_the_distribution(positions: int) -> None:
    """Gaussian kets in the basis of neurons: S of the population, and no coherence; 40 draws of 60 samples."""
    d, spectrum = 12, _spectrum(12)
    true = -float((spectrum * spectrum.log2()).sum())
    entropies, coherences, tops = [], [], []
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        x = 0.9**0.5 * torch.randn(60, 1, d, generator=draw) + 0.1**0.5 * torch.randn(
            60, positions, d, generator=draw
        )
        layer = _layer(x * spectrum.sqrt(), normalize="ensemble")
        entropies.append(layer.entropy)
        coherences.append(layer.coherence)
        tops.append(layer.top_weight)
    plain = sum(e.plain for e in entropies) / 40 - true
    left = sum(entropies) / 40 - true
    assert plain < -0.08
    assert abs(left) < 0.03
    assert sum(abs(e - true) <= 1.96 * e.stderr for e in entropies) >= 34
    assert sum(c.plain for c in coherences) / 40 > 0.07
    assert sum(abs(c) <= 1.96 * c.stderr for c in coherences) >= 35
    assert all(c > 0 for c in coherences)
    assert abs(sum(tops) / 40 - float(spectrum[0])) < abs(
        sum(t.plain for t in tops) / 40 - float(spectrum[0])
    )


def test_degenerate_states_have_errors_of_the_second_order() -> None:
    """Isotropic kets: no influence of the first order, so that ± is that of pairs, and 4 bits are in it."""
    draws, held, ratios, tops = 40, 0, [], 0
    values = []
    for seed in range(draws):
        layer = _layer(torch.randn(100, 16, generator=torch.Generator().manual_seed(seed)))
        held += abs(layer.entropy - 4) <= 1.96 * layer.entropy.stderr
        tops += abs(layer.top_weight - 1 / 16) <= 1.96 * layer.top_weight.stderr
        ratios.append(layer.participation_ratio.stderr)
        values.append(layer.entropy.value)
        assert layer.entropy.plain < 3.95
        # Between both bounds of λ₁ ± is a uniform number's and more, not half of what is between them beside the error.
        assert layer.top_weight - 1.96 * layer.top_weight.stderr + 1e-9 >= 1 / 16
        assert 1.96 * layer.top_weight.stderr < 0.9 * (layer.top_weight.plain - 1 / 16)
    assert held >= 36
    assert tops >= 38
    assert max(values) < 4
    # 1/Tr ρ² of pairs has the variance 2 E k²/N² d⁴ with E k² = 2(d − 1)/(d²(d + 2)): 0.31; cut at 16 dimensions, less.
    assert max(ratios) < 0.4


def test_samples_of_heavy_tails_have_errors_of_all_samples() -> None:
    """Log-normal norms: the values' own spread over 60 draws of 1,000 samples is what ± says."""
    scale = torch.arange(1, 9) ** -0.5
    found: dict[str, list[Estimate]] = {name: [] for name in ("entropy", "top_weight", "participation_ratio")}
    for seed in range(60):
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn(1000, 8, generator=draw) * scale * torch.randn(1000, 1, generator=draw).exp()
        layer = _layer(x, normalize="ensemble", batch_size=500, seed=seed)
        for name, estimates in found.items():
            estimates.append(layer.estimates[name])
    for name, estimates in found.items():
        middle = sum(e.value for e in estimates) / 60
        assert sum(abs(e.value - middle) <= 1.96 * e.stderr for e in estimates) >= 51, name


def test_where_samples_are_too_few_there_is_no_number_and_a_reason() -> None:
    x = torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    record = kw.study(nn.Identity(), x, labels=False)
    layer = record[0]
    for name in ("entropy", "effective_rank", "coherence"):
        estimate = layer.estimates[name]
        assert math.isnan(estimate.value), name
        assert str(estimate) == "–"
        assert estimate.plain > 0
    assert layer.entropy.plain <= math.log2(20)
    assert not math.isnan(layer.top_weight)
    assert any(
        "Too few independent samples at (model) (N_eff = 20)" in warning for warning in record.warnings
    )
    row = record.long().set_index("quantity").loc["entropy"]
    assert math.isnan(row["value"])
    assert row["plain"] == layer.entropy.plain
    enough = _layer(torch.randn(200, 40, generator=torch.Generator().manual_seed(0)))
    assert abs(enough.entropy.value - enough.entropy.plain) < MOST_BIAS / math.log(2)


def test_positions_are_no_independent_samples() -> None:
    x = torch.randn(20, 1, 40, generator=torch.Generator().manual_seed(0)).expand(20, 50, 40).contiguous()
    layer = _layer(x, reading=kw.Reading(feature_axis=-1))
    assert layer.kets == 1000
    assert layer.N_eff == 20
    assert math.isnan(layer.entropy)


def test_equal_samples_have_exact_numbers() -> None:
    layer = _layer(torch.ones(40, 16))
    assert layer.entropy.value == layer.entropy.plain == pytest.approx(0, abs=1e-9)
    assert layer.coherence.value == pytest.approx(4, abs=1e-6)
    assert layer.top_weight.value == pytest.approx(1, abs=1e-6)
    assert max(layer.estimates[name].stderr for name in ("entropy", "coherence", "top_weight")) < 1e-6


def test_the_effective_number_of_samples_is_kishs() -> None:
    x = torch.ones(10, 4) * torch.tensor([1.0] * 9 + [3.0])[:, None]
    assert _layer(x, normalize="ensemble").N_eff == pytest.approx((9 + 9) ** 2 / (9 + 81))
    assert _layer(x).N_eff == pytest.approx(10)
    lengths = torch.tensor([4, 4, 4, 1, 1])
    mask = torch.arange(4) < lengths[:, None]
    assert _layer(torch.ones(5, 4, 3), mask=mask).N_eff == pytest.approx(14**2 / (3 * 16 + 2))


def test_few_samples_that_carry_the_weight_are_named() -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    x[:3] *= 100
    record = kw.study(nn.Identity(), x, labels=False, normalize="ensemble")
    (warning,) = (w for w in record.warnings if "of the weight" in w)
    share = float(x.norm(dim=1).square().sort().values[-5:].sum() / x.square().sum())
    assert f"At (model), 5 of 100 samples carry {share:.0%} of the weight (N_eff = " in warning
    assert not any("carry" in w for w in kw.study(nn.Identity(), x, labels=False).warnings)


@pytest.mark.parametrize(("rare", "warned"), [(8, True), (60, False), (100, False)])
def test_few_samples_that_carry_the_variance_are_named(rare: int, warned: bool, tmp_path) -> None:
    """Of 200 basis states, a share p of one kind has changes ∝ 1 − p, and the others ∝ −p."""
    x = torch.eye(3)[(torch.arange(200) < rare).long()]
    record = kw.study(nn.Identity(), x, labels=False)
    kept = int((record[0].accumulator.reservoir.kets[:, 0, 1] == 1).sum())
    assert kept > 2
    p = rare / 200
    changes = sorted([(1 - p) ** 2] * kept + [p**2] * (128 - kept), reverse=True)
    share = sum(changes[:5]) / sum(changes)
    assert record[0].decisive == (None if p == 0.5 else pytest.approx(share))
    assert (share > 0.5) == warned
    record.save(tmp_path / "record.safetensors")
    for each in (record, kw.Study.load(tmp_path / "record.safetensors")):
        assert each[0].decisive == record[0].decisive
        text = f"5 of the samples that ± is estimated from carry up to {share:.0%} of the variance"
        assert sum(text in warning for warning in each.warnings) == warned
    assert kw.study(nn.Identity(), x[:199], labels=False)[0].decisive is None


@pytest.mark.parametrize("value", [-3.0, -0.1, 0.0, 0.05, 0.3, 3.9, 4.0, 4.2, 9.0])
def test_a_range_is_kept_by_the_law_that_is_cut_to_it(value: float) -> None:
    """Against the moments of the truncated normal law in closed form, where they can be computed."""
    error = 0.1
    found = ranged(Estimate(value, error, plain=1.0), 0.0, 4.0)
    assert 0 < found.value < 4
    assert found.plain == 1.0
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    a, b = (torch.tensor((end - value) / error, dtype=torch.float64) for end in (0.0, 4.0))
    mass = float(normal.cdf(b) - normal.cdf(a))
    if mass < 1e-9:
        assert min(found.value, 4 - found.value) < 0.01
        return
    phi_a, phi_b = (float(normal.log_prob(x).exp()) for x in (a, b))
    first = (phi_a - phi_b) / mass
    second = 1 + (float(a) * phi_a - float(b) * phi_b) / mass - first**2
    assert found.value == pytest.approx(value + error * first, abs=1e-6)
    assert found.stderr == pytest.approx(error * math.sqrt(second), abs=1e-6)


def test_far_from_its_ends_a_range_changes_nothing() -> None:
    estimate = Estimate(2.0, 0.1)
    assert ranged(estimate, 0, 4) is estimate
    assert ranged(Estimate(4.0 + 1e-13, 0.0), 0, 4).value == 4.0
