import pytest
import torch
from torch import nn

from ketwork import waves
from ketwork.waves.local_energy import _by_connection, full_local_energies, local_energies

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plain(nn.Module):
    """A user's module: complex output of real parameters."""

    def __init__(self, sites: int, complex_parameters: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        dtype = torch.complex128 if complex_parameters else torch.float64
        self.first = nn.Parameter(torch.randn(5, sites, dtype=dtype) * 0.3)
        self.last = nn.Parameter(torch.randn(2, 5, dtype=dtype) * 0.3)

    def forward(self, x):
        hidden = torch.tanh(x.to(self.first.dtype) @ self.first.T)
        out = hidden @ self.last.T
        # Not holomorphic in complex parameters: the modulus enters.
        return out[:, 0] + 1j * out[:, 1] + (hidden.abs().sum(1) if out.is_complex() else 0)


def numerical_jacobian(wave: waves.Wave, x: torch.Tensor) -> torch.Tensor:
    start, columns = wave.vector(), []
    for k in range(wave.count):
        step = torch.zeros_like(start)
        step[k] = 1e-6
        wave.set_vector(start + step)
        up = wave.log_amplitude(x)
        wave.set_vector(start - step)
        columns.append((up - wave.log_amplitude(x)) / 2e-6)
    wave.set_vector(start)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_analytic_jacobian_of_an_rbm(dtype) -> None:
    space = waves.spins(5)
    wave = waves.Wave(waves.RBM(alpha=2, std=0.3, dtype=dtype), space)
    x = space.random(7, seed=seeded())
    torch.testing.assert_close(wave.jacobian(x), numerical_jacobian(wave, x.double()), atol=1e-8, rtol=0)
    assert wave.holomorphic == dtype.is_complex


@pytest.mark.parametrize("complex_parameters", [False, True])
def test_the_jacobian_of_a_users_module(complex_parameters) -> None:
    space = waves.spins(4)
    wave = waves.Wave(Plain(4, complex_parameters), space)
    x = space.random(6, seed=seeded()).double()
    assert wave.count == (60 if complex_parameters else 30)
    torch.testing.assert_close(wave.jacobian(x), numerical_jacobian(wave, x), atol=1e-8, rtol=0)


def test_a_holomorphic_jacobian_by_torch_func_equals_the_analytic_one() -> None:
    space = waves.spins(5)
    wave = waves.Wave(waves.RBM(alpha=1, std=0.3, dtype=torch.complex128), space)
    x = space.random(7, seed=seeded())
    analytic = wave.jacobian(x)
    wave.module.jacobian = None
    torch.testing.assert_close(wave.jacobian(x), analytic)


def test_vector_and_set_vector_are_inverses() -> None:
    for module in (Plain(4, True), waves.RBM(dtype=torch.complex64), waves.RBM()):
        wave = waves.Wave(module, waves.spins(4))
        changed = wave.vector() + torch.randn(wave.count, generator=seeded())
        wave.set_vector(changed)
        assert torch.equal(wave.vector(), changed)


OPERATORS = [
    waves.ising(waves.chain(8), field=0.9),
    waves.heisenberg(waves.chain(8)),
    waves.PauliSum(waves.qubits(5), {"X0 X1 X2": 0.5, "Y1 Y3": 0.3, "X0 Y4 Z2": 0.7, "Z1": 0.2, "X4": 1.0}),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS, ids=repr)
def test_compiled_local_energies_equal_the_definition(operator, dtype) -> None:
    wave = waves.Wave(waves.RBM(alpha=1.5, std=0.2, dtype=dtype), operator.space)
    x = operator.space.states()
    psi = wave.amplitudes().to(torch.complex128)
    matrix = torch.from_numpy(operator.to_sparse().toarray()).to(torch.complex128)
    expected = (matrix @ psi) / psi
    tolerance = {"rtol": 2e-4, "atol": 2e-4} if dtype.itemsize in (4, 8) and dtype != torch.float64 else {}
    for found in (
        local_energies(operator, wave, x),
        _by_connection(operator, wave, x.to(wave.dtype)),
        full_local_energies(operator, wave)[0],
    ):
        torch.testing.assert_close(found.to(torch.complex128), expected, **tolerance)


@pytest.mark.parametrize(
    "operator",
    [waves.bose_hubbard(waves.chain(3), 2.0, particles=3), waves.spin_one_heisenberg(waves.chain(4))],
    ids=repr,
)
def test_local_energies_on_more_levels(operator) -> None:
    wave = waves.Wave(waves.RBM(alpha=2, std=0.3, dtype=torch.float64), operator.space)
    psi = wave.amplitudes()
    found = local_energies(operator, wave, operator.space.states())
    torch.testing.assert_close(found, torch.from_numpy(operator.to_sparse() @ psi.numpy()) / psi)


def test_local_energies_in_chunks_are_the_same() -> None:
    operator = waves.ising(waves.chain(8), 1.0)
    whole, small = (waves.Wave(Plain(8), operator.space, chunk=c) for c in (2**14, 7))
    x = operator.space.states(torch.float64)
    torch.testing.assert_close(local_energies(operator, small, x), local_energies(operator, whole, x))
    torch.testing.assert_close(small.jacobian(x), whole.jacobian(x))


def test_beyond_62_sites_connected_states_are_still_told_apart() -> None:
    operator = waves.ising(waves.chain(70), 1.0)
    wave = waves.Wave(waves.RBM(std=0.1, dtype=torch.float64), operator.space)
    x = operator.space.random(4, seed=seeded())
    torch.testing.assert_close(_by_connection(operator, wave, x.double()), local_energies(operator, wave, x))


def test_a_flat_wave_in_the_field_has_zero_variance() -> None:
    operator = waves.ising(waves.chain(6), field=1.0, coupling=0.0)  # |+⟩ on every site is its ground state
    wave = waves.Wave(waves.RBM(dtype=torch.float64), operator.space)
    wave.set_vector(torch.zeros(wave.count, dtype=torch.float64))
    energies = local_energies(operator, wave, operator.space.states())
    torch.testing.assert_close(energies, torch.full((64,), -6.0, dtype=torch.float64))


class Bad(nn.Module):
    def __init__(self, output) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.output = output

    def forward(self, x):
        return self.output(x * self.weight)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: x, r"shape \(64,\) for 64 of them, but gave \(64, 4\)"),
        (lambda x: x.sum(1, keepdim=True), r"but gave \(64, 1\)"),
        (lambda x: x.sum(1) / 0 * 0, "finite log-amplitudes"),
        (lambda x: x.sum(1) * 0 + 1, "all the same amplitude"),
        (lambda x: x.sum(1).long(), "real or complex floats, but gave torch.int64"),
        (lambda x: x @ torch.ones(9), "but raised"),
        (lambda x: (x.sum(1), x), "but gave tuple"),
        (lambda x: nn.functional.dropout(x, 0.5).sum(1), "same output when evaluated again"),
        (lambda x: (x - x.mean(0)).sum(1).tanh() / len(x), "changes with the others in the batch"),
    ],
)
def test_modules_are_checked_at_the_door(output, message) -> None:
    with pytest.raises(ValueError, match=message):
        waves.Wave(Bad(output), waves.spins(4))


def test_a_module_without_parameters_and_a_network_of_another_space() -> None:
    with pytest.raises(ValueError, match="must have parameters"):
        waves.Wave(nn.Flatten(0), waves.spins(4))
    rbm = waves.RBM()
    waves.Wave(rbm, waves.spins(4))
    with pytest.raises(ValueError, match="built for another space"):
        waves.Wave(rbm, waves.spins(6))
    with pytest.raises(ValueError, match="at least one hidden unit"):
        waves.Wave(waves.RBM(alpha=0), waves.spins(4))


def test_operator_and_wave_on_different_spaces() -> None:
    wave = waves.Wave(waves.RBM(), waves.spins(6))
    with pytest.raises(ValueError, match="must be on the same space"):
        waves.ground_state(waves.heisenberg(waves.chain(6)), wave)
