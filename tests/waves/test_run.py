import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ketwork import waves
from ketwork.waves.guards import Guard, Watch


def trained(operator, module, **settings):
    return waves.ground_state(operator, waves.Wave(module, operator.space), **settings)


def relative(run, energy: float) -> float:
    return abs(float(run.energy) - energy) / abs(energy)


def test_ising_by_full_sum_to_the_free_fermion_energy() -> None:
    run = trained(waves.ising(waves.chain(8), 1.0), waves.RBM(alpha=2), steps=150, n_samples=None)
    assert relative(run, waves.exact.ising_chain_energy(8)) < 2e-5
    assert (
        float(run.energy) >= waves.exact.ising_chain_energy(8) - 1e-4
    )  # the variational principle (float32 ratios)
    assert run.energy.stderr == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ising_by_sampling(dtype) -> None:
    run = trained(waves.ising(waves.chain(12), 1.0), waves.RBM(dtype=dtype), steps=120, n_samples=504)
    exact = waves.exact.ising_chain_energy(12)
    assert relative(run, exact) < 5e-4
    assert abs(float(run.energy) - exact) < 6 * run.energy.stderr + 3e-4 * abs(exact)
    assert len(run.history) == 120


def test_heisenberg_by_exchange_with_sample_space_steps() -> None:
    operator = waves.heisenberg(waves.chain(10))
    run = trained(operator, waves.RBM(alpha=4), steps=120, n_samples=300)  # 410 parameters > 300 samples
    assert relative(run, waves.exact.ground_energy(operator)) < 1e-3


def test_a_complex_rbm_finds_signs_by_itself() -> None:
    operator = waves.heisenberg(waves.chain(8), sign_rule=False)
    run = trained(operator, waves.RBM(alpha=2, std=0.1, dtype=torch.complex128), steps=250, n_samples=None)
    assert relative(run, waves.exact.ground_energy(operator)) < 1e-3


class Own(nn.Module):
    """A user's module with real parameters and complex output."""

    def __init__(self, sites: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net = nn.Sequential(nn.Linear(sites, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x):
        out = self.net(x)
        return torch.complex(out[:, 0], out[:, 1])


def test_a_users_module_with_complex_output() -> None:
    operator = waves.ising(waves.chain(6), 1.0)
    run = trained(operator, Own(6), steps=120, n_samples=None)
    assert relative(run, waves.exact.ising_chain_energy(6)) < 1e-3


def test_adam_goes_downhill() -> None:
    operator = waves.ising(waves.chain(6), 1.0)
    run = trained(operator, waves.RBM(alpha=2), steps=250, n_samples=None, optimizer=waves.Adam(rate=0.03))
    assert relative(run, waves.exact.ising_chain_energy(6)) < 2e-3


@pytest.mark.parametrize(
    "operator",
    [
        waves.bose_hubbard(waves.chain(4), interaction=4.0, particles=4),
        waves.spin_one_heisenberg(waves.chain(4)),
    ],
    ids=repr,
)
def test_other_spaces(operator) -> None:
    module = waves.RBM(alpha=4, std=0.1, dtype=torch.complex128)
    run = trained(operator, module, steps=200, n_samples=None)
    assert relative(run, waves.exact.ground_energy(operator)) < 5e-3


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    operator = waves.ising(waves.chain(8), 1.0)
    one, two, three = (
        trained(operator, waves.RBM(), steps=5, n_samples=64, seed=s).energy.value for s in (0, 0, 1)
    )
    assert one == two != three


@pytest.mark.parametrize(
    "make",
    [
        lambda: (waves.RBM(), waves.SR(momentum=0.9)),
        lambda: (waves.RBM(dtype=torch.complex64), waves.SR(momentum=0.9)),
        lambda: (waves.RBM(), waves.Adam()),
        lambda: (Own(8), waves.SR()),
    ],
)
def test_a_resumed_run_gives_the_same_numbers(tmp_path, make) -> None:
    operator, path = waves.ising(waves.chain(8), 1.0), tmp_path / "run.safetensors"

    def go(**more):
        module, optimizer = make()
        return trained(operator, module, steps=12, n_samples=64, optimizer=optimizer, **more)

    class Interrupted(Exception):
        pass

    def interrupt(step):
        if step.index == 8:
            raise Interrupted

    whole = go()
    with pytest.raises(Interrupted):
        go(checkpoint=waves.Checkpoint(path, every=6), on_step=interrupt)
    rest = go(checkpoint=waves.Checkpoint(path, resume=True))
    assert [s.energy for s in rest.history] == [s.energy for s in whole.history]
    assert rest.energy == whole.energy
    assert torch.equal(rest.wave.vector(), whole.wave.vector())


def test_a_checkpoint_of_another_model_operator_or_file(tmp_path) -> None:
    operator, path = waves.ising(waves.chain(6), 1.0), tmp_path / "run.safetensors"
    trained(operator, waves.RBM(), steps=2, n_samples=32, checkpoint=path)
    again = waves.Checkpoint(path, resume=True)
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        trained(operator, waves.RBM(alpha=2), steps=3, n_samples=32, checkpoint=again)
    with pytest.raises(ValueError, match="a checkpoint of another operator"):
        trained(waves.ising(waves.chain(6), 0.5), waves.RBM(), steps=3, n_samples=32, checkpoint=again)
    save_file(load_file(path), path)  # without its metadata
    with pytest.raises(ValueError, match="not a checkpoint of schema 1"):
        trained(operator, waves.RBM(), steps=3, n_samples=32, checkpoint=again)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not a complete safetensors file"):
        trained(operator, waves.RBM(), steps=3, n_samples=32, checkpoint=again)


class Broken(nn.Module):
    """Finite at the door; NaN once its weight has moved."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((6,), 0.1))

    def forward(self, x):
        moved = (self.weight - 0.1).abs().max() > 1e-6
        return x @ self.weight + torch.where(moved, torch.nan, 0.0)


def test_nan_is_named() -> None:
    with pytest.raises(waves.Stopped, match="Stopped at step 1, nan") as caught:
        trained(waves.ising(waves.chain(6), 1.0), Broken(), n_samples=64)
    assert caught.value.reason == "nan"
    assert len(caught.value.history) == 1


class Steep(nn.Module):
    """Each spin that turns up multiplies the amplitude by e²⁰⁰, out of the range of single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((6,), 100.0))

    def forward(self, x):
        return x @ self.weight


class Scattered(waves.Sampler):
    """Configurations drawn at random, whatever their amplitude."""

    def check(self, wave):
        """Any wave will do."""

    def draw(self, wave, n_samples, state, *, generator):
        return waves.Samples(wave.space.random(n_samples, seed=generator, dtype=wave.dtype)[:, None]), state


def test_local_energies_out_of_range_are_named() -> None:
    """Before their step is computed, whose equations would have no finite entries."""
    with pytest.raises(waves.Stopped, match=r"A local energy is NaN or infinite\. Lower the rate") as caught:
        trained(waves.ising(waves.chain(6), 1.0), Steep(), n_samples=64, sampler=Scattered())
    assert caught.value.reason == "nan"
    double = trained(
        waves.ising(waves.chain(6), 1.0), Steep().double(), n_samples=64, sampler=Scattered(), steps=1
    )
    assert math.isfinite(float(double.energy))


def test_frozen_chains_are_named() -> None:
    wave = waves.Wave(waves.RBM(), waves.spins(6))
    wave.module.a.data.fill_(60.0)  # |↑↑↑↑↑↑⟩ and nothing else
    with pytest.raises(waves.Stopped) as caught:
        waves.ground_state(
            waves.ising(waves.chain(6), 1.0), wave, n_samples=64, optimizer=waves.SR(rate=1e-9, angle=1e-9)
        )
    assert caught.value.reason == "frozen chains"


def test_exploding_parameters_are_named() -> None:
    operator = waves.ising(waves.chain(6), 1.0)
    wild = waves.Adam(rate=700.0)
    with pytest.raises(waves.Stopped) as caught:
        trained(operator, waves.RBM(), n_samples=None, optimizer=wild)
    assert caught.value.reason == "exploded parameters"


class AllButTheFirst(waves.Rule):
    """Flips every site but the first, so that chains never agree on it."""

    def propose(self, space, x, *, generator):
        return torch.cat([x[:, :1], waves.Flip().propose(waves.spins(11), x[:, 1:], generator=generator)], 1)


def test_unmixed_chains_are_named() -> None:
    field = waves.ising(waves.chain(12), 0.3, longitudinal=[-3.0, *[0.0] * 11])
    with pytest.raises(waves.Stopped) as caught:
        trained(
            field,
            waves.RBM(),
            n_samples=320,
            sampler=waves.Metropolis(rule=AllButTheFirst(), chains=16),
            optimizer=waves.SR(rate=1e-9, angle=1e-9),
            guard=Guard(patience=10),
        )
    assert caught.value.reason == "unmixed chains"


def test_an_energy_below_the_bound_is_named() -> None:
    """A rule that is not symmetric makes a sampler of something else than |ψ|²: here of all configurations alike."""

    class Raising(waves.Rule):
        """Turns one spin: up always, down with probability e^(−3.6), which undoes |ψ|² = e^(−1.8 Σx)."""

        def propose(self, space, x, *, generator):
            site = torch.randint(space.sites, (len(x), 1), generator=generator)
            spin = x.gather(1, site)
            stay = (spin > 0) & (torch.rand(spin.shape, generator=generator) > math.exp(-3.6))
            return x.scatter(1, site, torch.where(stay, spin, -spin))

        def check(self, space):
            pass

    wave = waves.Wave(waves.RBM(), waves.spins(6))
    wave.set_vector(torch.zeros(wave.count))
    wave.module.a.data.fill_(
        -0.9
    )  # a site's local energy −e^(1.8x) is −3.1 on average, far below −1.29, the bound's
    with pytest.raises(waves.Stopped) as caught:
        waves.ground_state(
            waves.ising(waves.chain(6), 1.0),
            wave,
            n_samples=256,
            sampler=waves.Metropolis(rule=Raising(), sweep=20),
            optimizer=waves.SR(rate=1e-9, angle=1e-9),
            guard=Guard(bound=waves.exact.ising_chain_energy(6), frozen=3),
        )
    energy = caught.value.partial.energy
    assert float(energy) == pytest.approx(-6 * math.cosh(1.8), abs=6 * energy.stderr)
    assert caught.value.reason == "below the bound"


def test_guard_counts_and_forgets() -> None:
    fine = waves.estimate(torch.randn(16, 64, generator=torch.Generator().manual_seed(0)) - 5)
    low = waves.Expectation(-20.0, 0.1, 1.0, 0.0, 1.0)
    guard = Guard(bound=-10.0, frozen=3)
    watch = Watch(guard)
    assert [watch.of_energy(e, 0.5) for e in (low, low, fine, low, low)] == [None] * 5
    trouble = watch.of_energy(low, 0.5)
    assert trouble is not None
    assert trouble.reason == "below the bound"
    assert Watch(guard).of_energy(low, 0.5) is None  # a guard counts nothing itself
    nan = watch.of_energy(waves.Expectation(math.nan, 0.1, 1.0, 0.0, 1.0), 0.5)
    assert nan is not None
    assert nan.reason == "nan"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"n_samples": 0}, "`n_samples` must be at least 1"), ({"steps": 0}, "`steps` must be at least 1")],
)
def test_bad_numbers(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        trained(waves.ising(waves.chain(4), 1.0), waves.RBM(), **settings)


def test_a_non_hermitian_operator_and_a_full_sum_too_large() -> None:
    with pytest.raises(ValueError, match="must be Hermitian"):
        trained(waves.PauliSum(waves.spins(4), {"X0": 1.0, "Z1": 1j}), waves.RBM())
    with pytest.raises(ValueError, match=r"at most 4194304 configurations.*Sample it instead"):
        trained(waves.ising(waves.chain(30), 1.0), waves.RBM(), n_samples=None)


def test_a_run_prints_its_energy() -> None:
    run = trained(waves.ising(waves.chain(6), 1.0), waves.RBM(), steps=3, n_samples=64)
    assert str(run).startswith("E = -")
    assert "V-score" in str(run)


def interrupted(step: waves.Step) -> None:
    if step.index == 4:
        raise KeyboardInterrupt


def interrupted_in_compiled_code(step: waves.Step) -> None:
    try:
        interrupted(step)
    except KeyboardInterrupt as pressed:
        raise SystemError("returned a result with an exception set") from pressed


@pytest.mark.parametrize("callback", [interrupted, interrupted_in_compiled_code])
def test_an_interrupted_run_is_kept_and_goes_on_to_the_same_numbers(tmp_path, callback) -> None:
    settings = {"steps": 12, "n_samples": 64, "seed": 3}
    operator = waves.ising(waves.chain(6), 1.0)
    path = tmp_path / "run.safetensors"

    def begun() -> torch.nn.Module:
        torch.manual_seed(0)
        return waves.RBM(alpha=1)

    whole = trained(operator, begun(), **settings)
    with pytest.raises(KeyboardInterrupt) as pressed:
        trained(operator, begun(), checkpoint=path, on_step=callback, **settings)
    assert [step.index for step in pressed.value.partial.history] == [0, 1, 2, 3, 4]
    assert pressed.value.partial.ended == "interrupted"
    rest = trained(operator, begun(), checkpoint=waves.Checkpoint(path, resume=True), **settings)
    assert rest.energy == whole.energy
    assert [step.energy for step in rest.history] == [step.energy for step in whole.history]


def test_other_system_errors_stay_what_they_are() -> None:
    def broken(step: waves.Step) -> None:
        raise SystemError("something else")

    with pytest.raises(SystemError, match="something else"):
        trained(waves.ising(waves.chain(4), 1.0), waves.RBM(alpha=1), steps=2, n_samples=16, on_step=broken)
