"""State preparation: a ket as a circuit that makes it of |0…0⟩, and a density operator as one that purifies it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ketwork.circuits.encoding import encoded, padded
from ketwork.circuits.sdks import (
    SDK,
    SDKS,
    Exported,
    counted_pennylane,
    decomposed_qiskit,
    export,
    imported_pennylane,
    imported_qiskit,
)
from ketwork.quantum import Density, Ket

MOST_QUBITS = 12
"""Circuits on more qubits are not made unless they are forced: some 2ⁿ gates, and seconds to minutes."""


def prepare(ket: Ket, to: SDK = "qiskit", *, force: bool = False) -> Exported:
    """The circuit that makes the ket of |0…0⟩: amplitude encoding on ⌈log₂ d⌉ qubits, further amplitudes being 0.

    In Qiskit by `StatePreparation` (isometries, Iten et al. 2016, DOI 10.1103/PhysRevA.93.032318), in PennyLane by
    `MottonenStatePreparation`, in OpenQASM 3 by this package's own uniformly controlled rotations (`encoded`). The
    state's amplitudes are the ket's, in its order: subsystems of two dimensions are qubits, the first one leading.

    Any of them needs some 2ⁿ CNOTs, so that a layer of 512 neurons takes about 500 of them: good for a simulator and
    for checking a device, not for speed.

    Raises:
        ValueError: more than 12 qubits without `force`, or more than one ket.
        ImportError: the SDK is missing.

    >>> prepare(Ket.normalized([1.0, 0.0, 0.0, -1.0]), "qasm3")
    <qasm3 circuit of 2 qubits: 2 cx, 3 ry; depth 4>
    """
    psi = _amplitudes(ket)
    qubits = checked_qubits(len(psi), force)
    if to == "qiskit":
        qiskit = imported_qiskit()
        from qiskit.circuit.library import StatePreparation

        made = qiskit.QuantumCircuit(qubits)
        made.append(StatePreparation(padded(psi).astype(complex)), list(range(qubits)))
        return decomposed_qiskit(made)
    if to == "pennylane":
        qml = imported_pennylane()
        prepared = qml.MottonenStatePreparation(padded(psi), wires=list(range(qubits)))
        return counted_pennylane(prepared.decomposition(), qubits)
    return export(encoded(psi), to)


@dataclass(frozen=True)
class Purification:
    """A circuit whose first qubits have the state ρ when the others are not looked at.

    `ket` is the purification Σᵢ √λᵢ |vᵢ⟩|i⟩, with the subsystems (d, rank); the first `system` qubits hold ρ.
    """

    exported: Exported
    ket: Ket
    system: int

    def __repr__(self) -> str:
        return f"<purification on {self.system} + {self.exported.qubits - self.system} qubits: {self.exported!r}>"


def purify(rho: Density, to: SDK = "qiskit", *, force: bool = False) -> Purification:
    """The circuit of a purification of ρ: of its ⌈log₂ d⌉ + ⌈log₂ r⌉ qubits the first ones have the state ρ.

    r is the rank, eigenvalues below 1e−12 not counted; see `prepare` for the cost and errors.

    >>> purify(Density.maximally_mixed(2), "qasm3").exported.counts["cx"]
    2
    """
    if rho.batch_shape:
        raise ValueError(
            f"Argument `rho` must be one state, but has batch shape {tuple(rho.batch_shape)}. Convert them one by one."
        )
    values, states = rho.eigenstates(rho.d)
    kept = values > 1e-12
    values, vectors = values[kept].double(), states.amplitudes[kept]  # (r,), (r, d)
    side, other = (1 << max(0, (n - 1).bit_length()) for n in (rho.d, len(values)))
    side = max(2, side)
    matrix = torch.zeros(side, max(1, other), dtype=torch.promote_types(vectors.dtype, torch.float64))
    matrix[: rho.d, : len(values)] = (values.sqrt()[:, None] * vectors.to(matrix.dtype)).T
    ket = Ket.normalized(matrix.reshape(-1), matrix.shape)
    system = side.bit_length() - 1
    return Purification(prepare(ket, to, force=force), ket, system)


def _amplitudes(ket: Ket) -> np.ndarray:
    if ket.batch_shape:
        raise ValueError(
            f"Argument `ket` must be one state, but has batch shape {tuple(ket.batch_shape)}. Convert them one by one."
        )
    psi: np.ndarray = ket.amplitudes.detach().cpu().numpy()
    psi = psi.astype(complex if np.iscomplexobj(psi) else float)
    return psi / np.linalg.norm(psi)  # float32 norms are off by 1e−7, more than an SDK allows


def checked_qubits(amplitudes: int, force: bool, most: int = MOST_QUBITS) -> int:
    """How many qubits so many amplitudes need; refuses too many without `force`."""
    qubits = max(1, (amplitudes - 1).bit_length())
    if qubits > most and not force:
        raise ValueError(
            f"A circuit of at most {most} qubits is made, but {amplitudes} amplitudes need {qubits}, and some "
            f"{2**qubits:,} gates. Take fewer amplitudes, or give `force=True`."
        )
    return qubits


def checked_sdk(to: str) -> None:
    """Refuses the name of an SDK that there is not."""
    if to not in SDKS:
        raise ValueError(f"Argument `to` must be one of {', '.join(SDKS)}, but is {to!r}.")
