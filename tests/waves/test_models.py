"""Every network: its Jacobian, its symmetry or normalisation, and that it learns."""

import math

import numpy as np
import pytest
import torch

from ketwork import waves
from ketwork.waves.models.rbm import log_cosh, tanh

CHAIN = waves.chain(6)
F64, C128 = torch.float64, torch.complex128
SPACES = {
    "free": waves.spins(6),
    "fixed": waves.spins(6, magnetization=0),
    "spin one": waves.spin_one(4, magnetization=0),
    "bosons": waves.bosons(4, 3, particles=4),
    "electrons": waves.electrons(3, 2, 1),
}
NETWORKS = {
    "jastrow": lambda: waves.Jastrow(std=0.2, dtype=F64),
    "complex jastrow": lambda: waves.Jastrow(std=0.2, dtype=C128),
    "rbm": lambda: waves.RBM(alpha=1, std=0.2, dtype=F64),
    "complex rbm": lambda: waves.RBM(alpha=1, std=0.2, dtype=C128),
    "feed-forward": lambda: waves.FeedForward((8,), dtype=F64),
    "feed-forward with phase": lambda: waves.FeedForward((8, 5), phase=True, dtype=F64),
    "masked dense": lambda: waves.MaskedDense(4, dtype=F64),
    "masked dense with phase": lambda: waves.MaskedDense(4, 1, phase=True, dtype=F64),
    "transformer": lambda: waves.CausalTransformer(8, 2, 1, dtype=F64),
    "transformer with phase": lambda: waves.CausalTransformer(8, 2, 1, phase=True, dtype=F64),
}


def numerical_jacobian(wave: waves.Wave, x: torch.Tensor, columns: list[int]) -> torch.Tensor:
    start, found = wave.vector(), []
    for k in columns:
        step = torch.zeros_like(start)
        step[k] = 1e-6
        wave.set_vector(start + step)
        up = wave.log_amplitude(x)
        wave.set_vector(start - step)
        found.append((up - wave.log_amplitude(x)) / 2e-6)
    wave.set_vector(start)
    return torch.stack(found, 1)


def check_jacobian(wave: waves.Wave) -> None:
    x = wave.space.random(9, seed=torch.Generator().manual_seed(0), dtype=F64)
    columns = list(range(0, wave.count, max(1, wave.count // 40)))
    jacobian = wave.jacobian(x)
    assert jacobian.shape == (9, wave.count)
    torch.testing.assert_close(
        jacobian[:, columns], numerical_jacobian(wave, x, columns), atol=2e-8, rtol=1e-6
    )


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("network", NETWORKS)
def test_jacobian_on_every_space(network, space) -> None:
    check_jacobian(waves.Wave(NETWORKS[network](), SPACES[space]))


LATTICES = {"chain": waves.chain(8), "square": waves.square(4, 2), "open": waves.chain(5, periodic=False)}
SYMMETRIC = {
    "rbm": lambda lattice, group: waves.SymmetricRBM(group, 3, std=0.3, dtype=F64),
    "complex rbm": lambda lattice, group: waves.SymmetricRBM(group, 2, std=0.3, dtype=C128),
    "projected": lambda lattice, group: waves.Symmetrized(waves.FeedForward((7,), dtype=F64), group),
    "projected complex": lambda lattice, group: waves.Symmetrized(
        waves.RBM(std=0.3, dtype=C128), group, torch.ones(len(group))
    ),
}


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("network", SYMMETRIC)
def test_symmetric_networks_are_invariant(network, lattice) -> None:
    group = LATTICES[lattice].symmetries()
    space = waves.spins(LATTICES[lattice].sites)
    wave = waves.Wave(SYMMETRIC[network](LATTICES[lattice], group), space)
    x = space.random(20, seed=torch.Generator().manual_seed(1), dtype=F64)
    expected = wave.log_amplitude(x)
    for g in group[:: max(1, len(group) // 6)]:
        torch.testing.assert_close(wave.log_amplitude(x[:, g]), expected)
    check_jacobian(wave)


def test_a_symmetric_rbm_is_the_rbm_it_expands_to() -> None:
    operator = waves.ising(waves.chain(6), 0.8)
    module = waves.SymmetricRBM(waves.chain(6).symmetries(), 2, std=0.2, dtype=F64)
    wave = waves.Wave(module, operator.space)
    a, b, w = module.expanded()
    assert w.shape == (2 * 12, 6)
    x = operator.space.states(F64)
    by_hand = x @ a + torch.log(torch.cosh(x @ w.T + b)).sum(1)
    torch.testing.assert_close(wave.log_amplitude(x), by_hand.detach())
    psi = wave.amplitudes()
    expected = torch.from_numpy(operator.to_sparse() @ psi.numpy()) / psi
    torch.testing.assert_close(waves.local_energies(operator, wave, x), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_ratios_of_many_hidden_units_stay_in_range(dtype: torch.dtype) -> None:
    """Π cosh 2W of all 2,304 leaves the range of single precision; the ratios do not."""
    operators = (
        waves.heisenberg(waves.square(4)),
        waves.ising(waves.square(4), 1.0),
        waves.PauliSum(waves.spins(16), {"X0 X1 X2": 1.0, "X1 X5 Y6 Y7": 0.5, "Z3": 2.0}),
        waves.PauliSum(waves.spins(16), {" ".join(f"X{i}" for i in range(16)): 1.0, "Z3": 2.0}),
    )
    for operator in operators:
        module = waves.RBM(144, std=0.3 if dtype.is_complex else 0.2, dtype=dtype)
        wave = waves.Wave(module, operator.space, seed=1)
        wide = waves.Wave(waves.RBM(144, dtype=C128), operator.space)
        with torch.no_grad():
            if dtype.is_complex:
                module.w.imag.mul_(0.1)
            for one, other in zip(wide.module.parameters(), module.parameters(), strict=True):
                one.copy_(other)
            assert float(torch.log(torch.cosh(2 * wide.module.w)).real.sum(0).min()) > 100
            x = operator.space.random(20, seed=torch.Generator().manual_seed(1), dtype=F64)
            reached, elements = operator.connected(x)
            logs = wide.module(reached.flatten(0, 1)).reshape(elements.shape) - wide.module(x)[:, None]
        terms = elements * logs.exp()
        got = waves.local_energies(operator, wave, x).to(C128)
        assert bool(((got - terms.sum(1)).abs() < 1e-3 * terms.abs().sum(1)).all())
        run = waves.Metropolis().sample(wave, 64, seed=0)
        assert 0 < run.acceptance < 1


def test_a_momentum_sector_by_characters() -> None:
    """k = π on a chain: translation by one changes the sign."""
    chain = waves.chain(6)
    characters = torch.tensor([(-1.0) ** k for k in range(6)])
    inner = waves.FeedForward((8,), dtype=F64)
    wave = waves.Wave(waves.Symmetrized(inner, chain.translations(), characters), waves.spins(6))
    psi = torch.exp(wave.log_amplitude(wave.space.states()))
    assert psi.abs().max() > 1e-3
    moved = torch.exp(wave.log_amplitude(wave.space.states()[:, chain.translations()[1]]))
    torch.testing.assert_close(moved, -psi, atol=1e-9, rtol=0)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("make", [waves.MaskedDense, waves.CausalTransformer])
def test_autoregressive_waves_are_normalised_and_causal(make, space) -> None:
    space = SPACES[space]
    wave = waves.Wave(make(dtype=F64, phase=True), space)
    norm = torch.exp(2 * wave.log_amplitude(space.states()).real).sum()
    torch.testing.assert_close(norm, torch.tensor(1.0, dtype=F64))
    levels = space.level(space.states())
    out = wave.module.conditionals(levels)
    changed = levels.clone()
    changed[:, 2:] = (changed[:, 2:] + 1) % space.levels
    torch.testing.assert_close(wave.module.conditionals(changed)[:, :3], out[:, :3])
    assert not torch.allclose(wave.module.conditionals(changed)[:, 3:], out[:, 3:])


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("make", [waves.MaskedDense, waves.CausalTransformer])
def test_direct_draws_follow_borns_rule(make, space) -> None:
    space = SPACES[space]
    wave = waves.Wave(make(dtype=F64), space)
    drawn = waves.Direct().sample(wave, 5000, seed=torch.Generator().manual_seed(2))
    exact = wave.amplitudes().square() * 5000
    counts = torch.bincount(space.index(drawn.flat), minlength=space.size).double()
    often = exact > 5
    chi2, freedom = float(((counts - exact)[often] ** 2 / exact[often]).sum()), int(often.sum()) - 1
    assert abs(chi2 - freedom) < 4 * (2 * freedom) ** 0.5


def test_a_vision_transformer_is_invariant_under_whole_patches() -> None:
    lattice = waves.square(4)
    wave = waves.Wave(waves.VisionTransformer(lattice, 2, 8, 2, 1, dtype=F64), waves.spins(16))
    x = wave.space.random(10, seed=torch.Generator().manual_seed(0), dtype=F64)
    grid = x.reshape(10, 4, 4)
    expected = wave.log_amplitude(x)
    assert expected.is_complex()
    torch.testing.assert_close(wave.log_amplitude(grid.roll((2, 2), (1, 2)).reshape(10, 16)), expected)
    assert not torch.allclose(wave.log_amplitude(grid.roll(1, 2).reshape(10, 16)), expected)
    check_jacobian(wave)


def test_a_vision_transformer_on_a_chain_and_where_it_does_not_fit() -> None:
    module = waves.VisionTransformer(waves.chain(6), 3, 4, 2, 1, dtype=F64)
    assert module.patches.tolist() == [[0, 1, 2], [3, 4, 5]]
    for lattice, patch, message in (
        (waves.chain(6), 4, "must divide the sides"),
        (waves.chain(6, periodic=False), 2, "needs a periodic chain or square"),
        (waves.kagome(2), 2, "needs a periodic chain or square"),
    ):
        with pytest.raises(ValueError, match=message):
            waves.VisionTransformer(lattice, patch)
    with pytest.raises(ValueError, match="lattice has 6 sites, but the space 4"):
        waves.Wave(module, waves.spins(4))


LEARN = {
    "jastrow": (waves.Jastrow, 3e-2),
    "symmetric rbm": (lambda: waves.SymmetricRBM(CHAIN.symmetries(), 4), 1e-3),
    "feed-forward": (waves.FeedForward, 1e-3),
    "masked dense": (waves.MaskedDense, 1e-3),
    "transformer": (waves.CausalTransformer, 1e-3),
    "projected": (lambda: waves.Symmetrized(waves.FeedForward((8,)), CHAIN.symmetries()), 1e-3),
    "vision": (lambda: waves.VisionTransformer(CHAIN, 2, 8, 2, 1), 1e-3),
}


@pytest.mark.parametrize("network", LEARN)
def test_networks_learn_the_ising_ground_state(network) -> None:
    make, within = LEARN[network]
    operator = waves.ising(CHAIN, 1.0)
    wave = waves.Wave(make(), operator.space)
    run = waves.ground_state(operator, wave, steps=80, n_samples=None)
    exact = waves.exact.ising_chain_energy(6)
    assert abs(float(run.energy) - exact) < within * abs(exact)


def test_an_autoregressive_run_draws_directly() -> None:
    operator = waves.heisenberg(CHAIN)
    wave = waves.Wave(waves.MaskedDense(), operator.space)
    run = waves.ground_state(operator, wave, steps=60, n_samples=200)
    exact = waves.exact.ground_energy(operator)
    assert abs(float(run.energy) - exact) < 5e-3 * abs(exact)
    assert run.energy.tau == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: waves.SymmetricRBM(np.zeros((2, 6))), "must hold permutations of 6 sites"),
        (lambda: waves.SymmetricRBM(CHAIN.translations(), filters=0), "`filters` must be at least 1"),
        (lambda: waves.Symmetrized(waves.RBM(), CHAIN.translations(), torch.ones(3)), "one entry a group"),
        (lambda: waves.CausalTransformer(9, 2), "must be a multiple of `heads`"),
        (lambda: waves.VisionTransformer(CHAIN, dim=9, heads=2), "must be a multiple of `heads`"),
    ],
)
def test_bad_settings(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        waves.Wave(make(), waves.spins(6))


def test_stable_hyperbolic_functions() -> None:
    real = torch.tensor([-800.0, -3.0, -0.0, 0.3, 2.0, 900.0], dtype=F64)
    x = torch.complex(real, torch.tensor([0.3, -2.0, 1.2, 40.0, -0.1, 3.0], dtype=F64))
    inner = x[1:5]
    torch.testing.assert_close(torch.exp(log_cosh(inner)), torch.cosh(inner))
    torch.testing.assert_close(tanh(inner), torch.tanh(inner))
    assert torch.isfinite(torch.view_as_real(log_cosh(x))).all()
    torch.testing.assert_close(tanh(x)[[0, 5]], torch.tensor([-1, 1], dtype=C128))
    torch.testing.assert_close(log_cosh(real)[[0, 5]], real[[0, 5]].abs() - math.log(2))


@pytest.mark.parametrize("dtype", [torch.complex64, C128])
def test_hyperbolic_functions_at_nodes(dtype) -> None:
    """cosh is 0 at iπ/2: beside it neither is NaN, and cosh keeps the digits that its argument has."""
    eps = torch.finfo(dtype).eps
    away = 10 ** torch.linspace(math.log10(eps), 0, 4000, dtype=F64)
    turn = torch.linspace(0, 2 * math.pi, 4000, dtype=F64) * 97
    x = (torch.polar(away, turn) + 0.5j * math.pi).to(dtype)
    assert not torch.isnan(torch.view_as_real(log_cosh(x))).any()
    assert (torch.exp(log_cosh(x)) - torch.cosh(x.to(C128))).abs().max() < 20 * eps
    beside = x[away > 1e3 * eps]
    torch.testing.assert_close(tanh(beside).to(C128), torch.tanh(beside.to(C128)), rtol=1e-2, atol=1e-3)
