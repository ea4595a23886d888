"""Wide states without their decomposition: leading eigenstates as exact ones, the rest within the stated interval."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import entropy as shannon
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures import quadrature, state
from ketwork.networks.measures.quadrature import Quadrature

D = 400
_GENERATOR = torch.Generator().manual_seed(5)
SPECTRA: dict[str, Callable[[], Tensor]] = {
    "1/j": lambda: 1 / torch.arange(1, D + 1).double(),
    "exponential": lambda: torch.exp(-torch.arange(D).double() / 40),
    "flat": lambda: torch.ones(D).double(),
    "of noise": lambda: (
        torch.linalg.svdvals(torch.randn(D, 2 * D, dtype=torch.float64, generator=_GENERATOR)) ** 2
    ),
    "rank 90": lambda: torch.cat([torch.linspace(2, 1, 90).double(), torch.zeros(D - 90).double()]),
    "one huge": lambda: torch.cat([torch.tensor([1e4]).double(), 1 / torch.arange(1, D).double()]),
}


def _state(values: Tensor, complex_: bool = False) -> Tensor:
    dtype = torch.complex128 if complex_ else torch.float64
    turn = torch.linalg.qr(torch.randn(len(values), len(values), dtype=dtype, generator=_GENERATOR))[0]
    rho = (turn * (values / values.sum()).to(dtype)) @ turn.mH
    return (rho + rho.mH) / 2


def _rank(spectrum: Tensor) -> int:
    return 1 + int((spectrum.cumsum(0) < 0.99 - 1e-12).sum())


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("law", SPECTRA)
def test_numbers_lie_in_their_intervals_which_are_narrow(law: str, complex_: bool) -> None:
    values = SPECTRA[law]()
    values = values / values.sum()
    q = Quadrature.from_matrix(_state(values, complex_))
    true = float(shannon(values.numpy(), base=2))
    low, high = q.entropy()
    assert low - 1e-9 <= true <= high + 1e-9
    assert high - low < 0.01 * max(true, 0.01)
    assert q.purity()[0] == pytest.approx(float(values.square().sum()), rel=1e-12)
    low, high = q.top()
    assert low - 1e-12 <= float(values[0]) <= high + 1e-12
    low, high = q.of_rank(_rank)
    assert low <= _rank(values) <= high
    middle = q.middle
    assert len(middle) == D
    assert float(middle.sum()) == pytest.approx(1, abs=1e-12)
    assert float(shannon(middle.numpy(), base=2)) == pytest.approx(q.surprise[0], abs=1e-9)


def test_intervals_hold_in_nearly_all_of_many_turns_of_a_state() -> None:
    values = SPECTRA["1/j"]()
    values = values / values.sum()
    true = float(shannon(values.numpy(), base=2))
    held = 0
    for _ in range(40):
        low, high = Quadrature.from_matrix(_state(values)).entropy()
        held += low <= true <= high
    assert held >= 38  # of 99.7 %, fewer than 38 come in 1 of 2,000 runs


def test_leading_eigenpairs_are_those_of_the_decomposition() -> None:
    rho = _state(SPECTRA["1/j"]())
    q = Quadrature.from_matrix(rho)
    values, vectors = torch.linalg.eigh(rho)
    assert len(q.values) == 64
    torch.testing.assert_close(q.values, values.flip(0)[:64], rtol=1e-7, atol=1e-10)
    overlaps = (q.states.conj() @ vectors.flip(1)[:, :64]).abs().diagonal()
    torch.testing.assert_close(overlaps[:40], torch.ones(40).double(), rtol=0, atol=1e-6)


def test_a_factor_gives_what_its_state_gives() -> None:
    rows = torch.randn(300, 900, dtype=torch.float64, generator=_GENERATOR) / torch.arange(1, 901) ** 0.5
    rows = rows / torch.linalg.matrix_norm(rows)
    q = Quadrature.from_factor(rows)
    values = torch.linalg.svdvals(rows) ** 2
    low, high = q.entropy()
    assert low <= float(shannon(values.numpy(), base=2)) <= high
    rho = rows.T @ rows
    torch.testing.assert_close(rho @ q.states[0], q.values[0] * q.states[0], rtol=0, atol=1e-9)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "WIDE", 100)


class Net(nn.Module):
    """Two layers, of which the first is wide and has no range."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.wide, self.last = nn.Linear(150, 200), nn.Linear(200, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.wide(x)))


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", ["state", "ensemble"])
def test_a_study_of_wide_layers_agrees_with_the_exact_one(normalize: str, center: bool) -> None:
    x = torch.randn(2000, 150, generator=torch.Generator().manual_seed(1)) / torch.arange(1, 151) ** 0.5
    net = Net()
    options = {"normalize": normalize, "center": center, "labels": False}
    exact, estimated = (kw.study(net, x, exact=e, **options) for e in (True, False))
    a, b = exact["wide"], estimated["wide"]
    assert a.entropy.bounds is None
    for name in ("entropy", "effective_rank", "coherence", "rank_kept", "top_weight"):
        one, other = a.estimate(name), b.estimate(name)
        assert other.bounds is not None
        assert other.low - 1e-9 <= one.plain <= other.high + 1e-9, name
    assert b.participation_ratio.value == pytest.approx(a.participation_ratio.value, rel=1e-6)
    assert b.entropy.stderr == pytest.approx(a.entropy.stderr, rel=0.5)
    surprisals = [
        state.LayerState(layer.accumulator, normalize, center, exact).surprisal.double()
        for layer, exact in ((a, True), (b, False))
    ]
    assert float(surprisals[1].mean()) == pytest.approx(float(surprisals[0].mean()), rel=1e-3)
    assert b.norm.value == a.norm.value
    assert (len(a.leading.states), len(b.leading.states)) == (64, 50)  # a quarter of the dimensions at most
    np.testing.assert_allclose(b.leading.values[:8], a.leading.values[:8], rtol=1e-6)
    assert [w for w in estimated.warnings if "not decomposed" in w]
    assert not [w for w in exact.warnings if "not decomposed" in w]


@pytest.mark.usefixtures("narrow")
def test_what_few_vectors_are_is_exact_all_the_same() -> None:
    x = torch.randn(60, 150, generator=torch.Generator().manual_seed(1))
    study = kw.study(Net(), x, labels=False)
    assert study["wide"].entropy.bounds is None
    y = Net().wide(x).double().detach()
    rows = y / y.norm(dim=1, keepdim=True)
    values = torch.linalg.svdvals(rows) ** 2 / len(rows)
    assert study["wide"].entropy.plain == pytest.approx(float(shannon(values.numpy(), base=2)), abs=1e-6)
    assert math.isclose(quadrature.WIDE, 4096)
