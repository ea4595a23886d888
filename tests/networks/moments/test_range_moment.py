"""Moments of kets in a known span equal the d × d moments, add up with every other form, and refuse what is outside."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.linear_range import LinearRange
from ketwork.networks.moments.moment import Moment, StoredMoment
from ketwork.records.record import pack, unpack

D, INPUTS = 40, 9


def _linear(bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(INPUTS, D, bias=bias).double()


def _kets(linear: nn.Linear, n: int, seed: int = 1) -> Tensor:
    x = torch.randn(n, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        y = linear(x)
    return y / y.norm(dim=1, keepdim=True)


def _moment(kets: Tensor, linear: nn.Linear | None) -> Moment:
    return Moment.from_vectors(kets, span=None if linear is None else LinearRange.of(linear, kets))


def _exact(*kets: Tensor) -> Tensor:
    every = torch.cat(kets)
    return every.T @ every


@pytest.mark.parametrize("bias", [True, False])
def test_the_moment_in_the_range_is_the_moment(bias: bool) -> None:
    linear = _linear(bias)
    kets = _kets(linear, 100)
    moment = _moment(kets, linear)
    assert moment.ranged is not None
    assert moment.ranged.states.shape == (INPUTS + bias, D)
    assert moment.ranged.upper.shape == (INPUTS + bias, INPUTS + bias)
    torch.testing.assert_close(moment.matrix(), _exact(kets), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(moment.diagonal(), _exact(kets).diagonal(), rtol=1e-12, atol=1e-12)


def test_ranges_add_up_with_each_other_with_rows_and_with_full_moments_in_any_order() -> None:
    linear = _linear()
    inside = [_kets(linear, n, seed) for n, seed in ((100, 1), (5, 2), (60, 3))]
    outside = torch.eye(D, dtype=torch.float64)[:3]
    full = _kets(_linear(seed=7), 90)
    parts = [_moment(k, linear) for k in inside] + [_moment(outside, None), _moment(full, None)]
    assert [p.ranged is not None for p in parts] == [True, False, True, False, False]
    exact = _exact(*inside, outside, full)
    for order in ([0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 0, 3, 2, 4], [3, 0, 1, 4, 2]):
        total = Moment.empty(D, full)
        for i in order:
            total += copy.deepcopy(parts[i])
        torch.testing.assert_close(total.matrix(), exact, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(total.diagonal(), exact.diagonal(), rtol=1e-10, atol=1e-10)
    total = Moment.empty(D, full)
    for i in (1, 0, 2):
        total += copy.deepcopy(parts[i])
    assert total.ranged is not None  # nothing has left the range
    assert parts[0].matrix().isclose(_exact(inside[0])).all()  # and what was added is as it was


def test_the_same_range_in_other_states_adds_up_within_it() -> None:
    linear = _linear()
    one, two = _moment(_kets(linear, 100), linear), _moment(_kets(linear, 80, 4), linear)
    assert two.ranged is not None
    turn = torch.linalg.qr(torch.randn(INPUTS + 1, INPUTS + 1, dtype=torch.float64))[0]
    upper = two.matrix()
    two.ranged.states = turn @ two.ranged.states
    two.ranged.upper = (two.ranged.states @ upper @ two.ranged.states.T).triu()
    one += two
    assert one.ranged is not None
    torch.testing.assert_close(
        one.matrix(), _exact(_kets(linear, 100), _kets(linear, 80, 4)), rtol=1e-10, atol=1e-10
    )


def test_kets_outside_of_the_span_are_kept_in_all_dimensions() -> None:
    linear = _linear()
    kets = _kets(linear, 100)
    kets[70] += 1e-3 * torch.randn(
        D, dtype=torch.float64
    )  # one of many, past those compared number by number
    kets[70] /= kets[70].norm()
    kets[71] = torch.ones(D).double() / D**0.5
    moment = _moment(kets, linear)
    assert moment.ranged is None
    torch.testing.assert_close(moment.matrix(), _exact(kets), rtol=1e-12, atol=1e-12)


def test_a_part_outside_that_norms_do_not_show_is_seen_number_by_number() -> None:
    linear = _linear()
    kets = _kets(linear, 100)
    rest = torch.randn(100, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    kets = kets + 1e-4 * rest / rest.norm(dim=1, keepdim=True)  # 1e-8 of the weight
    moment = _moment(kets, linear)
    assert moment.ranged is None
    torch.testing.assert_close(moment.matrix(), _exact(kets), rtol=1e-12, atol=1e-12)


def test_a_moment_in_a_range_comes_back_from_a_file() -> None:
    linear = _linear()
    moment = _moment(_kets(linear, 100), linear)
    again = Moment.restored(unpack(StoredMoment, *pack(moment.stored())))
    assert again.ranged is not None
    assert again.matrix().equal(moment.matrix())
    again += _moment(_kets(linear, 50, 5), linear)
    torch.testing.assert_close(
        again.matrix(), _exact(_kets(linear, 100), _kets(linear, 50, 5)), rtol=1e-10, atol=1e-10
    )


class Widening(nn.Module):
    """A layer of more outputs than inputs, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up, self.down = nn.Linear(12, 96), nn.Linear(96, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu())


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", ["state", "ensemble"])
def test_a_study_of_a_linear_layer_keeps_its_range_and_has_the_numbers_of_the_whole(
    normalize: str, center: bool
) -> None:
    net, x = Widening(), torch.randn(400, 12, generator=torch.Generator().manual_seed(1)) + 0.5
    study = kw.study(net, x, layers=["up"], normalize=normalize, center=center, labels=False, batch_size=50)
    layer = study["up"]
    ranged = layer.accumulator.moment.ranged
    assert ranged is not None
    assert ranged.states.shape == (13, 96)
    with torch.no_grad():
        y = net.up(x).double().numpy()
    rows = y / np.linalg.norm(y, axis=1, keepdims=True) if normalize == "state" else y
    rows = rows - rows.mean(axis=0) if center else rows
    rho = rows.T @ rows
    rho /= np.trace(rho)
    values = np.linalg.eigvalsh(rho)[::-1][:13]
    entropy = -(values[values > 1e-15] * np.log2(values[values > 1e-15])).sum()
    populations = np.diag(rho)
    assert layer.entropy.plain == pytest.approx(entropy, abs=1e-6)
    assert layer.coherence.plain == pytest.approx(
        -(populations * np.log2(populations)).sum() - entropy, abs=1e-6
    )
    np.testing.assert_allclose(layer.density.matrix().numpy(), rho, atol=1e-7)
    leading = layer.eigenstates(1).amplitudes[0].numpy()
    assert leading @ rho @ leading == pytest.approx(values[0], abs=1e-7)
    kept = layer.leading
    np.testing.assert_allclose(kept.values.numpy(), values, atol=1e-7)
    np.testing.assert_allclose(
        ((kept.states @ torch.from_numpy(rho)) * kept.states).sum(dim=1).numpy(), values, atol=1e-7
    )


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("normalize", ["state", "ensemble"])
def test_numbers_and_errors_are_those_of_the_same_outputs_kept_in_all_dimensions(
    normalize: str, center: bool
) -> None:
    net, x = Widening(), torch.randn(120, 12, generator=torch.Generator().manual_seed(1)) + 0.5
    options = {"normalize": normalize, "center": center, "labels": False, "batch_size": 50}
    with torch.no_grad():
        full = kw.study(nn.Identity(), net.up(x), **options).long()
    inside = kw.study(net, x, layers=["up"], **options).long()
    assert len(inside) == len(full) > 10
    for name in ("value", "stderr", "plain"):
        np.testing.assert_allclose(inside[name].astype(float), full[name].astype(float), rtol=2e-4, atol=1e-6)


def test_an_output_that_a_hook_changed_is_not_taken_for_the_layers_own() -> None:
    net, x = Widening(), torch.randn(400, 12, generator=torch.Generator().manual_seed(1))
    net.up.register_forward_hook(lambda module, inputs, output: output.tanh())
    study = kw.study(net, x, layers=["up"], labels=False, batch_size=50)
    assert study["up"].accumulator.moment.ranged is None
    with torch.no_grad():
        y = net.up(x).double()
    rows = y / y.norm(dim=1, keepdim=True)
    torch.testing.assert_close(study["up"].density.matrix(), rows.T @ rows / len(rows), rtol=1e-6, atol=1e-7)
