"""Circuits as plain lists of gates: what is built here, counted, simulated, written as OpenQASM 3 and handed to SDKs.

Qubit 0 is the leading one: basis state i has its bits in the order of the qubits, as subsystems of a `Ket` have
(PennyLane's wires likewise; Qiskit counts from the other end).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

_FIXED = {
    "h": np.array([[1, 1], [1, -1]]) / math.sqrt(2),
    "x": np.array([[0, 1], [1, 0]]),
    "z": np.diag([1, -1]),
}


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate: `h`, `x`, `z`, `ry`, `rz` on one target, or `unitary` on several; applied where all controls are 1."""

    name: str
    targets: tuple[int, ...]
    controls: tuple[int, ...] = ()
    angle: float = 0.0
    unitary: np.ndarray | None = None

    @property
    def qubits(self) -> tuple[int, ...]:
        """Controls, then targets."""
        return self.controls + self.targets

    @property
    def label(self) -> str:
        """The name with a c for each control: `cx`, `ccz`."""
        return "c" * len(self.controls) + self.name

    def matrix(self) -> np.ndarray:
        """The matrix on the targets, the first one leading."""
        if self.unitary is not None:
            return self.unitary
        if self.name in _FIXED:
            return _FIXED[self.name]
        half = self.angle / 2
        if self.name == "ry":
            return np.array([[math.cos(half), -math.sin(half)], [math.sin(half), math.cos(half)]])
        return np.diag([np.exp(-1j * half), np.exp(1j * half)])


@dataclass
class Circuit:
    """Gates on so many qubits, and a global phase.

    >>> bell = Circuit(2).add("h", 0).add("x", 1, controls=[0])
    >>> bell.counts, bell.depth
    ({'h': 1, 'cx': 1}, 2)
    >>> bell.state().round(4)
    array([0.7071+0.j, 0.    +0.j, 0.    +0.j, 0.7071+0.j])
    """

    qubits: int
    gates: list[Gate] = field(default_factory=list)
    phase: float = 0.0

    def add(self, name: str, target: int, *, controls: Iterable[int] = (), angle: float = 0.0) -> Circuit:
        """Adds a gate, and returns the circuit."""
        self.gates.append(Gate(name, (target,), tuple(controls), angle))
        return self

    def add_unitary(self, matrix: np.ndarray, targets: Sequence[int]) -> Circuit:
        """Adds a unitary on some qubits, the first one leading, and returns the circuit."""
        self.gates.append(Gate("unitary", tuple(targets), unitary=np.asarray(matrix)))
        return self

    def extend(self, other: Circuit, qubits: Sequence[int] | None = None) -> Circuit:
        """Adds all gates of another circuit, whose qubit k is qubit `qubits[k]` here, and returns this one."""
        place = list(range(other.qubits)) if qubits is None else list(qubits)
        for gate in other.gates:
            targets, controls = (tuple(place[q] for q in part) for part in (gate.targets, gate.controls))
            self.gates.append(Gate(gate.name, targets, controls, gate.angle, gate.unitary))
        self.phase += other.phase
        return self

    @property
    def counts(self) -> dict[str, int]:
        """How many gates there are of each kind."""
        return dict(Counter(gate.label for gate in self.gates))

    @property
    def depth(self) -> int:
        """The length of the longest chain of gates that must follow each other."""
        return longest_chain([gate.qubits for gate in self.gates], self.qubits)

    def state(self, start: np.ndarray | None = None) -> np.ndarray:
        """The amplitudes (2^qubits,) after all gates, from |0…0⟩ or a given state; by sums over all of them."""
        psi = np.zeros(2**self.qubits, dtype=complex) if start is None else np.array(start, dtype=complex)
        if start is None:
            psi[0] = 1
        psi = psi.reshape((2,) * self.qubits) * np.exp(1j * self.phase)
        for gate in self.gates:
            psi = _applied(psi, gate)
        return psi.reshape(-1)

    def unitary(self) -> np.ndarray:
        """The matrix of the whole circuit, column by column."""
        return np.stack([self.state(column) for column in np.eye(2**self.qubits)], 1)

    def qasm3(self) -> str:
        """The circuit as OpenQASM 3 text; q[0] is the leading qubit.

        Raises:
            ValueError: a unitary stands in it that is not made of elementary gates.
        """
        lines = [
            "OPENQASM 3.0;",
            'include "stdgates.inc";',
            f"qubit[{self.qubits}] q;  // q[0] is the leading one",
        ]
        if abs(self.phase) > 1e-15:
            lines.append(f"gphase({self.phase!r});")
        for gate in self.gates:
            if gate.unitary is not None:
                raise ValueError(
                    "OpenQASM 3 has elementary gates alone, but this circuit has a unitary on "
                    f"{len(gate.targets)} qubits. Export it with `to='qiskit'`, which decomposes it."
                )
            angle = f"({gate.angle!r})" if gate.name in ("ry", "rz") else ""
            where = ", ".join(f"q[{q}]" for q in gate.qubits)
            known = {"cx": "cx", "cz": "cz", "ccx": "ccx"}
            if gate.label in known or not gate.controls:
                lines.append(f"{known.get(gate.label, gate.name)}{angle} {where};")
            else:
                lines.append(f"ctrl({len(gate.controls)}) @ {gate.name}{angle} {where};")
        return "\n".join(lines) + "\n"


def longest_chain(gates: Sequence[Sequence[int]], qubits: int) -> int:
    """How many of these gates, given by their qubits, must follow each other."""
    level = [0] * qubits
    for gate in gates:
        after = 1 + max(level[q] for q in gate)
        for q in gate:
            level[q] = after
    return max(level, default=0)


def _applied(psi: np.ndarray, gate: Gate) -> np.ndarray:
    """The gate on a state of one axis a qubit."""
    index = tuple(1 if q in gate.controls else slice(None) for q in range(psi.ndim))
    part = psi[index]
    left = [q for q in range(psi.ndim) if q not in gate.controls]  # the axes of the part
    axes = [left.index(q) for q in gate.targets]
    k = len(axes)
    matrix = gate.matrix().reshape((2,) * (2 * k))
    moved = np.tensordot(matrix, part, axes=(list(range(k, 2 * k)), axes))
    psi = psi.copy()
    psi[index] = np.moveaxis(moved, list(range(k)), axes)
    return psi
