"""What a network predicts, the harm done to it, and the gradients that weigh it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal, kl_divergence

from ketwork.networks.activations import Batch, PositionMask
from ketwork.networks.measures.predictions import TEMPERATURES, Head, Predictions, recognized

NO_MASK = Batch(None, None, (), 6)


def test_harm_is_the_kl_of_torchs_distributions() -> None:
    torch.manual_seed(0)
    a, b = 3 * torch.randn(2, 50, 7, dtype=torch.float64)
    kl = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    torch.testing.assert_close(Head("", "kl").kl(a, b), kl)
    torch.testing.assert_close(Head("", "probabilities").kl(a.softmax(-1), b.softmax(-1)), kl)
    normal = kl_divergence(Normal(a, 1.0), Normal(b, 1.0)).sum(-1)
    torch.testing.assert_close(Head("", "squared").kl(a, b), normal)
    spread = torch.arange(1.0, 8.0, dtype=torch.float64)
    scaled = kl_divergence(Normal(a, spread), Normal(b, spread)).sum(-1)
    torch.testing.assert_close(Head("", "regression", spread=spread).kl(a, b), scaled)
    units = kl_divergence(Bernoulli(logits=a), Bernoulli(logits=b)).sum(-1)
    torch.testing.assert_close(Head("", "bernoulli_logits").kl(a, b), units)
    torch.testing.assert_close(
        Head("", "bernoulli").kl(a.sigmoid(), b.sigmoid()), units, atol=1e-9, rtol=1e-7
    )
    sure = torch.tensor([[1e4, 0.0, 0.0]])
    assert Head("", "kl").kl(sure, sure).tolist() == [0.0]
    assert Head("", "probabilities").kl(sure / 1e4, sure / 1e4).tolist() == [0.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("loss", ["kl", "squared", "bernoulli_logits", "probabilities"])
def test_drawn_gradients_have_the_fisher_information_as_their_second_moment(
    loss: str, temperature: float
) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(4, dtype=torch.float64)
    rows = logits.expand(200_000, 4).clone().requires_grad_()
    given = rows.softmax(-1) if loss == "probabilities" else rows
    read = Predictions((Head("", loss),))
    read.draw([given], temperature, torch.Generator().manual_seed(1)).backward()
    assert rows.grad is not None
    found = rows.grad.T @ rows.grad / len(rows)
    exact = torch.eye(4, dtype=torch.float64)
    if loss == "bernoulli_logits":
        p = (logits / temperature).sigmoid()
        exact = torch.diag(p * (1 - p))
    if loss in ("kl", "probabilities"):
        p = (logits / temperature).softmax(0)
        exact = torch.diag(p) - torch.outer(p, p)
    assert (found - exact).norm() < 0.01 * exact.norm()
    assert rows.grad.mean(0).abs().max() < 0.01


def test_what_is_read_where_nothing_is_said() -> None:
    class Output(dict):
        pass

    torch.manual_seed(0)
    logits, hidden = 0.1 * torch.randn(6, 3), 2 * torch.randn(6, 1) + torch.zeros(6, 4)

    def read(example, output=None, loss=None):
        found = Predictions.from_output(output, loss, example, NO_MASK)
        return [
            (head.loss, tuple(rows.shape))
            for head, rows in zip(found.heads, found.rows(example, NO_MASK), strict=True)
        ]

    assert read(logits) == [("kl", (6, 3))]
    assert read(hidden[:, :1]) == [("regression", (6, 1))]
    assert read(hidden[:, 0]) == [("regression", (6, 1))]
    assert read(Output(hidden=hidden, logits=logits)) == [("kl", (6, 3))]
    assert read(Output(hidden=hidden)) == [("regression", (6, 4))]
    assert read(Output(a=hidden, b=logits)) == [("regression", (6, 4)), ("regression", (6, 3))]
    assert read((hidden, logits)) == [("regression", (6, 4)), ("kl", (6, 3))]
    assert read((hidden, logits), output=["[1]"]) == [("kl", (6, 3))]
    assert read(Output(hidden=hidden, logits=logits), "hidden") == [("regression", (6, 4))]
    assert read(logits, loss="squared") == [("squared", (6, 3))]
    assert read(0.1 * torch.randn(6, 3, 8, 9)) == [("kl", (6 * 8 * 9, 3))]  # images: channels are features
    inner = SimpleNamespace(inner=hidden)
    assert read(inner, lambda output, batch: output.inner[:, :2])[0][1] == (6, 2)


SIX = torch.randn(60, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


@pytest.mark.parametrize(
    ("rows", "labels", "expected"),
    [
        (SIX.softmax(-1), None, "probabilities"),
        (SIX.softmax(-1).half(), None, "probabilities"),
        (SIX.log_softmax(-1), None, "kl"),
        (SIX.sigmoid(), None, "bernoulli"),
        (SIX / SIX.norm(dim=-1, keepdim=True), None, "squared"),
        (SIX, torch.arange(60) % 4, "kl"),
        (SIX, torch.arange(60) % 5, "regression"),  # there are four features
        (SIX, SIX + 1, "regression"),
        (SIX, (SIX > 0).float(), "bernoulli_logits"),
        (SIX[:, :1], torch.arange(60) % 2, "bernoulli_logits"),
        (SIX[:, :1], None, "regression"),
        (SIX, None, "regression"),
        (20 * SIX, None, "kl"),  # it would be certain of a class
        (10 * (SIX - SIX.mean(-1, keepdim=True)), None, "kl"),  # of a common sum, as trained logits are
    ],
)
def test_outputs_are_recognized_by_their_values(rows: Tensor, labels: Tensor | None, expected: str) -> None:
    loss, why = recognized(rows, labels)
    assert loss == expected, why


@pytest.mark.parametrize("loss", ["kl", "bernoulli_logits", "regression"])
def test_wide_predictions_are_worked_on_in_parts_that_give_the_same(loss: str) -> None:
    torch.manual_seed(0)
    wide = 2**21 + 1  # more than a row at a time is too much, so that each of three is a part
    rows, others = torch.randn(2, 3, wide)
    head = Head("", loss)
    for one, row, other in zip(head.kl(rows, others), rows, others, strict=True):
        torch.testing.assert_close(one[None], head.kl(row[None], other[None]), atol=0, rtol=0)
    draw, again = (torch.Generator().manual_seed(1) for _ in range(2))
    drawn = head.directions(rows, 4.0, draw)
    each = [head.directions(row[None], 4.0, again) for row in rows]
    torch.testing.assert_close(drawn, torch.cat(each), atol=0, rtol=0)
    likeliest = rows.double().softmax(-1).amax(-1).mean()
    assert head.certainty(rows) == pytest.approx(float(likeliest), rel=1e-12)


def test_wide_predictions_are_recognized_by_some_of_their_rows_and_all_labels() -> None:
    rows = torch.randn(33, 2**18, generator=torch.Generator().manual_seed(0))
    assert recognized(rows, torch.arange(33)) == ("kl", "integer labels are classes of 262144 features")
    assert recognized(rows, rows + 1)[0] == "regression"


CLASSES = 12
NORMAL = torch.randn(240, CLASSES, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
DRIFT = 2 * torch.randn(240, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LOGITS = 2.4 * torch.eye(CLASSES, dtype=torch.float64)[torch.arange(240) % CLASSES] + 0.5 * NORMAL


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (LOGITS + DRIFT, "kl"),  # of no common sum, since optimizers let it drift: a softmax does not see it
        (LOGITS + DRIFT + 3 * NORMAL[0], "kl"),  # each class has a bias
        (-LOGITS + DRIFT, "regression"),  # the smallest stands out
        (NORMAL + DRIFT, "regression"),  # none stands out
        ((1.5 * NORMAL).exp().clamp(max=6), "regression"),  # amounts: large ones are rare
        ((LOGITS + DRIFT)[:, :7], "regression"),  # too few for one to stand out
        ((LOGITS + DRIFT)[:31], "regression"),  # too few rows
    ],
)
def test_logits_are_recognized_by_one_that_stands_out(rows: Tensor, expected: str) -> None:
    assert rows.softmax(-1).amax(-1).mean() < 0.9  # else they would be logits for that alone
    assert rows.sum(-1).var() > 0.5 * rows.var(0).sum()  # else for their common sum
    loss, why = recognized(rows, None)
    assert loss == expected, why
    assert ("stands out" in why) == (expected == "kl")


def test_positions_that_do_not_exist_are_no_predictions() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.arange(12.0).reshape(2, 3, 2)
    found = Head("", "squared").rows(values, Batch(None, None, (PositionMask("mask", mask),), 2))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1], [2, 3], [6, 7]]))


def test_a_wrong_name_is_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"is 'logit'; there are logits, hidden"):
        Predictions.from_output(
            "logit", None, {"logits": torch.zeros(6, 3), "hidden": torch.zeros(6, 3)}, NO_MASK
        )
    with pytest.raises(ValueError, match=r"Argument `loss` must be one of .* but is 'mse'"):
        Predictions.from_output(None, "mse", torch.zeros(6, 3), NO_MASK)


def test_complex_predictions_are_refused_by_name() -> None:
    output = torch.randn(6, 3, dtype=torch.complex64)
    with pytest.raises(ValueError, match="must be a network whose output is real, but it is complex"):
        Head("", "kl").tensor(output, NO_MASK)
