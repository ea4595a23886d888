"""One survey: G against exact derivatives, moments against those of rows taken at leisure, orders of execution."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.compression.calibration import Calibration, calibrate
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.surgery import copied
from ketwork.networks.compression.survey import Survey, run_survey
from ketwork.networks.measures.predictions import TEMPERATURES


def surveyed(net: nn.Module, data, generator: int = 0, **options) -> tuple[Survey, Calibration]:
    base = copied(net).requires_grad_(False)
    options = {"samples": None, "batch_size": 32} | options
    gathered = calibrate(base, data, **options)
    layers, _ = weight_layers(base)
    return run_survey(base, layers, gathered, torch.Generator().manual_seed(generator)), gathered


def exact(tail: Callable[[Tensor], Tensor], y: Tensor, loss: str) -> Tensor:
    """Mean over samples of Jᵀ F J at the layer's output: F = diag p − p pᵀ of the softmaxes, or 1."""
    total = torch.zeros(y.shape[1], y.shape[1], dtype=torch.float64)
    for one in y:
        jacobian = torch.autograd.functional.jacobian(tail, one).double()
        fisher = torch.eye(len(jacobian), dtype=torch.float64)
        if loss == "kl":
            softer = [(tail(one).detach().double() / temperature).softmax(-1) for temperature in TEMPERATURES]
            fisher = sum(torch.diag(p) - torch.outer(p, p) for p in softer) / len(softer)
        total += jacobian.T @ fisher @ jacobian
    return total / len(y)


@pytest.mark.parametrize("loss", ["kl", "squared"])
def test_g_is_the_expected_fisher_information_at_each_layers_output(loss: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(15, 6)
    kept = x[[i for i in range(15) if i % 5 != 4]]
    many, _ = surveyed(net, x.repeat(1, 1, 1)[0].repeat(600, 1), loss=loss, batch_size=450)
    with torch.no_grad():
        at = {"0": net[:1](kept), "2": net[:3](kept), "4": net(kept)}
    for path, y in at.items():
        found = many.fisher(path)
        expected = exact(net[int(path) + 1 :], y, loss)
        assert found is not None
        # 7,200 draws: each entry is known to about a hundredth of the whole.
        assert (found - expected).norm() < 0.04 * expected.norm()
    assert (many.samples, many.predictions) == (7200, 7200)


def test_of_a_convolution_g_is_the_sum_over_its_positions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
    x = torch.randn(10, 1, 4, 4).repeat(300, 1, 1, 1)
    found, _ = surveyed(net, x, loss="squared", batch_size=500)
    with torch.no_grad():
        y = net[0](x[[0, 1, 2, 3, 5, 6, 7, 8]])
    whole = exact(lambda flat: net[1:](flat.reshape(1, 3, 2, 2))[0], y.flatten(1), "squared")
    blocks = whole.reshape(3, 4, 3, 4)
    expected = torch.einsum("apbp->ab", blocks)
    fisher = found.fisher("0")
    assert fisher is not None
    assert (fisher - expected).norm() < 0.05 * expected.norm()
    assert found.positions("0") == 4


def test_a_shared_module_counts_every_call() -> None:
    torch.manual_seed(0)
    step = nn.Linear(4, 4)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = step, step, nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(torch.tanh(self.b(torch.tanh(self.a(x)))))

    x = torch.randn(50, 4)
    kept = x[[i for i in range(50) if i % 5 != 4]]
    found, _ = surveyed(Twice(), x)
    inputs = torch.cat([kept, torch.tanh(step(kept))]).detach()
    seen = found.layers["a"]
    assert (seen.rows, found.positions("a"), list(found.layers)) == (80, 2.0, ["a", "out"])
    assert seen.scatter is not None
    torch.testing.assert_close(
        seen.scatter.left, step(inputs).detach().double().mean(0), atol=1e-5, rtol=1e-5
    )
    assert found.order == ["out"]


def test_positions_that_a_mask_leaves_out_change_nothing() -> None:
    torch.manual_seed(0)

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
            h = torch.tanh(self.features(x)) * attention_mask[..., None]
            return self.head(h.sum(1) / attention_mask.sum(1, keepdim=True))

    net, x = Pooled(), torch.randn(20, 6, 3)
    lengths = torch.arange(20) % 6 + 1
    mask = (torch.arange(6) < lengths[:, None]).long()
    one, _ = surveyed(net, {"x": x, "attention_mask": mask})
    spoiled = torch.where(mask[..., None].bool(), x, 1e4)
    two, _ = surveyed(net, {"x": spoiled, "attention_mask": mask})
    a, b = one.layers["features"], two.layers["features"]
    assert a.rows == b.rows == int(mask[torch.arange(20) % 5 != 4].sum())
    assert a.scatter is not None
    assert b.scatter is not None
    torch.testing.assert_close(a.scatter.covariance(), b.scatter.covariance())
    torch.testing.assert_close(a.fisher, b.fisher)


def test_the_order_leaves_out_what_runs_otherwise_in_some_batch() -> None:
    class Switch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            h = self.b(self.c(h)) if float(x.sum()) > 0 else self.c(self.b(h))
            return self.d(h)

    up, down = torch.ones(10, 4), -torch.ones(10, 4)
    assert surveyed(Switch(), [up, up])[0].order == ["a", "c", "b", "d"]
    order = surveyed(Switch(), [up, down])[0].order
    assert order[0] == "a"
    assert order[-1] == "d"
    assert len(order) == 3


def test_a_network_without_gradients_is_said_to_be_one() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).detach()

    found, gathered = surveyed(Cut(), torch.randn(20, 4))
    assert (found.differentiable, found.fisher("layer")) == (False, None)
    assert gathered.ran == 16 + 16  # to see what comes out, then one forward pass


def test_of_gradients_too_only_positions_that_exist_count() -> None:
    torch.manual_seed(0)

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x).mean(1))  # the gradient is the same at every position

    net, x = Mean(), torch.randn(20, 3, 3)
    base = copied(net).requires_grad_(False)
    found = []
    for mask in (torch.ones(20, 3), torch.tensor([[1, 0, 0]]).expand(20, 3)):
        gathered = calibrate(base, x, samples=None, batch_size=32, mask=mask)
        layers, _ = weight_layers(base)
        found.append(run_survey(base, layers, gathered, torch.Generator().manual_seed(0)).fisher("features"))
    torch.testing.assert_close(found[1], found[0] / 3)
