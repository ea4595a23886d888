"""What a network predicts, and how far one network's predictions are from another's, in nats a prediction.

Logits are classes: KL(p ‖ p′) of their softmax. Other outputs (embeddings, regressions) stand for normal
distributions of unit variance around them: KL = ½ ‖f − f′‖².
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ketwork.networks.activations.batches import Batch
from ketwork.networks.activations.outputs import activations

Output = str | Callable[[Any, Any], Tensor] | None

KINDS = ("kl", "squared")
TEMPERATURES = (1.0, 4.0, 4.0)  # of the softmax whose Fisher information is taken, a direction drawn for each


@dataclass(frozen=True)
class Predictions:
    """How to read a network's output.

    `output` is a key of it, or a callable (output, batch) -> tensor; `loss` is "kl" for logits, "squared" for
    anything else.
    """

    output: str | Callable[[Any, Any], Tensor]
    loss: str

    @classmethod
    def of(cls, output: Output, loss: str | None, example: Any, batch: Batch) -> Predictions:
        """The reading of outputs like `example`, where None stands for what is usual.

        A mapping's `logits`, else its first tensor; "kl" where that is a tensor of at least two features or is
        called logits, else "squared".
        """
        if loss not in (None, *KINDS):
            raise ValueError(f"Argument `loss` must be one of {KINDS} or None, but is {loss!r}.")
        chosen = output
        if chosen is None:
            named = isinstance(example, Mapping) and "logits" in example
            chosen = "logits" if named else next((leaf.path for leaf in activations(example)), "")
            chosen = chosen.removeprefix(".")
        probe = cls(chosen, "squared")
        rows = probe.rows(example, batch)
        if loss is None:
            plain = chosen in ("", "logits")
            loss = "kl" if plain and rows.shape[-1] > 1 else "squared"
        return cls(chosen, loss)

    def tensor(self, output: Any, batch: Batch) -> Tensor:
        """The tensor of predictions as it came.

        Raises:
            ValueError: the output has no such floating tensor.
        """
        found: Any
        if callable(self.output):
            found = self.output(output, batch.content)
        else:
            found = next(
                (leaf.tensor for leaf in activations(output) if leaf.path.lstrip(".") == self.output), None
            )
        if not isinstance(found, Tensor) or not found.is_floating_point():
            names = [leaf.path.lstrip(".") or "the output itself" for leaf in activations(output)]
            raise ValueError(
                f"Argument `output` must name a floating tensor in the network's output, but is {self.output!r}; "
                f"there are {', '.join(names) or 'none'}."
            )
        return found

    def rows(self, output: Any, batch: Batch) -> Tensor:
        """The predictions, (P, features): one a sample, or one a position that exists.

        Features are on the last axis, or on the second of outputs with four axes or more (images).
        """
        found = self.tensor(output, batch)
        if found.ndim >= 4:
            found = found.movedim(1, -1)
        if found.ndim < 2:
            found = found.reshape(-1, 1)
        if batch.mask is not None and found.ndim == 3 and found.shape[:2] == batch.mask.shape:
            return found[batch.mask]
        return found.reshape(-1, found.shape[-1])

    def draw(self, rows: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """A scalar s of predictions z (P, features) whose gradients g have E g gᵀ = the Fisher information, tempered.

        s = ξ · z, for logits with ξ = √p ∘ v − p (√p · v), so that E ξ ξᵀ = diag p − p pᵀ, and ξ = v otherwise; the
        entries of v are ±1. ∂ log p(ŷ) with ŷ drawn from p has the same second moment, but where the network is sure
        it is nearly always 0 and seldom large, while ξ is always small: far fewer samples say the same.

        p = softmax(z/T). A network is surer of data that it was trained on than of others, and there G at T = 1 alone
        says that hardly anything matters; so of the draws that a survey takes, two are at T = 4.
        """
        v = 2.0 * torch.randint(0, 2, rows.shape, generator=generator).to(rows.device) - 1
        if self.loss == "kl":
            p = F.softmax(rows.detach().float() / temperature, dim=-1)
            v = p.sqrt() * v
            v = v - p * v.sum(dim=-1, keepdim=True)
        return (v * rows.float()).sum()

    def kl(self, rows: Tensor, others: Tensor) -> Tensor:
        """KL of each prediction of the first network from the second's, (P,), float64, in nats."""
        a, b = rows.double(), others.double()
        if self.loss == "squared":
            return (a - b).square().sum(dim=-1) / 2
        a, b = F.log_softmax(a, dim=-1), F.log_softmax(b, dim=-1)
        return (a.exp() * (a - b)).sum(dim=-1).clamp(min=0)
