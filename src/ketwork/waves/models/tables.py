"""The arrays that the compiled loops of `kernels.py` read, and the two things they serve."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ketwork.waves.models import kernels


@dataclass(frozen=True)
class Tables:
    """Weights and tanh 2W (sites, hidden), hidden bias, Π cosh 2W of blocks of hidden units (sites, blocks), visible
    factors (sites, 2); how values become ±1."""

    weights: np.ndarray
    bias: np.ndarray
    table: np.ndarray
    scale: np.ndarray
    visible: np.ndarray
    spins: Callable[[Tensor], Tensor]

    def serves(self, patterns: Tensor) -> bool:
        """Whether `local_energies` takes these patterns (width, sites)."""
        return True

    def local_energies(self, x: Tensor, patterns: Tensor, elements: Tensor) -> Tensor:
        """Σ_g ⟨x|H|x_g⟩ ψ(x_g)/ψ(x), x_g being x flipped on pattern g: (batch,)."""
        s = self.spins(x).to(_real(self.bias))
        tanh = np.tanh(s.numpy() @ self.weights + self.bias)
        counts = patterns.sum(1)
        padded = np.zeros((len(patterns), max(1, int(counts.max()))), dtype=np.int64)
        for row, pattern in enumerate(patterns):
            padded[row, : counts[row]] = torch.nonzero(pattern)[:, 0].numpy()
        out = kernels.local_energies(
            s.numpy(), tanh, self.table, self.scale, self.visible, padded, counts.numpy(), elements.numpy()
        )
        return torch.from_numpy(out)

    def sweep(
        self,
        x: Tensor,
        moves: np.ndarray,
        *,
        proposals: int,
        skip: int,
        length: int,
        power: float,
        seed: int,
        inverts: bool = False,
    ) -> tuple[Tensor, int]:
        """Metropolis chains from x (chains, sites): spins (chains, length, sites) and accepted proposals."""
        s = self.spins(x).to(_real(self.bias)).numpy()
        # visible factors are exp(∓2a): half their log-ratio is 2 Re a
        field = np.log(np.abs(self.visible[:, 1] / self.visible[:, 0])) / 4 if inverts else np.zeros(0)
        kept, accepted = kernels.sweep(
            s,
            self.weights,
            self.bias,
            self.table,
            self.scale,
            self.visible,
            moves,
            proposals,
            skip,
            length,
            power,
            seed,
            field.astype(np.float64),
        )
        return torch.from_numpy(kept), accepted


def _real(array: np.ndarray) -> torch.dtype:
    return torch.float32 if array.dtype in (np.float32, np.complex64) else torch.float64
