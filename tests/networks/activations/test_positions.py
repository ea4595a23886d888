"""Which positions a study reads: chosen among those that exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.positions import ChosenPositions

X = torch.randn(20, 6, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.ones(20, 6, dtype=torch.bool)
MASK[:5, :2] = False  # padding on the left
MASK[5:9, 4:] = False  # and on the right
MASK[9] = torch.tensor([True, False, True, False, True, True])


def entropy(rows: Tensor) -> float:
    kets = nn.functional.normalize(rows.double(), dim=-1)
    values = torch.linalg.eigvalsh(kets.T @ kets / len(kets))
    return float(-(values * values.log2()).sum())


def chosen(which: Any) -> Tensor:
    """The rows at places among the existing positions, from loops."""
    rows = []
    for sample, present in zip(X, MASK, strict=True):
        there = sample[present]
        rows += [there[which]]
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("positions", "which"),
    [
        ("all", slice(None)),
        ("first", slice(1)),
        ("last", slice(-1, None)),
        (slice(1, None), slice(1, None)),
        (slice(-2, None), slice(-2, None)),
        (slice(None, None, 2), slice(None, None, 2)),
    ],
    ids=str,
)
def test_words_and_slices_count_existing_positions(positions: Any, which: slice) -> None:
    study = kw.study(nn.Identity(), X, mask=MASK, positions=positions, batch_size=7)
    rows = chosen(which)
    assert study[0].kets == len(rows)
    assert study[0].N == 20
    assert study[0].entropy.plain == pytest.approx(entropy(rows), abs=1e-6)


def test_masks_stand_beside_that_of_what_exists() -> None:
    more = torch.rand(20, 6, generator=torch.Generator().manual_seed(1)) > 0.4
    rows = X[MASK & more]
    data = [
        {"x": X[i : i + 8], "attention_mask": MASK[i : i + 8], "speech": more[i : i + 8]} for i in (0, 8, 16)
    ]

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["x"])

    for positions in (more, more.numpy(), "speech", lambda batch: batch["speech"]):
        study = kw.study(nn.Identity(), data, forward=forward, positions=positions)
        assert study[0].kets == len(rows)
        assert study[0].entropy.plain == pytest.approx(entropy(rows), abs=1e-6)
    few = kw.study(nn.Identity(), X, positions=more, max_samples=9)
    places = [i for i in range(20) if any(torch.equal(X[i, 0], kept) for kept in _kept(X, 9))]
    assert few[0].kets == int(more[places].sum())


def _kept(x: Tensor, most: int) -> list[Tensor]:
    """The first vectors of the samples that `max_samples` takes."""
    seen: list[Tensor] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x[:, 0].clone())
            return x

    kw.study(Look(), x, max_samples=most)
    return list(seen[-1])


def test_prompts_and_answers_are_told_by_the_labels() -> None:
    net = nn.Embedding(50, 4)
    tokens = torch.randint(0, 50, (12, 5), generator=torch.Generator().manual_seed(2))
    labels = tokens.clone()
    labels[:, :2] = -100
    labels[0, 4] = -100
    present = torch.ones(12, 5, dtype=torch.long)
    present[0, 4] = 0  # padding, whose label is ignored too
    data = [{"input_ids": tokens, "labels": labels, "attention_mask": present}]

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return model(batch["input_ids"])

    counts = {
        which: kw.study(net, data, labels=False, forward=forward, positions=which)[0].kets
        for which in ("all", "prompt", "answer")
    }
    assert counts == {"all": 59, "prompt": 24, "answer": 35}
    with pytest.raises(
        ValueError, match=r"can be 'prompt' or 'answer' where batches are mappings with `labels`"
    ):
        kw.study(nn.Identity(), X, positions="answer")


def test_readouts_of_the_last_position_are_of_it_alone() -> None:
    x = torch.randn(300, 4, 5, generator=torch.Generator().manual_seed(3))
    y = (x[:, -1, 0] + 0.3 * x[:, 0, 1] > 0).long()
    last = kw.study(nn.Identity(), (x, y), positions="last")[0]
    only = torch.arange(4).expand(300, 4) == 3
    alone = kw.study(nn.Identity(), (x, y), mask=only)[0]
    every = kw.study(nn.Identity(), (x, y))[0]
    for name in ("linear_balanced", "holevo", "pgm_balanced"):
        assert last.estimates[name].value == pytest.approx(alone.estimates[name].value, rel=1e-12), name
    assert last.linear_balanced > every.linear_balanced + 0.1


def test_samples_without_a_chosen_position_have_no_vector() -> None:
    none = torch.ones(20, 6, dtype=torch.bool)
    none[4:9] = False
    study = kw.study(nn.Identity(), X, positions=none, batch_size=3)
    assert study[0].kets == 15 * 6
    assert study[0].entropy.plain == pytest.approx(entropy(X[none]), abs=1e-6)


def test_records_say_which_and_add_only_to_their_like() -> None:
    last, every = kw.study(nn.Identity(), X, positions="last"), kw.study(nn.Identity(), X)
    assert (last.settings["positions"], every.settings["positions"]) == ("last", None)
    assert repr(last).startswith("Study of Identity: 1 layers, N = 20 samples, positions last\n")
    with pytest.raises(
        ValueError, match=r"must be of all positions, as a detector scores them, but is of .* 'last'"
    ):
        last.detector("typicality")
    assert [ChosenPositions(each).words for each in (slice(1, None), slice(0, 4, 2), np.ones(3), len)] == [
        "1:", "0:4:2", "a mask", "a function",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="positions"):
        last + every


def test_what_chooses_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`positions` must be one of 'all', 'no-sinks', .* but is a float"):
        kw.study(nn.Identity(), X, positions=3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"or a key of each batch, but is 'middle'; the batch has no keys"):
        kw.study(nn.Identity(), X, positions="middle")
    with pytest.raises(ValueError, match=r"is of shape \(20, 5\) where layer '\(model\)' has \(20, 6\)"):
        kw.study(nn.Identity(), X, positions=torch.ones(20, 5))
    with pytest.raises(
        ValueError, match=r"`positions` must have shape \(samples, positions\) with 20 samples"
    ):
        kw.study(nn.Identity(), X, positions=torch.ones(9, 6))
    with pytest.raises(kw.StudyError, match="'9:' chooses no position of any"):
        kw.study(nn.Identity(), X, positions=slice(9, None))


def test_layers_of_single_vectors_are_read_as_they_are() -> None:
    study = kw.study(nn.Linear(4, 3), X[:, 0], positions="last")
    assert study[0].kets == 20
