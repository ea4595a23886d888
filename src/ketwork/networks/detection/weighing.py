"""One score of many terms, weighted by calibration samples alone, and conformal p-values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weighing:
    """How terms (n, m) become one score: each less its `centre` over its `scale`, times its weight, added."""

    centre: Tensor
    scale: Tensor
    weights: Tensor

    @classmethod
    def from_terms(cls, terms: Tensor) -> Weighing:
        """The weighing by the terms of calibration samples (n, m)."""
        terms = terms.double()
        centre = terms.nanmedian(dim=0).values.nan_to_num(nan=0.0)
        upper = (torch.nanquantile(terms, 0.9, dim=0) - centre).nan_to_num(nan=0.0)
        return cls(centre, upper, (upper > 0).double() / max(1, int((upper > 0).sum())))

    def standardised(self, terms: Tensor) -> Tensor:
        """Each term less its centre over its scale, (n, m); 0 for a term that is always the same."""
        z = (terms.double() - self.centre) / torch.where(self.scale > 0, self.scale, 1.0)
        return torch.where(self.scale > 0, z, 0.0)

    def combined(self, terms: Tensor) -> Tensor:
        """The weighted sum of the standardised terms, (n,)."""
        z = self.standardised(terms)
        known = ~z.isnan()
        score = z.nan_to_num(nan=0.0) @ self.weights
        return torch.where(known.any(dim=1), score, torch.nan)


def p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """(1 + the number of calibration scores that are as large or larger) / (their number + 1), for each score.

    Where a new sample and the calibration ones are exchangeable, P(p ≤ α) ≤ α for each α, with equality at multiples of
    1/(n + 1) where no scores tie (Vovk, Gammerman & Shafer 2005; Bates et al. 2023, arXiv 2104.08279). A score of NaN
    has p-value NaN.
    """
    ordered = calibration.sort().values
    least = torch.searchsorted(ordered, scores.to(ordered).contiguous(), side="left")
    values = (1 + len(ordered) - least).double() / (len(ordered) + 1)
    return torch.where(scores.isnan(), torch.nan, values)
