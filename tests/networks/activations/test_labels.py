"""Labels as users give them: arrays, keys, False; classes, positions, numbers; and bad ones."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import r2_score
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.labels import MOST_LABELS, NEXT_TOKENS, Labels, next_tokens
from ketwork.networks.activations.masks import IGNORED
from ketwork.networks.activations.reading import Reading
from ketwork.networks.measures.decoded import DecodedLabels

GENERATOR = torch.Generator().manual_seed(3)
X = torch.randn(400, 6, generator=GENERATOR)
CLASSES = (X[:, 0] + 0.1 * torch.randn(400, generator=GENERATOR) > 0).long()

LAST = kw.Reading(feature_axis=-1)


def known(data: Any, labels: Any = None, **options: Any) -> DecodedLabels:
    network = options.pop("network", nn.Identity())
    found = kw.study(network, data, labels=labels, **options).layers[0].labels
    assert found is not None
    return found


def balanced(found: DecodedLabels) -> float:
    return found.estimates["linear_balanced"].value


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (CLASSES, {0, 1}),
        (CLASSES.numpy(), {0, 1}),
        (CLASSES.tolist(), {0, 1}),
        (CLASSES.bool(), {False, True}),
        ([("ham", "spam")[c] for c in CLASSES], {"ham", "spam"}),
        (np.array(["ham", "spam"])[CLASSES], {"ham", "spam"}),
        (pd.Series(["ham", "spam"])[CLASSES.numpy()], {"ham", "spam"}),
        (CLASSES[:, None], {0, 1}),
    ],
)
def test_arrays_of_classes(given: Any, names: set[Any]) -> None:
    found = known(X, given)
    assert set(found.names) == names
    assert set(map(type, found.names)) == set(map(type, names))
    assert balanced(found) > 0.85
    assert sum(found.confusion["linear"].flatten().tolist()) == len(found.held_out)


@pytest.mark.parametrize("labels", [[("ham", "spam")[c] for c in CLASSES], pd.Series(CLASSES.numpy())])
def test_inputs_and_plain_labels_are_a_pair(labels: Any) -> None:
    found = known((X, labels))
    assert found.names == known(X, labels).names
    assert found.estimates == known(X, labels).estimates
    assert kw.study(nn.Identity(), (X, labels)).samples == 400


def test_a_warning_names_the_layers_that_it_is_about() -> None:
    class Falls(nn.Module):
        """Drops the samples from 30 on, by NaN."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x[:, :1] > 900, torch.nan, x)

    x, labels = X[:60].clone(), ["a", "b"] * 15 + ["c", "d"] * 15
    x[30:, 0] = 1000
    record = kw.study(
        nn.Sequential(nn.Identity(), Falls()),
        x,
        labels=labels,
        layers=["0", "1"],
        reading=Reading(skip_bad=True),
    )
    assert record["0"].labels is not None
    assert record["0"].labels.warnings == []
    assert record["1"].labels is not None
    for warning in record["1"].labels.warnings:
        assert f"At 1: {warning}" in record.warnings


def test_a_printed_study_shows_what_is_known_of_labels() -> None:
    record = kw.study(nn.Identity(), X, labels=CLASSES)
    for shown in (str(record), record._repr_html_()):
        assert "linear (balanced)" in shown
        assert str(record["(model)"].linear_balanced) in shown
        assert str(record["(model)"].holevo).removesuffix(" bit") in shown
    assert "Holevo" not in str(kw.study(nn.Identity(), X, labels=False))


def test_labels_come_with_batches_by_key_or_not_at_all() -> None:
    class Keyed(nn.Identity):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)  # takes its input by name

    pairs = [(X[i : i + 50], CLASSES[i : i + 50]) for i in range(0, 400, 50)]
    keyed = [{"x": x, "topic": y} for x, y in pairs]
    strings = [{"x": x, "labels": [f"class {int(c)}" for c in y]} for x, y in pairs]
    with_pairs = known(pairs)
    for found in (
        known(keyed, "topic", network=Keyed()),
        known(strings, network=Keyed()),
        known((X.numpy(), np.array(["a", "b"])[CLASSES])),
    ):
        assert len(found.names) == 2
        assert found.held_out.shape == with_pairs.held_out.shape
        assert balanced(found) > 0.85
    unlabelled = kw.study(nn.Linear(6, 6), pairs, labels=False)
    assert all(layer.labels is None for layer in unlabelled)
    assert "holevo" not in unlabelled.table().columns
    with pytest.raises(
        ValueError, match=r"must name a key of each batch, but is 'subject'; the batch has x, topic"
    ):
        kw.study(Keyed(), keyed, labels="subject")
    with pytest.raises(ValueError, match=r"no keys: it is no mapping"):
        kw.study(nn.Linear(6, 6), pairs, labels="subject")


def test_numbers_are_a_regression_scored_as_scikit_learn_does() -> None:
    unit = torch.nn.functional.normalize(X.double(), dim=1)
    targets = torch.stack(
        [unit[:, 0] * 3 + 1, unit[:, 1] + 0.3 * torch.randn(400, generator=GENERATOR)], dim=1
    )
    found = known(X.double(), targets, network=nn.Identity())
    assert found.estimates.keys() == {"linear_r2"}
    estimate = found.estimates["linear_r2"]
    regressor = kw.ProbeRegressor(strength=found.strengths["linear"])
    fit = torch.ones(400, dtype=torch.bool)
    fit[found.held_out] = False
    read = regressor.fit(X[fit], targets[fit]).predict(X[~fit])
    assert estimate.value == pytest.approx(
        r2_score(targets[~fit].numpy(), read, multioutput="variance_weighted"), abs=1e-6
    )
    assert estimate.value > 0.9
    assert 0 < estimate.stderr < 0.05
    single = known(X.double(), targets[:, 0], network=nn.Identity())
    assert single.estimates["linear_r2"].value > 0.99
    assert known(X, np.zeros(400)).estimates["linear_r2"].value != 0  # nothing to explain: no value
    assert math.isnan(known(X, np.zeros(400)).estimates["linear_r2"].value)


class Pool(nn.Module):
    """The mean over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def test_labels_of_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (200, 7), generator=generator)
    x = torch.randn(200, 7, 8, generator=generator) + 3 * torch.eye(8)[labels]
    absent = torch.rand(200, 7, generator=generator) < 0.3
    given = labels.masked_fill(absent, -100)
    found = kw.study(nn.Identity(), x, labels=given, reading=LAST)["(model)"].labels
    assert found is not None
    assert set(found.names) == {0, 1, 2}
    assert balanced(found) > 0.9
    counts = found.moments.fitting().moments.counts.sum() + len(found.moments.held)
    assert int(counts) == int((~absent).sum())
    masked = kw.study(nn.Identity(), x, labels=labels, mask=~absent, reading=LAST)["(model)"].labels
    assert masked is not None
    assert masked.estimates == found.estimates
    record = kw.study(nn.Sequential(nn.Identity(), Pool()), x, labels=labels, layers=["0", "1"], reading=LAST)
    assert any("its labels are not decoded" in note for note in record.warnings)
    assert record["1"].labels is None


class First(nn.Module):
    """The first seven positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :7]


def test_a_layer_that_fits_the_labels_positions_in_some_batches_only_is_not_decoded() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(20, t, 8, generator=generator), torch.randint(2, (20, t), generator=generator))
        for t in (7, 9, 7)
    ]
    record = kw.study(nn.Sequential(nn.Identity(), First()), batches, layers=["0", "1"], reading=LAST)
    assert record["0"].labels is not None
    assert record["1"].labels is None
    assert any("The labels have 9 positions, layer 1 has 7" in warning for warning in record.warnings)


def test_positions_without_a_label_and_samples_without_one() -> None:
    some = CLASSES.clone()
    some[::4] = -100
    found = known(X, some)
    assert set(found.names) == {0, 1}
    assert not set(found.held_out.tolist()) & set(range(0, 400, 4))
    counts = found.moments.fitting().moments.counts.sum() + len(found.held_out)
    assert int(counts) == 300


def test_phases_of_a_complex_network_tell_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    phase = torch.tensor([1, 1j, -1], dtype=torch.complex64)[torch.arange(300) % 3]
    x = torch.stack([torch.ones(300, dtype=torch.complex64), phase], dim=1)
    x = x + 0.2 * torch.randn(300, 2, dtype=torch.complex64, generator=generator)
    found = kw.study(nn.Identity(), x, labels=torch.arange(300) % 3)["(model)"].labels
    assert found is not None
    assert found.estimates["linear_accuracy"].value > 0.9
    assert found.estimates["pgm_accuracy"].value > 0.9
    assert found.state(0).matrix().is_complex()
    # (|0⟩ + |1⟩)/√2 and (|0⟩ − |1⟩)/√2 are orthogonal, up to the noise.
    assert found.helstrom(0, 2) > 0.95


def test_one_label_only() -> None:
    record = kw.study(nn.Linear(6, 6), X, labels=["same"] * 400)
    row = record.table().iloc[0]
    assert math.isnan(row["holevo"])
    assert math.isnan(row["pgm_balanced"])
    assert "The samples to fit have only the label 'same': there is nothing to tell apart." in record.warnings


def test_labels_with_one_sample_each_are_named_where_nothing_can_read_or_score_them() -> None:
    given = CLASSES.tolist()
    held = known(X, given).held_out.tolist()
    seen = next(i for i in range(400) if i not in held)
    given[held[0]], given[seen] = 7, 8
    record = kw.study(nn.Identity(), X, labels=given)
    found = record.layers[0].labels
    assert found is not None
    assert found.held_out.tolist() == held
    assert found.labels == tuple(name for name in found.names if name != 7)
    assert "Labels without a sample to fit, which no readout can name: 7." in record.warnings
    assert "Labels without a held-out sample, which no score counts: 8." in record.warnings
    codes = [found.names.index(name) for name in (7, 8)]
    assert not found.confusion["linear"][:, codes[0]].any()
    assert not found.confusion["linear"][codes[1]].any()
    assert 0.45 < balanced(found) < 2 / 3  # one of the three labels held out cannot be read
    assert found.state(8).purity() == pytest.approx(1)


def test_few_samples() -> None:
    for n in (1, 2, 3, 5):
        record = kw.study(nn.Linear(6, 6), X[:n], labels=list(range(n)))
        assert len(record.table()) == 1
        kw.study(nn.Linear(6, 6), X[:n], labels=X[:n, 0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (CLASSES[:399], "must have one entry a sample, but has 399 for at least 400 samples"),
        (torch.cat([CLASSES, CLASSES]), "must have one entry a sample, but has 800 for 400 samples"),
        (torch.where(torch.arange(400) == 7, math.nan, X[:, 0]), "the label of sample 7 is NaN or infinite"),
        (["a"] * 10 + [None] * 390, "a label among the samples from 0 on is missing (None)"),
        (np.array(["a", math.nan] * 200, dtype=object), "is missing (nan)"),
        (X[:, :4].reshape(400, 2, 2), "must have shape (samples,), (samples, positions)"),
        (
            CLASSES.to(torch.complex64),
            "must hold integers, strings, booleans or real numbers, but holds complex64",
        ),
        (
            np.array([(1, 2)] * 400 + [None], dtype=object)[:400],
            "booleans or real numbers, but holds (1, 2) (tuple)",
        ),
        (torch.zeros(400, 5000), "must have at most 4096 numbers a sample, but has 5000"),
    ],
)
def test_bad_labels(given: Any, said: str) -> None:
    assert said in str(_error(given))


def _error(labels: Any) -> Exception:
    """What a study says of these labels, before or after its first batch."""
    with pytest.raises((ValueError, kw.StudyError)) as raised:
        kw.study(nn.Linear(6, 6), X, labels=labels, batch_size=400)
    return raised.value


def test_labels_of_a_wrong_kind_are_named() -> None:
    with pytest.raises(
        TypeError, match="must be an array with one entry a sample, a key of the batches, None or False"
    ):
        kw.study(nn.Linear(6, 6), X, labels=3)


def test_labels_that_turn_bad_half_way_keep_what_was_gathered() -> None:
    late = X[:, 0].clone()
    late[300] = math.nan
    with pytest.raises(kw.StudyError) as raised:
        kw.study(nn.Linear(6, 6), X, labels=late, batch_size=100)
    record = raised.value.partial
    assert record.samples == 300
    assert "the label of sample 300 is NaN" in str(record.error)
    assert record.layers[0].labels is not None


def test_a_networks_targets_that_are_no_labels_do_not_stop_a_study() -> None:
    images = [(X[i : i + 100], torch.zeros(100, 3, 8, 8)) for i in range(0, 400, 100)]
    record = kw.study(nn.Linear(6, 6), images)
    assert record.samples == 400
    assert record.complete
    assert record.layers[0].labels is None
    assert "linear_r2" not in record.table().columns
    assert any("The batches' own labels are not used." in warning for warning in record.warnings)
    # A vocabulary that turns out too large half way.
    many = MOST_LABELS + 200
    x = X.repeat(many // 400 + 1, 1)[:many]
    tokens = [(x[i : i + 400], torch.arange(many)[i : i + 400]) for i in range(0, many, 400)]
    record = kw.study(nn.Linear(6, 6), tokens)
    assert record.complete
    assert record.layers[0].labels is None
    assert any(f"must have at most {MOST_LABELS} different labels" in warning for warning in record.warnings)
    with pytest.raises(ValueError, match=f"at most {MOST_LABELS} different labels"):
        kw.study(nn.Linear(6, 6), x, labels=torch.arange(many), batch_size=many)


def test_floats_that_may_be_classes_are_named() -> None:
    x, classes = torch.randn(60, 4), torch.arange(60) % 3
    for labels, how in ((classes.float(), "labels.astype(int)"), (torch.eye(3)[classes], "labels.argmax(1)")):
        (note,) = [each for each in kw.study(nn.Linear(4, 3), (x, labels)).warnings if "floats" in each]
        assert note.startswith(f"The labels are floats, {len(labels.unique())} different whole numbers")
        assert how in note
    for labels in (x[:, 0], torch.arange(60.0), classes, classes / 2):
        assert not any("floats" in each for each in kw.study(nn.Linear(4, 3), (x, labels)).warnings)


def test_a_layer_of_zeros_decodes_nothing_and_says_why() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Threshold(1e9, 0.0), nn.Linear(6, 3))
    warnings = kw.study(net, (torch.randn(60, 4), torch.arange(60) % 3)).warnings
    assert "At 1: No sample has a vector other than zero, so that no label can be decoded." in warnings
    assert not any("no label:" in each for each in warnings)


def test_dead_and_non_finite_samples_are_left_out() -> None:
    x = X.clone()
    x[:50] = 0
    x[50:60] = math.nan
    record = kw.study(nn.Identity(), x, labels=CLASSES, reading=Reading(skip_bad=True))
    found = record["(model)"].labels
    assert found is not None
    counts = found.moments.fitting().moments.counts.sum() + len(found.held_out)
    assert int(counts) == 340
    assert set(found.held_out.tolist()) <= set(range(60, 400))


def test_one_hot_labels_are_named() -> None:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    codes = nn.functional.one_hot((x[:, 0] > 0).long() + (x[:, 1] > 0).long(), 3)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    notes = " ".join(kw.study(net, (x, codes)).warnings)
    assert "Where they are one-hot, give `labels.argmax(-1)` for classes" in notes
    assert "one-hot" not in " ".join(kw.study(net, (x, codes.argmax(-1))).warnings)
    assert kw.study(net, (x, codes.float())).settings["task"] == "values"


@pytest.mark.parametrize(
    "labels",
    [
        [f"name {code}" for code in range(MOST_LABELS + 1)],
        np.arange(MOST_LABELS + 1),
        torch.arange(MOST_LABELS + 1)[:, None],
        pd.Series([f"name {code}" for code in range(MOST_LABELS + 1)]),
        torch.arange(2 * (MOST_LABELS + 1)).reshape(-1, 2) // 2,
    ],
    ids=["texts", "integers", "a column", "pandas", "positions"],
)
@pytest.mark.parametrize("memory", [None, "100MB"])
def test_too_many_labels_known_beforehand_are_refused_before_the_pass(labels, memory):
    batches = iter([torch.zeros(2, 3)])
    message = "must have at most 4096 different labels, but holds 4097. Group them, or give floating numbers"
    with pytest.raises(ValueError, match=message):
        kw.study(nn.Linear(3, 2), batches, labels=labels, memory=memory)
    assert len(list(batches)) == 1  # nothing was read


def test_labels_that_are_none_or_are_not_taken_do_not_count():
    codes = torch.arange(MOST_LABELS + 3)
    codes[-3:] = -100  # no label
    Labels(codes).check_names(None)
    with pytest.raises(ValueError, match="but holds 4099"):
        Labels(torch.arange(MOST_LABELS + 3)).check_names(None)
    stream = (X[start : start + 10] for start in range(0, 100, 10))
    assert kw.study(nn.Linear(6, 2), stream, labels=torch.arange(5000), max_samples=20).samples == 20


def test_labels_that_are_the_tokens_themselves_are_the_next_tokens() -> None:
    tokens = torch.tensor([[3, 5, 7, 0], [4, 4, 6, 8]])
    labels = torch.tensor([[IGNORED, 5, 7, IGNORED], [4, 4, 6, 8]])
    shifted = next_tokens({"input_ids": tokens}, labels)
    assert shifted is not None
    assert shifted.tolist() == [[5, 7, IGNORED, IGNORED], [4, 6, 8, IGNORED]]
    assert next_tokens({"input_ids": tokens}, labels + 1) is None
    assert next_tokens({"input_ids": tokens}, torch.full_like(labels, IGNORED)) is None
    assert next_tokens({"input_ids": tokens}, labels[:, :2]) is None
    assert next_tokens({"input_ids": tokens}, labels.double()) is None
    assert next_tokens(tokens, labels) is None


class Copy(nn.Module):
    """A language model whose layer knows the token that comes next, and not the one that stands there."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.embed = nn.Embedding(7, 12)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.embed(input_ids.roll(-1, 1))


@pytest.mark.parametrize("key", [None, "labels"])
def test_a_layer_that_knows_the_next_token_is_read_so(key: str | None) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 7, (120, 6))
    record = kw.study(Copy(), {"input_ids": tokens, "labels": tokens.clone()}, labels=key, layers="embed")
    assert record[0].estimates["linear_balanced"].value == 1
    assert record[0].labels.moments.counts(7).sum() == 5 * (120 - 35)  # 35 samples are held out
    assert NEXT_TOKENS in record.notes
    data = {"input_ids": tokens, "labels": tokens.clone()}
    own = kw.study(Copy(), data, labels=tokens, layers="embed")
    assert own[0].estimates["linear_balanced"].value < 0.4
    assert NEXT_TOKENS not in own.notes


def test_accuracies_of_language_models_are_of_the_next_token() -> None:
    torch.manual_seed(0)
    net = Copy()
    net.embed = nn.Embedding.from_pretrained(8 * torch.eye(7))
    tokens = torch.randint(0, 7, (40, 6))
    data = {"input_ids": tokens, "labels": tokens.clone()}
    curve = kw.collapse_curve(net, data, "accuracy", layers="embed", ranks=[3])
    assert curve.original.value == 1
