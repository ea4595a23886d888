"""States and layers as quantum circuits: exact, counted, and for an SDK of your choice.

A ket by amplitude encoding (`prepare`), a density operator by a purification (`purify`), a neuron as an overlap
(`neuron`, `binary_neuron`), a linear layer as a block of a unitary (`layer`); states of Qiskit, PennyLane, QuTiP and
quimb and back (`to_library`, `from_library`). What a nonlinearity does stays classical. Gate counts grow as 2ⁿ and
4ⁿ: this is for teaching, for checking devices and for small demonstrations, not for speed.

Circuits are made here, counted and simulated without any SDK; each SDK is an extra of its own.

>>> from ketwork import circuits
>>> from ketwork.quantum import Ket
>>> circuits.prepare(Ket.normalized([1.0, 2.0, 2.0, 4.0]), "qasm3")
<qasm3 circuit of 2 qubits: 2 ry; depth 1>
"""

from ketwork.circuits.conversions import from_library, to_library
from ketwork.circuits.encoding import encoded
from ketwork.circuits.gates import Circuit, Gate
from ketwork.circuits.layers import Layer, block_encoded, layer, unitary_part
from ketwork.circuits.neurons import Neuron, Reading, binary_neuron, neuron
from ketwork.circuits.preparation import Purification, prepare, purify
from ketwork.circuits.sdks import Exported, export
from ketwork.quantum import Polar

__all__ = [
    "Circuit",
    "Exported",
    "Gate",
    "Layer",
    "Neuron",
    "Polar",
    "Purification",
    "Reading",
    "binary_neuron",
    "block_encoded",
    "encoded",
    "export",
    "from_library",
    "layer",
    "neuron",
    "prepare",
    "purify",
    "to_library",
    "unitary_part",
]
