"""All that is kept of a layer adds up."""

import copy

import torch
from torch import Tensor, nn

from ketwork.networks.study.run import study


def _data(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_statistics_merge_in_any_order() -> None:
    parts = [_data(60, 6, 5)[i : i + 20] for i in (0, 20, 40)]
    rows = [study(nn.Identity(), part, seed=torch.Generator().manual_seed(i)) for i, part in enumerate(parts)]
    a, b, c = (row["(model)"].accumulator for row in rows)
    left, right = copy.deepcopy(a), copy.deepcopy(b)
    left += b
    left += c
    right += c
    other = copy.deepcopy(a)
    other += right
    assert (left.samples, left.kets) == (other.samples, other.kets) == (60, 360)
    torch.testing.assert_close(left.moment.matrix(), other.moment.matrix(), rtol=0, atol=1e-12)
    torch.testing.assert_close(left.reservoir.keys.sort()[0], other.reservoir.keys.sort()[0])
