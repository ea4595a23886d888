"""What a network predicts, the harm done to it, and the gradients that weigh it."""

from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from ketwork.networks.activations.batches import Batch
from ketwork.networks.measures.predictions import TEMPERATURES, Predictions

NO_MASK = Batch(None, None, None, 6)


def test_harm_is_the_kl_of_torchs_distributions() -> None:
    torch.manual_seed(0)
    a, b = 3 * torch.randn(2, 50, 7, dtype=torch.float64)
    kl = kl_divergence(Categorical(logits=a), Categorical(logits=b))
    torch.testing.assert_close(Predictions("", "kl").kl(a, b), kl)
    normal = kl_divergence(Normal(a, 1.0), Normal(b, 1.0)).sum(-1)
    torch.testing.assert_close(Predictions("", "squared").kl(a, b), normal)
    sure = torch.tensor([[1e4, 0.0, 0.0]])
    assert Predictions("", "kl").kl(sure, sure).tolist() == [0.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("loss", ["kl", "squared"])
def test_drawn_gradients_have_the_fisher_information_as_their_second_moment(
    loss: str, temperature: float
) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(4, dtype=torch.float64)
    rows = logits.expand(200_000, 4).clone().requires_grad_()
    Predictions("", loss).draw(rows, temperature, torch.Generator().manual_seed(1)).backward()
    assert rows.grad is not None
    found = rows.grad.T @ rows.grad / len(rows)
    exact = torch.eye(4, dtype=torch.float64)
    if loss == "kl":
        p = (logits / temperature).softmax(0)
        exact = torch.diag(p) - torch.outer(p, p)
    assert (found - exact).norm() < 0.01 * exact.norm()
    assert rows.grad.mean(0).abs().max() < 0.01


def test_what_is_read_where_nothing_is_said() -> None:
    class Output(dict):
        pass

    logits, hidden = torch.zeros(6, 3), torch.ones(6, 4)

    def read(example, output=None, loss=None):
        found = Predictions.of(output, loss, example, NO_MASK)
        return found.loss, tuple(found.rows(example, NO_MASK).shape)

    assert read(logits) == ("kl", (6, 3))
    assert read(torch.zeros(6, 1)) == ("squared", (6, 1))
    assert read(torch.zeros(6)) == ("squared", (6, 1))
    assert read(Output(hidden=hidden, logits=logits)) == ("kl", (6, 3))
    assert read(Output(hidden=hidden)) == ("squared", (6, 4))
    assert read(Output(hidden=hidden, logits=logits), "hidden") == ("squared", (6, 4))
    assert read(logits, loss="squared") == ("squared", (6, 3))
    assert read(torch.zeros(6, 3, 8, 9)) == ("kl", (6 * 8 * 9, 3))  # images: channels are features
    told = SimpleNamespace(inner=hidden)
    assert read(told, lambda output, batch: output.inner[:, :2]) == ("squared", (6, 2))


def test_positions_that_do_not_exist_are_no_predictions() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    values = torch.arange(12.0).reshape(2, 3, 2)
    found = Predictions("", "squared").rows(values, Batch(None, None, mask, 2))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1], [2, 3], [6, 7]]))


def test_a_wrong_name_is_told_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"is 'logit'; there are logits, hidden"):
        Predictions.of("logit", None, {"logits": torch.zeros(6, 3), "hidden": torch.zeros(6, 3)}, NO_MASK)
    with pytest.raises(ValueError, match=r"Argument `loss` must be one of .* but is 'mse'"):
        Predictions.of(None, "mse", torch.zeros(6, 3), NO_MASK)
