"""What ends a run, and what does not pass: no variance, peaked states, states that miss part of the space."""

import math
from itertools import pairwise

import networkx
import pytest
import torch
from torch import nn

from ketwork import waves
from ketwork.waves.completion import completed
from ketwork.waves.objectives import local_of
from ketwork.waves.turns import apart, between, bounded_step
from ketwork.waves.verdicts import most_overlap, unseen_variance

PAIRS = waves.heisenberg(waves.graph(networkx.Graph([(0, 1), (2, 3), (4, 5)])))


class Table(nn.Module):
    """One parameter an amplitude."""

    def __init__(self, space: waves.Space, amplitudes: torch.Tensor) -> None:
        super().__init__()
        self.space = space
        self.logs = nn.Parameter(torch.log(amplitudes.abs().double().clamp(min=1e-150)))

    def forward(self, x):
        return self.logs[self.space.index(x)]


def eigenstate(operator: waves.Operator, level: int) -> torch.Tensor:
    return torch.from_numpy(waves.exact.lowest(operator, level + 1)[1][:, level])


def test_a_run_at_an_eigenstate_ends_as_converged() -> None:
    H = waves.heisenberg(waves.chain(2))
    run = waves.ground_state(H, waves.Wave(waves.RBM(), H.space), seed=0)
    assert run.ended == "converged"
    assert len(run.history) < 100
    assert float(run.energy) == pytest.approx(-3, abs=1e-4)
    assert run.energy.rhat == 1
    assert run.energy.tau == 0
    assert run.exact == pytest.approx(-3)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_do_not_see_each_other_reach_the_ground_state_or_say_why_not(seed) -> None:
    wave = waves.Wave(waves.RBM(alpha=2), PAIRS.space, seed=seed)
    run = waves.ground_state(PAIRS, wave, steps=100, n_samples=512, seed=seed)
    assert abs(float(run.energy) + 9) < 0.05


def test_an_excited_eigenstate_is_not_the_ground_state() -> None:
    """No variance, no gradient, chains that agree: the exact energy of a small space says so."""
    H = waves.heisenberg(waves.chain(4, periodic=False), sign_rule=False)
    triplet = eigenstate(H, 3)
    space = H.space
    signs_of = (triplet < 0).double()

    class Excited(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))
            self.logs = torch.complex(torch.log(triplet.abs().clamp(min=1e-12)), math.pi * signs_of)

        def forward(self, x):
            return self.logs[space.index(x)] * (1 + 0 * self.scale)

    wave = waves.Wave(Excited(), space)
    with pytest.raises(waves.Stopped, match=r"leave at most .* of the state to the ground state") as caught:
        waves.ground_state(H, wave, steps=30, n_samples=200)
    assert caught.value.reason == "excited state"
    assert caught.value.partial.exact == pytest.approx(waves.exact.ground_energy(H))


def test_the_bound_of_the_overlap_holds_for_random_states() -> None:
    H = waves.ising(waves.chain(6), 0.7)
    values, vectors = waves.exact.lowest(H, 64)
    for seed in range(40):
        psi = torch.randn(64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        psi = psi / psi.norm()
        c = (torch.from_numpy(vectors).T @ psi).square()
        energy = float(c @ torch.from_numpy(values))
        variance = float(c @ torch.from_numpy(values) ** 2) - energy**2
        found = most_overlap(waves.Expectation(energy, 0.0, variance), values[0], 0.0)
        assert float(c[0]) <= found + 1e-12
        assert found <= 1


def test_what_chains_cannot_see_is_computed_beside_them() -> None:
    """A pair that has lost one of its two configurations has no variance on those that are left."""
    state = torch.full((PAIRS.space.size,), 1e-40, dtype=torch.float64)
    x = PAIRS.space.states()
    whole = (x[:, 0] != x[:, 1]) & (x[:, 2] != x[:, 3]) & (x[:, 4] == 1) & (x[:, 5] == -1)
    state[whole] = 1.0
    wave = waves.Wave(Table(PAIRS.space, state), PAIRS.space)
    drawn = waves.Samples(x[whole].double()[:, None])
    energy = local_of(PAIRS, wave, drawn).mean
    assert float(energy) == pytest.approx(-7)
    assert energy.variance == pytest.approx(0, abs=1e-12)
    assert unseen_variance(PAIRS, wave, energy, drawn) == pytest.approx(4)  # |⟨↓↑|H|↑↓⟩|²


def test_untouched_configurations_stop_a_run_on_a_space_too_large_to_solve() -> None:
    """Nine pairs, one of which has lost half of itself for good: (H − E)ψ shows at what is joined to the samples."""
    pairs = [(2 * k, 2 * k + 1) for k in range(9)]
    H = waves.heisenberg(waves.graph(networkx.Graph(pairs)))

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(0.0, dtype=torch.float64))

        def forward(self, x):
            broken = sum((x[:, i] == x[:, j]).double() for i, j in pairs)
            return -40.0 * broken - 40.0 * (x[:, 0] < 0).double() + 0 * self.weight * x.sum(1)

    assert H.space.size > 2**14
    sampler = waves.Metropolis(rule=waves.Exchange(pairs), chains=100)
    wave = waves.Wave(Frozen(), H.space)
    ready = waves.Samples(torch.tensor([[1.0, -1.0] * 9]).double()[:, None])
    energy = local_of(H, wave, ready).mean
    assert unseen_variance(H, wave, energy, ready) > 1
    with pytest.raises(waves.Stopped) as caught:
        waves.ground_state(H, wave, steps=40, n_samples=1000, sampler=sampler)
    assert caught.value.reason in ("untouched configurations", "stuck")


@pytest.mark.parametrize("field", [0.02, 0.1])
def test_a_magnet_in_a_small_field_settles(field) -> None:
    H = waves.ising(waves.chain(12), field)
    run = waves.ground_state(H, waves.Wave(waves.RBM(), H.space), steps=120, n_samples=300)
    exact = waves.exact.ising_chain_energy(12, field)
    assert abs(float(run.energy) - exact) < 1e-4 * abs(exact)
    assert float(run.energy) > exact - 6 * run.energy.stderr - 1e-5
    assert any("few distinct configurations" in note for note in run.notes)


def test_a_completed_list_has_the_energy_of_the_state_and_an_error_that_covers() -> None:
    H = waves.ising(waves.chain(10), 0.15)
    wave = waves.Wave(waves.RBM(), H.space)
    waves.ground_state(H, wave, steps=60, n_samples=512)
    truth = waves.expect(H, wave, waves.FullSum().sample(wave, 1))
    for seed in range(10):
        drawn = waves.Metropolis().sample(wave, 512, seed=seed)
        full = completed(H, wave, drawn)
        assert full.weights is not None
        assert float(full.weights.sum()) == pytest.approx(1)
        found = local_of(H, wave, full).mean
        assert abs(float(found) - float(truth)) < 3 * found.stderr
        assert found.stderr < 0.05


def test_broad_samples_stay_as_they_are() -> None:
    H = waves.ising(waves.chain(12), 1.0)
    wave = waves.Wave(waves.RBM(), H.space)
    drawn = waves.Metropolis().sample(wave, 500)
    assert completed(H, wave, drawn) is drawn


def test_steps_are_shortened_until_the_measured_angle_holds() -> None:
    H = waves.heisenberg(waves.chain(8))
    for n_samples in (None, 400):
        wave = waves.Wave(waves.RBM(alpha=2), H.space)
        states = [wave.amplitudes()]
        run = waves.ground_state(
            H,
            wave,
            steps=15,
            n_samples=n_samples,
            optimizer=waves.SR(angle=0.1),
            on_step=lambda step, w=wave, s=states: s.append(w.amplitudes()),
        )
        angles = [apart(a, b) for a, b in pairwise(states)]
        assert max(step.turn for step in run.history) <= 0.1
        assert max(angles) <= (
            0.1 + 1e-9 if n_samples is None else 0.13
        )  # on samples the angle is an estimate
        if n_samples is None:
            assert angles == pytest.approx([step.turn for step in run.history], abs=1e-6)


def test_angles_of_vectors_and_of_samples() -> None:
    wave = waves.Wave(waves.RBM(std=0.3, dtype=torch.complex128), waves.spins(6))
    before, drawn = wave.amplitudes(), waves.FullSum().sample(wave, 1)
    logs = wave.log_amplitude(drawn.flat)
    update = 0.05 * torch.randn(
        wave.count, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)
    )
    made, turned = bounded_step(wave, drawn, update, None)
    assert torch.equal(made, update)
    fidelity = float((before.conj() * wave.amplitudes()).sum().abs() ** 2)
    assert turned == pytest.approx(math.acos(math.sqrt(fidelity)), rel=1e-6)
    assert between(logs, wave.log_amplitude(drawn.flat), before.abs().square()) == pytest.approx(turned)
    small, angle = bounded_step(wave, waves.FullSum().sample(wave, 1), 100 * update, 0.01)
    assert angle <= 0.01
    assert 0 < float(small.abs().max()) < float(update.abs().max())


def test_complex_waves_with_nodes_go_on() -> None:
    """Amplitudes that a symmetry forbids have infinite log-derivatives, and no weight."""
    H = waves.heisenberg(waves.chain(6), magnetization=None)
    module = waves.RBM(2, dtype=torch.complex64, std=0.05)
    run = waves.ground_state(H, waves.Wave(module, H.space), steps=150, n_samples=None)
    assert float(run.energy) == pytest.approx(waves.exact.ground_energy(H), abs=1e-3)


def test_a_lost_amplitude_counts_in_the_variance_of_a_full_sum() -> None:
    state = torch.zeros(PAIRS.space.size, dtype=torch.float64)
    x = PAIRS.space.states()
    state[(x[:, 0] != x[:, 1]) & (x[:, 2] != x[:, 3]) & (x[:, 4] == 1) & (x[:, 5] == -1)] = 1.0
    wave = waves.Wave(Table(PAIRS.space, state), PAIRS.space)
    energy = waves.expect(PAIRS, wave, waves.FullSum().sample(wave, 1))
    psi = wave.amplitudes().numpy()
    image = PAIRS.to_sparse() @ psi
    assert energy.variance == pytest.approx(float(((image - (psi @ image) * psi) ** 2).sum()), rel=1e-9)
