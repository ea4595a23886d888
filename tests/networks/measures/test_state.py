"""Standard errors are the spread of the numbers over new draws of the data.

Each case draws 200 data sets of one distribution. The spread of 200 numbers is itself known to 5 %.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.study.run import study

QUANTITIES = (
    "entropy",
    "effective_rank",
    "participation_ratio",
    "coherence",
    "ket_coherence",
    "top_weight",
    "norm",
)
DRAWS = 200
D = 8

SETTINGS = [
    {},
    {"center": True},
    {"normalize": "ensemble"},
    {"center": True, "normalize": "ensemble"},
]

_BASIS = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(1)))[0]
_SCALE = torch.tensor([3.0, 2, 1.5, 1, 1, 0.5, 0.5, 0.3])
_SHIFT = torch.tensor([1.0, 0.5, 0, 0, 0.2, 0, 0, 0.1])


def _shaped(noise: Tensor) -> Tensor:
    return noise * _SCALE @ _BASIS + _SHIFT


def independent(generator: torch.Generator) -> Tensor:
    return _shaped(torch.randn(400, D, generator=generator))


def correlated(generator: torch.Generator) -> Tensor:
    """150 samples of 12 positions that are nearly the same."""
    shared = torch.randn(150, 1, D, generator=generator)
    return _shaped(shared + 0.2 * torch.randn(150, 12, D, generator=generator))


def maps(generator: torch.Generator) -> Tensor:
    """100 samples of 784 positions, of which a study keeps few."""
    shared = torch.randn(100, 1, D, generator=generator)
    return _shaped(0.5 * shared + torch.randn(100, 784, D, generator=generator))


def noise_maps(generator: torch.Generator) -> Tensor:
    """The same, with positions that have nothing in common: the hardest case for what is kept."""
    return _shaped(torch.randn(128, 784, D, generator=generator))


def _ratios(
    make: Callable[[torch.Generator], Tensor], settings: dict[str, object], draws: int = DRAWS
) -> dict[str, float]:
    """Mean standard error over the spread, of each quantity."""
    values: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    errors: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    for draw in range(draws):
        data = make(torch.Generator().manual_seed(draw))
        row = study(nn.Identity(), data, seed=torch.Generator().manual_seed(10_000 + draw), **settings)[
            "(model)"
        ]  # type: ignore[arg-type]
        for name in QUANTITIES:
            values[name].append(row.estimates[name].value)
            errors[name].append(row.estimates[name].stderr)
    return {
        name: float(torch.tensor(errors[name]).mean() / torch.tensor(values[name]).double().std())
        for name in QUANTITIES
    }


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("make", [independent, correlated])
def test_errors_are_the_spread(
    make: Callable[[torch.Generator], Tensor], settings: dict[str, object]
) -> None:
    for name, ratio in _ratios(make, settings).items():
        assert 0.85 < ratio < 1.15, (name, ratio)


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[3]], ids=str)
def test_errors_of_maps_of_which_few_positions_are_kept(settings: dict[str, object]) -> None:
    for name, ratio in _ratios(maps, settings).items():
        assert 0.85 < ratio < 1.15, (name, ratio)


def test_errors_of_maps_of_noise_are_never_too_small() -> None:
    # Positions without anything in common leave only the floor of independence and the noise above it.
    for name, ratio in _ratios(noise_maps, {}, draws=100).items():
        assert 0.85 < ratio < 1.4, (name, ratio)


def test_errors_of_masked_positions() -> None:
    def ragged(generator: torch.Generator) -> Tensor:
        return (
            correlated(generator)
            * (torch.arange(12) < torch.randint(1, 13, (150, 1), generator=generator))[..., None]
        )

    # Zero vectors leave the averages, so positions that do not exist and zeroed ones are the same here.
    for name, ratio in _ratios(ragged, {}).items():
        if name != "norm":
            assert 0.85 < ratio < 1.15, (name, ratio)


def test_errors_fall_with_the_number_of_samples() -> None:
    data = _shaped(torch.randn(6400, D, generator=torch.Generator().manual_seed(0)))
    few = study(nn.Identity(), data[:400])["(model)"]
    many = study(nn.Identity(), data)["(model)"]
    for name in ("entropy", "participation_ratio", "coherence", "top_weight", "norm"):
        assert few.estimates[name].stderr / many.estimates[name].stderr == pytest.approx(4, rel=0.3), name


def test_repeating_each_position_adds_no_certainty() -> None:
    data = _shaped(torch.randn(100, 1, D, generator=torch.Generator().manual_seed(0)))
    once = study(nn.Identity(), data)["(model)"]
    often = study(nn.Identity(), data.expand(100, 50, D).contiguous())["(model)"]
    for name in ("entropy", "participation_ratio", "coherence", "ket_coherence", "top_weight", "norm"):
        assert often.estimates[name].value == pytest.approx(once.estimates[name].value, rel=1e-4), name
        assert often.estimates[name].stderr == pytest.approx(once.estimates[name].stderr, rel=1e-3), name


def test_one_sample_has_no_error() -> None:
    row = study(nn.Identity(), torch.randn(1, 5, D, generator=torch.Generator().manual_seed(0)))["(model)"]
    assert str(row.entropy) == "–"  # nothing is known of other samples
    assert row.entropy.plain > 0
    assert row.participation_ratio.value != row.participation_ratio.value  # NaN: no pair of samples
    assert all(e.stderr != e.stderr for e in row.estimates.values())
