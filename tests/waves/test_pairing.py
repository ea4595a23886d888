"""Products of pairs: derivatives, symmetries, compiled exchanges, the energy of small frustrated squares."""

import numpy as np
import pytest
import torch

from ketwork import waves

F64 = torch.float64
SQUARE = waves.square(4)
H = waves.j1j2(SQUARE, j2=0.5, sign_rule=False)
CASES = {
    "pairs": lambda: waves.PairProduct(SQUARE),
    "all images": lambda: waves.PairProduct(SQUARE, None, SQUARE.symmetries()),
    "a cell of 2": lambda: waves.PairProduct(SQUARE, None, SQUARE.translations(), cell=2),
    "with an RBM": lambda: waves.PairProduct(SQUARE, waves.RBM(1, std=0.2, dtype=F64)),
    "with a dense network": lambda: waves.PairProduct(SQUARE, waves.FeedForward((4,), dtype=F64)),
    "all": lambda: waves.PairProduct(
        SQUARE, waves.SymmetricRBM(SQUARE.symmetries(), 2, std=0.02, dtype=F64), SQUARE.symmetries()
    ),
}


def waved(name: str) -> waves.Wave:
    """A wave away from its start, where symmetries would hide mistakes."""
    wave = waves.Wave(CASES[name](), H.space)
    wave.set_vector(
        wave.vector() + 0.02 * torch.randn(wave.count, generator=torch.Generator().manual_seed(1), dtype=F64)
    )
    return wave


def typical(wave: waves.Wave, count: int) -> torch.Tensor:
    """Configurations that are no nodes."""
    psi = wave.amplitudes().abs()
    return H.space.states(F64)[psi > 1e-2 * psi.max()][::37][:count]


@pytest.mark.parametrize("name", CASES)
def test_jacobian_is_that_of_small_steps(name: str) -> None:
    wave = waved(name)
    x, start, found = typical(wave, 9), wave.vector(), []
    for step in 1e-6 * torch.eye(wave.count, dtype=F64):
        wave.set_vector(start + step)
        up = wave.log_and_sign(x)[0]
        wave.set_vector(start - step)
        found.append((up - wave.log_and_sign(x)[0]) / 2e-6)
    wave.set_vector(start)
    torch.testing.assert_close(wave.jacobian(x), torch.stack(found, 1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_compiled_exchanges_give_the_ratios_of_determinants(name: str) -> None:
    wave = waved(name)
    x = typical(wave, 40)
    expected = torch.from_numpy(H.matrix @ wave.amplitudes().numpy()) / wave.amplitudes()
    torch.testing.assert_close(
        waves.local_energies(H, wave, x), expected[H.space.index(x)], atol=1e-5, rtol=1e-5
    )


def test_patterns_of_four_sites_are_evaluated() -> None:
    wave = waved("pairs")
    x = typical(wave, 40)
    assert ((x[:, 0] != x[:, 1]) & (x[:, 2] != x[:, 3])).any()  # there the exchanges below change something
    pairs = ("X0 X1", "Y0 Y1"), ("X2 X3", "Y2 Y3")  # (XX + YY)(XX + YY) exchanges within each pair
    four = waves.PauliSum(H.space, {f"{a} {b}": 1.0 for a in pairs[0] for b in pairs[1]} | {"Z0 Z1": 0.5})
    image = torch.from_numpy(four.matrix @ wave.amplitudes().numpy()) / wave.amplitudes()
    torch.testing.assert_close(waves.local_energies(four, wave, x), image[H.space.index(x)])


@pytest.mark.parametrize("name", ["pairs", "all"])
def test_compiled_chains_draw_from_the_wave(name: str) -> None:
    wave = waved(name)
    exact = float(waves.expect(H, wave, waves.FullSum().sample(wave, 1)))
    drawn = waves.Metropolis().sample(wave, 16_000, seed=1)
    found = waves.expect(H, wave, drawn)
    assert found.stderr < 0.02 * abs(exact)
    assert abs(float(found) - exact) < 4 * found.stderr


def test_symmetries_and_spin() -> None:
    """Translations and the flip of all spins by themselves, the whole space group by its images; φ has spin 0."""
    x = H.space.states(F64)
    for name, group in (("pairs", SQUARE.translations()), ("all", SQUARE.symmetries())):
        wave = waved(name)
        psi = wave.amplitudes()
        for g in group[:: max(1, len(group) // 16)]:
            torch.testing.assert_close(psi[H.space.index(x[:, g])], psi)
    psi = waved("pairs").amplitudes()
    torch.testing.assert_close(psi[H.space.index(-x)], psi)
    pairs = {f"{a}{i} {a}{j}": 0.5 for a in "XYZ" for i in range(16) for j in range(i)}
    total = waves.PauliSum(H.space, pairs) + 12.0  # S² = ¾N + ½ Σ σ·σ over pairs
    assert np.abs(total.matrix @ psi.numpy()).max() < 1e-8


def test_odd_permutations_keep_the_sign(monkeypatch) -> None:
    """A quarter turn of 6×6 sites is nine cycles of four, an odd permutation; of 4×4 sites all are even."""
    square = waves.square(6)
    group = square.symmetries()
    space = waves.spins(36, magnetization=0)
    wave = waves.Wave(waves.PairProduct(square, None, group, cell=2, std=0.2), space)
    x = space.random(20, seed=torch.Generator().manual_seed(0), dtype=F64)
    log, sign = wave.log_and_sign(x)
    assert 0 < int((sign < 0).sum()) < 20
    for g in group[:: len(group) // 24]:
        moved_log, moved_sign = wave.log_and_sign(x[:, g])
        torch.testing.assert_close(moved_log, log, atol=1e-6, rtol=1e-6)
        assert torch.equal(moved_sign, sign)
    operator = waves.j1j2(square, j2=0.5, sign_rule=False)
    compiled = waves.local_energies(operator, wave, x)
    monkeypatch.setattr(waves.PairProduct, "tables", lambda module: None)
    torch.testing.assert_close(compiled, waves.local_energies(operator, wave, x), atol=1e-5, rtol=1e-5)


def test_images_count_once() -> None:
    assert len(waved("all images").module.images) == 4
    assert len(waved("pairs").module.images) == 1
    assert len(waved("a cell of 2").module.images) == 4


def test_a_factor_of_single_precision() -> None:
    wave = waves.Wave(waves.PairProduct(SQUARE, waves.FeedForward((4,))), H.space)
    drawn = waves.Metropolis(warmup=2).sample(wave, 32, seed=0)
    assert wave.jacobian(drawn.flat).shape == (32, wave.count)


def test_a_wave_is_read_as_it_was_written(tmp_path) -> None:
    wave = waved("all")
    read = waves.Wave.load(wave.save(tmp_path / "wave.safetensors"))
    torch.testing.assert_close(read.amplitudes(), wave.amplitudes())


def test_sign_rules_agree() -> None:
    """With Marshall's rule in the Hamiltonian the wave has it too."""
    rotated = waves.j1j2(SQUARE, j2=0.5)
    plain = waves.Wave(CASES["pairs"](), H.space)
    signed = waves.Wave(CASES["pairs"](), H.space, signs=SQUARE.sublattice())
    x = typical(plain, 20)
    torch.testing.assert_close(waves.local_energies(rotated, signed, x), waves.local_energies(H, plain, x))


def test_ground_state_of_the_frustrated_square() -> None:
    """Exact: −33.8316934. The pairs alone start 3.2 % above it."""
    module = waves.PairProduct(SQUARE, waves.SymmetricRBM(SQUARE.symmetries(), 2), SQUARE.symmetries())
    wave = waves.Wave(module, H.space)
    run = waves.ground_state(
        H, wave, steps=60, n_samples=500, optimizer=waves.SR(), sampler=waves.Metropolis()
    )
    assert float(run.energy) == pytest.approx(-33.8316934, rel=3e-3)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="periodic square lattice of even sides"):
        waves.PairProduct(waves.square(3))
    with pytest.raises(ValueError, match="periodic square lattice of even sides"):
        waves.PairProduct(waves.chain(8))
    with pytest.raises(ValueError, match="must divide the sides"):
        waves.PairProduct(SQUARE, cell=3)
    with pytest.raises(ValueError, match="as many up as down"):
        waves.Wave(waves.PairProduct(SQUARE), waves.spins(16))
    with pytest.raises(ValueError, match="must be a real network"):
        waves.Wave(waves.PairProduct(SQUARE, waves.RBM(dtype=torch.complex128)), H.space)
