"""Compiled loops over flips of a restricted Boltzmann machine: no Python and no transcendental per flip.

Flipping spin i moves every hidden angle, θ_h → θ_h − 2 s_i W_hi. With T = tanh 2W and n = cosh θ', m = sinh
θ' in units of cosh θ · Π cosh 2W, a flip is the hyperbolic rotation (n, m) → (n − s T m, m − s T n),
starting from (1, tanh θ). So the ratio of amplitudes is Π_h n_h Π_h cosh 2W_hi times the visible factors
exp(−2 a_i s_i), for any number of flipped sites, and the new tanh θ is m/n. The products over h may leave the numbers'
range where their ratio does not: they are taken over blocks of h, with `scale` (sites, blocks) Π cosh 2W of each.
Tables are made once a step; see `RBM.tables`.
"""

import numpy as np
from numba import njit

# Products may be reordered and contracted, to run in vector registers; NaN and Inf keep their meaning.
_compiled = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "arcp", "nsz"}, error_model="numpy")


@_compiled
def _uniform(state: np.uint64) -> tuple[float, np.uint64]:
    """A number in [0, 1) and the next state, by xorshift64* (Vigna 2016, arXiv 1402.6246)."""
    state ^= state >> np.uint64(12)
    state ^= state << np.uint64(25)
    state ^= state >> np.uint64(27)
    return (state * np.uint64(2685821657736338717) >> np.uint64(11)) * (1.0 / 9007199254740992.0), state


@_compiled
def _product(spin: float, table: np.ndarray, tanh: np.ndarray) -> complex:
    """Π_h n_h for one flip."""
    product = table[0] * 0 + 1
    for h in range(len(tanh)):
        product *= 1 - spin * table[h] * tanh[h]
    return product


@_compiled
def _product_of_two(
    first: float, second: float, one: np.ndarray, two: np.ndarray, tanh: np.ndarray
) -> complex:
    """Π_h n_h for two flips: n = 1 + s s' T T' − (s T + s' T') tanh θ."""
    product = one[0] * 0 + 1
    for h in range(len(tanh)):
        g, k = first * one[h], second * two[h]
        product *= 1 + g * k - (g + k) * tanh[h]
    return product


@_compiled
def _single(spin: float, table: np.ndarray, scale: np.ndarray, tanh: np.ndarray) -> complex:
    """Π_h n_h cosh 2W for one flip."""
    if len(scale) == 1:
        return scale[0] * _product(spin, table, tanh)
    total, size = table[0] * 0 + 1, -(-len(tanh) // len(scale))
    for block in range(len(scale)):
        start, stop = block * size, (block + 1) * size
        total *= scale[block] * _product(spin, table[start:stop], tanh[start:stop])
    return total


@_compiled
def _double(
    first: float,
    second: float,
    one: np.ndarray,
    two: np.ndarray,
    scale: np.ndarray,
    other: np.ndarray,
    tanh: np.ndarray,
) -> complex:
    """Π_h n_h cosh 2W cosh 2W' for two flips."""
    if len(scale) == 1:
        return scale[0] * other[0] * _product_of_two(first, second, one, two, tanh)
    total, size = one[0] * 0 + 1, -(-len(tanh) // len(scale))
    for block in range(len(scale)):
        start, stop = block * size, (block + 1) * size
        product = _product_of_two(first, second, one[start:stop], two[start:stop], tanh[start:stop])
        total *= scale[block] * other[block] * product
    return total


@_compiled
def _several(
    spins: np.ndarray, sites: np.ndarray, count: int, table: np.ndarray, scale: np.ndarray, tanh: np.ndarray
) -> complex:
    """Π_h n_h Π cosh 2W for any number of flips."""
    total, size = table[0, 0] * 0 + 1, -(-len(tanh) // scale.shape[1])
    for block in range(scale.shape[1]):
        product = total * 0 + 1
        for k in range(count):
            product *= scale[sites[k], block]
        for h in range(block * size, min(len(tanh), (block + 1) * size)):
            n, m = total * 0 + 1, tanh[h]
            for k in range(count):
                g = spins[sites[k]] * table[sites[k], h]
                n, m = n - g * m, m - g * n
            product *= n
        total *= product
    return total


@_compiled
def local_energies(
    spins: np.ndarray,
    tanh: np.ndarray,
    table: np.ndarray,
    scale: np.ndarray,
    visible: np.ndarray,
    patterns: np.ndarray,
    counts: np.ndarray,
    elements: np.ndarray,
) -> np.ndarray:
    """Σ_g ⟨x|H|x flipped on pattern g⟩ ψ(x flipped)/ψ(x) for each x: (batch,).

    Shapes: spins (batch, sites) ±1; tanh θ (batch, hidden); table = tanh 2W (sites, hidden); scale (sites, blocks);
    visible (sites, 2), the visible factor of flipping +1 and −1; patterns (width, longest) sites, `counts` of them
    used; elements (batch, width).
    """
    totals = elements[:, 0] * visible[0, 0] * 0  # of the type that elements and ratios have together
    for b in range(len(spins)):
        total = totals[b]
        for g in range(len(counts)):
            if elements[b, g] == 0:
                continue
            count = counts[g]
            if count == 0:
                total += elements[b, g]
                continue
            ratio = visible[0, 0] * 0 + 1
            for k in range(count):
                i = patterns[g, k]
                ratio *= visible[i, 0 if spins[b, i] > 0 else 1]
            i = patterns[g, 0]
            if count == 1:
                ratio *= _single(spins[b, i], table[i], scale[i], tanh[b])
            elif count == 2:
                j = patterns[g, 1]
                ratio *= _double(spins[b, i], spins[b, j], table[i], table[j], scale[i], scale[j], tanh[b])
            else:
                ratio *= _several(spins[b], patterns[g], count, table, scale, tanh[b])
            total += elements[b, g] * ratio
        totals[b] = total
    return totals


@_compiled
def _log_modulus(x: complex) -> float:
    """log |2 cosh x|, without overflow: |Re x| + log|1 + exp(∓2x)|."""
    size, angle = abs(x.real), x.imag
    decay = np.exp(-2 * size)
    return size + 0.5 * np.log(max(1e-300, 1 + 2 * decay * np.cos(2 * angle) + decay * decay))


@_compiled
def _inverted(spins: np.ndarray, field: np.ndarray, bias: np.ndarray, angle: np.ndarray) -> float:
    """log |ψ(−x)/ψ(x)|: every hidden angle θ becomes 2b − θ; `field` is Re a."""
    total = 0.0
    for i in range(len(spins)):
        total -= 2 * field[i] * spins[i]
    for h in range(len(bias)):
        total += _log_modulus(2 * bias[h] - angle[h]) - _log_modulus(angle[h])
    return total


@_compiled
def sweep(
    start: np.ndarray,
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
    field: np.ndarray,
) -> tuple[np.ndarray, int]:
    """Metropolis chains of |ψ|^power: kept configurations (chains, length, sites) and accepted proposals.

    A proposal flips the one or two sites of a row of `moves`, drawn uniformly; two sites only where they
    differ. Between kept configurations lie `proposals` of them; `skip` configurations are dropped first.
    tanh θ is computed anew after each, so that its rounding does not build up; before every fourth, the inversion of
    all sites is proposed where `field`, Re a, is given (an empty one: not). Weights are (sites, hidden).
    """
    chains, sites = start.shape
    kept = np.empty((chains, length, sites), dtype=start.dtype)
    tanh = np.empty(len(bias), dtype=bias.dtype)
    pair = moves.shape[1] == 2
    accepted = 0
    for c in range(chains):
        state = np.uint64(seed) + np.uint64(c + 1) * np.uint64(0x9E3779B97F4A7C15)
        for _ in range(8):  # neighbouring seeds give neighbouring first numbers; a few steps part them
            _, state = _uniform(state)
        spins = start[c].copy()
        for round_ in range(skip + length):
            for h in range(len(bias)):
                tanh[h] = bias[h]
            for i in range(sites):
                for h in range(len(bias)):
                    tanh[h] += weights[i, h] * spins[i]
            if len(field) and round_ % 4 == 0:
                draw, state = _uniform(state)
                if np.log(draw) < power * _inverted(spins, field, bias, tanh):
                    for i in range(sites):
                        spins[i] = -spins[i]
                    for h in range(len(bias)):
                        tanh[h] = 2 * bias[h] - tanh[h]
            for h in range(len(bias)):
                tanh[h] = np.tanh(tanh[h])
            for _ in range(proposals):
                draw, state = _uniform(state)
                move = int(draw * len(moves))
                draw, state = _uniform(state)
                i = moves[move, 0]
                s = spins[i]
                ratio = visible[i, 0 if s > 0 else 1]
                if pair:
                    j = moves[move, 1]
                    if spins[j] == s:
                        continue
                    ratio *= visible[j, 0 if s < 0 else 1]
                    ratio *= _double(s, -s, table[i], table[j], scale[i], scale[j], tanh)
                else:
                    ratio *= _single(s, table[i], scale[i], tanh)
                if abs(ratio) ** power <= draw:
                    continue
                accepted += round_ >= skip
                spins[i] = -s
                for h in range(len(bias)):
                    g = s * table[i, h]
                    tanh[h] = (tanh[h] - g) / (1 - g * tanh[h])
                if pair:
                    spins[j] = s
                    for h in range(len(bias)):
                        g = -s * table[j, h]
                        tanh[h] = (tanh[h] - g) / (1 - g * tanh[h])
            if round_ >= skip:
                kept[c, round_ - skip] = spins
    return kept, accepted
