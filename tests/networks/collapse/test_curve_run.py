"""`collapse_curve`: ranks that are known in closed form, real networks, standard errors and bad input."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import Batch, PositionMask
from ketwork.networks.collapse.metrics import Metric, Scores


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(rank: int) -> nn.Sequential:
    torch.manual_seed(rank)
    net = nn.Sequential(nn.Linear(12, 10, bias=False), nn.Linear(10, 10, bias=False), nn.Linear(10, 4))
    net[1].weight.data = normal(10, rank) @ normal(rank, 10, seed=1)
    return net


@pytest.mark.parametrize("rank", [1, 2, 5, 9, 10])
def test_a_linear_network_needs_the_rank_of_its_weights(rank: int) -> None:
    net, x = low_rank(rank), normal(300, 12, seed=2)
    bisected = kw.collapse_curve(net, x, layers=["0", "1"], tolerance=1e-8)
    assert bisected.smallest()["rank"].tolist() == [10, rank]
    assert bisected.passes == 2 + sum(len(layer.points) - 1 for layer in bisected.layers)
    assert bisected.passes <= 2 + 2 * math.ceil(math.log2(10) + 1)
    grid = kw.collapse_curve(net, x, layers="1", tolerance=1e-8, ranks=range(1, 11))
    assert grid.smallest()["rank"].tolist() == [rank]
    assert grid.table()["rank"].tolist() == [*range(1, 11)]
    assert grid.passes == 2 + 9  # rank 10 is the original network


def test_accuracy_of_one_direction_a_class_is_the_weight_kept() -> None:
    """One-hot activations: the k leading eigenstates are the k commonest classes, and the rest reads as class 0."""
    counts = [40, 25, 15, 10, 7, 3]
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    net = nn.Sequential(nn.Identity())
    curve = kw.collapse_curve(
        net, (torch.eye(6)[labels], labels), "accuracy", layers="0", ranks=range(1, 7), tolerance=0.1
    )
    table = curve.table()
    expected = np.cumsum(counts) / 100
    assert table["value"].tolist() == pytest.approx(expected)
    assert table["weight"].tolist() == pytest.approx(expected)
    assert table["value_stderr"].tolist() == pytest.approx(np.sqrt(expected * (1 - expected) / 99))
    assert table["change"].tolist() == pytest.approx(expected - 1)
    assert table["keeps"].tolist() == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]  # 0.90 of 1.00 is kept by rank 4
    assert curve.smallest()["rank"].tolist() == [4]
    bisected = kw.collapse_curve(net, (torch.eye(6)[labels], labels), "accuracy", layers="0", tolerance=0.1)
    assert bisected.smallest()["rank"].tolist() == [4]


def test_the_smallest_rank_is_safe_where_the_metric_is_not_monotone() -> None:
    """Any larger rank that was measured keeps the metric too."""
    scores = iter([1.0, 0.2, 1.0, 1.0])

    def metric(output: Tensor, labels: object, original: object) -> Tensor:
        return torch.full((len(output),), next(scores))

    net = nn.Sequential(nn.Identity())
    curve = kw.collapse_curve(net, normal(8, 5), metric, layers="0", ranks=[1, 2, 3])
    assert [p.keeps for p in curve.layers[0].points] == [False, True, True, True]
    scores = iter([1.0, 1.0, 0.2, 1.0])
    curve = kw.collapse_curve(net, normal(8, 5), metric, layers="0", ranks=[1, 2, 3])
    assert curve.smallest()["rank"].tolist() == [3]


@pytest.fixture(scope="module")
def digits(digit_network: nn.Module, mnist: tuple[Tensor, Tensor]) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    return digit_network, (mnist[0][::25], mnist[1][::25])


def test_every_point_is_what_collapse_gives(digits: tuple[nn.Module, tuple[Tensor, Tensor]]) -> None:
    net, (images, labels) = digits
    study = kw.study(net, images, layers=(nn.Conv2d, nn.Linear))
    before = torch.log_softmax(net(images).detach().double(), -1)
    right = (before.argmax(-1) == labels).double()
    accuracy = kw.collapse_curve(net, (images, labels), "accuracy", study=study, batch_size=96)
    kl = kw.collapse_curve(net, (images, labels), "kl", study=study)
    loss = kw.collapse_curve(net, (images, labels), "loss", study=study, layers=study.layers[1].name)
    assert accuracy.original.value == float(right.mean())
    assert accuracy.original.value > 0.95
    for curve in (accuracy, kl, loss):
        for layer in curve.layers:
            points = [p for p in layer.points if p.rank < layer.d]
            assert curve.layers[0].points[-1].change.value == 0
            for point in points[:: max(1, len(points) - 1)]:
                with kw.collapse(net, {layer.name: point.rank}, study=study), torch.no_grad():
                    after = torch.log_softmax(net(images).double(), -1)
                each = {
                    "accuracy": (after.argmax(-1) == labels).double(),
                    "kl": (before.exp() * (before - after)).sum(-1),
                    "loss": -after[torch.arange(200), labels],
                }[curve.metric]
                base = {"accuracy": right, "loss": -before[torch.arange(200), labels]}
                change = each - base.get(curve.metric, 0.0)
                assert point.value.value == pytest.approx(float(each.mean()), rel=1e-4, abs=2e-7)
                assert point.change.value == pytest.approx(float(change.mean()), rel=1e-3, abs=2e-7)
                paired = float(change.std() / math.sqrt(200))
                assert point.change.stderr == pytest.approx(paired, rel=1e-3, abs=2e-7)
    for layer in kl.layers:  # the rank below the smallest was measured, and does not keep the metric
        ranks = [p.rank for p in layer.points]
        best = layer.smallest
        assert best.value.value <= 0.01
        if best.rank > 1:
            below = layer.points[ranks.index(best.rank - 1)]
            assert below.value.value > 0.01
    for layer in accuracy.layers:
        assert layer.smallest.value.value >= 0.99 * accuracy.original.value


@pytest.mark.slow
def test_a_transformer_by_kl_and_by_cosine(minilm: Path, sms: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import pandas as pd

    model = transformers.AutoModel.from_pretrained(minilm).train()
    texts = pd.read_csv(sms)["text"].tolist()[:48]
    tokens = transformers.AutoTokenizer.from_pretrained(minilm)(
        texts, padding=True, truncation=True, max_length=32, return_tensors="pt"
    )
    mask = tokens["attention_mask"].bool()

    def embedding(output: object) -> Tensor:
        rows, keep = output.last_hidden_state, mask[: len(output.last_hidden_state), :, None]
        return (rows * keep).sum(1) / keep.sum(1)

    def cosine(output: object, labels: object, original: object) -> Tensor:
        return torch.cosine_similarity(embedding(output), embedding(original))

    chosen = ["encoder.layer.1", "encoder.layer.4"]
    curve = kw.collapse_curve(model, dict(tokens), cosine, layers=chosen, ranks=[1, 96, 288], tolerance=0.02)
    assert model.training
    model.eval()
    study = kw.study(model, [dict(tokens)], layers=chosen)
    with torch.no_grad():
        before = model(**tokens)
        for layer in curve.layers:
            for point in layer.points[:-1]:
                with kw.collapse(model, {layer.name: point.rank}, study=study):
                    after = model(**tokens)
                assert point.value.value == pytest.approx(float(cosine(after, None, before).mean()), abs=1e-4)
                squares = (after.last_hidden_state - before.last_hidden_state).square().sum(-1)[mask] / 2
                if point.rank == 96:
                    kl = kw.collapse_curve(model, dict(tokens), "kl", layers=layer.name, ranks=[96])
                    assert kl.table()["value"][0] == pytest.approx(float(squares.mean()), rel=1e-3)
    assert [p.value.value for p in curve.layers[0].points] == sorted(
        p.value.value for p in curve.layers[0].points
    )
    assert all(layer.smallest.rank < layer.d for layer in curve.layers)


def test_errors_against_the_bootstrap() -> None:
    """Positions of a sample go together: a sample resampled is resampled with all its positions."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, 200)
    own = rng.normal(size=200)
    sums = np.array([(own[i] + rng.normal(size=n)).sum() for i, n in enumerate(counts)])
    after = sums - 0.3 * counts + rng.normal(size=200)
    a, b = (Scores(torch.tensor(x), torch.tensor(counts).double()) for x in (sums, after))
    picks = rng.integers(0, 200, (4000, 200))
    totals = counts[picks].sum(1)
    mean = (sums[picks].sum(1) / totals).std()
    change = ((after - sums)[picks].sum(1) / totals).std()
    assert a.mean().stderr == pytest.approx(mean, rel=0.05)
    assert b.minus(a).stderr == pytest.approx(change, rel=0.05)
    assert b.minus(a).stderr < 0.5 * a.mean().stderr
    independent = (sums / counts).std() / math.sqrt(counts.sum())
    assert a.mean().stderr > 1.5 * independent


def test_masked_positions_and_missing_labels_do_not_count() -> None:
    logits = normal(4, 3, 5)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 1, 0]]).bool()
    labels = torch.tensor([[0, 1, 2], [3, 4, 0], [1, -100, 3], [2, 2, 2]])
    batch = Batch(logits, labels, (PositionMask("mask", mask),), 4)
    known = mask & (labels != -100)
    right = (logits.argmax(-1) == labels) & known
    found = Metric.from_argument("accuracy").scores(logits, labels, logits, batch)
    assert torch.equal(found.sums, right.sum(1).double())
    assert torch.equal(found.counts, known.sum(1).double())
    loss = Metric.from_argument("loss").scores(logits, labels, logits, batch)
    each = -torch.log_softmax(logits.double(), -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    assert torch.allclose(loss.sums, (each * known).sum(1))


def test_outputs_that_are_probabilities_single_logits_or_numbers() -> None:
    logits, labels = normal(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    batch = Batch(logits, labels, (), 6)
    for name in ("kl", "loss", "accuracy"):
        plain = Metric.from_argument(name).scores(logits, labels, 2 * logits, batch)
        soft = Metric.from_argument(name).scores(logits.softmax(-1), labels, (2 * logits).softmax(-1), batch)
        assert torch.allclose(plain.sums, soft.sums, atol=1e-6)
    one, two = normal(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    found = Metric.from_argument("loss").scores(one, two, one, batch)
    expected = nn.functional.binary_cross_entropy_with_logits(one[:, 0], two.float(), reduction="none")
    assert torch.allclose(found.sums, expected.double(), atol=1e-6)
    found = Metric.from_argument("accuracy").scores(one, two, one, batch)
    assert torch.equal(found.sums, ((one[:, 0] > 0) == two).double())
    squares = Metric.from_argument("loss").scores(logits, normal(6, 4, seed=1), logits, batch)
    assert torch.allclose(squares.sums, (logits - normal(6, 4, seed=1)).double().square().mean(-1))


def test_around_the_mean_a_constant_costs_no_rank() -> None:
    net = low_rank(3)
    net[1].bias = nn.Parameter(100 * normal(10, seed=5))
    x = normal(200, 12)
    plain = kw.collapse_curve(net, x, layers="1", tolerance=1e-6)
    centred = kw.collapse_curve(net, x, layers="1", tolerance=1e-6, center=True)
    assert plain.smallest()["rank"].tolist() == [4]
    assert centred.smallest()["rank"].tolist() == [3]


def test_each_call_of_a_module_has_its_curve() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.step = nn.Linear(6, 6, bias=False)
            self.step.weight.data = normal(6, 3) @ normal(3, 6, seed=1)

        def forward(self, x: Tensor) -> Tensor:
            first = self.step(x)
            return torch.cat([first, self.step(x.square())[:, :1]], dim=1)

    curve = kw.collapse_curve(Twice(), normal(200, 6), layers="step", tolerance=1e-8)
    assert [(layer.name, layer.call) for layer in curve.layers] == [("step", 0), ("step", 1)]
    assert curve.smallest()["rank"].tolist() == [3, 3]
    assert "step (call 2)" in repr(curve)


def test_a_saved_curve_is_the_same(tmp_path: Path) -> None:
    curve = kw.collapse_curve(low_rank(3), normal(100, 12), layers=["0", "1"])
    curve.save(tmp_path / "curve.safetensors")
    again = kw.CollapseCurve.load(tmp_path / "curve.safetensors")
    assert repr(again) == repr(curve)
    assert again.table().equals(curve.table())
    assert again.layers == curve.layers
    assert (again.settings, again.skipped) == (curve.settings, curve.skipped)
    kw.study(low_rank(3), normal(100, 12)).save(tmp_path / "study.safetensors")
    with pytest.raises(ValueError, match="saved collapse curve"):
        kw.CollapseCurve.load(tmp_path / "study.safetensors")


def test_what_is_printed_and_drawn() -> None:
    curve = kw.collapse_curve(
        low_rank(2), (normal(100, 12), normal(100).sign().int().clamp(min=0)), "loss", layers="1"
    )
    best = curve.smallest().iloc[0]
    text = repr(curve)
    assert f"N = 100 samples, {curve.passes} forward passes" in text
    assert f"loss (nats) ≤ {curve.limit:.4g}" in text
    assert text.splitlines()[-1].split()[:3] == ["1", "10", str(best["rank"])]
    ax = curve.plot()
    line = ax.get_lines()[0]
    assert line.get_xdata().tolist() == curve.table()["rank"].tolist()
    assert line.get_ydata().tolist() == curve.table()["value"].tolist()
    ring = next(found for found in ax.get_lines() if found.get_fillstyle() == "none")
    assert ring.get_xdata().tolist() == [best["rank"]]


def test_the_network_is_left_as_it_was() -> None:
    net = low_rank(3).train()
    net[0].eval()
    seen = []
    kw.collapse_curve(net, normal(30, 12), progress=seen.append, batch_size=16, layers="1", ranks=[1, 2])
    assert [m.training for m in net.modules()] == [True, False, True, True]
    assert seen == [16, 30, 46, 60, 76, 90]
    assert all(p.grad is None for p in net.parameters())
    with pytest.raises(ZeroDivisionError):
        kw.collapse_curve(net, normal(30, 12), lambda *_: 1 / 0)
    assert [m.training for m in net.modules()] == [True, False, True, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


NAN = normal(30, 12)
NAN[21, 3] = math.nan
X, Y = normal(30, 12), torch.arange(30) % 4


@pytest.mark.parametrize(
    ("data", "options", "error", "message"),
    [
        (X, {"metric": "accuracy"}, ValueError, "needs labels"),
        (X, {"metric": "auc"}, ValueError, "'auc'"),
        ((X, Y + 7), {"metric": "accuracy"}, ValueError, r"classes 0 … 3"),
        ((X, Y[:, None].expand(30, 3)), {"metric": "accuracy"}, ValueError, "must fit the network's 16"),
        ((X, normal(30, 4)), {"metric": "accuracy"}, ValueError, "metric='loss'"),
        ((X, np.array(["cat"] * 30)), {"metric": "loss"}, ValueError, "'cat'"),
        (X, {"metric": lambda out, *_: out.mean()}, ValueError, "one number a sample"),
        (X, {"metric": "accuracy", "labels": Y[:20]}, ValueError, "one entry a sample"),
        (X, {"metric": "accuracy", "labels": "y"}, ValueError, "'y'"),
        (X, {"ranks": [0]}, ValueError, "≥ 1"),
        (X, {"ranks": []}, ValueError, "≥ 1"),
        (X, {"ranks": [4, 11]}, ValueError, "10 at most, but holds 11"),
        (X, {"layers": "9"}, kw.SelectorError, "'9'"),
        (X, {"tolerance": -1}, ValueError, "tolerance"),
        (X, {"tolerance": math.nan}, ValueError, "tolerance"),
        (X, {"around": "median"}, ValueError, "'median'"),
        (X, {"batch_size": 0}, ValueError, "batch_size"),
        (X[:0], {}, ValueError, "at least one sample"),
        (NAN, {}, ValueError, r"batch 1, sample 21"),
    ],
)
def test_bad_input(data: object, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kw.collapse_curve(low_rank(2), data, **{"batch_size": 16} | options)


def test_the_study_of_another_network_or_of_bad_data() -> None:
    study = kw.study(nn.Sequential(nn.Linear(12, 7), nn.Linear(7, 7), nn.Linear(7, 4)), X)
    with pytest.raises(ValueError, match="has 10 features on axis 1, but the study saw 7"):
        kw.collapse_curve(low_rank(2), X, study=study)
    with pytest.raises(ValueError, match="NaN or infinite for sample 21"):
        kw.collapse_curve(low_rank(2), NAN, study=kw.study(low_rank(2), X))
