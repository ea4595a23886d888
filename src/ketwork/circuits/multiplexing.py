"""Uniformly controlled rotations: an angle of its own for every state of the controls, by rotations and CNOTs alone.

Möttönen, Vartiainen, Bergholm & Salomaa 2004 (DOI 10.1103/PhysRevLett.93.130502): between 2^k rotations of the target
stand 2^k CNOTs, each from the control whose bit changes in the Gray code. The rotations' angles are M⁻¹θ with M_ij =
(−1)^(i·g_j), g_j the j-th Gray code.
"""

from collections.abc import Sequence

import numpy as np

from ketwork.circuits.gates import Circuit


def multiplexed(
    circuit: Circuit, name: str, angles: np.ndarray, controls: Sequence[int], target: int
) -> None:
    """Adds `ry` or `rz` of the target by angles (2^k,) of the k controls' states, the first control leading.

    Angles that are all 0 add nothing, and those that are all alike one rotation.
    """
    k = len(controls)
    angles = np.asarray(angles, dtype=float)
    if np.abs(angles).max(initial=0.0) < 1e-14:
        return
    if np.abs(angles - angles[0]).max() < 1e-14:
        circuit.add(name, target, angle=float(angles[0]))
        return
    number = np.arange(2**k)
    gray = number ^ (number >> 1)
    turns = walsh_hadamard(angles)[gray] / 2**k
    for j, turn in enumerate(turns):
        if abs(turn) > 1e-14:
            circuit.add(name, target, angle=float(turn))
        changed = gray[j] ^ gray[(j + 1) % 2**k]
        bit = int(changed).bit_length() - 1  # bit 0 is the last control's
        circuit.add("x", target, controls=[controls[k - 1 - bit]])


def walsh_hadamard(values: np.ndarray) -> np.ndarray:
    """Σ_i (−1)^(i·j) values_i for every j, i·j counting common bits: the fast Walsh–Hadamard transform."""
    result = values.reshape(-1)
    for k in range(len(values).bit_length() - 1):
        pairs = result.reshape(-1, 2, 2**k)
        result = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], 1).reshape(-1)
    return result
