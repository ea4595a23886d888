"""Neurons read from shots: errors that cover, a device with errors of its own, and counts that an SDK gives."""

import numpy as np
import pytest
import torch

from ketwork import circuits


@pytest.mark.parametrize("test", ["hadamard", "swap"])
@pytest.mark.parametrize("angle", [0.02, 0.5, 1.2, 2.6])
def test_errors_cover(test, angle) -> None:
    """Also where nearly all shots agree; a swap test near an overlap of 0 knows little of a square root, and says
    so."""
    w, x = [1.0, 0.0], [np.cos(angle), np.sin(angle)]
    found = circuits.neuron(w, x, 0.1, torch.tanh, test=test, to="qasm3")
    truth = abs(found.overlap) if test == "swap" else found.overlap
    readings = [found.sample(400, seed=seed) for seed in range(300)]
    inside = [abs(r.overlap.value - truth) <= 1.96 * r.overlap.stderr for r in readings]
    assert np.mean(inside) >= 0.92
    assert min(r.overlap.stderr for r in readings) > 0
    if test == "hadamard":
        covered = [
            abs(r.preactivation.value - found.preactivation) <= 1.96 * r.preactivation.stderr
            for r in readings
        ]
        assert np.mean(covered) >= 0.92
        close = [abs(r.output.value - found.output) <= 1.96 * r.output.stderr for r in readings]
        assert np.mean(close) >= 0.9


def test_the_error_falls_with_the_root_of_the_shots() -> None:
    found = circuits.neuron([1.0, 2.0], [0.5, -1.0], to="qasm3")
    few, many = (np.mean([found.sample(n, seed=s).overlap.stderr for s in range(20)]) for n in (200, 20000))
    assert few / many == pytest.approx(10, rel=0.1)


def test_counts_of_a_simulator_with_readout_errors() -> None:
    """A device that reads the wrong bit with probability e shows (1 − 2e) of the overlap."""
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel, ReadoutError

    found = circuits.neuron([0.8, -0.3, 0.4, 0.2], [0.9, 0.1, 0.7, -0.5], to="qiskit")
    measured = found.exported.circuit.measure_all(inplace=False)
    shots, wrong = 40000, 0.07
    for error, factor in ((0.0, 1.0), (wrong, 1 - 2 * wrong)):
        noise = NoiseModel()
        noise.add_all_qubit_readout_error(ReadoutError([[1 - error, error], [error, 1 - error]]))
        counts = (
            AerSimulator(noise_model=noise, seed_simulator=3).run(measured, shots=shots).result().get_counts()
        )
        ones = sum(
            count for bits, count in counts.items() if bits[0] == "1"
        )  # qubit 0 here is Qiskit's last, written first
        reading = found.read(ones, shots)
        assert abs(reading.overlap.value - factor * found.overlap) < 4 * reading.overlap.stderr
    assert abs(reading.overlap.value - found.overlap) > 0.01  # what the device did wrong is seen


def test_depolarised_gates_take_the_overlap_towards_zero() -> None:
    from qiskit_aer import AerSimulator
    from qiskit_aer.noise import NoiseModel, depolarizing_error

    found = circuits.neuron([1.0, 0.2, 0.1, 0.3], [1.0, 0.1, 0.2, 0.3], to="qiskit")
    measured = found.exported.circuit.measure_all(inplace=False)
    overlaps = []
    for error in (0.0, 0.02, 0.1):
        noise = NoiseModel()
        noise.add_all_qubit_quantum_error(depolarizing_error(error, 2), ["cx"])
        counts = (
            AerSimulator(noise_model=noise, seed_simulator=3).run(measured, shots=20000).result().get_counts()
        )
        ones = sum(count for bits, count in counts.items() if bits[0] == "1")
        overlaps.append(found.read(ones, 20000).overlap.value)
    assert overlaps[0] > overlaps[1] > overlaps[2] > -0.02
    assert overlaps[0] == pytest.approx(found.overlap, abs=0.02)


@pytest.mark.parametrize(("ones", "shots"), [(-1, 10), (11, 10), (0, 0)])
def test_counts_that_cannot_be(ones, shots) -> None:
    with pytest.raises(ValueError, match=r"must lie in 0 … shots"):
        circuits.neuron([1.0], [1.0], to="qasm3").read(ones, shots)
