"""A neuron as an overlap: ⟨ŵ|x̂⟩ measured on one qubit, rescaled to the pre-activation; the activation stays
classical."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ketwork.circuits.encoding import encoded, padded
from ketwork.circuits.gates import Circuit
from ketwork.circuits.preparation import checked_qubits, checked_sdk
from ketwork.circuits.sdks import SDK, Exported, export
from ketwork.quantum import Estimate, Seed, generator_from

Test = Literal["hadamard", "swap"]
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Reading:
    """What shots say of a neuron, each number with its standard error.

    `overlap` is ⟨ŵ|x̂⟩ (its modulus by a swap test, or for a binary neuron), `preactivation` ‖w‖‖x‖·overlap + b,
    `output` the activation of that.
    """

    overlap: Estimate
    preactivation: Estimate
    output: Estimate
    shots: int


@dataclass(frozen=True)
class Neuron:
    """A neuron's circuit, what it would measure exactly, and what it makes of counts.

    Args:
        exported: the circuit, whose qubit 0 is to be measured (Qiskit's last one, PennyLane's wire 0).
        test: how the overlap is measured.
        overlap: the exact ⟨ŵ|x̂⟩.
        scale: ‖w‖‖x‖.
        bias: b, added classically.
        activation: σ, applied classically; None leaves the pre-activation.
    """

    exported: Exported
    test: str
    overlap: float
    scale: float
    bias: float
    activation: Activation | None

    @property
    def preactivation(self) -> float:
        """The exact z = ‖w‖‖x‖⟨ŵ|x̂⟩ + b = w·x + b."""
        return self.scale * self.overlap + self.bias

    @property
    def output(self) -> float:
        """The exact σ(z)."""
        return self._activated(self.preactivation)

    @property
    def probability(self) -> float:
        """The probability that the measured qubit is 1: (1 − o)/2 of a Hadamard test, (1 − o²)/2 of a swap test, o²
        of a binary neuron, where o is the overlap."""
        if self.test == "hadamard":
            return (1 - self.overlap) / 2
        return (1 - self.overlap**2) / 2 if self.test == "swap" else self.overlap**2

    def read(self, ones: int, shots: int) -> Reading:
        """What a device says: of so many shots the measured qubit was 1 in `ones`.

        The standard errors are those of the binomial at the adjusted frequency (ones + 2)/(shots + 4) (Agresti & Coull
        1998, DOI 10.1080/00031305.1998.10480550), so that they do not vanish where all shots agree; carried through
        the functions that follow by their values one error to either side.
        """
        if not 0 <= ones <= shots or shots < 1:
            raise ValueError(f"Argument `ones` must lie in 0 … shots, but is {ones} of {shots}.")
        adjusted = (ones + 2) / (shots + 4)
        frequency = Estimate(ones / shots, math.sqrt(adjusted * (1 - adjusted) / (shots + 4)))
        overlap = _through(frequency, self._overlap_of)
        z = _through(overlap, lambda o: self.scale * o + self.bias)
        return Reading(overlap, z, _through(z, self._activated), shots)

    def sample(self, shots: int = 1024, *, seed: Seed = 0) -> Reading:
        """What so many shots on a perfect device say: the outcomes are drawn with their exact probability."""
        draws = torch.rand(shots, generator=generator_from(seed), dtype=torch.float64)
        return self.read(int((draws < self.probability).sum()), shots)

    def __repr__(self) -> str:
        return f"<neuron by a {self.test} test: z = {self.preactivation:.6g}; {self.exported!r}>"

    def _overlap_of(self, one: float) -> float:
        if self.test == "hadamard":
            return 1 - 2 * one
        return math.sqrt(max(0.0, 1 - 2 * one)) if self.test == "swap" else math.sqrt(max(0.0, one))

    def _activated(self, z: float) -> float:
        return z if self.activation is None else float(self.activation(torch.tensor(z, dtype=torch.float64)))


def neuron(
    weight: Any,
    x: Any,
    bias: float = 0.0,
    activation: Activation | None = None,
    *,
    test: Test = "hadamard",
    to: SDK = "qiskit",
    force: bool = False,
) -> Neuron:
    """The neuron σ(w·x + b) as a circuit that measures the overlap of ŵ = w/‖w‖ and x̂ = x/‖x‖, real vectors (d,).

    A Hadamard test on ⌈log₂ d⌉ + 1 qubits prepares (|0⟩|ŵ⟩ + |1⟩|x̂⟩)/√2, turns the first qubit by H and measures it:
    P(0) = (1 + ⟨ŵ|x̂⟩)/2, sign included. A swap test on 2⌈log₂ d⌉ + 1 qubits prepares both and swaps them under control:
    P(0) = (1 + ⟨ŵ|x̂⟩²)/2, which has lost the sign. σ is applied classically to the rescaled result: the circuit is
    linear. The error of z falls as ‖w‖‖x‖/√shots, so that a dot product of d numbers needs no fewer operations this
    way; it shows what an overlap is.

    Raises:
        ValueError: vectors that are not real or of different sizes, zero vectors, or too many qubits without `force`.
        ImportError: the SDK is missing.

    >>> found = neuron([3.0, 4.0], [1.0, 1.0], bias=-6.0, activation=torch.relu, to="qasm3")
    >>> round(found.preactivation, 12), found.output
    (1.0, 1.0)
    >>> reading = found.sample(10_000)
    >>> abs(reading.preactivation - 1.0) < 4 * reading.preactivation.stderr
    True
    """
    checked_sdk(to)
    w, v = (_vector(values, name) for values, name in ((weight, "weight"), (x, "x")))
    if len(w) != len(v):
        raise ValueError(f"Argument `x` must have as many entries as `weight`, {len(w)}, but has {len(v)}.")
    sizes = [float(np.linalg.norm(values)) for values in (w, v)]
    unit = [padded(values / size) for values, size in zip((w, v), sizes, strict=True)]
    n = checked_qubits(len(w), force)
    if test == "hadamard":
        circuit = encoded(np.concatenate(unit) / math.sqrt(2)).add("h", 0)
    elif test == "swap":
        circuit = _swap_test(unit, n)
    else:
        raise ValueError(f"Argument `test` must be 'hadamard' or 'swap', but is {test!r}.")
    overlap = float(unit[0] @ unit[1])
    return Neuron(export(circuit, to), test, overlap, sizes[0] * sizes[1], float(bias), activation)


def binary_neuron(
    weight: Any, x: Any, activation: Activation | None = None, *, to: SDK = "qiskit", force: bool = False
) -> Neuron:
    """The neuron of Tacchino, Macchiavello, Gerace & Bajoni 2019 (DOI 10.1038/s41534-019-0140-4): w and x of ±1.

    With m = 2^n entries, the input is |ψ_x⟩ = Σ x_j|j⟩/√m, made by n Hadamard gates and sign flips (a hypergraph
    state), and the weights turn |ψ_w⟩ to |1…1⟩, so that an n-fold controlled NOT leaves a qubit 1 with the
    probability (w·x/m)². The overlap's modulus is measured, |w·x|/m, and the pre-activation is |w·x|; qubit 0 is the
    one that is measured.

    >>> found = binary_neuron([1, -1, 1, 1], [1, -1, -1, 1], to="qasm3")
    >>> found.preactivation, found.probability
    (2.0, 0.25)
    """
    checked_sdk(to)
    w, v = (_vector(values, name) for values, name in ((weight, "weight"), (x, "x")))
    if len(w) != len(v) or len(w) < 2 or len(w) & (len(w) - 1):
        raise ValueError(
            f"Arguments `weight` and `x` must have the same power of two of entries, but have {len(w)} and {len(v)}."
        )
    if not np.isin(np.concatenate([w, v]), (-1, 1)).all():
        raise ValueError("Arguments `weight` and `x` must have entries +1 and −1 alone.")
    n = checked_qubits(len(w), force)
    circuit, system = Circuit(n + 1), range(1, n + 1)
    for qubit in system:
        circuit.add("h", qubit)
    _flip_signs(circuit, v, system)
    _flip_signs(circuit, w, system)
    for qubit in system:
        circuit.add("h", qubit).add("x", qubit)
    circuit.add("x", 0, controls=system)
    overlap = abs(float(w @ v)) / len(w)
    return Neuron(export(circuit, to), "binary", overlap, float(len(w)), 0.0, activation)


def _flip_signs(circuit: Circuit, signs: np.ndarray, qubits: range) -> None:
    """Gives the basis states these signs, up to a common one, by controlled Z gates on sets of qubits of growing
    size."""
    n, now = len(qubits), np.ones(len(signs))
    wanted = signs * signs[0]
    for state in sorted(range(1, len(signs)), key=lambda s: (s.bit_count(), s)):
        if now[state] == wanted[state]:
            continue
        among = [qubits[k] for k in range(n) if state >> (n - 1 - k) & 1]
        circuit.add("z", among[-1], controls=among[:-1])
        holds = np.arange(len(signs)) & state == state
        now[holds] *= -1


def _swap_test(unit: list[np.ndarray], n: int) -> Circuit:
    circuit = Circuit(2 * n + 1).add("h", 0)
    registers = [range(1, n + 1), range(n + 1, 2 * n + 1)]
    for values, register in zip(unit, registers, strict=True):
        circuit.extend(encoded(values), register)
    for a, b in zip(
        *registers, strict=True
    ):  # a swap under control is three CNOTs, the middle one under control
        circuit.add("x", a, controls=[b]).add("x", b, controls=[0, a]).add("x", a, controls=[b])
    return circuit.add("h", 0)


def _through(estimate: Estimate, function: Callable[[float], float]) -> Estimate:
    """A function of an estimate: its error is half the difference of the values one error to either side."""
    value, error = estimate.value, estimate.stderr
    return Estimate(function(value), abs(function(value + error) - function(value - error)) / 2)


def _vector(values: Any, name: str) -> np.ndarray:
    result = torch.as_tensor(values).detach().cpu()
    if result.dim() != 1 or result.is_complex() or not len(result):
        raise ValueError(
            f"Argument `{name}` must be a real vector (d,), but has shape {tuple(result.shape)}, {result.dtype}."
        )
    array: np.ndarray = result.double().numpy()
    if not np.isfinite(array).all() or not np.linalg.norm(array):
        raise ValueError(f"Argument `{name}` must be finite and not zero: it has no direction otherwise.")
    return array
