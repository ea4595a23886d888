"""The load of a mixture's experts: how many vectors each was given, and how evenly they are spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from ketwork.networks.activations import spot_of
from ketwork.networks.study.layer import Layer
from ketwork.quantum import Estimate

_LN2 = math.log(2)


@dataclass(frozen=True)
class Load:
    """One mixture's experts at one call: their rows by number, and the vectors that each was given.

    `per_sample` (R, E) are those of each sample that the study kept, None where the rows kept different ones; `samples`
    is N. With p the shares of the vectors, the balance is H(p) = −Σ p log₂ p: log₂ E where all experts are given as
    many, 0 where one is given all.
    """

    layer: str
    call: int
    rows: dict[int, Layer]
    vectors: Tensor
    per_sample: Tensor | None
    samples: int

    @property
    def shares(self) -> Tensor:
        """p (E,): each expert's share of the vectors."""
        return self.vectors / self.vectors.sum()

    @property
    def share_stderrs(self) -> Tensor:
        """The standard error of each share over samples: a sample's tokens are routed alike."""
        residuals = self._residuals()
        return torch.full_like(self.shares, math.nan) if residuals is None else self._stderr(residuals)

    @property
    def entropy(self) -> Estimate:
        """H(p) in bits, corrected for finite data to the first order: Σ var(p)/(2 p ln 2) is added.

        With one vector a sample that is Miller and Madow's correction, (E − 1)/(2 N ln 2).
        """
        p = self.shares
        used = p > 0
        plain = float(-(p[used] * p[used].log2()).sum())
        residuals = self._residuals()
        if residuals is None:
            return Estimate(plain, math.nan, plain=plain)
        bias = float((self._stderr(residuals)[used].square() / p[used]).sum()) / (2 * _LN2)
        stderr = float(self._stderr(residuals[:, used] @ -p[used].log2()))
        return Estimate(min(plain + bias, math.log2(len(p))), stderr, plain=plain)

    def _residuals(self) -> Tensor | None:
        """What each kept sample changes of each share, (R, E)."""
        counts = self.per_sample
        if counts is None or len(counts) < 2:
            return None
        mean = self.vectors.sum() / self.samples
        return (counts - counts.sum(dim=1, keepdim=True) * self.shares) / mean

    def _stderr(self, residuals: Tensor) -> Tensor:
        return (residuals.square().sum(dim=0) / (len(residuals) - 1) / self.samples).sqrt()


def loads_of(layers: Sequence[Layer]) -> list[Load]:
    """The mixtures of which experts have rows, in order of execution; each must have a row for every expert."""
    grouped: dict[tuple[str, int], dict[int, Layer]] = {}
    for layer in layers:
        spot = spot_of(layer.name)
        if spot is not None and spot.side == "expert":
            grouped.setdefault((spot.path, layer.call), {})[spot.expert] = layer
    return [_load(*key, rows) for key, rows in grouped.items()]


def expert_table(layers: Sequence[Layer]) -> pd.DataFrame:
    """One row an expert: the vectors it was given, their share with its standard error, whether they are few."""
    columns = ["layer", "call", "expert", "vectors", "share", "share_stderr", "few"]
    rows = [
        (
            load.layer,
            load.call,
            expert,
            int(load.vectors[i]),
            float(load.shares[i]),
            float(load.share_stderrs[i]),
            few,
        )
        for load in loads_of(layers)
        for i, (expert, few) in enumerate((number, _few(row)) for number, row in load.rows.items())
    ]
    return pd.DataFrame(rows, columns=columns)


def load_table(layers: Sequence[Layer]) -> pd.DataFrame:
    """One row a mixture of experts: how evenly its vectors are spread over them."""
    rows = []
    for load in loads_of(layers):
        entropy, shares = load.entropy, load.shares
        rows.append(
            {
                "layer": load.layer,
                "call": load.call,
                "experts": len(load.rows),
                "unused": int((load.vectors == 0).sum()),
                "vectors": int(load.vectors.sum()),
                "load_entropy": entropy.value,
                "load_entropy_stderr": entropy.stderr,
                "effective_experts": 2**entropy.value,
                "smallest_share": float(shares.min()),
                "largest_share": float(shares.max()),
            }
        )
    return pd.DataFrame(rows)


def expert_warnings(layers: Sequence[Layer]) -> list[str]:
    """Experts that were given no vectors, or too few to say what dimensions they use."""
    messages = []
    for load in loads_of(layers):
        unused = [str(number) for number, row in load.rows.items() if not _vectors(row)]
        few = [
            f"{number} ({_vectors(row)})" for number, row in load.rows.items() if _vectors(row) and _few(row)
        ]
        if unused:
            messages.append(f"At {load.layer} no token was routed to experts {', '.join(unused)}.")
        if few:
            messages.append(
                f"At {load.layer} few tokens, or tokens of few samples, were routed to experts (with how many) "
                f"{', '.join(few)}: their numbers are of too few data."
            )
    return messages


def _load(path: str, call: int, rows: dict[int, Layer]) -> Load:
    rows = dict(sorted(rows.items()))
    vectors = torch.tensor([_vectors(row) for row in rows.values()], dtype=torch.float64)
    kept = [row.accumulator.reservoir for row in rows.values()]
    orders = [reservoir.keys.argsort() for reservoir in kept]
    keys = [reservoir.keys[order] for reservoir, order in zip(kept, orders, strict=True)]
    alike = all(torch.equal(each, keys[0]) for each in keys)
    counts = [reservoir.counts[order].double().cpu() for reservoir, order in zip(kept, orders, strict=True)]
    samples = max(row.N for row in rows.values())
    return Load(path, call, rows, vectors, torch.stack(counts, dim=1) if alike else None, samples)


def _vectors(row: Layer) -> int:
    """The vectors that entered, zero ones too, which are none of a state's."""
    return row.kets + (row.accumulator.zeros if row.normalize == "state" else 0)


def _few(row: Layer) -> bool:
    return not _vectors(row) or row.few_samples or math.isnan(row.estimate("entropy"))
