"""Circuits handed to an SDK: Qiskit, PennyLane, or OpenQASM 3 as text; each a circuit of its own kind, with its gates
counted.

Every one has the same numbers: in Qiskit, whose qubit 0 is the last bit of an index, qubit k here is qubit n − 1 − k,
so that `Statevector(circuit).data` is in the order of the ket; PennyLane's wire k is qubit k.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ketwork.circuits.gates import Circuit, Gate, longest_chain

SDK = Literal["qiskit", "pennylane", "qasm3"]
SDKS: tuple[SDK, ...] = ("qiskit", "pennylane", "qasm3")

BASIS = ["u", "cx"]
"""What a Qiskit circuit is decomposed to: any rotation of one qubit, and the CNOT."""


@dataclass(frozen=True)
class Exported:
    """A circuit of an SDK, and what it costs.

    `circuit` is a `qiskit.QuantumCircuit`, a `pennylane.tape.QuantumScript` or a text; `counts` are its elementary
    gates, by the SDK's own names, and `depth` the longest chain of them.
    """

    circuit: Any
    sdk: SDK
    qubits: int
    counts: dict[str, int]
    depth: int

    @property
    def two_qubit_gates(self) -> int:
        """How many gates join two qubits or more: what costs most on a device."""
        return sum(count for name, count in self.counts.items() if name.lower() in _JOINING)

    def __repr__(self) -> str:
        gates = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        return f"<{self.sdk} circuit of {self.qubits} qubits: {gates or 'no gates'}; depth {self.depth}>"


_JOINING = {"cx", "cz", "ccx", "cnot", "cccx", "multicontrolledx", "ccz", "cccz", "toffoli"}


def export(circuit: Circuit, to: SDK) -> Exported:
    """The circuit in an SDK's own form.

    Raises:
        ImportError: the SDK is missing (extras `qiskit`, `pennylane`).
        ValueError: there is no such SDK, or a unitary has no OpenQASM 3 text.
    """
    makers: dict[str, Callable[[Circuit], Exported]] = {
        "qiskit": _to_qiskit,
        "pennylane": _to_pennylane,
        "qasm3": _to_qasm3,
    }
    if to not in makers:
        raise ValueError(f"Argument `to` must be one of {', '.join(SDKS)}, but is {to!r}.")
    return makers[to](circuit)


def decomposed_qiskit(circuit: Any) -> Exported:
    """A Qiskit circuit with everything decomposed to rotations of one qubit and CNOTs."""
    qiskit = imported_qiskit()
    plain = qiskit.transpile(circuit, basis_gates=BASIS, optimization_level=1)
    return Exported(plain, "qiskit", plain.num_qubits, dict(plain.count_ops()), plain.depth())


def counted_pennylane(operations: list[Any], qubits: int) -> Exported:
    """Operations as one PennyLane script, decomposed to rotations and CNOTs."""
    qml = imported_pennylane()
    script = qml.tape.QuantumScript(operations)
    (plain,), _ = qml.transforms.decompose(
        script, gate_set={"RX", "RY", "RZ", "CNOT", "GlobalPhase", "Hadamard", "PauliX"}
    )
    gates = [op for op in plain.operations if op.name != "GlobalPhase"]  # which no device has to do
    depth = longest_chain([tuple(op.wires) for op in gates], qubits)
    return Exported(plain, "pennylane", qubits, dict(Counter(op.name for op in gates)), depth)


def imported_qiskit() -> Any:
    """Qiskit, or an error that says how to install it."""
    try:
        import qiskit
    except ImportError as error:
        raise ImportError("Qiskit is not installed. Use `pip install 'ketwork[qiskit]'`.") from error
    return qiskit


def imported_pennylane() -> Any:
    """PennyLane, or an error that says how to install it."""
    try:
        import pennylane
    except ImportError as error:
        raise ImportError("PennyLane is not installed. Use `pip install 'ketwork[pennylane]'`.") from error
    return pennylane


def _to_qiskit(circuit: Circuit) -> Exported:
    qiskit = imported_qiskit()
    from qiskit.circuit import library

    last = circuit.qubits - 1
    made = qiskit.QuantumCircuit(circuit.qubits, global_phase=circuit.phase)
    for gate in circuit.gates:
        if gate.unitary is not None:  # the first target leads, which for Qiskit is the last one given
            made.append(library.UnitaryGate(gate.unitary), [last - q for q in reversed(gate.targets)])
            continue
        kinds = {"h": library.HGate, "x": library.XGate, "z": library.ZGate}
        rotations = {"ry": library.RYGate, "rz": library.RZGate}
        one = kinds[gate.name]() if gate.name in kinds else rotations[gate.name](gate.angle)
        controlled = one.control(len(gate.controls)) if gate.controls else one
        made.append(controlled, [last - q for q in gate.qubits])
    return decomposed_qiskit(made)


def _to_pennylane(circuit: Circuit) -> Exported:
    qml = imported_pennylane()
    operations = [_operation(qml, gate) for gate in circuit.gates]
    if circuit.phase:
        operations.append(qml.GlobalPhase(-circuit.phase))
    return counted_pennylane(operations, circuit.qubits)


def _operation(qml: Any, gate: Gate) -> Any:
    if gate.unitary is not None:
        return qml.QubitUnitary(np.asarray(gate.unitary, dtype=complex), wires=list(gate.targets))
    (target,) = gate.targets
    kinds = {"h": qml.Hadamard, "x": qml.PauliX, "z": qml.PauliZ}
    rotations = {"ry": qml.RY, "rz": qml.RZ}
    one = kinds[gate.name](target) if gate.name in kinds else rotations[gate.name](gate.angle, target)
    return qml.ctrl(one, control=list(gate.controls)) if gate.controls else one


def _to_qasm3(circuit: Circuit) -> Exported:
    return Exported(circuit.qasm3(), "qasm3", circuit.qubits, circuit.counts, circuit.depth)
