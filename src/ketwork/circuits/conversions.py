"""States of other libraries and back: Qiskit, PennyLane, QuTiP, quimb; each imported only when it is used.

The numbers stay in their order everywhere. Where a library counts subsystems from the other end (Qiskit), its
dimensions are given in the opposite order, so that subsystem k here is its subsystem n − 1 − k.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from ketwork.circuits.sdks import imported_pennylane, imported_qiskit
from ketwork.quantum import Density, Ket, State, from_qutip, to_qutip

Library = Literal["qiskit", "pennylane", "qutip", "quimb"]
LIBRARIES: tuple[Library, ...] = ("qiskit", "pennylane", "qutip", "quimb")


def to_library(state: State, library: Library) -> Any:
    """One state as that library has it.

    | library | ket | density operator |
    |---|---|---|
    | qiskit | `quantum_info.Statevector` | `quantum_info.DensityMatrix` |
    | pennylane | `StatePrep` (qubits) | `QubitDensityMatrix` (qubits) |
    | qutip | `Qobj`, a ket | `Qobj`, an operator |
    | quimb | `qarray` (d, 1) | `qarray` (d, d) |

    Raises:
        ValueError: there is no such library, several states, or subsystems that are no qubits for PennyLane.
        ImportError: the library is missing.
    """
    if state.batch_shape:
        raise ValueError(
            f"Argument `state` must be one state, but has batch shape {tuple(state.batch_shape)}. Convert them "
            f"one by one."
        )
    if library == "qutip":
        return to_qutip(state)
    values = _values(state)
    if library == "qiskit":
        imported_qiskit()
        from qiskit.quantum_info import DensityMatrix, Statevector

        kind = Statevector if isinstance(state, Ket) else DensityMatrix
        return kind(values, dims=tuple(reversed(state.dims)))
    if library == "pennylane":
        qml = imported_pennylane()
        qubits = _qubits_of(state)
        if isinstance(state, Ket):
            return qml.StatePrep(values, wires=range(qubits))
        return qml.QubitDensityMatrix(values, wires=range(qubits))
    if library == "quimb":
        quimb = _imported_quimb()
        return quimb.qu(values, qtype="ket" if isinstance(state, Ket) else "dop")
    raise ValueError(f"Argument `library` must be one of {', '.join(LIBRARIES)}, but is {library!r}.")


def from_library(obj: Any) -> State:
    """The `Ket` or `Density`, complex128, of an object of one of those libraries, which its class tells.

    A quimb array or any other matrix (d, 1) is a ket of one subsystem, (d, d) a density operator; a square power of two
    from quimb has qubits.

    Raises:
        TypeError: an object of another kind.
    """
    module, name = type(obj).__module__.partition(".")[0], type(obj).__name__
    if module == "qutip":
        return from_qutip(obj)
    if module == "qiskit" and name in ("Statevector", "DensityMatrix"):
        dims = tuple(reversed(obj.dims()))
        values = torch.from_numpy(np.array(obj.data, dtype=complex))
        return Ket(values, dims) if name == "Statevector" else Density.from_matrix(values, dims)
    if module == "pennylane" and name in ("StatePrep", "QubitDensityMatrix", "MottonenStatePreparation"):
        values = torch.from_numpy(np.array(obj.data[0], dtype=complex))
        dims = (2,) * len(obj.wires)
        return Density.from_matrix(values, dims) if name == "QubitDensityMatrix" else Ket(values, dims)
    if module == "quimb":
        return _from_array(np.array(obj, dtype=complex))
    raise TypeError(
        "Argument `obj` must be a state of Qiskit (Statevector, DensityMatrix), PennyLane (StatePrep, "
        "QubitDensityMatrix), "
        f"QuTiP (Qobj) or quimb (qarray), but is {type(obj).__module__}.{name}."
    )


def _from_array(values: np.ndarray) -> State:
    size = len(values)
    dims = (2,) * (size.bit_length() - 1) if size > 1 and not size & (size - 1) else (size,)
    result = torch.from_numpy(values)
    return Ket(result[:, 0], dims) if values.shape[1] == 1 else Density.from_matrix(result, dims)


def _values(state: State) -> np.ndarray:
    tensor = state.amplitudes if isinstance(state, Ket) else state.matrix()
    values: np.ndarray = tensor.detach().cpu().numpy().astype(complex)
    # Float32 norms are off by 1e−7, more than some of these libraries allow.
    return values / (np.linalg.norm(values) if isinstance(state, Ket) else np.trace(values).real)


def _qubits_of(state: State) -> int:
    if state.d & (state.d - 1):
        raise ValueError(
            f"Argument `state` must be one of qubits for PennyLane, but has {state.d} dimensions. Use "
            f"`circuits.prepare`, "
            "which pads it."
        )
    return max(1, state.d.bit_length() - 1)


def _imported_quimb() -> Any:
    try:
        import quimb
    except ImportError as error:
        raise ImportError("quimb is not installed. Use `pip install quimb`.") from error
    return quimb
