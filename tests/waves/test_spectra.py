"""Levels by symmetry sector against exact diagonalisation, and what is refused."""

import math

import numpy as np
import pytest
import torch

from ketwork import waves
from ketwork.waves.deflation import Penalty
from ketwork.waves.sectors import check_symmetric

CHAIN = waves.chain(6)
H = waves.heisenberg(CHAIN, sign_rule=False)


def network() -> torch.nn.Module:
    return waves.RBM(2, dtype=torch.complex128, std=0.1)


@pytest.mark.parametrize(
    ("operator", "lattice", "flips"),
    [
        (H, CHAIN, (None,)),
        (H, CHAIN, (1, -1)),
        (waves.heisenberg(waves.chain(12), sign_rule=False), waves.chain(12), (1, -1)),
        (waves.ising(waves.chain(6), 0.7), CHAIN, (1, -1)),
        (waves.bose_hubbard(waves.chain(4), 2.0, most=2, particles=4), waves.chain(4), (None,)),
        (waves.heisenberg(waves.square(4, 2), sign_rule=False), waves.square(4, 2), (None,)),
        (waves.heisenberg(waves.kagome(2, 1), magnetization=2), waves.kagome(2, 1), (None,)),
    ],
    ids=["chain", "chain with flip", "a sparse one", "ising", "bosons", "square", "kagome"],
)
def test_the_sectors_have_all_levels_once(operator, lattice, flips) -> None:
    sectors = waves.momentum_sectors(lattice, flips)
    k = operator.space.size if operator.space.size <= 512 else 3
    found = np.sort(np.concatenate([sector.lowest(operator, k) for sector in sectors]))
    expected = waves.exact.spectrum(operator)
    if operator.space.size <= 512:
        np.testing.assert_allclose(found, expected, atol=1e-10)
    else:
        np.testing.assert_allclose(found[:6], expected[:6], atol=1e-8)


@pytest.mark.parametrize("sector", waves.momentum_sectors(CHAIN, (1, -1)), ids=lambda s: s.name)
def test_a_projected_wave_is_in_its_sector(sector) -> None:
    space = waves.spins(6)
    wave = waves.Wave(sector.module(waves.RBM(2, dtype=torch.complex128, std=0.4)), space, seed=1)
    psi = wave.amplitudes().numpy()
    np.testing.assert_allclose(sector.projector(waves.ising(CHAIN, 1.0)) @ psi, psi, atol=1e-12)
    states = space.states(torch.float64)
    for g, character in zip(sector.permutations, sector.characters, strict=True):
        np.testing.assert_allclose(psi[space.index(states[:, g])], character * psi, atol=1e-12)
    np.testing.assert_allclose(
        psi[::-1], sector.flip * psi, atol=1e-12
    )  # the last configuration is the first flipped


def test_levels_of_a_ring_by_momentum() -> None:
    sectors = waves.momentum_sectors(CHAIN)
    found = waves.spectrum(H, network, [sectors[0], sectors[3]], k=2, steps=60, n_samples=None)
    assert found.refused == ()
    table = found.table()
    assert list(table["level"]) == [0, 1] * 2
    np.testing.assert_allclose(table["energy"], table["exact"], atol=1e-4)
    assert (table["overlap"].dropna() < 1e-8).all()
    assert table["energy"].min() == pytest.approx(waves.exact.ground_energy(H), abs=1e-4)


def test_the_tower_of_states_by_magnetization() -> None:
    """The lowest level of each magnetization of a 4 × 2 antiferromagnet: the tower that symmetry breaking stands on."""
    lattice = waves.square(4, 2)
    operators = {f"m = {m}": waves.heisenberg(lattice, magnetization=m) for m in (0, 2, 4)}
    found = waves.spectrum(operators, lambda: waves.RBM(2, std=0.1), steps=120, n_samples=None)
    expected = [waves.exact.ground_energy(each) for each in operators.values()]
    np.testing.assert_allclose(found.table()["energy"], expected, rtol=1e-4)
    assert [level.sector for level in found.levels] == list(operators)


def test_levels_without_sectors_by_samples() -> None:
    operator = waves.heisenberg(waves.chain(4), sign_rule=False)
    found = waves.spectrum(
        operator, network, k=2, steps=80, n_samples=300, sampler=waves.Metropolis(chains=100), seed=3
    )
    assert found.refused == ()
    ground, first = waves.exact.spectrum(operator)[:2]
    energies = [level.energy for level in found.levels]
    assert abs(float(energies[0]) - ground) < 5 * energies[0].stderr + 1e-3
    assert abs(float(energies[1]) - first) < 5 * energies[1].stderr + 1e-2
    assert float(found.levels[1].overlap.value) < 1e-3


def test_the_penalty_is_the_operators() -> None:
    """λ|φ⟩⟨φ|/⟨φ|φ⟩ as a matrix, and by samples within their error."""
    space = waves.spins(4)
    one, two = (waves.Wave(waves.RBM(dtype=torch.complex128, std=0.3), space, seed=s) for s in (0, 1))
    phi, psi = one.amplitudes(), two.amplitudes()
    expected = 3.0 * phi * (phi.conj() @ psi) / psi
    full = Penalty(one, waves.FullSum().sample(one, 1), 3.0).values(two, space.states(torch.float64))
    torch.testing.assert_close(full, expected)
    drawn = waves.Metropolis(chains=500).sample(one, 20000, seed=0)
    found = Penalty(one, drawn, 3.0).values(two, space.states(torch.float64))
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0)


def test_what_cannot_be_trusted_is_refused() -> None:
    """Four steps do not reach a level: its exact energy says so; nor does a positive network beside a sector."""
    found = waves.spectrum(H, network, waves.momentum_sectors(CHAIN)[:1], k=2, steps=4, n_samples=None)
    assert found.levels
    for level in found.levels:
        assert math.isnan(level.energy)
        assert level.trouble
        assert float(level.reached) > level.exact
    assert "2 refused" in repr(found)
    weak = waves.spectrum(H, network, k=2, penalty=0.0, steps=100, n_samples=None)
    assert "with a lower level" in weak.levels[1].trouble  # which is the ground state once more
    assert math.isnan(weak.table()["energy"][1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: waves.spectrum(H, network, k=0), "`k` must be at least 1"),
        (lambda: waves.Sector("a", np.arange(4)[None], np.ones(2)), "one entry a group element, 1"),
        (lambda: waves.Sector("a", np.arange(4)[None], np.ones(1), flip=2), "`flip` must be 1, −1 or None"),
        (
            lambda: check_symmetric(
                waves.ising(waves.chain(6, periodic=False), 1.0), waves.momentum_sectors(CHAIN)[1]
            ),
            "must commute with the permutations",
        ),
        (
            lambda: check_symmetric(
                waves.PauliSum(waves.spins(6), {f"Z{i}": 1.0 for i in range(6)}),
                waves.momentum_sectors(CHAIN, (1,))[0],
            ),
            "must commute with the flip",
        ),
    ],
)
def test_bad_input(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
