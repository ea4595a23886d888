"""What a layer's readouts are solved from and scored on: moments by label, and two bounded sets of samples.

One ket a sample: positions are pooled by their mean (one ket a position where each position has a label).
Each sample's random key sends it, once for all layers, to the fitting part or (a quarter, at most
`HELD_MOST`) to the held-out part, which no fit sees. `checks` are samples of the fitting part kept as they
are, on which regularisation is chosen: the fit for that leaves them out by subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.encode import unit
from ketwork.networks.moments import Moment

HELD_SHARE = 0.25
HELD_MOST = 1024
CHECK_SHARE = 0.25
CHECK_MOST = 512


@dataclass
class Rows:
    """Kets (n, d) with targets (n,) or (n, m), the samples' keys (n,) and indices in the data (n,)."""

    kets: Tensor
    targets: Tensor
    keys: Tensor
    samples: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, which: Tensor) -> Rows:
        return Rows(self.kets[which], self.targets[which], self.keys[which], self.samples[which])

    def __add__(self, other: Rows) -> Rows:
        return Rows(
            torch.cat([self.kets, other.kets]),
            torch.cat([self.targets, other.targets]),
            torch.cat([self.keys, other.keys]),
            torch.cat([self.samples, other.samples]),
        )

    def smallest(self, most: int, *, largest: bool = False) -> tuple[Rows, Rows]:
        """The rows with the smallest (largest) keys, at most so many, and the rest; a sample is never split."""
        if len(self) <= most:
            return self, self[self.keys > 2]
        keys = -self.keys if largest else self.keys
        inside = keys < keys.sort().values[most]
        return self[inside], self[~inside]


@dataclass
class LabelledStatistics:
    """Sums over the fitting part by class (one entry, 0, for regression), and the two kept sets."""

    classes: dict[int, Moment]
    held: Rows
    checks: Rows
    cross: Tensor | None = None  # regression: Σ y xᵀ (m, d)
    sums: Tensor | None = None  # regression: Σ y, Σ y² (2, m)
    complex: bool = field(default=False)

    @classmethod
    def of(
        cls,
        values: Tensor,
        present: Tensor | None,
        targets: Tensor,
        keys: Tensor,
        start: int,
        positions: bool,
    ) -> LabelledStatistics | None:
        """One batch: activations (N, T, d), existing positions, targets (N,), (N, T) or (N, m), keys (N,).

        `start` is the index of the batch's first sample in the data; `positions` says that each position has
        a label. None where the layer does not have those positions.
        """
        n, t = values.shape[:2]
        sample = torch.arange(start, start + n)
        if positions:
            if targets.shape != (n, t):
                return None
            valid = targets >= 0 if present is None else (targets >= 0) & present.cpu()
            rows, targets = values[valid.to(values.device)], targets[valid]
            keys, sample = keys[:, None].expand(n, t)[valid], sample[:, None].expand(n, t)[valid]
        else:
            rows = pooled(values, present)
        kets, norms = unit(rows)
        usable = (norms > 0) & torch.isfinite(norms)
        if not bool(usable.all()):
            kets = kets[usable]
            here = usable.cpu()
            targets, keys, sample = targets[here], keys[here], sample[here]
        is_complex = kets.is_complex()
        if is_complex:
            kets = torch.cat([kets.real, kets.imag], dim=-1)
        rows_ = Rows(kets, targets.to(kets.device), keys.to(kets.device), sample.to(kets.device))
        held = rows_[rows_.keys < HELD_SHARE]
        fit = rows_[rows_.keys >= HELD_SHARE]
        checks = fit[fit.keys >= 1 - CHECK_SHARE * (1 - HELD_SHARE)]
        found = cls({}, held, checks, complex=is_complex)
        found._fit(fit)
        return found

    def __iadd__(self, other: LabelledStatistics) -> LabelledStatistics:
        self._add(other)
        self.held, evicted = (self.held + other.held).smallest(HELD_MOST)
        self.checks, _ = (self.checks + other.checks).smallest(CHECK_MOST, largest=True)
        self._fit(evicted)
        return self

    @property
    def counts(self) -> dict[int, int]:
        """Samples of the fitting part by class."""
        return {code: moment.n for code, moment in self.classes.items()}

    def _fit(self, rows: Rows) -> None:
        """Adds rows to the sums."""
        if len(rows) == 0:
            return
        if rows.targets.ndim == 2:
            y = rows.targets.to(rows.kets.device)
            one = LabelledStatistics({0: Moment.of(rows.kets)}, rows, rows)
            one.cross, one.sums = y.T @ rows.kets.double(), torch.stack([y.sum(0), y.square().sum(0)])
        else:
            codes = rows.targets.unique().tolist()
            one = LabelledStatistics({c: Moment.of(rows.kets[rows.targets == c]) for c in codes}, rows, rows)
        self._add(one)

    def _add(self, other: LabelledStatistics) -> None:
        for code, moment in other.classes.items():
            if code not in self.classes:
                self.classes[code] = Moment.empty(moment.d, moment.first)
            self.classes[code] += moment
        if other.cross is not None and other.sums is not None:
            self.cross = other.cross if self.cross is None else self.cross + other.cross
            self.sums = other.sums if self.sums is None else self.sums + other.sums

    def header(self) -> dict[str, Any]:
        """The plain numbers of a file; `tensors` has the rest."""
        return {
            "d": next(iter(self.classes.values())).d if self.classes else 0,
            "classes": {str(code): [moment.n, moment.weight] for code, moment in self.classes.items()},
            "complex": self.complex,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a file."""
        found = {
            f"class{code}.{name}": t
            for code, moment in self.classes.items()
            for name, t in moment.tensors().items()
        }
        for part, rows in (("held", self.held), ("checks", self.checks)):
            found |= {f"{part}.{name}": getattr(rows, name) for name in _ROWS}
        if self.cross is not None and self.sums is not None:
            found |= {"cross": self.cross, "sums": self.sums}
        return found

    @classmethod
    def from_header(cls, header: dict[str, Any], tensors: dict[str, Tensor]) -> LabelledStatistics:
        """The statistics that `header` and `tensors` described."""
        classes = {}
        for code, (n, weight) in header["classes"].items():
            start = f"class{code}."
            own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
            classes[int(code)] = Moment.from_tensors(own, d=header["d"], n=n, weight=weight)
        held, checks = (Rows(*(tensors[f"{part}.{name}"] for name in _ROWS)) for part in ("held", "checks"))
        return cls(classes, held, checks, tensors.get("cross"), tensors.get("sums"), header["complex"])


_ROWS = ("kets", "targets", "keys", "samples")


def pooled(values: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the existing positions of each sample, (N, d), of activations (N, T, d)."""
    if values.shape[1] == 1:
        return values[:, 0]
    if present is None:
        return values.mean(dim=1)
    sample = present.nonzero()[:, 0]
    sums = values.new_zeros(values.shape[0], values.shape[2]).index_add_(0, sample, values[present])
    return sums / present.sum(dim=1, keepdim=True).clamp(min=1)
