"""What a state's spectrum tells: entropy, purity and the ranks that follow from them."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._spectra import abs2, real_dtype, shannon
from ketwork.quantum._state import BaseState


class SpectralState(BaseState):
    """A state whose eigenvalues are found on its smaller side."""

    @abstractmethod
    def _small(self) -> Tensor:
        """A A† of a factor or ρ, in double precision: either has the non-zero eigenvalues of ρ."""

    def spectrum(self) -> Tensor:
        """Returns all d eigenvalues (*batch, d), descending, ≥ 0; beyond the rank of a factor they are 0.

        Computed in double precision on the smaller side: O(min(r, d)² d).
        """
        values = self._eigenvalues()
        padding = values.new_zeros(*values.shape[:-1], self.d - values.shape[-1])
        return torch.cat([values, padding], -1).to(real_dtype(self._tensor))

    def entropy(self, base: float = 2) -> Tensor:
        """Returns the von Neumann entropy S = −Tr ρ log ρ (*batch,), in bits; 0 ≤ S ≤ log d.

        Differentiable also at degenerate spectra; eigenvalues at rounding level (d·2e−16 of the largest)
        count as 0 with gradient 0. QuTiP's `entropy_vn` gives nats by default, Qiskit and toqito bits.

        >>> from ketwork.quantum import Density
        >>> from ketwork.quantum import Density
        >>> Density.maximally_mixed(4).entropy()
        tensor(2.)
        """
        return shannon(self._eigenvalues(), check.log_base(base)).to(real_dtype(self._tensor))

    def purity(self) -> Tensor:
        """Returns Tr ρ² (*batch,), from 1/d to 1, without a decomposition."""
        return abs2(self._small()).sum((-2, -1)).to(real_dtype(self._tensor))

    def effective_rank(self) -> Tensor:
        """Returns exp S(ρ), S in nats (*batch,): 1 for a pure state, d for the maximally mixed one.

        This is of the eigenvalues of ρ; "RankMe" takes singular values, which gives a larger number.
        """
        return self.entropy(math.e).exp()

    def participation_ratio(self) -> Tensor:
        """Returns 1/Tr ρ² (*batch,), from 1 to d; never above `effective_rank`."""
        return 1 / self.purity()

    def _eigenvalues(self) -> Tensor:
        """The min(r, d) eigenvalues that may differ from 0, descending, in double precision."""
        values: Tensor = torch.linalg.eigvalsh(self._small())
        return values.flip(-1).clamp(min=0)
