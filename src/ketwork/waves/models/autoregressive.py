"""Autoregressive waves: normalised by construction, sampled directly, site after site.

|ψ(s)|² = Π_i p(s_i | s_1 … s_{i−1}), so ψ has norm 1 and its configurations can be drawn without a chain
(Sharir et al. 2020, DOI 10.1103/PhysRevLett.124.020503). Where sums of levels are conserved, levels that
could not be completed to the sum get probability 0, so every draw lies in the space (Hibat-Allah et al.
2020, DOI 10.1103/PhysRevResearch.2.023358).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from ketwork.waves.models.dense import initialize
from ketwork.waves.models.network import Network
from ketwork.waves.spaces import Space


class Autoregressive(Network):
    """A network of conditional logits: `conditionals(levels)` at site i may depend on sites before i only.

    With `phase`, each conditional also has a phase, and ψ = √p exp(i Σ_i φ_i).
    """

    def __init__(self, *, phase: bool = False, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.phase, self.dtype = phase, dtype or torch.get_default_dtype()

    def conditionals(self, levels: Tensor) -> Tensor:
        """What the layers say of each site and level: (batch, sites, levels), twice as wide with phases."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): (batch,)."""
        level = self.space.level(x)
        out = self.conditionals(level)
        log = torch.log_softmax(self._allowed(out[..., : self.space.levels], level), -1)
        modulus = log.gather(-1, level[..., None])[..., 0].sum(-1) / 2
        if not self.phase:
            return modulus
        return torch.complex(
            modulus, out[..., self.space.levels :].gather(-1, level[..., None])[..., 0].sum(-1)
        )

    def draw(self, count: int, *, generator: torch.Generator) -> Tensor:
        """Independent configurations (count, sites) from |ψ|², one pass of the network a site."""
        level = torch.zeros(count, self.space.sites, dtype=torch.int64)
        for site in range(self.space.sites):
            logits = self._allowed(self.conditionals(level)[..., : self.space.levels], level)[:, site]
            drawn = torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)
            level = level.scatter(1, torch.full((count, 1), site), drawn)
        return self.space.value(level, self.dtype)

    def draw_unique(self, count: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct configurations (≤ count, sites) from |ψ|² without replacement, log |ψ|² of each, and the threshold
        κ.

        Stochastic beam search (Kool, van Hoof & Welling 2019, arXiv 1903.06059, algorithm 1): each beginning carries
        the largest Gumbel-disturbed log-probability among its completions, and the count + 1 best are kept, site by
        site.
        """
        sites, levels = self.space.sites, self.space.levels
        level = torch.zeros(1, sites, dtype=torch.int64)
        log = torch.zeros(1, dtype=torch.float64)
        first = torch.rand(1, generator=generator, dtype=torch.float64).clamp(min=1e-300)
        key = -torch.log(-torch.log(first))
        for site in range(sites):
            logits = self._allowed(self.conditionals(level)[..., :levels], level)[:, site]
            child = log[:, None] + torch.log_softmax(logits.double(), -1)  # (beam, levels)
            uniform = torch.rand(child.shape, generator=generator, dtype=torch.float64).clamp(min=1e-300)
            noisy = child - torch.log(-torch.log(uniform))
            top = noisy.amax(1, keepdim=True)
            # The noise of the children, given that its largest is the parent's: v = T − G + log(1 − exp(G − Z))
            v = key[:, None] - noisy + torch.log1p(-torch.exp(noisy - top))
            drawn = key[:, None] - v.clamp(min=0) - torch.log1p(torch.exp(-v.abs()))
            drawn = torch.where(noisy == top, key[:, None], drawn)
            drawn = torch.where(child == -torch.inf, -torch.inf, drawn).flatten()
            key, best = drawn.topk(min(count + 1, int((drawn > -torch.inf).sum())))
            parent = best // levels
            level = level[parent].index_copy(1, torch.tensor([site]), (best % levels)[:, None])
            log = child.flatten()[best]
        if len(key) <= count:  # all of them
            return self.space.value(level, self.dtype), log, torch.tensor(-torch.inf, dtype=torch.float64)
        return self.space.value(level[:-1], self.dtype), log[:-1], key[-1]

    def _allowed(self, logits: Tensor, level: Tensor) -> Tensor:
        """Logits with −∞ where the rest of a conserved group could not make up its sum."""
        choices = torch.arange(self.space.levels)
        for group, total in self.space.conserved:
            sites = list(group)
            before = level[:, sites].cumsum(1) - level[:, sites]
            missing = total - before[..., None] - choices  # (batch, group, levels)
            most = (torch.arange(len(sites) - 1, -1, -1) * (self.space.levels - 1))[:, None]
            possible = torch.ones_like(logits, dtype=torch.bool)
            possible = possible.index_copy(1, torch.tensor(sites), (missing >= 0) & (missing <= most))
            logits = logits.masked_fill(~possible, -torch.inf)
        return logits

    def _one_hot(self, levels: Tensor) -> Tensor:
        return (levels[..., None] == torch.arange(self.space.levels)).to(self.dtype)

    @property
    def _outputs(self) -> int:
        return self.space.levels * (2 if self.phase else 1)


class MaskedDense(Autoregressive):
    """Dense layers, masked so that each site sees only those before it (MADE, Germain et al. 2015)."""

    def __init__(
        self, width: int = 8, depth: int = 2, *, phase: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(phase=phase, dtype=dtype)
        self.width, self.depth = width, depth

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes `depth` hidden layers of `width` units a site, and the outputs."""
        per_site = [space.levels, *[self.width] * self.depth, self._outputs]
        self.weights, self.biases, self.masks = nn.ParameterList(), nn.ParameterList(), []
        for k, (a, b) in enumerate(pairwise(per_site)):
            # Strictly before in the first layer, up to itself in the others: no output sees its own site.
            order = torch.ones(space.sites, space.sites, dtype=self.dtype).tril(-1 if k == 0 else 0)
            mask = order.repeat_interleave(b, 0).repeat_interleave(a, 1)
            std = 1 / mask.sum(1, keepdim=True).clamp(min=1).sqrt()
            drawn = torch.randn(mask.shape, generator=generator, dtype=self.dtype)
            self.weights.append(nn.Parameter(mask * std * drawn))
            self.biases.append(nn.Parameter(torch.zeros(space.sites * b, dtype=self.dtype)))
            self.masks.append(mask)

    def conditionals(self, levels: Tensor) -> Tensor:
        """Logits of every site in one pass."""
        h = self._one_hot(levels).flatten(1)
        for k, (weight, bias, mask) in enumerate(zip(self.weights, self.biases, self.masks, strict=True)):
            h = h @ (weight * mask).T + bias
            if k < self.depth:
                h = nn.functional.gelu(h)
        return h.unflatten(1, (self.space.sites, -1))


class CausalTransformer(Autoregressive):
    """A small transformer with a causal mask: site i attends to the start and to the sites before it."""

    def __init__(
        self,
        dim: int = 16,
        heads: int = 2,
        depth: int = 2,
        *,
        phase: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(phase=phase, dtype=dtype)
        if dim % heads:
            raise ValueError(f"Argument `dim` must be a multiple of `heads`, but is {dim} for {heads}.")
        self.dim, self.heads, self.depth = dim, heads, depth

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes embeddings of levels and sites, the blocks and the outputs."""
        self.embed = nn.Linear(space.levels, self.dim, bias=False, dtype=self.dtype)
        self.blocks = nn.ModuleList(_Block(self.dim, self.heads, self.dtype) for _ in range(self.depth))
        self.last = nn.Linear(self.dim, self._outputs, dtype=self.dtype)
        initialize(self, generator)
        place = torch.randn(space.sites, self.dim, generator=generator, dtype=self.dtype)
        self.place = nn.Parameter(place * self.dim**-0.5)

    def conditionals(self, levels: Tensor) -> Tensor:
        """Logits of every site in one pass; the token at site i carries the level of site i − 1."""
        before = nn.functional.pad(self.embed(self._one_hot(levels))[:, :-1], (0, 0, 1, 0))
        h = before + self.place
        for block in self.blocks:
            h = block(h)
        return self.last(h)


class _Block(nn.Module):
    """Causal self-attention and a dense layer, each after a norm and beside a shortcut."""

    def __init__(self, dim: int, heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_dense = nn.LayerNorm(dim, dtype=dtype), nn.LayerNorm(dim, dtype=dtype)
        self.mix = nn.Linear(dim, 3 * dim, bias=False, dtype=dtype)
        self.out = nn.Linear(dim, dim, dtype=dtype)
        self.up, self.down = nn.Linear(dim, 2 * dim, dtype=dtype), nn.Linear(2 * dim, dim, dtype=dtype)

    def forward(self, h: Tensor) -> Tensor:
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.mix(self.norm_attention(h)).chunk(3, -1)
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
        attended = torch.softmax(scores.masked_fill(later, -torch.inf), -1) @ value
        h = h + self.out(attended.transpose(1, 2).flatten(-2))
        return h + self.down(nn.functional.gelu(self.up(self.norm_dense(h))))
