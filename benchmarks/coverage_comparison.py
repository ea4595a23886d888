"""Whether ± covers: comparisons of layers, Holevo bits and readouts' scores, over data sets drawn from known laws.

    python benchmarks/coverage_comparison.py            # 300 data sets of each situation, some minutes on one core
    python benchmarks/coverage_comparison.py --draws 50 --only "positions, N = 200"

For each number: the share of data sets of which the value ± 1.96 standard errors holds the population's value, and the
median standard error over the standard deviation of the values (the width an ideal interval would have is 1). The
population's values are closed forms of the covariances (comparisons), or those of 400,000 samples (Holevo bits), or of
20,000 fresh samples read by the same readout (scores).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ketwork.networks.activations import unit
from ketwork.networks.comparison import ComparedLayer, Comparison
from ketwork.networks.measures import DecodedLabels
from ketwork.networks.measures import holevo as information
from ketwork.networks.measures import scores as score
from ketwork.networks.measures.readouts import LINEAR, read_out
from ketwork.networks.moments import ClassMoments, LabelledMoments, PairMoments, Rows
from ketwork.quantum import Estimate

SIZES = (50, 200, 1000)
WIDTH = 16
POSITIONS = 16
Truth = dict[str, float]
Found = Iterator[tuple[str, Estimate, float]]

SLOPE = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -0.5
DRAWN = torch.randn(2, WIDTH, WIDTH, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
MIXING = DRAWN * SLOPE[:, None]


def covariances(shared: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of two layers that share so many directions: Σx, Σy, Σxy."""
    noise, mixing = torch.diag(SLOPE**2), MIXING[:, :shared]
    x, y = (each.T @ each + noise for each in mixing)
    return x, y, mixing[0].T @ mixing[1]


def similarities_of(x: Tensor, y: Tensor, xy: Tensor) -> Truth:
    """CKA, Bures similarity and R² of layers with these covariances."""
    bures = float(torch.linalg.matrix_norm(xy, "nuc") / (x.trace() * y.trace()).sqrt())
    return {
        "cka": float(xy.square().sum() / (x.square().sum() * y.square().sum()).sqrt()),
        "bures": bures,
        "bures_corrected": bures,
        "r2": float((xy.T @ torch.linalg.solve(x, xy)).trace() / y.trace()),
    }


def layers(n: int, shared: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows of both layers: a part of each sample, and with `rows` > 1 as much again of each of its rows."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    split = math.sqrt(0.5) if rows > 1 else 1.0
    codes = split * normal(n, 1, shared) + math.sqrt(1 - split**2) * normal(n, rows, shared)
    pair = []
    for mixing in MIXING[:, :shared]:
        noise = split * normal(n, 1, WIDTH) + math.sqrt(1 - split**2) * normal(n, rows, WIDTH)
        pair.append((codes @ mixing + noise * SLOPE).flatten(0, 1).float())
    return pair[0], pair[1]


def comparison(n: int, shared: int, rows: int, seed: int, always: int) -> Found:
    """The measures of one data set, with the population's."""
    pair = layers(n, shared, rows, torch.Generator().manual_seed(seed))
    moments = PairMoments(clustered=rows > 1, always=always)
    keys = torch.rand(n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    moments.add(dict(zip("xy", pair, strict=True)), keys=keys.repeat_interleave(rows))
    named = {name: ComparedLayer(name, "", WIDTH, WIDTH) for name in "xy"}
    settings = {"model": "x", "other": "y", "unit": "position" if rows > 1 else "sample"}
    found = Comparison.from_pairs(moments, named, settings, {})
    for name, truth in similarities_of(*covariances(shared)).items():
        yield name, found.estimate(name, 0, 1), truth


def labelled(n: int, distance: float, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Kets (n · rows, d) of two labels `distance` apart, their labels and samples; rows of a sample share its label."""
    codes = torch.randint(0, 2, (n,), generator=generator)
    split = math.sqrt(0.7) if rows > 1 else 1.0
    x = split * torch.randn(n, 1, WIDTH, generator=generator)
    x = x + math.sqrt(1 - split**2) * torch.randn(n, rows, WIDTH, generator=generator)
    x[torch.arange(n), :, codes] += distance
    samples = torch.arange(n).repeat_interleave(rows)
    return unit(x.flatten(0, 1))[0], codes.repeat_interleave(rows), samples


def population(distance: float, rows: int) -> tuple[Tensor, Tensor, float]:
    """Fresh kets with their labels, and Holevo's bits of the population."""
    kets, codes, _ = labelled(400_000, distance, 1, torch.Generator().manual_seed(10**6))
    return kets[:20_000], codes[:20_000], information.bits(ClassMoments.from_vectors(kets, codes, 2), False)


def labels(n: int, distance: float, rows: int, seed: int, known: tuple[Tensor, Tensor, float]) -> Found:
    """Holevo bits and the linear probe's scores of one data set, with the population's."""
    kets, codes, samples = labelled(n, distance, rows, torch.Generator().manual_seed(seed))
    keys = torch.rand(n, generator=torch.Generator().manual_seed(seed + 10**5), dtype=torch.float64)
    statistics = LabelledMoments.from_rows(Rows(kets, codes, keys[samples], samples))
    decoded = DecodedLabels.from_moments(statistics, ("a", "b"))
    fresh, answers, bits = known
    for name in ("holevo", "holevo_corrected"):
        yield name, decoded.estimates[name], bits
    readout = read_out(statistics, statistics.fitting(), (LINEAR,))[LINEAR]
    read = readout.scores(fresh)
    for name, measure in score.MEASURES.items():
        yield name, decoded.estimates[f"linear_{name}"], measure(read, answers).value


def report(title: str, seeds: range, one: Callable[[int], Found]) -> None:
    """Prints coverage and relative width of each number."""
    values, errors, covered = defaultdict(list), defaultdict(list), defaultdict(list)
    for seed in seeds:
        for name, estimate, truth in one(seed):
            if math.isfinite(estimate.stderr):
                values[name].append(estimate.value - truth)
                errors[name].append(estimate.stderr)
                covered[name].append(abs(estimate.value - truth) <= 1.96 * estimate.stderr)
    cells = [
        f"{name} {statistics.mean(covered[name]):.2f} ({statistics.median(errors[name]) / spread:.2f})"
        for name in values
        if (spread := statistics.stdev(values[name])) > 0
    ]
    print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """All situations and sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed; 50000 for other data sets")
    parser.add_argument(
        "--only", nargs="*", default=[], help="words of the titles of the situations that are drawn"
    )
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.draws)
    torch.set_num_threads(1)

    def wanted(title: str) -> bool:
        return not arguments.only or any(word in title for word in arguments.only)

    situations = [("related", WIDTH, 1), ("in 6 of 16 directions", 6, 1), ("unrelated", 0, 1)]
    for situation, shared, rows in (*situations, ("positions", WIDTH, POSITIONS)):
        for n in SIZES:
            for form, always in (("rows", 1 << 30), ("moments", 0))[: 1 + (n == SIZES[-1])]:
                title = f"{situation}, N = {n:,}" + (", as moments" if form == "moments" else "")
                if wanted(title):
                    report(title, seeds, lambda seed, a=(n, shared, rows), b=always: comparison(*a, seed, b))
    for situation, distance, rows in (
        ("apart", 3.0, 1),
        ("near", 1.0, 1),
        ("positions", 1.5, POSITIONS // 2),
    ):
        known = population(distance, rows)
        for n in SIZES:
            title = f"labels {situation}, N = {n:,}"
            if wanted(title):
                report(title, seeds, lambda seed, a=(n, distance, rows), k=known: labels(*a, seed, k))


if __name__ == "__main__":
    main()
