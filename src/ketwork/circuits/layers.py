"""A linear layer as a circuit: W/‖W‖ as a block of a unitary, whose post-selected amplitudes are the layer's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ketwork.circuits.encoding import encoded
from ketwork.circuits.gates import Circuit
from ketwork.circuits.multiplexing import multiplexed
from ketwork.circuits.preparation import checked_qubits, checked_sdk
from ketwork.circuits.sdks import SDK, Exported, export
from ketwork.quantum import Polar, polar

MOST_QUBITS = 7
"""Layers of more than 128 inputs or outputs are not made unless they are forced: some 4ⁿ gates."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer's circuit on one input, and how its numbers come out of it.

    Args:
        exported: the circuit; qubit 0 is post-selected on 0.
        scale: ‖W‖‖x‖ (spectral norm): an amplitude times this is a pre-activation.
        success: the probability ‖Wx‖²/(‖W‖‖x‖)² with which the post-selection succeeds.
        amplitudes: the post-selected amplitudes (outputs,), not normalised: (W/‖W‖) x̂, by simulation of the gates.
        bias: b, added classically.
        activation: σ, applied classically.
    """

    exported: Exported
    scale: float
    success: float
    amplitudes: Tensor
    bias: Tensor | None
    activation: Callable[[Tensor], Tensor] | None

    @property
    def preactivation(self) -> Tensor:
        """W x + b, the amplitudes rescaled."""
        z = self.amplitudes * self.scale
        return z if self.bias is None else z + self.bias

    @property
    def output(self) -> Tensor:
        """σ(W x + b)."""
        return self.preactivation if self.activation is None else self.activation(self.preactivation)

    def select(self, state: Any) -> Tensor:
        """The amplitudes (outputs,) of a state vector that an SDK gives for the circuit: those where qubit 0 is 0."""
        result = torch.as_tensor(np.asarray(state, dtype=complex))[: len(self.amplitudes)]
        return result if self.amplitudes.is_complex() else result.real

    def __repr__(self) -> str:
        return (
            f"<layer with {len(self.amplitudes)} outputs, post-selection succeeds with probability {self.success:.3g}: "
            f"{self.exported!r}>"
        )


def layer(
    linear: nn.Linear | Any,
    x: Any,
    activation: Callable[[Tensor], Tensor] | None = None,
    *,
    to: SDK = "qiskit",
    force: bool = False,
) -> Layer:
    """The layer σ(W x + b) on one input x (inputs,) as a circuit, from an `nn.Linear` or a matrix W (outputs, inputs).

    W/‖W‖ is the upper left block of a unitary on n + 1 qubits, n = ⌈log₂ max(inputs, outputs)⌉ (Gilyén, Su, Low &
    Wiebe 2019, DOI 10.1145/3313276.3316366). By the singular values W/‖W‖ = V Σ U†: U† on the n qubits that hold x̂;
    the first qubit turned by 2 arccos σᵢ under control of their state i; V. Where the first qubit is then found 0,
    which has the probability ‖Wx‖²/(‖W‖‖x‖)², the amplitudes of the others are W x̂/‖W‖. The bias and σ are
    classical: no circuit is nonlinear in its amplitudes. V and U take some 4ⁿ gates, more than W has entries, so that
    nothing is gained in speed.

    OpenQASM 3 is written by way of Qiskit, which decomposes V and U.

    Raises:
        ValueError: sizes that do not fit, a zero W or x, or more than 7 qubits without `force`.
        ImportError: the SDK is missing.
    """
    checked_sdk(to)
    w, b = _parts(linear)
    v = torch.as_tensor(x).detach().cpu()
    v = v.to(torch.promote_types(torch.promote_types(v.dtype, torch.float64), w.dtype))
    if v.shape != (w.shape[1],):
        raise ValueError(
            f"Argument `x` must be one input of {w.shape[1]} numbers, but has shape {tuple(v.shape)}."
        )
    alpha, size = float(torch.linalg.matrix_norm(w, 2)), float(torch.linalg.vector_norm(v))
    if not (alpha and size and np.isfinite(alpha * size)):
        raise ValueError(
            "Arguments `linear` and `x` must be finite and not zero: they have no direction otherwise."
        )
    n = checked_qubits(max(w.shape), force, MOST_QUBITS)
    circuit = Circuit(n + 1).extend(encoded(v.numpy() / size), range(n - _qubits(len(v)) + 1, n + 1))
    circuit.extend(block_encoded((w / alpha).numpy(), n))
    psi = torch.from_numpy(circuit.state()[: len(w)])
    amplitudes = psi if w.is_complex() or v.is_complex() else psi.real
    return Layer(
        export_with_unitaries(circuit, to),
        alpha * size,
        float(amplitudes.abs().square().sum()),
        amplitudes,
        b,
        activation,
    )


def block_encoded(a: np.ndarray, n: int) -> Circuit:
    """A unitary on n + 1 qubits with A (‖A‖ ≤ 1), padded with zeros to 2ⁿ × 2ⁿ, in its upper left block."""
    padded = np.zeros((2**n, 2**n), dtype=complex if np.iscomplexobj(a) else float)
    padded[: a.shape[0], : a.shape[1]] = a
    left, sigma, right = np.linalg.svd(padded)
    circuit, system = Circuit(n + 1), range(1, n + 1)
    circuit.add_unitary(right, system)
    multiplexed(circuit, "ry", 2 * np.arccos(np.clip(sigma, 0.0, 1.0)), system, 0)
    return circuit.add_unitary(left, system)


def export_with_unitaries(circuit: Circuit, to: SDK) -> Exported:
    """The circuit in an SDK's form; for OpenQASM 3 Qiskit decomposes the unitaries and writes the text."""
    if to != "qasm3":
        return export(circuit, to)
    made = export(circuit, "qiskit")
    from qiskit import qasm3

    flipped = made.circuit.reverse_bits()  # so that q[0] is the leading qubit, as in texts of this package
    text, phase = qasm3.dumps(flipped), float(flipped.global_phase)
    if abs(phase) > 1e-15 and "gphase" not in text:  # which some versions leave out
        declared = f"qubit[{made.qubits}] q;\n"
        text = text.replace(declared, f"{declared}gphase({phase!r});\n")
    return Exported(text, "qasm3", made.qubits, made.counts, made.depth)


def unitary_part(linear: nn.Linear | Any) -> Polar:
    """The polar decomposition of a layer's W: its unitary part, and how far W is from a multiple of it.

    A layer with distance 0 is a rotation (or an isometry) times a number, and could be run as a circuit that always
    succeeds; see `ketwork.quantum.polar`.

    >>> unitary_part(torch.eye(3) * 0.5).distance
    tensor(0., dtype=torch.float64)
    """
    return polar(_parts(linear)[0])


def _parts(linear: nn.Linear | Any) -> tuple[Tensor, Tensor | None]:
    """W and b in double precision, on the CPU."""
    weight = linear.weight if isinstance(linear, nn.Linear) else linear
    w = torch.as_tensor(weight).detach().cpu()
    if w.dim() != 2 or not w.numel():
        raise ValueError(
            f"Argument `linear` must be an nn.Linear or a matrix (outputs, inputs), but has shape {tuple(w.shape)}."
        )
    w = w.to(torch.promote_types(w.dtype, torch.float64))
    bias = linear.bias if isinstance(linear, nn.Linear) else None
    return w, None if bias is None else bias.detach().cpu().to(w.dtype)


def _qubits(amplitudes: int) -> int:
    return max(1, (amplitudes - 1).bit_length())
