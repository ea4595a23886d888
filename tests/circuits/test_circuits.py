"""Costs, texts, limits and bad input."""

import math

import numpy as np
import pytest
import torch

from ketwork import circuits
from ketwork.circuits.multiplexing import multiplexed
from ketwork.quantum import Density, Ket, polar, random_ket


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_gates_grow_as_the_amplitudes_do(n) -> None:
    real = circuits.prepare(random_ket(2**n, dtype=torch.float64, seed=seeded()), "qasm3")
    assert real.counts == {"ry": 2**n - 1, "cx": 2**n - 2}
    full = circuits.prepare(random_ket(2**n, seed=seeded()), "qasm3")
    assert full.counts == {"ry": 2**n - 1, "rz": 2**n - 1, "cx": 2 ** (n + 1) - 4}
    assert full.two_qubit_gates == full.counts["cx"]
    assert repr(full).startswith(f"<qasm3 circuit of {n} qubits: ")
    isometry = circuits.prepare(random_ket(2**n, seed=seeded()), "qiskit")
    assert isometry.two_qubit_gates == 2**n - n - 1  # Iten et al. 2016: as few as is known


def test_a_product_state_needs_no_gate_of_two_qubits() -> None:
    product = random_ket(2, dtype=torch.float64, seed=seeded()).tensor(
        random_ket(2, dtype=torch.float64, seed=seeded(1))
    )
    assert circuits.prepare(product, "qasm3").two_qubit_gates == 0


def test_the_text_is_open_qasm_3() -> None:
    text = circuits.prepare(Ket.normalized([1.0, 0.0, 0.0, 1.0]), "qasm3").circuit
    assert text.splitlines()[:3] == [
        "OPENQASM 3.0;",
        'include "stdgates.inc";',
        "qubit[2] q;  // q[0] is the leading one",
    ]
    assert f"ry({math.pi / 2!r}) q[0];" in text


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("name", ["ry", "rz"])
def test_multiplexed_rotations_turn_by_the_angle_of_each_state(k, name) -> None:
    angles = torch.randn(2**k, dtype=torch.float64, generator=seeded(k)).numpy()
    circuit = circuits.Circuit(k + 1)
    multiplexed(circuit, name, angles, range(k), k)
    blocks = [circuits.Gate(name, (0,), angle=float(angle)).matrix() for angle in angles]
    expected = np.zeros((2 ** (k + 1),) * 2, dtype=complex)
    for row, block in enumerate(blocks):
        expected[2 * row : 2 * row + 2, 2 * row : 2 * row + 2] = block
    np.testing.assert_allclose(circuit.unitary(), expected, atol=1e-12)


def test_the_simulator_against_kronecker_products() -> None:
    h, x = np.array([[1, 1], [1, -1]]) / math.sqrt(2), np.array([[0, 1], [1, 0]])
    circuit = circuits.Circuit(2).add("h", 1).add("x", 0, controls=[1])
    cnot = np.eye(4)[[0, 3, 2, 1]]  # controlled by the last qubit
    np.testing.assert_allclose(circuit.unitary(), cnot @ np.kron(np.eye(2), h), atol=1e-15)
    u = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128, generator=seeded()))[0].numpy()
    swapped = circuits.Circuit(2).add_unitary(u, [1, 0]).unitary()
    swap = np.eye(4)[[0, 2, 1, 3]]
    np.testing.assert_allclose(swapped, swap @ u @ swap, atol=1e-12)
    three = circuits.Circuit(3).add("x", 1, controls=[0, 2]).unitary()
    np.testing.assert_allclose(three, np.eye(8)[[0, 1, 2, 3, 4, 7, 6, 5]], atol=1e-15)
    assert np.allclose(x @ x, np.eye(2))


def test_the_polar_decomposition() -> None:
    for shape in ((4, 4), (5, 3), (3, 5), (2, 3, 4)):
        w = torch.randn(*shape, dtype=torch.complex128, generator=seeded(len(shape)))
        found = polar(w)
        torch.testing.assert_close(found.unitary @ found.positive, w)
        k = min(shape[-2:])
        gram = (
            found.unitary.mH @ found.unitary if shape[-2] >= shape[-1] else found.unitary @ found.unitary.mH
        )
        torch.testing.assert_close(gram, torch.eye(k, dtype=w.dtype).expand_as(gram))
        assert (torch.linalg.eigvalsh(found.positive) > -1e-12).all()
        closest = torch.linalg.matrix_norm(w - found.scale[..., None, None] * found.unitary)
        torch.testing.assert_close(found.distance, closest / torch.linalg.matrix_norm(w))


def test_no_multiple_of_a_unitary_is_closer_than_the_polar_part() -> None:
    w = torch.randn(3, 3, dtype=torch.float64, generator=seeded(3))
    best = float(polar(w).distance * torch.linalg.matrix_norm(w))
    for seed in range(200):
        q = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=seeded(seed)))[0]
        scale = float((q * w).sum() / 3)
        assert float(torch.linalg.matrix_norm(w - scale * q)) >= best - 1e-12


def test_a_layers_unitary_part() -> None:
    linear = torch.nn.Linear(5, 4)
    found = circuits.unitary_part(linear)
    s = torch.linalg.svdvals(linear.weight.detach().double())
    assert float(found.distance) == pytest.approx(
        float((1 - s.sum() ** 2 / (4 * (s**2).sum())).sqrt()), abs=1e-12
    )
    assert 0 < float(found.distance) < math.sqrt(3 / 4)


BIG = random_ket(2**13, dtype=torch.float64, seed=seeded())
BATCH = random_ket(4, (2,), seed=seeded())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: circuits.prepare(BIG, "qasm3"),
            "8192 amplitudes need 13, and some 8,192 gates.*`force=True`",
        ),
        (lambda: circuits.prepare(BATCH), r"must be one state, but has batch shape \(2,\)"),
        (
            lambda: circuits.prepare(Ket.basis(0, 2), "cirq"),
            "must be one of qiskit, pennylane, qasm3, but is 'cirq'",
        ),
        (lambda: circuits.neuron([1.0, 2.0], [1.0]), "as many entries as `weight`, 2, but has 1"),
        (lambda: circuits.neuron([0.0, 0.0], [1.0, 1.0]), "`weight` must be finite and not zero"),
        (lambda: circuits.neuron([1.0, 1j], [1.0, 1.0]), "`weight` must be a real vector"),
        (lambda: circuits.neuron([1.0], [1.0], test="toss"), "must be 'hadamard' or 'swap', but is 'toss'"),
        (lambda: circuits.neuron([1.0], [1.0], to="cirq"), "must be one of qiskit"),
        (lambda: circuits.binary_neuron([1, -1, 1], [1, 1, 1]), "the same power of two of entries"),
        (lambda: circuits.binary_neuron([1, 0], [1, 1]), r"entries \+1 and −1 alone"),
        (lambda: circuits.layer(torch.eye(2), [1.0, 2.0, 3.0]), "one input of 2 numbers, but has shape"),
        (lambda: circuits.layer(torch.zeros(2, 2), [1.0, 2.0]), "must be finite and not zero"),
        (lambda: circuits.layer(torch.ones(2, 200), torch.ones(200)), "200 amplitudes need 8.*`force=True`"),
        (lambda: circuits.unitary_part(torch.ones(3)), "an nn.Linear or a matrix"),
        (lambda: circuits.purify(BATCH.density()), "must be one state"),
        (lambda: circuits.to_library(BATCH, "qiskit"), "must be one state"),
        (
            lambda: circuits.to_library(Ket.basis(0, 2), "cirq"),
            "must be one of qiskit, pennylane, qutip, quimb",
        ),
        (
            lambda: circuits.to_library(Density.maximally_mixed(3), "pennylane"),
            "must be one of qubits for PennyLane",
        ),
    ],
)
def test_bad_input(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a state of Qiskit"):
        circuits.from_library("ket")
    circuit = circuits.Circuit(1).add_unitary(np.eye(2), [0])
    with pytest.raises(ValueError, match="elementary gates alone"):
        circuit.qasm3()


def test_a_large_circuit_is_made_when_it_is_forced() -> None:
    assert circuits.prepare(BIG, "qasm3", force=True).qubits == 13


@pytest.mark.parametrize("name", ["qiskit", "pennylane", "quimb"])
def test_a_missing_library_says_how_to_install_it(name, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"is not installed. Use `pip install"):
        circuits.to_library(Ket.basis(0, 2), name)
