"""The circuits' own simulators: what state, probabilities and counts an SDK gives for an exported circuit."""

import numpy as np
import pennylane as qml
from qiskit import qasm3
from qiskit.quantum_info import Statevector

from ketwork.circuits import Exported


def state_of(exported: Exported) -> np.ndarray:
    """The amplitudes in the order of kets, by the SDK's own simulator."""
    if exported.sdk == "qiskit":
        return Statevector(exported.circuit).data
    if exported.sdk == "qasm3":
        return Statevector(qasm3.loads(exported.circuit).reverse_bits()).data
    device = qml.device("default.qubit", wires=exported.qubits)
    script = qml.tape.QuantumScript(exported.circuit.operations, [qml.state()])
    return np.asarray(qml.execute([script], device)[0])


def first_qubit(exported: Exported) -> np.ndarray:
    """The probabilities of qubit 0 as the SDK reduces them itself: its own idea of which qubit that is."""
    if exported.sdk == "qiskit":
        return Statevector(exported.circuit).probabilities([exported.qubits - 1])
    device = qml.device("default.qubit", wires=exported.qubits)
    script = qml.tape.QuantumScript(exported.circuit.operations, [qml.probs(wires=0)])
    return np.asarray(qml.execute([script], device)[0])
