"""Measurements: completeness, Born's rule, Lüders's rule, repetition, bounds, and bad input."""

import math

import pytest
import torch

from ketwork.quantum import (
    Density,
    Ensemble,
    Ket,
    Measurement,
    fidelity,
    holevo,
    random_density,
    random_ket,
    random_unitary,
    trace_distance,
)

REAL = torch.float64


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ensemble(k: int, d: int, rank: int, seed: int) -> Ensemble:
    p = torch.rand(k, dtype=REAL, generator=seeded(seed))
    return Ensemble(p / p.sum(), random_density(d, rank, (k,), seed=seeded(seed + 100)))


def sic() -> Measurement:
    """The tetrahedral measurement of a qubit: four effects, none a projector."""
    x = torch.tensor([[0, 0, 1], [1, 0, -1 / 3], [-1 / 2, 1, -1 / 3], [-1 / 2, -1, -1 / 3]], dtype=REAL)
    x[1:, 0] *= math.sqrt(8) / 3
    x[1:, 1] *= math.sqrt(2 / 3)
    y = torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128)
    paulis = torch.stack([torch.tensor([[0, 1], [1, 0]]) + 0 * y, y, torch.tensor([[1, 0], [0, -1]]) + 0 * y])
    return Measurement.from_effects((torch.eye(2) + torch.einsum("ki,iab->kab", x + 0j, paulis)) / 4)


@pytest.mark.parametrize("groups", [None, [[0, 3], [1], [2, 4, 5]]])
def test_projective_repeats(groups: list[list[int]] | None) -> None:
    m = Measurement.projective(random_unitary(6, seed=seeded(1)), groups)
    e = m.effects()
    torch.testing.assert_close(e @ e, e)
    kets = random_ket(6, (200,), seed=seeded(2))
    for states in (kets, random_density(6, 2, (200,), seed=seeded(3)), random_density(6, 6, (200,))):
        outcome, after = m.measure(states, seed=seeded(4))
        assert torch.equal(m.measure(after, seed=seeded(5))[0], outcome)
        hit = m.probabilities(after).gather(1, outcome[:, None])
        torch.testing.assert_close(hit, torch.ones(200, 1, dtype=REAL))


def test_coarse_graining_keeps_superpositions() -> None:
    ket = Ket.normalized(torch.tensor([1.0, 2.0, 2.0], dtype=REAL))
    after = Measurement.projective(torch.eye(3, dtype=REAL), [[0, 1], [2]]).collapse(ket, 0)
    torch.testing.assert_close(after.amplitudes, torch.tensor([1.0, 2.0, 0.0], dtype=REAL) / 5**0.5)  # type: ignore[union-attr]
    everything = Measurement.projective(torch.eye(3, dtype=REAL), [[0, 1, 2]])
    torch.testing.assert_close(everything.collapse(ket, 0).amplitudes, ket.amplitudes)  # type: ignore[union-attr]


def test_outcomes_follow_born() -> None:
    m, n = sic(), 40_000
    ket = random_ket(2, seed=seeded(1))
    batch = Ket(ket.amplitudes.expand(n, 2))
    p = m.probabilities(ket)
    outcome, _ = m.measure(batch, seed=seeded(2))
    counts = torch.bincount(outcome, minlength=4)
    chi2 = ((counts - n * p).square() / (n * p)).sum().item()
    assert chi2 < 16.3  # 0.1 % point of χ² with 3 degrees of freedom


def test_general_effects_follow_lueders() -> None:
    """√E, not any other root: E = diag(1/2, 1/8) sends (1, 1) to (2, 1), with phases left alone."""
    e = torch.diag(torch.tensor([0.5, 0.125], dtype=REAL))
    m = Measurement.from_effects(torch.stack([e, torch.eye(2, dtype=REAL) - e]))
    torch.testing.assert_close(m.effects()[0], e)
    after = m.collapse(Ket.normalized(torch.tensor([1, 1j], dtype=torch.complex128)), 0)
    wanted = torch.tensor([2, 1j], dtype=torch.complex128) / 5**0.5
    torch.testing.assert_close(after.amplitudes, wanted)  # type: ignore[union-attr]


def test_effects_come_back() -> None:
    g = seeded(7)
    e = Measurement.pretty_good(Ensemble(torch.ones(3, dtype=REAL) / 3, random_density(4, 3, (3,), seed=g)))
    effects = e.effects()
    assert effects.imag.abs().max() > 0.01
    torch.testing.assert_close(Measurement.from_effects(effects).effects(), effects)


def test_averaging_over_outcomes_does_not_disturb_diagonals() -> None:
    rho = random_density(5, 5, seed=seeded(1))
    basis = random_unitary(5, seed=seeded(2))
    m = Measurement.projective(basis)
    p = m.probabilities(rho)
    mean = sum(p[k] * m.collapse(rho, k).matrix() for k in range(5))  # type: ignore[union-attr]
    dephased = Density.from_matrix(mean)
    torch.testing.assert_close(dephased.probabilities(basis), rho.probabilities(basis))
    assert dephased.coherence(basis).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(rho.coherence(basis), dephased.entropy() - rho.entropy())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rank", [1, 2, 8])
def test_bounds(rank: int, seed: int) -> None:
    """Pretty good effects form a POVM; information ≤ χ ≤ H; P_opt² ≤ P_pretty ≤ P_opt for two states."""
    for k in (2, 3, 5):
        e = ensemble(k, 8, rank, seed)
        m = Measurement.pretty_good(e)
        effects = m.effects()
        torch.testing.assert_close(effects.sum(0), torch.eye(8, dtype=effects.dtype))
        assert torch.linalg.eigvalsh(effects).min() > -1e-12
        labels = -(e.probabilities * e.probabilities.log2()).sum()
        assert 0 <= m.information(e) <= holevo(e) + 1e-12
        assert holevo(e) <= labels + 1e-12
        assert m.success(e) >= e.probabilities.square().sum() - 1e-12
    two = ensemble(2, 8, rank, seed)
    p = two.probabilities[0].item()
    best = Measurement.helstrom(two.states[0], two.states[1], p).success(two)
    difference = p * two.states[0].matrix() - (1 - p) * two.states[1].matrix()  # type: ignore[union-attr]
    torch.testing.assert_close(best, (1 + torch.linalg.eigvalsh(difference).abs().sum()) / 2)
    pretty = Measurement.pretty_good(two).success(two)
    assert best**2 - 1e-12 <= pretty <= best + 1e-12


def test_dense_and_factored_ensembles_agree() -> None:
    e = ensemble(4, 8, 2, 1)
    dense = Ensemble(e.probabilities, Density.from_matrix(e.states.matrix()))  # type: ignore[union-attr]
    listed = Ensemble(e.probabilities, list(e.states))
    torch.testing.assert_close(holevo(dense), holevo(e))
    torch.testing.assert_close(holevo(listed), holevo(e))
    torch.testing.assert_close(e.average().matrix(), dense.average().matrix())
    a, b = Measurement.pretty_good(e), Measurement.pretty_good(dense)
    torch.testing.assert_close(a.effects(), b.effects(), atol=1e-6, rtol=0)


def test_batched_ensembles() -> None:
    p = torch.rand(5, 3, dtype=REAL, generator=seeded(1))
    states = random_density(4, 2, (5, 3), seed=seeded(2))
    e = Ensemble(p / p.sum(-1, keepdim=True), states)
    single = [Ensemble(e.probabilities[i], states[i]).holevo() for i in range(5)]
    torch.testing.assert_close(e.holevo(), torch.stack(single))
    fixed = Measurement.pretty_good(Ensemble(e.probabilities[0], states[0]))
    assert fixed.success(e).shape == fixed.information(e).shape == (5,)


def test_equal_states_cannot_be_told_apart() -> None:
    rho = random_density(6, 2, seed=seeded(1))
    same = Ensemble(torch.tensor([0.5, 0.5], dtype=REAL), [rho, rho])
    helstrom = Measurement.helstrom(rho, rho)
    assert helstrom.success(same).item() == pytest.approx(0.5)
    assert helstrom.information(same).item() == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(helstrom.effects(), (torch.eye(6) / 2).expand(2, 6, 6).to(torch.complex128))
    assert Measurement.pretty_good(same).success(same).item() == pytest.approx(0.5)


def test_orthogonal_states_are_told_apart() -> None:
    e = Ensemble(torch.full((4,), 0.25), Ket.basis(torch.arange(4), 9))
    m = Measurement.pretty_good(e)
    assert m.success(e).item() == pytest.approx(1)
    assert m.information(e).item() == pytest.approx(2)
    outcome, after = m.measure(e.states, seed=seeded(0))
    assert outcome.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(fidelity(after, e.states), torch.ones(4))


def test_many_labels_stay_in_factors() -> None:
    """1,000 labels in d = 512: 1000·512 numbers where dense effects would take 512 times as many."""
    kets = random_ket(512, (1000,), dtype=torch.float32, seed=seeded(1))
    e = Ensemble(torch.full((1000,), 1e-3), kets)
    m = Measurement.pretty_good(e)
    assert m.operators.shape == (1000, 1, 512)
    torch.testing.assert_close(m.probabilities(kets).sum(-1), torch.ones(1000))
    assert m.success(e) > 0.3


def test_helstrom_reaches_the_trace_distance() -> None:
    rho, sigma = random_density(12, 2, seed=seeded(1)), random_density(12, 3, seed=seeded(2))
    both = Ensemble(torch.tensor([0.5, 0.5], dtype=REAL), [rho, sigma])
    m = Measurement.helstrom(rho, sigma)
    torch.testing.assert_close(m.success(both), (1 + trace_distance(rho, sigma)) / 2)
    assert repr(m) == "Measurement(outcomes=2, d=12, rank≤3, complex128)"


BAD = [
    (lambda: Measurement.projective(torch.ones(2, 2)), "`basis` must have orthonormal columns"),
    (
        lambda: Measurement.projective(torch.eye(3)[:, :2]),
        r"`basis` must have shape \(d, d\), but has \(3, 2\)",
    ),
    (
        lambda: Measurement.projective(torch.eye(3), [[0], [1]]),
        r"each of the 3 columns once, but holds \[0, 1\]",
    ),
    (lambda: Measurement.from_effects(torch.eye(2)), r"shape \(m, d, d\)"),
    (lambda: Measurement.from_effects(torch.eye(2)[None] / 2), "sum to the identity, but is off by 0.5"),
    (
        lambda: Measurement.from_effects(torch.stack([2 * torch.eye(2), -torch.eye(2)])),
        "no negative eigenvalue, but has -1",
    ),
    (lambda: Measurement.helstrom(random_ket(2), random_ket(2), 2), r"`p` must lie in \[0, 1\]"),
    (lambda: Measurement.helstrom(random_ket(2, (3,)), random_ket(2)), "no batch axes"),
    (lambda: Measurement.pretty_good(Ensemble(torch.ones(2, 1), random_ket(2, (2, 1)))), "one label axis"),
    (lambda: Measurement.projective(torch.eye(2)).collapse(Ket([1.0, 0.0]), 1), "positive probability"),
    (
        lambda: Measurement.projective(torch.eye(2)).collapse(Ket([1.0, 0.0]), 2),
        "`outcome` must lie in 0 … 1",
    ),
    (lambda: Measurement.projective(torch.eye(2)).probabilities(random_ket(3)), "equal d, but have 3 and 2"),
    (
        lambda: Measurement.projective(torch.eye(2)).success(Ensemble(torch.ones(1), random_ket(2, (1,)))),
        "`self` and `ensemble`",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
