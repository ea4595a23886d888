"""`probe`: how well features tell labels, by the readouts that a study solves for its layers, scikit-learn style."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from ketwork._compat import renamed
from ketwork.networks.activations import Labels, unit
from ketwork.networks.measures import scores as score
from ketwork.networks.measures.probes import KINDS, LINEAR, Readout, read_out
from ketwork.networks.moments import HELD_SHARE, LabelledMoments, Rows
from ketwork.quantum import Estimate, Seed, generator_from


@renamed(generator="seed")
def probe(features: Any, labels: Any, *, kind: str = LINEAR, seed: Seed = 0) -> Probe | ProbeRegressor:
    """A readout of labels from features, solved without training on three quarters and scored on the rest.

    The features' directions are read: each row is encoded as a unit ket. See `Probe`, which this returns with
    `scores_` on held-out samples (`accuracy`, `balanced`, `auc`, or `r2`, each an `Estimate` with its standard
    error), `confusion_` (label, read), `held_out_`, the indices of those samples (at most 1,024), and `held_counts_`,
    how many of them each label has. What `study` finds for a layer's pooled activations is this with both kinds.

    Args:
        features: (N, d), an array or tensor of real numbers.
        labels: one a row; integers, strings and booleans are classes (integers −100 are skipped), floating
            numbers targets of a regression, (N,) or (N, m), which the linear kind alone reads.
        kind: `"linear"` or `"pretty good"`.
        seed: draws the held-out part, an integer or a generator.

    Cost: O(N d² + d³).

    >>> import torch
    >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    >>> reader = probe(x, x[:, 0] > 0)
    >>> reader.scores_["balanced"].value > 0.9
    True
    >>> reader.predict(torch.eye(8)[:1])
    array([ True])
    """
    if isinstance(features, Tensor):
        features = features.detach().cpu()
        if features.is_floating_point() and features.dtype.itemsize < 4:
            features = features.float()  # NumPy knows no bfloat16
    x = np.asarray(features)
    if x.ndim != 2 or x.dtype.kind not in "biuf":
        raise ValueError(
            f"Argument `features` must be real, of shape (samples, features), but is {x.dtype} of shape {x.shape}."
        )
    parsed = Labels(labels)
    targets = parsed.of_batch(None, None, 0, len(x))
    parsed.check_length(len(x), limited=False)
    if targets is None or parsed.task == "positions":
        raise ValueError("Argument `labels` must hold one class a row, or numbers.")
    keys = _keys(len(x), _seeded(seed))
    if parsed.task == "values":
        if kind != LINEAR:
            raise ValueError(f"Argument `kind` must be {LINEAR!r} where labels are numbers, but is {kind!r}.")
        numbers = targets.numpy() if np.ndim(labels) > 1 else targets[:, 0].numpy()
        regressor = ProbeRegressor()
        held = regressor._solve(x, numbers, keys).held
        regressor.scores_ = {"r2": score.r_squared(regressor.readout_.scores(held.kets), held.targets)}
        regressor.held_out_ = held.samples.sort().values.numpy()
        return regressor
    named = (targets >= 0).numpy()
    classifier = Probe(kind)
    codes = targets[torch.from_numpy(named)].numpy()
    held = classifier._solve(x[named], np.asarray(parsed.names)[codes], keys[named]).held
    scores = classifier.readout_.scores(held.kets)
    classifier.scores_ = {name: measure(scores, held.targets) for name, measure in score.MEASURES.items()}
    classifier.confusion_ = score.confusion(scores, held.targets).numpy()
    classifier.held_out_ = np.flatnonzero(named)[held.samples.sort().values.numpy()]
    counts = np.bincount(held.targets.numpy(), minlength=len(classifier.classes_))
    classifier.held_counts_ = dict(zip(classifier.classes_.tolist(), counts.tolist(), strict=True))
    return classifier


class _Readable(BaseEstimator):
    """What both estimators share: features become kets, a readout is solved and asked."""

    random_state: int
    strength: float | None
    readout_: Readout
    scores_: dict[str, Estimate]
    held_out_: np.ndarray

    def __repr__(self, **settings: Any) -> str:
        scores = ", ".join(f"{name} {value}" for name, value in getattr(self, "scores_", {}).items())
        return super().__repr__(**settings) + (
            f": {scores}, held out: {len(self.held_out_)}" if scores else ""
        )

    def _fitted(self, x: np.ndarray, targets: np.ndarray, kind: str, keys: Tensor | None) -> LabelledMoments:
        if keys is None:
            generator = torch.Generator().manual_seed(self.random_state)
            keys = HELD_SHARE + (1 - HELD_SHARE) * torch.rand(
                len(x), generator=generator, dtype=torch.float64
            )
        rows = Rows(_kets(x), torch.from_numpy(targets), keys, torch.arange(len(x)))
        statistics = LabelledMoments.from_rows(rows)
        self.readout_ = read_out(statistics, statistics.fitting(), (kind,), self.strength)[kind]
        self.strength_ = self.readout_.strength
        return statistics

    def _read(self, features: Any) -> np.ndarray:
        check_is_fitted(self)
        x = validate_data(self, features, reset=False, dtype=np.float64)
        return self.readout_.scores(_kets(x)).numpy()


class Probe(ClassifierMixin, _Readable):
    """A classifier that is solved, not trained, from the second moments of its classes: one of a study's readouts.

    Each row of features becomes a unit ket, so its length is not read. All classes weigh the same.

    Args:
        kind: `"linear"`, ridge regression of the labels' indicators, or `"pretty good"`, the pretty good
            measurement (Hausladen & Wootters 1994) of centred kets with a reference amplitude.
        strength: the regularisation: λ over the kets' variance, or the weight of the maximally mixed state;
            None takes what reads a quarter of the samples best by AUC after a fit to the others.
        random_state: draws that quarter.

    Attributes: `classes_`, `strength_`, and from `probe` also `scores_`, `confusion_`, `held_out_` and `held_counts_`.

    Beside `sklearn.linear_model.RidgeClassifier` it balances classes, chooses its own strength in one
    decomposition, and has probabilities. Cost: O(N d² + d³).

    >>> import numpy as np
    >>> x = np.array([[1.0, 0.1], [0.9, -0.1], [-0.1, 1.0], [0.1, 0.9]])
    >>> Probe(strength=1e-3).fit(x, ["a", "a", "b", "b"]).predict([[2.0, 0.0]])
    array(['a'], dtype='<U1')
    """

    confusion_: np.ndarray
    held_counts_: dict[Any, int]

    def __init__(self, kind: str = LINEAR, strength: float | None = None, random_state: int = 0) -> None:
        self.kind = kind
        self.strength = strength
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Probe:
        """The classifier, fitted to features (N, d) and labels (N,)."""
        self._solve(X, y, None)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """The scores of the classes, (N, K), the largest at the class read; for two classes their difference, (N,)."""
        scores = self._read(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (N, K): outcome probabilities, or the linear scores cut at 0, over their sum."""
        scores = self._read(X).clip(min=0)
        return scores / scores.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The class that each row is read as, (N,)."""
        read = self._read(X).argmax(axis=1)
        return self.classes_[read]

    def _solve(self, features: Any, labels: Any, keys: Tensor | None) -> LabelledMoments:
        if self.kind not in KINDS:
            raise ValueError(f"Argument `kind` must be one of {KINDS}, but is {self.kind!r}.")
        x, y = validate_data(self, features, labels, dtype=np.float64)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Argument `y` must hold at least 2 classes, but has 1 class: {self.classes_[0]!r}."
            )
        return self._fitted(x, codes.astype(np.int64), self.kind, keys)


class ProbeRegressor(RegressorMixin, _Readable):
    """Ridge regression of numbers on unit kets with a free constant, solved from second moments.

    Each row of features becomes a unit ket, so its length is not read. `strength` and `random_state` are those of
    `Probe`, the strength chosen by squared error.
    """

    def __init__(self, strength: float | None = None, random_state: int = 0) -> None:
        self.strength = strength
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> ProbeRegressor:
        """The regressor, fitted to features (N, d) and targets (N,) or (N, m)."""
        self._solve(X, y, None)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The targets read from each row, (N,) or (N, m)."""
        values = self._read(X)
        return values[:, 0] if self._flat else values

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.regressor_tags.poor_score = True  # on targets that depend on the rows' lengths
        return tags

    def _solve(self, features: Any, targets: Any, keys: Tensor | None) -> LabelledMoments:
        x, y = validate_data(
            self, features, targets, dtype=np.float64, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        self._flat = y.ndim == 1
        return self._fitted(x, y.reshape(len(x), -1).astype(np.float64), LINEAR, keys)


def _seeded(seed: Seed) -> torch.Generator:
    """A generator far from those of small seeds, with which users draw data: a split must not follow the data."""
    given = generator_from(seed)
    return given if given is seed else torch.Generator().manual_seed(0x6B6574776F726B + given.initial_seed())


def _keys(n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator, dtype=torch.float64)


def _kets(x: np.ndarray) -> Tensor:
    return unit(torch.from_numpy(np.ascontiguousarray(x)).double())[0]
