"""An embedding whose weight is a linear head's too, cut to one low rank that both share: E ≈ A B, A one tensor.

Rows of E (V × d) are the words' vectors e. The embedding puts one of them out; the head puts out h·e for every word.
With A = E Vᵀ (V × r) in both, the embedding becomes A, then S₁ (d × r), and the head S₂ᵀ (r × d), then A: a word's
vector is S₁ V e to the one and S₂ V e to the other. So e is a state that two readers share, with W = 1 for each
(`shared_factor`):

| reader | metric H² | moments of e |
|---|---|---|
| embedding | G at its output | those of the words in the data |
| head | C = E h hᵀ of its inputs | M = Eᵀ G E, G at the logits |

since logits that are off by h·δe cost Σ_vw G_vw δe_vᵀ C δe_w = tr(C (1 − S₂ V) M (1 − S₂ V)ᵀ) where h and the
gradients are independent. M is the second moment of Eᵀ g, the gradients at the head's input: nothing is V × V, G
is no diagonal, and to add one number to all logits costs nothing, as is right. A bias of the head takes up what is
lost at the mean of h, so that C is centred there; where there is none, C is not.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Metric
from ketwork.networks.compression.forms import Form
from ketwork.networks.compression.layers import TIED, WeightLayer, weight_layer, weight_layers
from ketwork.networks.compression.reductions import ROUNDED
from ketwork.networks.compression.shared_factor import Shared, SharedReader, shared
from ketwork.networks.compression.surgery import replace as put
from ketwork.networks.compression.surgery import resized
from ketwork.networks.compression.survey import WIDEST


@dataclass(frozen=True)
class Head(WeightLayer):
    """A linear head whose weight is an embedding's."""

    @property
    def refits(self) -> bool:
        """No, as `Tied` says."""
        return False

    def gradient_rows(self, gradient: Tensor, mask: Tensor | None = None) -> Tensor:
        """Eᵀ g of every position, (n, d): the gradient at its input. O(n V d)."""
        return self.rows_out(gradient, mask) @ self.module.weight


@dataclass(frozen=True)
class Tied(WeightLayer):
    """An embedding with the head that has its weight; as a layer of its own it is the embedding."""

    head: Head = field(kw_only=True)

    @property
    def parts(self) -> tuple[WeightLayer, ...]:
        """The embedding and the head."""
        return self, self.head

    @property
    def refits(self) -> bool:
        """No: an A that is better for the one would be worse for the other."""
        return False

    def in_form(self, form: Form, matrices: list[Tensor], bias: Tensor) -> dict[str, nn.Module]:
        """What stands in the places of both, from A (V, r), S₁ (d, r) and S₂ᵀ (r, d), and both biases in one."""
        words, second, first = matrices
        embedding = self.factored(form, [words.T, second], bias[: self.m])
        head = self.head.factored(form, [first, words], bias[self.m :] if self.head.has_bias else None)
        head[1].weight = embedding[0].weight
        return {**dict.fromkeys(self.paths, embedding), **dict.fromkeys(self.head.paths, head)}

    def copied(self) -> dict[str, nn.Module]:
        """Both with one copy of their weight."""
        new = super().copied()
        head = resized(self.head.module, {})
        head.weight = new[self.path].weight
        return new | dict.fromkeys(self.head.paths, head)


def as_one_module(model: nn.Module, chosen: Container[str]) -> None:
    """Embeddings that have one weight, and so put out the same, become one module under several names.

    That is where all of them are `chosen`, each by one of its paths at least.
    """
    for modules in _groups(model, weight_layers(model)[1]):
        embeddings = {module: paths for module, paths in modules.items() if isinstance(module, nn.Embedding)}
        every = all(any(path in chosen for path in paths) for paths in embeddings.values())
        first = next(iter(embeddings), None)
        if first is not None and every:
            put(model, {path: first for paths in embeddings.values() for path in paths})


def tied_layers(model: nn.Module, left: dict[str, str]) -> list[Tied]:
    """The embeddings whose weight one linear head has too, and nothing else: they are taken from what is `left`.

    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    >>> net[1].weight = net[0].weight
    >>> [(pair.path, pair.head.path) for pair in tied_layers(net, weight_layers(net)[1])]
    [('0', '1')]
    """
    result = []
    for modules in _groups(model, left):
        kinds = {(one := weight_layer(module, paths)).kind: one for module, paths in modules.items()}
        if len(modules) != 2 or kinds.keys() != {"embedding", "linear"}:
            continue
        words, head = kinds["embedding"], kinds["linear"]
        if head.has_bias and len(_holders(model)[head.module.bias]) > 1:
            left |= dict.fromkeys((words.path, head.path), "its weight is tied, and so is its bias")
        elif words.m > WIDEST:
            left |= dict.fromkeys(
                (words.path, head.path), f"{words.m} × {words.m} moments would be too large"
            )
        else:
            del left[words.path], left[head.path]
            other = Head(head.paths, head.module, head.kind, head.m, head.k)
            result.append(Tied(words.paths, words.module, words.kind, words.m, words.k, False, head=other))
    return result


def _groups(model: nn.Module, left: Mapping[str, str]) -> list[dict[nn.Module, tuple[str, ...]]]:
    """The modules, with their paths, that have one weight, where that is all that speaks against each of them."""
    return [
        modules
        for modules in _holders(model).values()
        if len(modules) > 1 and all(left.get(paths[0]) == TIED for paths in modules.values())
    ]


def _holders(model: nn.Module) -> dict[nn.Parameter, dict[nn.Module, tuple[str, ...]]]:
    """The modules that have each parameter, with their paths."""
    result: dict[nn.Parameter, dict[nn.Module, tuple[str, ...]]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for parameter in module._parameters.values():
            if parameter is not None:
                own = result.setdefault(parameter, {})
                own[module] = (*own.get(module, ()), path)
    return result


@dataclass
class TiedReductions:
    """E and the factors of all ranks, with what `Reductions` has. `mean` is that of the head's inputs."""

    layer: Tied
    weight: Tensor  # Eᵀ, (d, V)
    factors: Shared
    mean: Tensor

    @classmethod
    def of(
        cls,
        layer: Tied,
        weight: Tensor,
        words: Scatter,
        inputs: Scatter,
        metric: Metric,
        pulled: Tensor | None,
    ) -> TiedReductions:
        """From the moments of the embedding's outputs and of the head's inputs, H of the one and M of the other.

        Without M all words count the same in the head, and each of the two for as much as the other. O(d³ + V d²).
        """
        weighted = pulled is not None
        if pulled is None:
            pulled = weight @ weight.T / weight.shape[1]
        moments = inputs.covariance()
        if not layer.head.has_bias:
            moments = moments + torch.outer(inputs.left, inputs.left)
        own = _Reader(words.covariance(), words.left, metric)
        other = _Reader(pulled, torch.zeros_like(words.left), Metric.of(moments))
        readers = [own, other] if weighted else [own.of_total(1), other.of_total(1)]
        size = float(own.covariance.trace()) or 1.0
        return cls(layer, weight, shared([one.of_size(size) for one in readers]), inputs.left)

    @property
    def total(self) -> float:
        """What is lost at rank 0."""
        return self.factors.error(0)

    def forms(self, multiple_of: int) -> Iterator[Form]:
        """Those of ranks that are multiples of that number."""
        for rank in range(multiple_of, min(self.weight.shape) + 1, multiple_of):
            yield Form("outputs", rank)

    def error(self, form: Form) -> float:
        """What both lose, in the metric of each; what rounding adds is estimated as a share of all."""
        lost = 0.0 if form.rank is None else self.factors.error(form.rank)
        return lost + (ROUNDED * self.total if form.bits else 0.0)

    def share(self, form: Form) -> float:
        """That as a share of what both have."""
        return self.error(form) / self.total if self.total > 0 else 0.0

    def cut(self, form: Form) -> tuple[list[Tensor], Tensor]:
        """A, S₁ and S₂ᵀ, and the biases of the embedding and of the head in one. O(V d r)."""
        assert form.rank is not None
        first, ((second, bias), (out, _)) = self.factors.cut(form.rank)
        words = self.weight.T @ first.T
        head = self.layer.head
        if head.has_bias:
            missing = self.weight.T @ self.mean - words @ (out.T @ self.mean)
            bias = torch.cat([bias, head.bias() + missing])
        return [words, second, out.T], bias


@dataclass(frozen=True)
class _Reader:
    """One that reads words' vectors: their moments to it, and its metric."""

    covariance: Tensor
    mean: Tensor
    metric: Metric

    def of_total(self, total: float) -> _Reader:
        """In another unit, so that this is what it has in all."""
        root = self.metric.times(torch.eye(len(self.mean)).to(self.mean))
        now = float((root @ self.covariance * root).sum())
        return self if now == 0 else self._in_unit((total / now) ** 0.5)

    def of_size(self, size: float) -> SharedReader:
        """The same with moments of that trace, so that those of both can be averaged, and a metric that makes up."""
        scale = size / (float(self.covariance.trace()) or 1.0)
        eye = torch.eye(len(self.mean)).to(self.mean)
        scatter = Scatter(1, self.mean, self.mean, self.covariance * scale)
        return SharedReader(eye, torch.zeros_like(self.mean), scatter, self._in_unit(scale**-0.5).metric)

    def _in_unit(self, factor: float) -> _Reader:
        return replace(self, metric=replace(self.metric, root=self.metric.root * factor))
