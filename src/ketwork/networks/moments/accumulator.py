"""What one layer's row is computed from: sums over all kets and a bounded reservoir of samples.

A monoid: `LayerStatistics.of` reduces one batch inside the hook, `+=` adds batches, processes and studies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.activations.encoding import unit
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.reservoir import SAMPLES, Reservoir
from ketwork.records.checked import Count, Malformed, check
from ketwork.records.storage import under

NORMALIZATIONS = ("state", "ensemble")

_COUNTS = ("d", "kets", "samples", "zeros", "dropped", "reservoir")
_HEADER = dict.fromkeys(_COUNTS, Count) | {"weight": float, "norms": float, "limit": (Count, None)}


class NonFiniteActivationError(ValueError):
    """A layer put out NaN or infinite values; `samples` are their indices in the batch."""

    def __init__(self, samples: list[int]) -> None:
        super().__init__(samples)
        self.samples = samples


@dataclass
class LayerStatistics:
    """Sums of one layer over N samples.

    `samples` counts the samples that entered, `zeros` the zero vectors left out, `dropped` the samples left
    out for NaN or infinite values, `norms` is Σ‖a‖ over the kets.
    """

    samples: int
    zeros: int
    dropped: int
    norms: float
    moment: Moment
    reservoir: Reservoir

    @classmethod
    def of(
        cls,
        values: Tensor,
        present: Tensor | None,
        keys: Tensor,
        *,
        positions: bool,
        normalize: str,
        worst: float = float("inf"),
        drop_bad: bool = False,
        limit: int | None = None,
        kept: int = SAMPLES,
    ) -> LayerStatistics:
        """The statistics of one batch: activations (N, T, d), existing positions (N, T), random keys (N,).

        Samples whose key is not below `worst` are not offered to the reservoir, which has room for `kept`; the
        moment becomes a sketch of `limit` directions where that is given.

        Raises:
            NonFiniteActivationError: NaN or infinite values, unless `drop_bad` leaves those samples out.
        """
        n, t, d = values.shape
        rows = values.reshape(n * t, d) if present is None else values[present]
        kets, norms = unit(rows)
        finite = torch.isfinite(norms)
        dropped = 0
        if not bool(finite.all()):
            sample = _sample_of_row(n, t, present, values.device)
            bad = sample[~finite].unique()
            if not drop_bad:
                raise NonFiniteActivationError(bad.tolist())
            good = torch.ones(n, dtype=torch.bool, device=values.device)
            good[bad] = False
            kets, norms = kets[good[sample]], norms[good[sample]]
            values, keys = values[good], keys[good.to(keys.device)]
            present = present[good] if present is not None else None
            dropped = len(bad)
        zero = norms == 0
        zeros = int(zero.sum())
        if zeros:
            kets, norms = kets[~zero], norms[~zero]
        moment = Moment.of(kets, norms.square() if normalize == "ensemble" else None, limit)
        offered = (keys < worst).nonzero().squeeze(1).to(values.device)
        reservoir = Reservoir.of(
            values[offered],
            present[offered] if present is not None else None,
            keys[offered.to(keys.device)],
            positions,
            kept,
        )
        total = float(norms.sum(dtype=torch.float64))
        return cls(n - dropped, zeros, dropped, total, moment, reservoir)

    def __iadd__(self, other: LayerStatistics) -> LayerStatistics:
        self.samples += other.samples
        self.zeros += other.zeros
        self.dropped += other.dropped
        self.norms += other.norms
        self.moment += other.moment
        self.reservoir += other.reservoir
        return self

    def header(self) -> dict[str, Any]:
        """The plain numbers of a file; `tensors` has the rest."""
        return {
            "d": self.d,
            "kets": self.kets,
            "weight": self.moment.weight,
            "samples": self.samples,
            "zeros": self.zeros,
            "dropped": self.dropped,
            "norms": self.norms,
            "reservoir": self.reservoir.most,
            "limit": self.moment.limit,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        parts = {"moment": self.moment.tensors(), "reservoir": self.reservoir.tensors()}
        return {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> LayerStatistics:
        """The statistics that `header` and `tensors` described."""
        check(header, _HEADER, "statistics")
        reservoir = Reservoir.from_tensors(under("reservoir.", tensors), header["reservoir"])
        if reservoir.kets.shape[2] != header["d"]:
            raise Malformed(f"statistics of {header['d']} features have samples of {reservoir.kets.shape[2]}")
        return cls(
            header["samples"],
            header["zeros"],
            header["dropped"],
            header["norms"],
            Moment.from_tensors(
                under("moment.", tensors),
                d=header["d"],
                n=header["kets"],
                weight=header["weight"],
                limit=header["limit"],
            ),
            reservoir,
        )

    @property
    def d(self) -> int:
        """The number of features."""
        return self.moment.d

    @property
    def kets(self) -> int:
        """The number of kets that entered."""
        return self.moment.n


def _sample_of_row(n: int, t: int, present: Tensor | None, device: torch.device) -> Tensor:
    sample = torch.arange(n, device=device)[:, None].expand(n, t)
    return sample.reshape(-1) if present is None else sample[present]
