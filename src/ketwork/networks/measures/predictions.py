"""What a network predicts, and how far one network's predictions are from another's, in nats a prediction.

An output may have several parts; each is read as what it is, and their distances are added:

| loss | the part holds | distance of f′ from f |
|---|---|---|
| `kl` | logits (or logarithms of probabilities) of classes | KL(p ‖ p′) of their softmax |
| `probabilities` | rows that sum to 1 | KL(p ‖ p′) |
| `bernoulli` | probabilities of yes, each by itself (sigmoid units) | Σ KL of each unit |
| `bernoulli_logits` | the logits of such | Σ KL of each unit |
| `regression` | numbers | ½ Σ ((f − f′)/σ)², σ the spread of each feature over the data |
| `squared` | vectors with a scale of their own (unit vectors, embeddings) | ½ ‖f − f′‖² |

The last two are the KL of normal distributions of width σ, or of width 1, around them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ketwork.networks.activations import Batch, activations

Path = str | Callable[[Any, Any], Tensor]
Output = Path | Sequence[Path] | None

LOSSES = ("kl", "probabilities", "bernoulli", "bernoulli_logits", "regression", "squared")
CATEGORICAL = ("kl", "probabilities")
TEMPERATURES = (1.0, 4.0, 4.0)  # of the softmax whose Fisher information is taken, a direction drawn for each

# Fields of a `transformers` output that hold what it computed with, not what it predicts.
_INNER = (
    "hidden_states",
    "attentions",
    "cross_attentions",
    "past_key_values",
    "decoder_",
    "encoder_",
    "loss",
)
_ROUNDING = (
    0.02  # of a sum of probabilities, or of the norm of a unit vector, in half precision; less in others
)
_SUMS = (
    0.5  # logits trained by cross-entropy have sums that vary less than this, of what independent features do
)
_CERTAIN = (
    0.9  # mean probability of the likeliest class from which rows are logits that are sure of something
)
_LEAST_SPREAD = 0.7  # outputs that vary less may well be logits, of a network that is not sure of anything
_NUMBERS = 2**22  # of predictions that are worked on at a time, and that they are recognized by
_STANDS_OUT = 1.5  # times as far as a row's smallest is its largest from the others, of logits
_LEAST_CLASSES, _LEAST_ROWS = 8, 32  # of fewer a largest says little
_AMOUNTS = (
    0.1  # of the positive part: a smaller negative part is that of amounts, skewed without being logits
)


@dataclass(frozen=True)
class Head:
    """One part of an output: where it is, what it is taken for, why, and σ of each feature (regressions alone)."""

    path: Path
    loss: str
    why: str = "given"
    spread: Tensor | None = None

    @property
    def name(self) -> str:
        """The part in words."""
        if callable(self.path):
            return getattr(self.path, "__name__", type(self.path).__name__)
        return self.path or "the output itself"

    def tensor(self, output: Any, batch: Batch) -> Tensor:
        """The tensor of predictions as it came.

        Raises:
            ValueError: the output has no such floating tensor.
        """
        tensor: Any
        if callable(self.path):
            tensor = self.path(output, batch.content)
        else:
            tensor = next(
                (leaf.tensor for leaf in activations(output) if leaf.path.lstrip(".") == self.path), None
            )
        if isinstance(tensor, Tensor) and tensor.is_complex():
            raise ValueError(
                "Argument `model` must be a network whose output is real, but it is complex, which has no loss, "
                "accuracy or KL divergence. Give `forward=lambda model, batch: model(batch).abs()`, or the like."
            )
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            names = [leaf.path.lstrip(".") or "the output itself" for leaf in activations(output)]
            raise ValueError(
                f"Argument `output` must name a floating tensor in the network's output, but is {self.path!r}; "
                f"there are {', '.join(names) or 'none'}."
            )
        return tensor

    def rows(self, output: Any, batch: Batch) -> Tensor:
        """The predictions, (P, features): one a sample, or one a position that exists.

        Features are on the last axis, or on the second of outputs with four axes or more (images).
        """
        values = self.tensor(output, batch)
        if values.ndim >= 4:
            values = values.movedim(1, -1)
        if values.ndim < 2:
            values = values.reshape(-1, 1)
        if batch.mask is not None and values.ndim == 3 and values.shape[:2] == batch.mask.shape:
            return values[batch.mask]
        return values.reshape(-1, values.shape[-1])

    def natural(self, rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """The rows as logits, or as numbers in units of their spread, in their own dtype unless one is given.

        Probabilities that rounding has made 0 or 1 become the least and the most that their own dtype tells from these.
        """
        info = torch.finfo(rows.dtype)
        rows = rows if dtype is None else rows.to(dtype)
        if self.loss == "probabilities":
            return rows.clamp(min=info.tiny).log()
        if self.loss == "bernoulli":
            return torch.logit(rows.clamp(min=info.tiny, max=1 - info.eps / 2))
        if self.loss == "regression" and self.spread is not None:
            return rows / self.spread.to(rows)
        return rows

    def directions(self, z: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """ξ like z (P, features), with E ξ ξᵀ the Fisher information of what z says, tempered."""
        parts = z.detach().split(_at_once(z))
        return torch.cat([self._directions(part, temperature, generator) for part in parts])

    def _directions(self, z: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        v = 2.0 * torch.randint(0, 2, z.shape, generator=generator).to(z) - 1
        if self.loss in CATEGORICAL:
            p = F.softmax(z / temperature, dim=-1)
            v = p.sqrt() * v
            return v - p * v.sum(dim=-1, keepdim=True)
        if self.loss.startswith("bernoulli"):
            p = torch.sigmoid(z / temperature)
            return v * (p * (1 - p)).sqrt()
        return v

    def certainty(self, rows: Tensor) -> float:
        """The mean probability of the likeliest class, of classes."""
        parts = rows.split(_at_once(rows))
        return float(torch.cat([self.natural(one.double()).softmax(-1).amax(-1) for one in parts]).mean())

    def kl(self, rows: Tensor, others: Tensor) -> Tensor:
        """KL of each prediction of the first network from the second's, (P,), float64, in nats."""
        step = _at_once(rows)
        pairs = zip(rows.split(step), others.split(step), strict=True)
        return torch.cat([self._kl(*pair) for pair in pairs])

    def _kl(self, rows: Tensor, others: Tensor) -> Tensor:
        a, b = self.natural(rows, torch.float64), self.natural(others, torch.float64)
        if self.loss in CATEGORICAL:
            a, b = F.log_softmax(a, dim=-1), F.log_softmax(b, dim=-1)
            return (a.exp() * (a - b)).sum(dim=-1).clamp(min=0)
        if self.loss.startswith("bernoulli"):
            yes = a.sigmoid() * (F.logsigmoid(a) - F.logsigmoid(b))
            no = (-a).sigmoid() * (F.logsigmoid(-a) - F.logsigmoid(-b))
            return (yes + no).sum(dim=-1).clamp(min=0)
        return (a - b).square().sum(dim=-1) / 2


@dataclass(frozen=True)
class Predictions:
    """How to read a network's output: its heads."""

    heads: tuple[Head, ...]

    @classmethod
    def from_output(cls, output: Output, loss: str | None, example: Any, batch: Batch) -> Predictions:
        """The reading of outputs like `example`, where None stands for what is usual.

        `output` names one part or several; None takes those called logits, else all floating tensors (of a
        `transformers` output without logits the first). What a part is taken for, where `loss` does not say, is
        known by `recognized`, here from `example` alone.

        Raises:
            ValueError: an argument names nothing of the kind.
        """
        if loss not in (None, *LOSSES):
            raise ValueError(f"Argument `loss` must be one of {LOSSES} or None, but is {loss!r}.")
        if output is None:
            paths: Sequence[Path] = _usual(example)
        else:
            paths = [output] if isinstance(output, str) or callable(output) else list(output)
        heads = cls(tuple(Head(path, loss or "squared") for path in paths))
        rows = heads.rows(example, batch)
        return heads if loss is not None else heads.recognized(rows, batch.labels)

    def recognized(self, rows: Sequence[Tensor], labels: Any) -> Predictions:
        """The same parts, each taken for what its values (P, features) and the labels say."""
        heads = []
        for head, part in zip(self.heads, rows, strict=True):
            loss, why = recognized(part, labels, head.name)
            heads.append(replace(head, loss=loss, why=why))
        return Predictions(tuple(heads)).in_units_of(rows)

    def in_units_of(self, rows: Sequence[Tensor]) -> Predictions:
        """The same with the spreads of regressions taken from these rows."""
        heads = []
        for head, part in zip(self.heads, rows, strict=True):
            if head.loss == "regression":
                spread = part.double().std(dim=0, correction=0)
                typical = float(spread.square().mean().sqrt()) or 1.0
                head = replace(head, spread=spread.clamp(min=1e-3 * typical))
            heads.append(head)
        return Predictions(tuple(heads))

    def rows(self, output: Any, batch: Batch) -> tuple[Tensor, ...]:
        """Each head's predictions, (P, features)."""
        return tuple(head.rows(output, batch) for head in self.heads)

    def draw(self, rows: Sequence[Tensor], temperature: float, generator: torch.Generator) -> Tensor:
        """A scalar s of the predictions whose gradients g have E g gᵀ = the Fisher information, tempered.

        s = ξ · z over natural parameters z, for logits with ξ = √p ∘ v − p (√p · v), so that E ξ ξᵀ = diag p − p pᵀ,
        for
        Bernoulli units √(p(1 − p)) v, and v otherwise; the entries of v are ±1. ∂ log p(ŷ) with ŷ drawn from p has the
        same second moment, but where the network is sure it is nearly always 0 and seldom large, while ξ is always
        small: far fewer samples are enough.

        p = softmax(z/T). A network is surer of data that it was trained on than of others, and there G at T = 1 alone
        says that hardly anything matters; so of the draws that a survey takes, two are at T = 4.
        """
        total = rows[0].new_zeros((), dtype=torch.float32)
        for head, part in zip(self.heads, rows, strict=True):
            z = head.natural(part.float())
            total = total + (head.directions(z, temperature, generator) * z).sum()
        return total

    def described(self) -> list[dict[str, str]]:
        """Each part in words: which, what it is taken for, and why; for a record."""
        return [{"output": head.name, "loss": head.loss, "why": head.why} for head in self.heads]


def recognized(rows: Tensor, labels: Any, name: str = "") -> tuple[str, str]:
    """What predictions (P, features) are, one of `LOSSES`, and by which sign.

    >>> recognized(torch.tensor([[0.2, 0.8], [0.5, 0.5]]), None)
    ('probabilities', 'rows sum to 1')
    >>> recognized(torch.tensor([[0.2, 0.9], [0.5, 0.1]]), None)
    ('bernoulli', 'all values lie between 0 and 1')
    """
    exact = rows.dtype.itemsize >= 4
    near = 1e-3 if exact else _ROUNDING
    count, features, numbers = *rows.shape, rows.numel()
    rows = rows.detach()[:: max(1, numbers // _NUMBERS)].double()
    labels = labels if isinstance(labels, Tensor) else None
    within = bool(((rows >= 0) & (rows <= 1)).all())
    if features > 1 and within and bool(((rows.sum(-1) - 1).abs() < near).all()):
        return "probabilities", "rows sum to 1"
    if features > 1 and bool((rows <= near).all()) and bool((rows.logsumexp(-1).abs() < near).all()):
        return "kl", "rows are logarithms that sum to probability 1"
    if features > 1 and bool(((rows.norm(dim=-1) - 1).abs() < near).all()):
        return "squared", "rows are unit vectors"
    if within and bool((rows > 0).any()) and bool((rows < 1).any()) and not _binary(rows):
        return "bernoulli", "all values lie between 0 and 1"
    if labels is not None and labels.numel() == numbers:
        if labels.is_floating_point() and not _binary(labels):
            return "regression", "labels are real numbers, one for each feature"
        if (features > 1 or _binary(labels)) and bool(((labels == 0) | (labels == 1)).all()):
            return "bernoulli_logits", "labels are 0 or 1 for each feature"
    if features == 1:
        return "regression", "there is one feature"
    if labels is not None and not labels.is_floating_point() and labels.numel() == count:
        known = labels[labels >= 0]
        if known.numel() and int(known.max()) < features:
            return "kl", f"integer labels are classes of {features} features"
    if "logit" in name:
        return "kl", "it is called logits"
    if name and not name.startswith("[") and name != Head("", "").name:
        return "regression", "nothing says otherwise, and it is not called logits"
    spread = rows.var(dim=0, correction=0)
    typical = float(spread.mean())
    sums = float(rows.sum(-1).var(correction=0)) / (features * typical) if typical > 0 else 0.0
    certain = float(rows.softmax(-1).amax(-1).mean()) > _CERTAIN
    if sums >= _SUMS and typical >= _LEAST_SPREAD**2 and not certain:
        if _one_stands_out(rows):
            return "kl", "nothing says otherwise, and one feature of each row stands out, as a class does"
        return (
            "regression",
            "nothing says otherwise, and rows have no common sum, as trained logits nearly have",
        )
    return "kl", "nothing says otherwise"


def _one_stands_out(rows: Tensor) -> bool:
    """Whether the largest of a row is farther from the mean than the smallest, as of logits alone.

    Each feature is taken from its mean over the data, in units of its spread. Of numbers that vary either way both are
    as far; a logit is high for the few samples of its class and low for many. A common term of all logits, which a
    softmax does not see, and which optimizers with a rate for each weight (Adam) let drift, so that sums say nothing,
    cancels in the means over rows.
    """
    if rows.shape[-1] < _LEAST_CLASSES or len(rows) < _LEAST_ROWS:
        return False
    positive, negative = rows.clamp(min=0).sum(), -rows.clamp(max=0).sum()
    if bool(negative < _AMOUNTS * positive):
        return False
    apart = rows - rows.mean(dim=0)
    spread = apart.std(dim=0, correction=0)
    apart = apart[:, spread > 0] / spread[spread > 0]
    return bool(apart.amax(-1).mean() > -_STANDS_OUT * apart.amin(-1).mean())


def _at_once(rows: Tensor) -> int:
    """How many rows are worked on at a time: the logits of a language model take much memory in float64."""
    return max(1, _NUMBERS // max(1, rows.shape[-1]))


def _binary(values: Tensor) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _usual(example: Any) -> list[Path]:
    """The parts that matter where nobody says: those called logits, else all floating tensors."""
    leaves = [leaf for leaf in activations(example) if leaf.tensor.ndim > 0 and not leaf.tensor.is_complex()]
    names = [leaf.path.removeprefix(".") for leaf in leaves]
    fields = getattr(example, "_fields", ())  # of a named tuple, whose parts are found by their places
    called = {f"[{place}]": field for place, field in enumerate(fields)}
    if not (called or isinstance(example, Mapping) or is_dataclass(example)):
        return list(names) or [""]
    outer = [name for name in names if not called.get(name, name).startswith(_INNER)]
    logits = [
        name
        for name in outer
        if (word := called.get(name, name)).endswith("logits") or word.startswith("logits")
    ]
    if logits:
        return list(logits)
    if type(example).__module__.startswith("transformers"):
        return list(outer[:1]) or [""]
    return list(outer) or [""]
