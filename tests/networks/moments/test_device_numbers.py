"""Numbers come over in one transfer, as what they are."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ketwork.networks.moments.device_numbers import numbers_of, read_numbers


def test_numbers_of_every_kind_come_over_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    transfers, to_host = [], Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda tensor: transfers.append(len(tensor)) or to_host(tensor))
    one = SimpleNamespace(n=torch.tensor(2**52 + 1), x=torch.tensor(0.1), no=7, rows=torch.arange(3))
    other = SimpleNamespace(good=torch.tensor(True), y=torch.tensor(1 / 3, dtype=torch.float64))
    places = numbers_of([one, other])
    assert places == [(one, "n"), (one, "x"), (other, "good"), (other, "y")]
    read_numbers([*places, (one, "rows")])
    assert (one.n, one.no, other.good, other.y) == (2**52 + 1, 7, True, 1 / 3)
    assert [type(each) for each in (one.n, one.x, other.good)] == [int, float, bool]
    assert one.x == pytest.approx(0.1, rel=1e-7)
    assert one.rows.dtype == torch.int64
    assert one.rows.tolist() == [0, 1, 2]
    assert transfers == [7]
