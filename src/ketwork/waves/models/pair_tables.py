"""Exchanges of spins in a product of pairs, compiled: no determinant is computed anew.

With A = F[up sites, down sites] and B = A⁻¹, the exchange of the up spin u of row r and the down spin d of column c
makes row r that of d and column c that of u. By Schur's complement det A'/det A is
(F_du − F_dD B F_Uu) B_cr + (B F_Uu)_c (F_dD B)_r, and the order of the electrons changes the sign. B follows by
Woodbury's formula, A' being A + e_r aᵀ + b e_cᵀ. The network beside the pairs multiplies its own ratio (`kernels.py`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from ketwork.waves.models.kernels import _double, _uniform
from ketwork.waves.models.tables import Tables, _real

_compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")


def beside(size: int) -> np.ndarray:
    """What is added to A (size, size), so that it has an inverse at nodes too: 10⁻¹⁰ of f's first scale."""
    return 1e-10 * np.sin(1.0 + np.arange(size * size, dtype=float) ** 2).reshape(size, size)


@dataclass(frozen=True)
class PairTables(Tables):
    """Pair amplitudes F of each image (images, sites, sites) and its sign, beside the network's arrays."""

    pairs: np.ndarray
    parity: np.ndarray

    def serves(self, patterns: Tensor) -> bool:
        """Whether all patterns (width, sites) flip two sites or none."""
        counts = patterns.sum(1)
        return bool(((counts == 0) | (counts == 2)).all())

    def local_energies(self, x: Tensor, patterns: Tensor, elements: Tensor) -> Tensor:
        """Σ_g ⟨x|H|x_g⟩ ψ(x_g)/ψ(x) for patterns of two sites or none, which keep to the space: (batch,)."""
        two = patterns.sum(1) == 2
        sites = torch.nonzero(patterns[two])[:, 1].reshape(-1, 2)
        s = self.spins(x)
        ratios = torch.ones(elements.shape, dtype=torch.float64)
        off = beside(s.shape[1] // 2)
        exchanged = exchanges(s.double().numpy(), self.pairs, self.parity, off, sites.numpy())
        ratios[:, two] = torch.from_numpy(exchanged)
        return super().local_energies(x, patterns, elements * ratios)

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
        kept, accepted = sweep(
            self.spins(x).to(_real(self.bias)).numpy(),
            self.pairs,
            self.parity,
            beside(x.shape[1] // 2),
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
        )
        return torch.from_numpy(kept), accepted


@_compiled
def _arranged(
    spins: np.ndarray,
    pairs: np.ndarray,
    parity: np.ndarray,
    off: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    place: np.ndarray,
    inverse: np.ndarray,
    share: np.ndarray,
) -> None:
    """Fills what a chain keeps: sites of rows and columns, the place of each site, B and the images' shares."""
    rows = columns = 0
    for i in range(len(spins)):
        if spins[i] > 0:
            up[rows] = i
            place[i] = rows
            rows += 1
        else:
            down[columns] = i
            place[i] = columns
            columns += 1
    inside, logs = np.empty((rows, columns)), np.empty(len(pairs))
    for k in range(len(pairs)):
        for r in range(rows):
            for c in range(columns):
                inside[r, c] = off[r, c] + pairs[k, up[r], down[c]]
        sign, logs[k] = np.linalg.slogdet(inside)
        inverse[k] = np.linalg.inv(inside)
        share[k] = sign * parity[k]
    total, top = 0.0, logs.max()
    for k in range(len(pairs)):
        share[k] *= np.exp(logs[k] - top)
        total += share[k]
    share /= total


@_compiled
def _ratio(
    pairs: np.ndarray,
    inverse: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    u: int,
    d: int,
    r: int,
    c: int,
    work: np.ndarray,
) -> float:
    """det A'/det A where up spin u of row r and down spin d of column c are exchanged; `work` holds vectors."""
    schur, left, right = pairs[d, u], 0.0, 0.0
    of_up = work[0]
    for p in range(len(up)):
        of_up[p] = pairs[u, up[p]]  # F is symmetric
    for q in range(len(down)):
        value = 0.0
        for p in range(len(up)):
            value += inverse[q, p] * of_up[p]
        schur -= pairs[d, down[q]] * value
        left += pairs[d, down[q]] * inverse[q, r]
        if q == c:
            right = value
    return schur * inverse[c, r] + right * left


@_compiled
def exchanges(
    spins: np.ndarray, pairs: np.ndarray, parity: np.ndarray, off: np.ndarray, moves: np.ndarray
) -> np.ndarray:
    """Σ φ after the exchange of the two sites of each row of `moves` over that before: (batch, moves), 0 where the
    spins (batch, sites) are the same."""
    sites = spins.shape[1]
    n = sites // 2
    inverse, work, share = np.empty((len(pairs), n, n)), np.empty((6, n)), np.empty(len(pairs))
    up, down, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(sites, np.int64)
    result = np.zeros((len(spins), len(moves)))
    for b in range(len(spins)):
        _arranged(spins[b], pairs, parity, off, up, down, place, inverse, share)
        for move in range(len(moves)):
            u, d = moves[move, 0], moves[move, 1]
            if spins[b, u] == spins[b, d]:
                continue
            if spins[b, u] < 0:
                u, d = d, u
            for k in range(len(pairs)):
                ratio = _ratio(pairs[k], inverse[k], up, down, u, d, place[u], place[d], work)
                result[b, move] -= share[k] * ratio
    return result


@_compiled
def _exchange(
    pairs: np.ndarray,
    inverse: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    u: int,
    d: int,
    r: int,
    c: int,
    work: np.ndarray,
) -> None:
    """B after the exchange, in place; `work` (6, n) holds vectors."""
    n = len(up)
    a, b, first, second, third, fourth = work[0], work[1], work[2], work[3], work[4], work[5]
    for q in range(n):
        a[q] = pairs[d, down[q]] - pairs[u, down[q]]
        b[q] = pairs[u, up[q]] - pairs[d, up[q]]
        third[q] = 0.0
        fourth[q] = inverse[c, q]
        first[q] = inverse[q, r]
    a[c] = pairs[d, u] - pairs[u, d]
    b[r] = 0.0
    # K = 1 + Y B X with X = (e_r, b) and Y = (aᵀ, e_cᵀ); B X = (first, second) and Y B = (third, fourth).
    one, two = 1.0, 0.0
    for q in range(n):
        value = 0.0
        for p in range(n):
            value += inverse[q, p] * b[p]
            third[p] += a[q] * inverse[q, p]
        second[q] = value
        one += a[q] * first[q]
        two += a[q] * value
    three, four = fourth[r], 1.0 + second[c]
    det = one * four - two * three
    for q in range(n):
        left = (first[q] * four - second[q] * three) / det
        right = (second[q] * one - first[q] * two) / det
        for p in range(n):
            inverse[q, p] -= left * third[p] + right * fourth[p]


@_compiled
def sweep(
    start: np.ndarray,
    pairs: np.ndarray,
    parity: np.ndarray,
    off: np.ndarray,
    weights: np.ndarray,
    bias: np.ndarray,
    table: np.ndarray,
    scale: np.ndarray,
    visible: np.ndarray,
    moves: np.ndarray,
    proposals: int,
    skip: int,
    length: int,
    power: float,
    seed: int,
) -> tuple[np.ndarray, int]:
    """`kernels.sweep` for exchanges in a product of pairs (images, sites, sites) with a network beside it.

    The inverses and tanh θ are computed anew after each kept configuration, so that rounding does not build up.
    """
    chains, sites = start.shape
    n = sites // 2
    kept = np.empty((chains, length, sites), dtype=start.dtype)
    tanh = np.empty(len(bias), dtype=bias.dtype)
    inverse, work = np.empty((len(pairs), n, n)), np.empty((6, n))
    share, ratios = np.empty(len(pairs)), np.empty(len(pairs))
    up, down, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(sites, np.int64)
    accepted = 0
    for chain in range(chains):
        state = np.uint64(seed) + np.uint64(chain + 1) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(8):
            _, state = _uniform(state)
        spins = start[chain].copy()
        for round_ in range(skip + length):
            _arranged(spins, pairs, parity, off, up, down, place, inverse, share)
            for h in range(len(bias)):
                tanh[h] = bias[h]
            for i in range(sites):
                for h in range(len(bias)):
                    tanh[h] += weights[i, h] * spins[i]
            for h in range(len(bias)):
                tanh[h] = np.tanh(tanh[h])
            for _ in range(proposals):
                draw, state = _uniform(state)
                move = int(draw * len(moves))
                draw, state = _uniform(state)
                u, d = moves[move, 0], moves[move, 1]
                if spins[u] == spins[d]:
                    continue
                if spins[u] < 0:
                    u, d = d, u
                r, c = place[u], place[d]
                total = 0.0
                for k in range(len(pairs)):
                    ratios[k] = _ratio(pairs[k], inverse[k], up, down, u, d, r, c, work)
                    total += share[k] * ratios[k]
                ratio = total * visible[u, 0] * visible[d, 1]
                ratio *= _double(spins[u], spins[d], table[u], table[d], scale[u], scale[d], tanh)
                if abs(ratio) ** power <= draw:
                    continue
                accepted += round_ >= skip
                for k in range(len(pairs)):
                    share[k] *= ratios[k] / total
                    _exchange(pairs[k], inverse[k], up, down, u, d, r, c, work)
                for h in range(len(bias)):
                    g, k_ = spins[u] * table[u, h], spins[d] * table[d, h]
                    t = (tanh[h] - g) / (1 - g * tanh[h])
                    tanh[h] = (t - k_) / (1 - k_ * t)
                spins[u], spins[d] = spins[d], spins[u]
                up[r], down[c] = d, u
                place[d], place[u] = r, c
            if round_ >= skip:
                kept[chain, round_ - skip] = spins
    return kept, accepted
