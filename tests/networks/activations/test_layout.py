"""Networks of random layouts, whose sizes collide: what a study reports is what hooks with known axes give, or refused.

Each kind is a network made of a layout: where samples, positions and features stand in what its layers put out. The
expected kets come from plain forward hooks that know it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import Activation, capture

SIZES = st.sampled_from([2, 3, 4, 6, 12])
SEEDS = st.integers(0, 2**16)

ToKets = Callable[[Tensor], Tensor]
"""Of one output the vectors (vectors, features)."""


@dataclass
class Kind:
    """A network, its data in batches, and for some layers how their outputs become kets."""

    net: nn.Module
    batches: list[Any]
    kets: dict[str, ToKets]
    labels: bool = False
    must: set[str] = field(default_factory=set)  # of which a refusal is a failure


def rows_last(out: Tensor) -> Tensor:
    return out.flatten(0, -2)


def channels_first(out: Tensor) -> Tensor:
    return out.movedim(1, -1).flatten(0, -2)


def entropy(kets: np.ndarray) -> tuple[float, int]:
    """Von Neumann entropy in bits of the mean projector onto unit kets (rows), and how many there are."""
    norms = np.linalg.norm(kets, axis=1)
    unit = kets[norms > 0] / norms[norms > 0, None]
    levels = np.linalg.eigvalsh(unit.T @ unit / len(unit)).clip(0)
    levels = levels[levels > 0]
    return float(-(levels * np.log2(levels)).sum()), len(unit)


def values(layer: kw.Layer) -> tuple[int, float]:
    """The number of vectors and the entropy that a study has."""
    return layer.accumulator.moment.n, layer.entropy.plain


def by_hooks(kind: Kind) -> dict[str, tuple[float, int]]:
    """The entropies and numbers of vectors by plain hooks and numpy."""
    kept: dict[str, list[np.ndarray]] = {name: [] for name in kind.kets}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, given: Any, out: Tensor) -> None:
            kept[name].append(kind.kets[name](out).detach().double().numpy())

        return note

    handles = [kind.net.get_submodule(name).register_forward_hook(hook(name)) for name in kind.kets]
    with torch.no_grad():
        for batch in kind.batches:
            kind.net(**batch) if isinstance(batch, dict) else kind.net(batch)
    for handle in handles:
        handle.remove()
    return {name: entropy(np.concatenate(parts)) for name, parts in kept.items()}


def check(kind: Kind) -> None:
    """Each layer of the study agrees with hooks, or is refused with a reason."""
    kind.net.eval()
    record = kw.study(kind.net, kind.batches, layers=list(kind.kets), labels=False)
    for name, (bits, number) in by_hooks(kind).items():
        if name not in record:
            assert name not in kind.must, record.skipped[name]
            assert len(record.skipped[name]) > 20
            continue
        assert values(record[name]) == (number, pytest.approx(bits, abs=2e-4)), record[name].info


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Along(nn.Module):
    """A layer of own code: a matrix along the last axis, and what is beside it."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(before, after))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.weight)


class Permuted(nn.Module):
    """Passes on its input with its axes in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


@given(SIZES, SIZES, SIZES, SEEDS)
def test_batch_first_and_sequence_first(n: int, t: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    first = nn.Sequential(nn.Linear(d, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3))
    data = [normal(seed, n, t, d), normal(seed + 1, n, t, d)]
    check(Kind(first, data, {"0": rows_last, "2": rows_last, "3": rows_last}, must={"0", "2", "3"}))
    # The same on (positions, samples, features): vectors are the same, since all positions count alike.
    turned = nn.Sequential(Permuted(1, 0, 2), *first, Permuted(1, 0, 2))
    check(Kind(turned, data, {"1": rows_last, "3": rows_last, "4": rows_last}, must={"1", "3", "4"}))


@given(SIZES, SIZES, SIZES, SIZES, SEEDS)
def test_channels_first_and_last(n: int, c: int, h: int, w: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, c, 1),
        nn.ReLU(),
        Permuted(0, 2, 3, 1),
        nn.LayerNorm(c),
        nn.Linear(c, 6),
        nn.GELU(),
        Permuted(0, 3, 1, 2),
        nn.Conv2d(6, 4, 1),
    )
    kets = dict.fromkeys(("0", "1", "6", "7"), channels_first) | dict.fromkeys(("2", "4", "5"), rows_last)
    must = {"0", "1", "4", "5", "7"}
    check(Kind(net, [normal(seed, n, 3, h, w), normal(seed + 1, n, 3, h, w)], kets, must=must))
    # Channels of data in front of a norm, which alone says where they are.
    first = nn.Sequential(Permuted(0, 3, 1, 2), nn.BatchNorm2d(c))
    data = [normal(seed, n, h, w, c), normal(seed + 1, n, h, w, c)]
    check(Kind(first, data, {"0": channels_first, "1": channels_first}, must={"0", "1"}))


class Windows(nn.Module):
    """Attention's windows: the positions of each sample in groups, each group a row of its own."""

    def __init__(self, d: int, size: int) -> None:
        super().__init__()
        self.size, self.inside, self.out = size, nn.Linear(d, d), nn.Linear(d, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        windows = self.inside(x.reshape(n * (t // self.size), self.size, d))
        return self.out(windows.reshape(n, t, d))


@given(SIZES, st.sampled_from([4, 6, 12]), st.sampled_from([2]), SIZES, SEEDS)
def test_windows(n: int, t: int, size: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    data = [normal(seed, n, t, d), normal(seed + 1, n, t, d)]
    check(Kind(Windows(d, size), data, {"inside": rows_last, "out": rows_last}, must={"out"}))


class Lined(nn.Module):
    """Each position's row in one line: those of a sample together, or those of a position."""

    def __init__(self, d: int, by_sample: bool) -> None:
        super().__init__()
        self.by_sample, self.inside = by_sample, nn.Linear(d, 6)

    def forward(self, x: Tensor) -> Tensor:
        rows = x if self.by_sample else x.transpose(0, 1)
        return self.inside(rows.reshape(-1, x.shape[-1])).unflatten(0, rows.shape[:2])


@given(
    SIZES, st.sampled_from([2, 4, 6, 12]), SIZES, st.sampled_from(["windows", "samples", "positions"]), SEEDS
)
def test_rows_on_one_axis_go_to_their_own_samples(n: int, t: int, d: int, order: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = (Windows(d, 2) if order == "windows" else Lined(d, order == "samples")).eval()
    x, seen = normal(seed, n, t, d), {}

    def keep(activation: Activation) -> None:
        seen[activation.key[0]] = activation.values.clone()

    with capture(net, ["inside"], receive=keep) as live:
        live.forward(lambda model: model(x), samples=n)
    with torch.no_grad():
        expected = net.inside(x)  # samples × positions × features, whatever way it takes in the network
    assert torch.allclose(seen["inside"].reshape(expected.shape), expected, atol=1e-5)


class Routed(nn.Module):
    """Tokens go to one of two experts, each of which gets its own as one line of rows."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(d, 6), nn.Linear(d, 6)])
        self.gate, self.out = nn.Linear(d, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        y = x.new_zeros(*x.shape[:-1], 6)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            y[mine] = expert(x[mine])
        return self.out(y)


@given(SIZES, SIZES, SIZES, SEEDS)
def test_routed_tokens(n: int, t: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    net, data = Routed(d), [normal(seed, n, t, d), normal(seed + 1, n, t, d)]
    with torch.no_grad():
        counts = [net.gate(x).argmax(-1).sum().item() for x in data]
    assume(all(0 < count < n * t for count in counts))
    kets: dict[str, ToKets] = {
        "gate": rows_last,
        "experts.0": rows_last,
        "experts.1": rows_last,
        "out": rows_last,
    }
    check(Kind(net, data, kets, must={"gate", "out"}))


class Towers(nn.Module):
    """Two towers, each with a mask of its own, and similarities between all their samples."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.one, self.other, self.scores = nn.Embedding(50, d), nn.Linear(3, d), nn.Identity()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        decoder_inputs: Tensor,
        decoder_attention_mask: Tensor,
    ) -> Tensor:
        one = (self.one(input_ids) * attention_mask[..., None]).sum(1)
        other = (self.other(decoder_inputs) * decoder_attention_mask[..., None]).sum(1)
        return self.scores(one @ other.T)


@given(SIZES, SIZES, SIZES, SIZES, SEEDS)
def test_two_towers_and_their_masks(n: int, t: int, u: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)

    def mask(length: int) -> Tensor:
        ends = torch.randint(1, length + 1, (n, 1))
        return (torch.arange(length)[None] < ends).long()

    batches = [
        {
            "input_ids": torch.randint(0, 50, (n, t)),
            "attention_mask": mask(t),
            "decoder_inputs": normal(seed + number, n, u, 3),
            "decoder_attention_mask": mask(u),
        }
        for number in range(2)
    ]
    net = Towers(d).eval()
    record = kw.study(net, batches, layers=["one", "other", "scores"], labels=False)
    hooked: dict[str, list[np.ndarray]] = {"one": [], "other": []}
    with torch.no_grad():
        for batch in batches:
            one, other = net.one(batch["input_ids"]), net.other(batch["decoder_inputs"])
            hooked["one"].append(one[batch["attention_mask"].bool()].double().numpy())
            hooked["other"].append(other[batch["decoder_attention_mask"].bool()].double().numpy())
    for name, parts in hooked.items():
        bits, number = entropy(np.concatenate(parts))
        assert values(record[name]) == (number, pytest.approx(bits, abs=2e-4))
    assert "scores" not in record
    assert "similarities" in record.skipped["scores"]


@given(SIZES, SIZES, SEEDS)
def test_own_code_without_any_layer_of_a_known_type(n: int, d: int, seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(Along(d, 6), Along(6, 3))
    data = [normal(seed, n, d), normal(seed + 1, n, d)]
    check(Kind(net, data, {"0": rows_last, "1": rows_last}, must={"0", "1"}))
    check(Kind(net, [x[:, None].repeat(1, 5, 1) for x in data], {"0": rows_last, "1": rows_last}))


def test_masks_that_belong_to_nothing_known_are_named_and_not_used() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(3, 4)

        def forward(self, x: Tensor, first_attention_mask: Tensor, second_attention_mask: Tensor) -> Tensor:
            return self.one(x)

    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]])
    batch = {"x": normal(0, 3, 3, 3), "first_attention_mask": mask, "second_attention_mask": mask}
    record = kw.study(Net(), [batch], labels=False)
    assert record["one"].accumulator.moment.n == 9
    assert any(
        "Nothing says which of the batch's entries each of its masks" in note for note in record.warnings
    )


def test_the_record_says_what_the_experiment_cost_and_how_axes_were_found() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    record = kw.study(net, normal(0, 60, 4))
    assert record.settings["experiment_passes"] == 2
    assert (
        record["0"].info.layout.words
        == "samples on axis 0 (by experiment), features on axis 1 (the only other axis)"
    )
    again = kw.study(net, normal(0, 60, 4), reading=kw.Reading(axes=record))
    assert again.settings["experiment_passes"] == 0
    assert again["1"].entropy == record["1"].entropy


class Noisy(nn.Module):
    """Adds noise of the global generator, in evaluation too; `count` of its own passes if it keeps a state instead."""

    def __init__(self, stateful: bool) -> None:
        super().__init__()
        self.stateful, self.passes, self.inside = stateful, 0, nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        noise = torch.full((len(x), 6), float(self.passes)) if self.stateful else torch.randn(len(x), 6)
        return self.inside(x) + noise


@pytest.mark.parametrize("stateful", [False, True])
def test_networks_that_give_something_else_each_time_are_recognized(stateful: bool) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    record = kw.study(Noisy(stateful).eval(), normal(0, 60, 4), seed=0)
    layouts = {layer.name: layer.info.layout for layer in record}
    assert (layouts["inside"].samples_by, layouts["(model)"].samples_by) == ("experiment", "size")
    assert layouts["(model)"].samples == 0
    assert record["(model)"].accumulator.moment.n == 60
    assert any("something else each time it runs on the same batch" in note for note in record.warnings)
    if not stateful:
        # Neither the experiment nor the pass moves the generator.
        torch.set_rng_state(before)
        net = Noisy(False).eval()
        torch.manual_seed(3)
        kw.study(net, normal(0, 60, 4), seed=0)
        after = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(torch.rand(1), after)
