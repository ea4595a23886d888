"""`make_detector`: a detector from a study, with no second pass over the data that were studied."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ketwork.networks.activations import Forward, Mask, Reading, tokenized
from ketwork.networks.detection.detector import Detector
from ketwork.networks.detection.fitting import held_out, reference_of, sample_labels
from ketwork.networks.detection.passing import score_data
from ketwork.networks.detection.references import MEAN, WORST, LayerReference
from ketwork.networks.detection.scoring import Scoring, Term
from ketwork.networks.detection.stacks import BY_CLASS, LABEL_FREE, METHODS
from ketwork.networks.detection.unseen_classes import unseen_class_auc
from ketwork.networks.moments import missing_states
from ketwork.networks.study import Layer, Study
from ketwork.quantum import Seed, generator_from

COMBINED = "combined"
BOTH = "both"
FEWEST = 20
"""Calibration samples for p-values: with fewer no p-value is below 0.05, at which an alarm is usual."""

_COMBINED = (*BY_CLASS, "residual")
_MANY = 3
"""Classes from which on `relative` is among the combined terms: with two it is the score of a single direction."""

Method = Literal["combined", "mahalanobis", "relative", "typicality", "residual"]


def make_detector(
    study: Study,
    method: Method = "combined",
    *,
    layers: str | Sequence[str] | None = None,
    positions: Literal["mean", "worst", "both"] = "mean",
    model: nn.Module | None = None,
    calibration: Any = None,
    mask: Mask = None,
    tokenizer: Any = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    seed: Seed = 0,
    reading: Reading = Reading(),  # noqa: B008  frozen
) -> Detector:
    """What `Study.detector` does; see there."""
    if method not in (*METHODS, COMBINED):
        raise ValueError(f"Argument `method` must be one of {(COMBINED, *METHODS)}, but is {method!r}.")
    if positions not in (MEAN, WORST, BOTH):
        raise ValueError(f"Argument `positions` must be one of {(MEAN, WORST, BOTH)}, but is {positions!r}.")
    if study.settings.get("positions"):
        raise ValueError(
            f"Argument `study` must be of all positions, as a detector scores them, but is of `positions=` "
            f"{study.settings['positions']!r}. Study the network without that; `mask=` skips positions in both."
        )
    if (model is None) != (calibration is None):
        alone, missing = ("calibration", "model") if model is None else ("model", "calibration")
        raise ValueError(
            f"Argument `{alone}` must come with `{missing}`, but that is None. Give both, or neither."
        )
    if study.states is not None:
        raise missing_states(study.states, "a detector")
    task = study.settings.get("task")
    methods = _methods(study, method, task)
    rows = _chosen(study, layers)
    given = calibration is not None
    if not given:
        _check_held(study, rows, task, positions)
    references, skipped = _references(study, rows, task, methods, positions, keep_held=not given)
    terms = _terms(references, methods, positions)
    if not terms:
        reason = next(iter(skipped.values()), "it has none of the positions that are scored")
        raise ValueError(
            f"Argument `layers` must name a layer that can be scored, but {rows[0].info.label!r} cannot: {reason}."
        )
    settings: dict[str, Any] = {
        "model": study.settings.get("model", "a network"),
        "layers": "all of the study" if layers is None else str(layers),
        "method": method,
        "positions": positions,
        "normalize": "state",
        "calls": study.settings.get("calls", "separate"),
        "regularization": "Ledoit-Wolf weight of the maximally mixed state; Marchenko-Pastur edge of the bulk",
        "torch": torch.__version__,
    }
    if given:
        assert model is not None
        scored = _scored(
            references,
            terms,
            model,
            tokenized(calibration, tokenizer),
            settings["calls"],
            mask,
            forward,
            max_samples,
            batch_size,
            reading,
        )
        scored = scored[torch.randperm(len(scored), generator=generator_from(seed))]
        settings["calibration"] = "given data"
    else:
        scored = _held_terms(rows, references, terms, task)
        settings["calibration"] = "samples that the study held out"
    several = len(terms) > 1
    least = FEWEST * (2 if several else 1)
    if len(scored) < least:
        where = "calibration" if given else "study"
        raise ValueError(
            f"Argument `{where}` must have at least {least} calibration samples"
            + (f" ({FEWEST} to weigh {len(terms)} terms and {FEWEST} for p-values)" if several else "")
            + f", but has {len(scored)}. Give more samples"
            + (", as `model=` and `calibration=`." if not given else ".")
        )
    fitted = len(scored) // 2 if several else 0
    separation = _separation(rows, references, not given) if method == COMBINED else ()
    names = list(study.gathered.labels.names)
    return Detector(tuple(references), tuple(terms), scored, fitted, names, settings, skipped, separation)


def _methods(study: Study, method: str, task: str | None) -> tuple[str, ...]:
    """The methods that enter."""
    classes = task == "classes"
    if method in BY_CLASS and not classes:
        kept = "no labels" if task is None else f"labels of the kind {task!r}"
        raise ValueError(
            f"Argument `method` is {method!r}, which needs class moments, but the study has {kept}. Study the network "
            f"with `labels=` of one class a sample, or use a method without labels: {', '.join(LABEL_FREE)}."
        )
    if method == COMBINED:
        return _COMBINED if classes else LABEL_FREE
    return (method,)


def _separation(
    rows: Sequence[Layer], references: Sequence[LayerReference], fit_on_half: bool
) -> tuple[float, ...]:
    """How well each layer tells classes that it has not seen, by held-out samples; empty where none is to be chosen.

    With `fit_on_half` by that half of them that weighs the terms; p-values come from the other one.
    """
    if len(references) < 2 or any(each.classes is None for each in references):
        return ()
    kets, _, codes = held_out(rows, "classes")
    n = len(codes) // 2 if fit_on_half else len(codes)
    areas = []
    for reference, held in zip(references, kets, strict=True):
        classes = reference.stack.classes
        assert classes is not None
        areas.append(unseen_class_auc(classes.squared(held[None, :n])[0], classes.codes[0], codes[:n]))
    return tuple(areas)


def _chosen(study: Study, layers: str | Sequence[str] | None) -> list[Layer]:
    """The layers of the study with these names or globs, in order of execution."""
    if layers is None:
        rows = list(study)
    else:
        wanted = [layers] if isinstance(layers, str) else list(layers)
        names = [name for row in study for name in (row.name, *row.aliases)]
        for pattern in wanted:
            if not isinstance(pattern, str):
                raise TypeError(f"Argument `layers` must hold names of layers, but holds {pattern!r}.")
            if not fnmatch.filter(names, pattern):
                near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.3) or names[:6]
                raise ValueError(
                    f"Argument `layers` must name layers of the study, but {pattern!r} is none. The nearest are "
                    f"{', '.join(near)}."
                )
        rows = [
            row
            for row in study
            if any(fnmatch.fnmatchcase(name, p) for name in (row.name, *row.aliases) for p in wanted)
        ]
    if not rows:
        raise ValueError("Argument `study` must have a layer, but has none. Its `skipped` says why.")
    return rows


def _check_held(study: Study, rows: Sequence[Layer], task: str | None, positions: str) -> None:
    """Raises ValueError where the study has no held-out samples that could be calibrated on."""
    if all(sample_labels(row.accumulator, task) is None for row in rows):
        kept = "without labels" if task is None else "with a label a position"
        raise ValueError(
            f"Argument `calibration` must be given, since the study was made {kept} and so held out no samples. Give "
            "samples like those studied, but not among them, as `model=` and `calibration=`."
        )
    if positions != MEAN and any(row.info.positions for row in rows):
        raise ValueError(
            f"Argument `positions` is {positions!r}, but of its held-out samples the study kept the mean over "
            "positions alone. Give samples like those studied, but not among them, as `model=` and `calibration=`."
        )


def _references(
    study: Study,
    rows: list[Layer],
    task: str | None,
    methods: tuple[str, ...],
    positions: str,
    *,
    keep_held: bool,
) -> tuple[list[LayerReference], dict[str, str]]:
    """The references of the layers; those without one leave `rows`, and are skipped with the reason."""
    references, skipped = [], {}
    for row in list(rows):
        if keep_held and sample_labels(row.accumulator, task) is None:
            made: LayerReference | str = "the study held out no samples of it"
        else:
            made = reference_of(row, task, methods, keep_held=keep_held, worst=positions != MEAN)
        if isinstance(made, str):
            skipped[row.info.label] = made
            if len(rows) > 1:
                rows.remove(row)
        else:
            references.append(made)
    return references, skipped


def _terms(references: Sequence[LayerReference], methods: tuple[str, ...], positions: str) -> list[Term]:
    """Every score that the layers can have; those of single positions are free of labels."""
    terms, several = [], len(methods) > 1
    for place, reference in enumerate(references):
        worst = positions != MEAN and reference.every is not None
        for method in methods:
            mean = positions != WORST or reference.every is None or method in BY_CLASS
            few = several and method == "relative" and _classes(reference) < _MANY
            if mean and not few and (method in LABEL_FREE or reference.classes is not None):
                terms.append(Term(place, method, MEAN))
            if worst and method in LABEL_FREE:
                terms.append(Term(place, method, WORST))
    return terms


def _classes(reference: LayerReference) -> int:
    return 0 if reference.classes is None else len(reference.classes.means)


def _scored(
    references: Sequence[LayerReference],
    terms: Sequence[Term],
    model: nn.Module,
    data: Any,
    calls: str,
    mask: Mask,
    forward: Forward | None,
    max_samples: int | None,
    batch_size: int,
    reading: Reading,
) -> Tensor:
    """The terms of given calibration samples."""
    scoring = Scoring(references, terms)
    ending = score_data(
        scoring,
        model,
        data,
        calls=calls,
        mask=mask,
        forward=forward,
        max_samples=max_samples,
        batch_size=batch_size,
        reading=reading,
    )
    if ending.interrupted:
        raise KeyboardInterrupt
    if ending.error is not None:
        raise ending.error
    return torch.cat(scoring.parts)


def _held_terms(
    rows: Sequence[Layer], references: Sequence[LayerReference], terms: Sequence[Term], task: str | None
) -> Tensor:
    """The terms of the samples that the study held out."""
    kets, samples, _ = held_out(rows, task)
    scored = torch.empty(len(samples), len(terms), dtype=torch.float64)
    for place, (reference, held) in enumerate(zip(references, kets, strict=True)):
        mine = [i for i, term in enumerate(terms) if term.layer == place]
        scores, _ = reference.scores(held, tuple(terms[i].method for i in mine))
        for i in mine:
            scored[:, i] = scores[terms[i].method].double().cpu()
    return scored
