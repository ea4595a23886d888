"""BatchNorm folded where that changes nothing, and only there; costs by hand."""

import torch
from torch import Tensor, nn

from ketwork.networks.compression.costs import multiply_adds, parameters
from ketwork.networks.compression.surgery import copied, fold_batchnorm


def trained(net: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """With statistics and scales of its own in every BatchNorm."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(5):
        net(1 + 2 * torch.randn(shape))
    return net


def test_batchnorm_is_folded_into_convolutions_and_linear_layers() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(180, 4),
        nn.BatchNorm1d(4),
    )
    x = torch.randn(7, 3, 8, 8)
    twin = copied(trained(net, (9, 3, 8, 8)))
    before = twin(x)
    assert fold_batchnorm(twin, lambda model: model(x)) == {"1": "0", "5": "4"}
    assert isinstance(twin[1], nn.Identity)  # type: ignore[index]
    torch.testing.assert_close(twin(x), before, atol=1e-5, rtol=1e-5)
    assert parameters(twin) == parameters(net) - 10 - 8
    assert net.training
    assert isinstance(net[1], nn.BatchNorm2d)


def test_a_layer_that_something_else_reads_is_not_folded() -> None:
    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
            self.safe, self.safe_norm = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.safe_norm(self.safe(y + self.norm(y)))

    net = copied(trained(Skipping(), (9, 2, 6, 6)))
    x = torch.randn(3, 2, 6, 6)
    before = net(x)
    assert fold_batchnorm(net, lambda model: model(x)) == {"safe_norm": "safe"}
    torch.testing.assert_close(net(x), before, atol=1e-5, rtol=1e-5)


def test_multiply_adds_of_a_convolution_by_hand() -> None:
    net, x = nn.Conv2d(3, 5, 3), torch.ones(2, 3, 8, 8)
    assert multiply_adds(lambda: net(x), samples=2) == 5 * 27 * 36
