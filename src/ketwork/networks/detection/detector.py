"""`Detector`: how unlike what a network was studied on an input is, with conformal p-values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
from torch import Tensor, nn

from ketwork._lazy import cached_property
from ketwork.networks.activations import Forward, Mask, Reading, tokenized
from ketwork.networks.detection.frames import SCORE_DEFINITIONS, empty_to, scores_frame
from ketwork.networks.detection.passing import score_data
from ketwork.networks.detection.references import LayerReference
from ketwork.networks.detection.scoring import Scoring, Term, check_terms
from ketwork.networks.detection.spaces import Share
from ketwork.networks.detection.watching import Watch, watch_calls
from ketwork.networks.detection.weighing import Weighing, largest, mean_of, p_values
from ketwork.networks.runtime import Interrupted, PartialError, Progress
from ketwork.records import Count, Form, Malformed, Presented, check_codes, check_source, read, write

SCHEMA = 1

DEFINITIONS: dict[str, str] = {
    "d": "features of the layer",
    "N": "samples that the layer's means and covariances are of",
    "classes": "classes that have a mean",
    "rank": "dimension of the leading eigenspace: eigenvalues of the state above the Marchenko–Pastur edge of its bulk",
    "shrinkage": "weight of the maximally mixed state in the layer's state, by Ledoit and Wolf",
    "class_shrinkage": "the same in the covariance that the classes share",
    "unseen": "AUROC by which the layer's Mahalanobis distances tell a class whose mean is put aside from the others, "
    "mean over classes, of held-out samples: the third of the layers with the largest counts by itself too",
    "weight": "share of the layer's terms in the score by the exponents of their tails, from calibration samples alone",
    "positions": "how a sample with several positions is scored: their mean as one vector, or each, the worst counting",
}
"""What each column of `Detector.table` means."""


class DetectionError(PartialError):
    """Scoring failed after some batches: `partial` is the frame of those; `__cause__` is the error that ended it."""


class DetectionInterrupted(Interrupted):
    """Ctrl-C while scoring; `partial` is the frame of the batches before it, or None if none was finished."""


@dataclass(frozen=True, eq=False)
class Detector(Presented):
    """What is unlike the data that a network was studied on; made by `Study.detector`.

    `references` are the layers as they were studied, `terms` the scores that enter, `calibration` (n, m) the terms of
    calibration samples, of which the first `fitted` weigh the terms and the others give p-values. `names` are those of
    the classes. `separation` says how well each layer tells classes that it has not seen, where that was measured.
    """

    references: tuple[LayerReference, ...]
    terms: tuple[Term, ...]
    calibration: Annotated[Tensor, Form("value n m")]
    fitted: Count
    names: list[str | int | bool]
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)
    separation: tuple[Share, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of terms."""
        return {"m": len(self.terms)}

    def check(self) -> None:
        """The terms are of the layers, and there are calibration samples for p-values."""
        check_terms(self.terms, self.references)
        if bool(self.calibration.isinf().any()):
            raise Malformed("tensor 'calibration' must be finite or NaN, but is infinite")
        if not self.terms or self.fitted >= len(self.calibration):
            raise Malformed(
                f"{len(self.calibration)} calibration samples, {self.fitted} for weights, are too few"
            )
        if len(self.terms) > 1 and self.fitted < 2:
            raise Malformed("several terms must have calibration samples that weigh them")
        for reference in self.references:
            if reference.classes is not None:
                check_codes(reference.classes.codes, len(self.names))
        if len(self.separation) not in (0, len(self.references)):
            raise Malformed(f"there must be a separation for each of {len(self.references)} layers, or none")
        missing = [name for name in _TEXTS if not isinstance(self.settings.get(name), str)]
        if missing:
            raise Malformed(f"settings lack {missing[0]!r}")
        check_source(self.settings)

    def described(self, **settings: Any) -> Detector:
        """The same detector with more settings."""
        return replace(self, settings=self.settings | settings)

    @property
    def method(self) -> str:
        """How kets are scored."""
        return str(self.settings["method"])

    @property
    def definitions(self) -> dict[str, str]:
        """What each column means, of `table` and of `score`."""
        return DEFINITIONS | SCORE_DEFINITIONS

    @cached_property
    def weighing(self) -> Weighing:
        """How the terms become one score."""
        return Weighing.from_terms(self.calibration[: self.fitted] if self.fitted else self.calibration)

    @cached_property
    def leading(self) -> tuple[int, ...]:
        """The places of the third of the layers that tells unseen classes best; none where that was not measured."""
        order = sorted(range(len(self.separation)), key=lambda place: -self.separation[place])
        return tuple(sorted(order[: -(-len(order) // 3)]))

    @cached_property
    def _both(self) -> Weighing:
        """How the mean of all terms and that of the leading layers' terms are compared."""
        return Weighing.from_terms(self._means(self.calibration[: self.fitted]))

    @cached_property
    def calibration_scores(self) -> Tensor:
        """The scores of the calibration samples that give p-values, (n,), in no order."""
        return self._scores(self.calibration[self.fitted :])

    @property
    def labels(self) -> list[str]:
        """The layers' names, with the number of the call where it is not the first."""
        return [reference.info.label for reference in self.references]

    def threshold(self, alpha: float) -> float:
        """The score above which p ≤ alpha: there are alarms for at most that share of samples like those studied.

        ∞ where there are too few calibration samples for so small an alpha.
        """
        _check_alpha(alpha)
        ordered = self.calibration_scores.sort(descending=True).values
        rank = int(alpha * (len(ordered) + 1) + 1e-9)
        return float(ordered[rank - 1]) if rank else float("inf")

    def score(
        self,
        model: nn.Module,
        data: Any,
        *,
        alpha: float | None = None,
        layers: bool = False,
        mask: Mask = None,
        tokenizer: Any = None,
        forward: Forward | None = None,
        max_samples: int | None = None,
        batch_size: int = 64,
        reading: Reading = Reading(),  # noqa: B008  frozen
        progress: Progress = False,
    ) -> pd.DataFrame:
        """How unlike the studied data each sample is: score, p-value, nearest class, and the layer that says so most.

        One streaming pass; nothing but a few numbers a sample is kept. `definitions` says what the columns mean.

        Args:
            model: the network that was studied.
            data, mask, tokenizer, forward, batch_size, reading, progress: as in `study`. With
                `reading=kw.Reading(skip_bad=True)` samples with NaN or infinite activations get NaN for a score instead
                of an error.
            alpha: adds the column `alarm`, p_value ≤ alpha; samples without a score are alarms too.
            layers: adds a column `surprisal:<layer>` a layer: −log of its terms' tail probabilities (nats).
            max_samples: take the first so many.

        Raises:
            TypeError, ValueError: an argument is not what it must be, the network is not the one that was studied, or
                the first batch already failed.
            DetectionError: the data or a batch failed after others; `partial` has the frame of those.
            DetectionInterrupted: on Ctrl-C, likewise.

        Cost: the forward passes (and two or three of at most six samples more, which find the axes), and for each
        sample and layer O(d² + K d), whatever the number of samples studied.
        """
        if alpha is not None:
            _check_alpha(alpha)
        scoring = Scoring(self.references, self.terms)
        ending = score_data(
            scoring,
            model,
            tokenized(data, tokenizer),
            calls=self.settings["calls"],
            mask=mask,
            forward=forward,
            max_samples=max_samples,
            batch_size=batch_size,
            reading=reading,
            progress=progress,
        )
        frame = self.frame(scoring.parts, scoring.nearest, alpha, layers) if scoring.parts else None
        if ending.interrupted:
            raise DetectionInterrupted("scoring was interrupted", frame)
        if ending.error is not None:
            if frame is None:
                raise ending.error
            raise DetectionError(
                f"{ending.sentence} The scores of {len(frame)} samples before it are in `partial` of this error.",
                frame,
            ) from ending.error
        assert frame is not None
        return frame

    def frame(
        self, parts: list[Tensor], nearest: list[Tensor], alpha: float | None = None, layers: bool = False
    ) -> pd.DataFrame:
        """The frame of samples with these terms, a tensor (N, m) a batch, and nearest classes."""
        terms = empty_to(parts, len(self.terms))
        scores, surprisal = self._scores(terms), self.surprisal(terms)
        lead = surprisal.nan_to_num(nan=-torch.inf).argmax(dim=1)
        lead = torch.where(surprisal.isnan().all(dim=1), -1, lead)
        codes = None
        if any(reference.classes is not None for reference in self.references):
            codes = torch.cat([torch.zeros(0, dtype=torch.int64), *nearest])
        return scores_frame(
            scores,
            p_values(scores, self.calibration_scores),
            codes,
            lead,
            self.names,
            self.labels,
            alpha,
            surprisal if layers else None,
        )

    def surprisal(self, terms: Tensor) -> Tensor:
        """The mean part of each layer in the score, (n, layers), of terms (n, m); NaN where a layer has none."""
        each = self.weighing.parts(terms)
        columns = [
            [i for i, term in enumerate(self.terms) if term.layer == place]
            for place in range(len(self.references))
        ]
        return torch.stack([each[:, these].mean(dim=1) for these in columns], dim=1)

    @contextlib.contextmanager
    def watch(
        self,
        model: nn.Module,
        *,
        alpha: float = 0.05,
        on_scores: Callable[[pd.DataFrame], None] | None = None,
        keep: int = 10_000,
    ) -> Iterator[Watch]:
        """Scores the calls of a network as they are made: `with detector.watch(model) as watch: model(x)`.

        The outputs are the network's own, and gradients flow as always. `watch.last` has the frame of the last call,
        `watch.table()` that of the last `keep` samples. A call that does not reach every layer is not scored, and
        counted in `watch.missed`. Compiled parts run eagerly inside, since hooks do not see into them; calls by other
        threads are not scored. Padding is known by a two-dimensional `attention_mask`.

        Args:
            model: the network that was studied, in whatever mode it is; scores of training mode are not those of what
                was studied.
            alpha: alarms are samples with p ≤ alpha, and those with NaN or infinite activations.
            on_scores: called with the frame of each call, after it.
            keep: of how many samples the scores are kept.

        Raises:
            ValueError: the network is not the one that was studied; in the call where that shows.

        Cost: as in `score`, a call; two or three passes of at most six samples in the first one, which find the axes.
        """
        _check_alpha(alpha)
        if keep < 1:
            raise ValueError(f"Argument `keep` must be at least 1, but is {keep}.")
        scoring = Scoring(self.references, self.terms)

        def frame(parts: list[Tensor], nearest: list[Tensor]) -> pd.DataFrame:
            return self.frame(parts, nearest, alpha)

        with watch_calls(scoring, model, frame, on_scores, keep, self.settings["calls"]) as watch:
            yield watch

    def table(self) -> pd.DataFrame:
        """One row a layer, in order of execution; `definitions` says what the columns mean."""
        weights = self.weighing.weights
        rows = []
        for place, each in enumerate(self.references):
            mine = [i for i, term in enumerate(self.terms) if term.layer == place]
            rows.append(
                {
                    "layer": each.info.name,
                    "call": each.info.call,
                    "kind": each.info.kind,
                    "d": each.d,
                    "N": each.samples,
                    "classes": 0 if each.classes is None else len(each.classes.means),
                    "rank": each.state.rank,
                    "shrinkage": each.state.shrinkage,
                    "class_shrinkage": float("nan") if each.classes is None else each.classes.shrinkage,
                    "methods": ", ".join(dict.fromkeys(self.terms[i].method for i in mine)),
                    "positions": ", ".join(dict.fromkeys(self.terms[i].positions for i in mine)),
                    "unseen": self.separation[place] if self.separation else float("nan"),
                    "weight": float(weights[mine].abs().sum() / weights.abs().sum().clamp(min=1e-300)),
                }
            )
        return pd.DataFrame(rows)

    def save(self, path: str | Path) -> None:
        """Writes the detector to one safetensors file; replaces the file in one step."""
        write(path, "detector", SCHEMA, self)

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """Reads a detector that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: not a detector, damaged, or written by a newer ketwork.
        """
        return read(cls, path, "detector", SCHEMA)

    def __repr__(self) -> str:
        labels = self.labels
        names = ", ".join(labels[:_MOST]) + (
            f" and {len(labels) - _MOST} more" if len(labels) > _MOST else ""
        )
        held = len(self.calibration) - self.fitted
        weighed = f", weights from {self.fitted} others" if self.fitted else ""
        return (
            f"Detector of what {self.settings['model']} was not studied on: {self.method}, {len(labels)} layers "
            f"({names}), {len(self.terms)} terms\np-values from {held} calibration samples "
            f"({self.settings['calibration']}){weighed}; p ≤ 0.05 above a score of {self.threshold(0.05):.4g}"
        )

    def _scores(self, terms: Tensor) -> Tensor:
        if len(self.terms) == 1:
            return terms[:, 0].double()
        return (
            largest(self._both.parts(self._means(terms))) if self.leading else self.weighing.combined(terms)
        )

    def _means(self, terms: Tensor) -> Tensor:
        """The mean part of all terms, and of those of the leading layers, (n, 2)."""
        parts = self.weighing.parts(terms)
        leading = [i for i, term in enumerate(self.terms) if term.layer in self.leading]
        return torch.stack([mean_of(parts), mean_of(parts[:, leading])], dim=1)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"Argument `alpha` must lie between 0 and 1, but is {alpha!r}.")


_TEXTS = ("model", "method", "positions", "calibration", "calls")
_MOST = 6
