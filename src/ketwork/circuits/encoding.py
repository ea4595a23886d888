"""Amplitude encoding: the circuit that makes a given vector of amplitudes of |0…0⟩, by rotations and CNOTs."""

import numpy as np

from ketwork.circuits.gates import Circuit
from ketwork.circuits.multiplexing import multiplexed


def encoded(amplitudes: np.ndarray) -> Circuit:
    """The circuit whose state is the amplitudes (d,), padded with zeros to 2^⌈log₂ d⌉.

    The vector is halved qubit by qubit: the angle of each half's norm is a rotation about y, controlled by the qubits
    before; phases follow as rotations about z (Möttönen et al. 2004). Real amplitudes, of either sign, need 2ⁿ − 2
    CNOTs and no rotation about z; complex ones up to 2ⁿ⁺¹ − 4. The global phase is kept.

    >>> circuit = encoded(np.array([0.6, 0.0, -0.8]))
    >>> circuit.qubits, np.abs(circuit.state()).round(12).tolist()
    (2, [0.6, 0.0, 0.8, 0.0])
    """
    psi = padded(amplitudes)
    n = max(1, len(psi).bit_length() - 1)
    circuit = Circuit(n)
    real = not np.iscomplexobj(psi) or np.abs(psi.imag).max() < 1e-15
    # of the parts of 1, 2, 4 … entries, with the sign of each part's first one
    sizes = [psi.real if real else np.abs(psi)]
    for _ in range(n):
        pairs = sizes[-1].reshape(-1, 2)
        sign = np.where(
            pairs[:, 0] < 0, -1.0, np.where(pairs[:, 0] > 0, 1.0, np.where(pairs[:, 1] < 0, -1.0, 1.0))
        )
        sizes.append(sign * np.linalg.norm(pairs, axis=1))
    for k in range(n):
        parts = sizes[n - k - 1].reshape(2**k, 2) * np.where(sizes[n - k] < 0, -1.0, 1.0)[:, None]
        multiplexed(circuit, "ry", 2 * np.arctan2(parts[:, 1], parts[:, 0]), range(k), k)
    circuit.phase = np.pi if sizes[-1][0] < 0 else 0.0
    if not real:
        phases = np.angle(psi)
        for k in range(n - 1, -1, -1):
            pairs = phases.reshape(2**k, 2)
            multiplexed(circuit, "rz", pairs[:, 1] - pairs[:, 0], range(k), k)
            phases = pairs.mean(1)
        circuit.phase = float(phases[0])
    return circuit


def padded(amplitudes: np.ndarray) -> np.ndarray:
    """The amplitudes with zeros appended up to a power of two, at least 2."""
    size = max(2, 1 << (len(amplitudes) - 1).bit_length())
    return np.concatenate([amplitudes, np.zeros(size - len(amplitudes), dtype=amplitudes.dtype)])
