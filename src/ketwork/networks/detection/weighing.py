"""One score of many terms by Fisher's method, its tails fitted to calibration samples alone, and conformal p-values.

A term s is standardised to z = (s − median)/(90 % quantile − median). Above the median its tail is taken for Lomax's,
P(z > t) ∝ (1 + t)^−a, which falls as a power: so one layer with a huge score does not drown all others. The likeliest
a is 1 over the mean of log(1 + z) of the calibration samples above the median (as Hill 1975,
doi:10.1214/aos/1176343247). There a term's part is −log P = a log(1 + z); below the median it is −a log(1 − z), so that
typical samples are ordered too. The score is the mean of the parts; where all lie above the median that is half of
Fisher's statistic over the number of terms. These are not independent, so that its law is not χ²: p-values come from
other calibration samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_QUANTILE = 0.9


@dataclass(frozen=True)
class Weighing:
    """How terms (n, m) become one score: their `centre`, `scale` and `exponent`, (m,) each.

    The exponent of a term without spread is 0.
    """

    centre: Tensor
    scale: Tensor
    exponent: Tensor

    @classmethod
    def from_terms(cls, terms: Tensor) -> Weighing:
        """The weighing by the terms of calibration samples (n, m)."""
        terms = terms.double()
        centre = terms.nanmedian(dim=0).values.nan_to_num(nan=0.0)
        scale = (torch.nanquantile(terms, _QUANTILE, dim=0) - centre).nan_to_num(nan=0.0).clamp(min=0)
        alone = cls(centre, scale, (scale > 0).double())
        parts = alone.parts(terms).clamp(min=0)
        above = (parts > 0).sum(dim=0)
        mean = parts.nansum(dim=0) / above.clamp(min=1)
        return cls(centre, scale, torch.where(mean > 0, 1 / mean.clamp(min=1e-300), 0.0))

    @property
    def weights(self) -> Tensor:
        """The share of each term's exponent in all of them, (m,)."""
        return self.exponent / self.exponent.sum().clamp(min=1e-300)

    def standardised(self, terms: Tensor) -> Tensor:
        """Each term less its centre over its scale, (n, m); 0 for a term that is always the same."""
        z = (terms.double() - self.centre) / torch.where(self.scale > 0, self.scale, 1.0)
        return torch.where(terms.isnan(), torch.nan, torch.where(self.scale > 0, z, 0.0))

    def parts(self, terms: Tensor) -> Tensor:
        """−log of each term's fitted tail probability, in nats, (n, m); below the centre as far below 0."""
        z = self.standardised(terms)
        return self.exponent * z.sign() * z.abs().log1p()

    def combined(self, terms: Tensor) -> Tensor:
        """The mean of the parts, (n,): a term that is missing adds nothing; NaN where all are."""
        return mean_of(self.parts(terms))


def mean_of(parts: Tensor) -> Tensor:
    """The mean of parts (n, m), (n,): a missing one counts as 0; NaN where all are missing."""
    return torch.where(parts.isnan().all(dim=1), torch.nan, parts.nansum(dim=1) / parts.shape[1])


def largest(parts: Tensor) -> Tensor:
    """The largest of parts (n, m) that are not missing, (n,); NaN where all are."""
    most = parts.nan_to_num(nan=-torch.inf).amax(dim=1)
    return torch.where(parts.isnan().all(dim=1), torch.nan, most)


def p_values(scores: Tensor, calibration: Tensor) -> Tensor:
    """(1 + the number of calibration scores that are as large or larger) / (their number + 1), for each score.

    Where a new sample and the calibration ones are exchangeable, P(p ≤ α) ≤ α for each α, with equality at multiples of
    1/(n + 1) where no scores tie (Vovk, Gammerman & Shafer 2005; Bates et al. 2023, arXiv 2104.08279). A score of NaN
    has p-value NaN; one among the calibration scores counts as larger than all.

    >>> p_values(torch.tensor([0.5, 2.5]), torch.tensor([1.0, 2.0, 3.0])).tolist()
    [1.0, 0.5]
    """
    ordered = calibration.sort().values
    least = torch.searchsorted(ordered, scores.to(ordered).contiguous(), side="left")
    values = (1 + len(ordered) - least).double() / (len(ordered) + 1)
    return torch.where(scores.isnan(), torch.nan, values)
