"""A small vision transformer for lattices: patches of sites, attention by distance, complex amplitudes."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ketwork.waves.lattices import Lattice
from ketwork.waves.models.dense import initialize
from ketwork.waves.models.network import Network
from ketwork.waves.models.rbm import log_cosh
from ketwork.waves.spaces import Space


class VisionTransformer(Network):
    """Patches → embeddings → blocks of factored attention and dense layers → Σ log cosh of complex outputs.

    Attention weights depend on the distance of two patches alone, not on their content (Viteritti, Rende &
    Becca 2023, DOI 10.1103/PhysRevLett.130.236401), so ψ is invariant under translations by whole patches.
    `lattice` is a periodic chain or square; a patch has `patch` sites along each direction. Real parameters,
    complex log ψ.
    """

    def __init__(
        self,
        lattice: Lattice,
        patch: int = 2,
        dim: int = 16,
        heads: int = 4,
        depth: int = 2,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"Argument `dim` must be a multiple of `heads`, but is {dim} for {heads}.")
        self.dim, self.heads, self.depth, self.dtype = dim, heads, depth, dtype or torch.get_default_dtype()
        self.patches, self.offsets = patches_of(lattice, patch)

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes the layers."""
        if space.sites != self.patches.numel():
            raise ValueError(
                f"The lattice has {self.patches.numel()} sites, but the space {space.sites}; they must agree."
            )
        self.embed = nn.Linear(self.patches.shape[1] * self.units, self.dim, dtype=self.dtype)
        self.blocks = nn.ModuleList(
            _Block(self.dim, self.heads, self.offsets, self.dtype) for _ in range(self.depth)
        )
        self.norm = nn.LayerNorm(self.dim, dtype=self.dtype)
        self.modulus, self.phase = (nn.Linear(self.dim, self.dim, dtype=self.dtype) for _ in range(2))
        initialize(self, generator)
        with torch.no_grad():
            for weight in (p for name, p in self.blocks.named_parameters() if name.endswith(".attention")):
                weight.normal_(0, self.offsets.numel() ** -0.25, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): complex (batch,)."""
        s = self.features(x).unflatten(-1, (self.space.sites, self.units))[:, self.patches].flatten(2)
        h = self.embed(s)  # (batch, patches, dim)
        for block in self.blocks:
            h = block(h)
        z = self.norm(h.sum(1) / math.sqrt(h.shape[1]))
        return log_cosh(torch.complex(self.modulus(z), self.phase(z))).sum(-1)


class _Block(nn.Module):
    """Factored attention and a dense layer, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, offsets: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.offsets = offsets
        self.attention = nn.Parameter(torch.empty(heads, int(offsets.max()) + 1, dtype=dtype))
        self.norm_attention, self.norm_dense = nn.LayerNorm(dim, dtype=dtype), nn.LayerNorm(dim, dtype=dtype)
        self.value, self.out = nn.Linear(dim, dim, dtype=dtype), nn.Linear(dim, dim, dtype=dtype)
        self.up, self.down = nn.Linear(dim, 2 * dim, dtype=dtype), nn.Linear(2 * dim, dim, dtype=dtype)

    def forward(self, h: Tensor) -> Tensor:
        value = self.value(self.norm_attention(h)).unflatten(-1, (len(self.attention), -1))
        attention = self.attention[:, self.offsets]  # (heads, patches, patches)
        mixed = torch.einsum("hpq,bqhd->bphd", attention, value)
        h = h + self.out(mixed.flatten(2))
        return h + self.down(nn.functional.gelu(self.up(self.norm_dense(h))))


def patches_of(lattice: Lattice, patch: int) -> tuple[Tensor, Tensor]:
    """The sites of each patch (patches, sites a patch) and the offset of each pair (patches, patches)."""
    extent = (lattice.positions.max(0) + 1).round().astype(int)
    if lattice.name not in ("chain", "square") or len(lattice.period) < (extent > 1).sum():
        raise ValueError(f"A vision transformer needs a periodic chain or square, but got a {lattice.name}.")
    if any(side % patch for side in extent if side > 1):
        raise ValueError(f"Argument `patch` must divide the sides {extent.tolist()}, but is {patch}.")
    width, height = (patch if side > 1 else 1 for side in extent)
    x, y = lattice.positions.round().astype(int).T
    rows = extent[1] // height
    number = (x // width) * rows + y // height
    order = np.lexsort((y % height, x % width, number))
    where = np.arange(number.max() + 1)
    px, py = where // rows, where % rows
    columns = extent[0] // width
    offset = (px[None] - px[:, None]) % columns * rows + (py[None] - py[:, None]) % rows
    return torch.from_numpy(order.reshape(len(where), -1)), torch.from_numpy(offset)
