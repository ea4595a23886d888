"""Metrics of collapsed networks: outputs are read as what they are, in whatever form."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import Batch
from ketwork.networks.collapse.metrics import Metric


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@dataclass
class Answer:
    hidden: Tensor
    logits: Tensor


class Named(NamedTuple):
    hidden: Tensor
    logits: Tensor


class Wrapped(nn.Module):
    """A network that puts out something made of its logits."""

    def __init__(self, net: nn.Sequential, made: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.made = net, made

    def forward(self, x: Tensor) -> Any:
        hidden = self.net[:-1](x)
        return self.made(hidden, self.net[-1](hidden))


def classifier(features: int = 6, scale: float = 1.0) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, features))
    for i, p in enumerate(net.parameters()):
        p.data = scale * normal(*p.shape, seed=i)
    return net


FORMS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "softmax": lambda hidden, z: z.softmax(-1),
    "log-softmax": lambda hidden, z: z.log_softmax(-1),
    "half a softmax": lambda hidden, z: z.softmax(-1).double(),
    "a dataclass of logits": lambda hidden, z: Answer(hidden, z),
    "a dataclass of probabilities": lambda hidden, z: Answer(hidden, z.softmax(-1)),
    "a named tuple": lambda hidden, z: Named(hidden, z),
    "a mapping": lambda hidden, z: {"hidden": hidden, "logits": z.log_softmax(-1)},
}


@pytest.mark.parametrize("metric", ["kl", "loss", "accuracy"])
@pytest.mark.parametrize("made", FORMS.values(), ids=FORMS)
def test_the_form_of_the_output_does_not_matter(made: Callable[[Tensor, Tensor], Any], metric: str) -> None:
    net, x = classifier(), normal(203, 10, seed=9)
    y = net(x).argmax(-1)
    ranks = [1, 2, 4, 6, 9]

    def values(model: nn.Module) -> list[float]:
        curve = kw.collapse_curve(model, (x, y), metric, layers=nn.ReLU, ranks=ranks, batch_size=67)
        return [point.value.value for point in curve.layers[0].points]

    assert values(Wrapped(net, made)) == pytest.approx(
        values(Wrapped(net, lambda hidden, z: z)), rel=1e-4, abs=1e-5
    )


@pytest.mark.parametrize("features", [1, 5])
def test_sigmoid_outputs_are_probabilities_of_each_unit(features: int) -> None:
    net, x = classifier(features, scale=0.5), normal(203, 10, seed=9)
    y = (net(x).detach() > 0).float()

    def points(made: Callable[[Tensor, Tensor], Any]) -> list[float]:
        curve = kw.collapse_curve(Wrapped(net, made), (x, y), "kl", layers=nn.ReLU, ranks=[1, 3, 6])
        return [point.value.value for point in curve.layers[0].points]

    logits, probabilities = points(lambda hidden, z: z), points(lambda hidden, z: z.sigmoid())
    assert probabilities == pytest.approx(logits, rel=1e-4, abs=1e-5)
    before = torch.distributions.Bernoulli(logits=net(x).detach().double())
    with kw.collapse(net, {"1": 3}, study=kw.study(net, x, layers=nn.ReLU)), torch.no_grad():
        after = torch.distributions.Bernoulli(logits=net(x).double())
    exact = torch.distributions.kl_divergence(before, after).sum(-1).mean()
    assert probabilities[1] == pytest.approx(float(exact), rel=1e-3)


def test_a_single_probability_is_of_two_classes() -> None:
    net, x = classifier(1), normal(100, 10, seed=9)
    y = (net(x).detach()[:, 0] > 0.2).long()
    for metric in ("accuracy", "loss"):
        logit, probability = (
            kw.collapse_curve(Wrapped(net, made), (x, y), metric, layers=nn.ReLU, ranks=[4]).original.value
            for made in (lambda hidden, z: z, lambda hidden, z: z.sigmoid())
        )
        assert probability == pytest.approx(logit, rel=1e-5)


def test_outputs_are_recognized_by_all_batches_and_by_labels_given_beside() -> None:
    """The last batch has one sample, of which nothing tells what its numbers are."""
    net, x = classifier(scale=0.3), normal(65, 10, seed=9)
    y = net(x).argmax(-1).tolist()
    alone = kw.collapse_curve(net, x, "kl", layers="1", ranks=[2], labels=y, batch_size=64)
    together = kw.collapse_curve(net, x, "kl", layers="1", ranks=[2], labels=y, batch_size=65)
    before = net(x).detach().double().log_softmax(-1)
    with kw.collapse(net, {"1": 2}, study=kw.study(net, x, layers="1")), torch.no_grad():
        after = net(x).double().log_softmax(-1)
    exact = float((before.exp() * (before - after)).sum(-1).mean())
    for curve in (alone, together):
        assert curve.layers[0].points[0].value.value == pytest.approx(exact, rel=1e-4)


def test_saturated_probabilities_are_as_far_off_as_their_dtype_tells() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]])
    batch = Batch(logits, None, (), 2)
    kl = Metric.from_argument("kl").scores(logits.flip(0).softmax(-1), None, logits.softmax(-1), batch)
    assert kl.sums.tolist() == pytest.approx([-math.log(torch.finfo(torch.float32).tiny)] * 2)


def test_an_output_without_tensors_is_refused_by_name() -> None:
    net = Wrapped(classifier(), lambda hidden, z: SimpleNamespace(logits=z))
    with pytest.raises(
        ValueError, match=r"Argument `model` must put out a floating tensor.*SimpleNamespace.*forward="
    ):
        kw.collapse_curve(net, normal(20, 10), layers=nn.ReLU)
