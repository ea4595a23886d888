"""The chance level of Holevo bits: what labels permuted over the samples of the fitting part would give.

The kets of a label are then a random share α of n kets, and their Gram matrix a random principal submatrix of that of
all. Where the Gram matrix has its eigenvectors in general position, the submatrix's spectrum follows from the whole's:
it is the free compression (Nica & Speicher 2006, lecture 14; Marchenko & Pastur 1967 of isotropic kets). With
h(s) = (1/n) Σ x/(x + s) over x = nλ, the compression's h is h(s)/α at t = s (α − h)/(1 − h), and

    S − E S_α = log 1/α + ∫₀^∞ (h(t) − h(s)/α) dt

since log x = ∫ (1/(1 + t) − 1/(x + t)) dt. n is the number of independent kets, which is smaller than that of the kets
where those of one sample are alike. How much smaller is found on the samples kept in full, by permuting the labels of
whole samples there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_MOST = 512  # kets that labels are permuted on
_POINTS = 96  # of the integral: good to 0.5 %
_COUNTS = 6  # shares for which it is computed at most, one for each factor of 2; others are interpolated
_DRAWS = (4, 24)  # permutations, the fewer the more they take
_WORK = 4e6
_STEPS = 6
_CLOSE = 2e-3
_OVERHEAD = 1e5  # of a decomposition, however small, beside its cubes
_TINY = 1e-14


def loss(spectrum: Tensor, kets: float, share: float) -> float:
    """S(ρ) less the mean entropy of a random share of the `kets` independent kets that ρ is made of, in bits.

    >>> import torch
    >>> round(loss(torch.full((64,), 1 / 64), 1000, 0.5), 4)  # d/2n · (1/α − 1) nats to first order
    0.0473
    """
    if share >= 1:
        return 0.0
    x = spectrum[spectrum > _TINY * spectrum.max()] * kets
    largest = float(x.max())
    low = _root(x, kets, share) if len(x) > share * kets else 0.0
    s = low + largest * torch.logspace(-14, 9, _POINTS, dtype=x.dtype, device=x.device)
    h = _filled(x, kets, s)
    t = s * (share - h) / (1 - h)
    usable = t > 0
    s, h, t = s[usable], h[usable], t[usable]
    integrand = (_filled(x, kets, t) - h / share) * t
    return (math.log(1 / share) + float(torch.trapezoid(integrand, t.log()))) / math.log(2)


def chance_bits(spectrum: Tensor, kets: float, counts: Sequence[float]) -> float:
    """Holevo's χ of random labels with these counts, of a state with this spectrum made of so many independent kets."""
    total = float(sum(counts))
    shares = sorted({count / total for count in counts})
    low, high = shares[0], shares[-1]
    nodes = min(2 + round(math.log2(high / low)), _COUNTS)
    if len(shares) > nodes:
        shares = [low * (high / low) ** (i / (nodes - 1)) for i in range(nodes)]
    # Over 1/α − 1 what is lost hardly changes.
    known = [loss(spectrum, kets, share) / (1 / share - 1) if share < 1 else 0.0 for share in shares]

    def interpolated(share: float) -> float:
        above = next((i for i, each in enumerate(shares) if each >= share * (1 - 1e-12)), len(shares) - 1)
        below = max(above - 1, 0)
        part = 1.0
        if above != below:
            part = math.log(share / shares[below]) / math.log(shares[above] / shares[below])
        return (known[below] + part * (known[above] - known[below])) * (1 / share - 1)

    return sum(count / total * interpolated(count / total) for count in counts if count > 0)


def independent_share(kets: Tensor, codes: Tensor, samples: Tensor, total: float) -> float:
    """How many independent kets each of `total` kets is worth, from some (r, d) of whole samples: codes, samples (r,).

    Where the labels of the samples are permuted, χ is that of so many independent kets. Of few samples it is another
    number than of many; it is taken to go to its limit as one over their square, known from all and from halves.
    """
    _, owners, sizes = samples.unique(return_inverse=True, return_counts=True)
    order = owners.argsort(stable=True)
    ends = sizes.cumsum(0)
    count = max(int((ends <= _MOST).sum()), 1)
    chosen = order[: int(ends[count - 1])]
    kets, codes, owners = kets[chosen], codes[chosen], owners[chosen]
    kets = _compact(kets)
    worth = _independent(kets, codes, owners)
    if count < 4 * _DRAWS[0] or len(kets) == count:
        return worth
    first = owners < count // 2
    half = [_independent(kets[part], codes[part], owners[part]) for part in (first, ~first)]
    left = 1 - min(len(kets) / total, 1.0) ** 2
    return max(worth - (sum(half) / 2 - worth) * left / 3, worth / 2)


def _independent(kets: Tensor, codes: Tensor, owners: Tensor) -> float:
    """The share for these kets alone; 1 where labels do not differ."""
    _, codes, counts = codes.unique(return_inverse=True, return_counts=True)
    _, owners = owners.unique(return_inverse=True)
    if len(counts) < 2 or int(owners.max()) + 1 < _DRAWS[0]:
        return 1.0
    spectrum = _spectrum(kets)
    mean = _permuted(kets, codes, owners, counts, _entropy(spectrum))
    if not mean > 0:
        return 1.0
    number = float(len(kets))
    for _ in range(
        _STEPS
    ):  # what is lost goes as a power of the number, near −1 once kets outnumber dimensions
        expected = chance_bits(spectrum, number, counts.tolist())
        if not expected > 0:
            return 1.0
        number *= min(max(expected / mean, 0.2), 5.0)
        if abs(expected / mean - 1) < _CLOSE:
            break
    return number / len(kets)


def _permuted(kets: Tensor, codes: Tensor, owners: Tensor, counts: Tensor, total: float) -> float:
    """The mean χ where the samples' sequences of labels change places."""
    generator = torch.Generator().manual_seed(0)
    samples = int(owners.max()) + 1
    sizes = [int(count) for count in counts]
    work = sum(min(size, kets.shape[1]) ** 3 for size in sizes) + _OVERHEAD * len(set(sizes))
    draws = int(min(max(_WORK / work, _DRAWS[0]), _DRAWS[1]))
    alike: dict[int, list[int]] = {}
    for code, size in enumerate(sizes):
        alike.setdefault(size, []).append(code)
    inside = 0.0
    for _ in range(draws):
        places = torch.randperm(samples, generator=generator).to(owners.device)
        labels = codes[places[owners].argsort(stable=True)]
        parts = kets[labels.argsort(stable=True)].split(sizes)
        for size, members in alike.items():
            entropies = _entropies(torch.stack([parts[code] for code in members]))
            inside += size / len(kets) * float(entropies.sum())
    return total - inside / draws


def _compact(kets: Tensor) -> Tensor:
    """The kets in float64 in coordinates of their span, whose inner products are the same."""
    kets = kets.to(torch.complex128 if kets.is_complex() else torch.float64)
    if len(kets) >= kets.shape[1]:
        return kets
    values, vectors = torch.linalg.eigh(kets @ kets.mH)
    return vectors * values.clamp(min=0).sqrt().to(vectors)


def _spectrum(kets: Tensor) -> Tensor:
    gram = kets @ kets.mH if len(kets) < kets.shape[-1] else kets.mT @ kets.conj()
    values = torch.linalg.eigvalsh(gram).clamp(min=0)
    return values / values.sum()


def _entropies(kets: Tensor) -> Tensor:
    """The entropies of the states of several sets of kets, (sets, n, d), in bits."""
    gram = kets @ kets.mH if kets.shape[1] < kets.shape[2] else kets.mT @ kets.conj()
    values = torch.linalg.eigvalsh(gram / kets.shape[1]).clamp(min=0)
    return -torch.special.xlogy(values, values).sum(dim=-1) / math.log(2)


def _entropy(spectrum: Tensor) -> float:
    return -float(torch.special.xlogy(spectrum, spectrum).sum()) / math.log(2)


def _filled(x: Tensor, kets: float, s: Tensor) -> Tensor:
    return (x / (x + s[:, None])).sum(dim=1) / kets


def _root(x: Tensor, kets: float, share: float) -> float:
    """The s with h(s) = share."""
    low, high = math.log(float(x.min()) * 1e-18), math.log(float(x.sum()) / (kets * share)) + 1
    for _ in range(44):
        middle = (low + high) / 2
        above = float((x / (x + math.exp(middle))).sum()) > share * kets
        low, high = (middle, high) if above else (low, middle)
    return math.exp(high)
