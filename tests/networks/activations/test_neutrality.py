"""Nothing that the caller has set of PyTorch changes what is measured, and measuring changes none of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import ketwork as kw
from ketwork.networks.activations.neutrality import callers_precision, full_precision

from .language import DATA, TOKENS, llama, numbers


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).eval()


def inputs(n: int = 1024) -> Tensor:
    return torch.randn(n, 64, generator=torch.Generator().manual_seed(1)) * torch.logspace(0, -3, 64)


def entropy_of(rows: Tensor) -> float:
    """That of the mean |ψ⟩⟨ψ|, in double precision from the start."""
    kets = nn.functional.normalize(rows.double(), dim=-1)
    weights = torch.linalg.eigvalsh(kets.T @ kets / len(kets)).clamp(min=1e-300)
    return float(-(weights * weights.log2()).sum())


def lowered(model: nn.Module, batch: Any) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(batch)


def test_products_of_its_own_are_exact_under_autocast_in_forward_and_around_it() -> None:
    net, x = network(), inputs()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = entropy_of(net[0](x))
        around = [kw.study(net, list(x.split(size)), layers="0")[0].entropy.plain for size in (64, 512)]
    inside = [
        kw.study(net, list(x.split(size)), layers="0", forward=lowered)[0].entropy.plain for size in (64, 512)
    ]
    assert around == pytest.approx([expected] * 2, abs=3e-6)
    assert inside == pytest.approx([expected] * 2, abs=3e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pair = kw.compare(net, x[:256], measures=["cka"]).cka
    assert float(pair.loc["0", "0"]) == pytest.approx(1, abs=1e-6)


def test_float32_products_are_of_float32_whatever_the_caller_allows() -> None:
    net, x = network(), inputs()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.no_grad():
            expected = entropy_of(net[0](x))
        found = kw.study(net, x, layers="0")[0].entropy.plain
        assert torch.get_float32_matmul_precision() == "medium"
        product = x.T @ x
        with full_precision():
            own = x.T @ x
            with callers_precision():
                torch.testing.assert_close(x.T @ x, product, rtol=0, atol=0)
    finally:
        torch.set_float32_matmul_precision("highest")
    torch.testing.assert_close(own, x.T @ x, rtol=0, atol=0)
    assert found == pytest.approx(expected, abs=3e-6)


def trained(study: Callable[[nn.Module], Any], around: bool = False) -> list[Tensor]:
    """The weights after four steps, with something done with the network in the middle of each."""
    net = nn.Sequential(network(), nn.Dropout(0.2)).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    data = DataLoader(TensorDataset(inputs(128)), batch_size=32, shuffle=True)
    torch.manual_seed(7)
    for (x,) in data:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16) if around else nullcontext():
            study(net)
            loss = net(x).square().mean() + net(x.flip(0)).sum()
        loss.backward()
        optimizer.step()
    assert all(module.training for module in net.modules() if not isinstance(module, nn.Identity))
    return [parameter.detach().clone() for parameter in net.parameters()]


@pytest.mark.parametrize("around", [False, True])
def test_training_is_the_same_to_the_bit_with_studies_inside(around: bool) -> None:
    data = TensorDataset(inputs(64))
    loader = DataLoader(data, batch_size=16, shuffle=True)
    plain = trained(lambda net: None, around)
    watched = trained(
        lambda net: (kw.study(net, data, forward=first), kw.study(net, loader, forward=first)), around
    )
    for a, b in zip(plain, watched, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def first(model: nn.Module, batch: Any) -> Any:
    assert not (torch.is_autocast_enabled("cpu") and torch.is_autocast_cache_enabled())
    return model(batch[0])


class Noisy(Dataset[Tensor]):
    """Augments with the global generators of Python, NumPy and PyTorch."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, place: int) -> Tensor:
        return inputs(24)[place] * (1 + random.random() + float(np.random.rand()) + torch.rand(()))  # noqa: NPY002


def global_states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002


def test_the_global_generators_are_where_they_were() -> None:
    net = network()
    stochastic = nn.Sequential(net, Random())
    runs: list[Callable[[], Any]] = [
        lambda: kw.study(net, Noisy()),
        lambda: kw.study(net, DataLoader(Noisy(), batch_size=6, shuffle=True)),
        lambda: kw.study(stochastic, inputs(24)),
        lambda: kw.compare(net, DataLoader(Noisy(), batch_size=6, shuffle=True)),
        lambda: kw.collapse_curve(net, Noisy(), layers="0", ranks=[4]),
        lambda: kw.compress(net, Noisy(), keep=0.9),
    ]
    for run in runs:
        before = global_states()
        run()
        assert global_states() == before


class Random(nn.Module):
    """Adds noise in evaluation mode too, as a variational autoencoder does."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


def test_what_a_network_draws_is_set_by_the_seed_of_the_study() -> None:
    net, x = nn.Sequential(network(), Random()), inputs(96)

    def entropy(seed: int, start: int) -> float:
        torch.manual_seed(start)
        return kw.study(net, x, layers="1", seed=seed, batch_size=32)[0].entropy.value

    assert entropy(0, start=1) == entropy(0, start=2) != entropy(3, start=1)
    noise: list[Tensor] = []

    def kept(model: nn.Module, batch: Tensor) -> Tensor:
        output = model(batch)
        noise.append(output - model[0](batch))
        return output

    kw.study(net, x, layers="0", forward=kept, batch_size=32)
    assert not torch.allclose(noise[-1], noise[-2])  # each batch has draws of its own


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "setting",
    [
        torch.inference_mode,
        torch.no_grad,
        torch.enable_grad,
        lambda: torch.autograd.set_detect_anomaly(True),
        lambda: default_dtype(torch.float64),
        lambda: default_dtype(torch.bfloat16),
        deterministic,
    ],
)
def test_modes_and_defaults_change_no_number(setting: Callable[[], AbstractContextManager[Any]]) -> None:
    net, x, y = network(), inputs(192), torch.arange(192) % 3

    def all_of_it() -> list[float]:
        record = kw.study(net, (x, y))
        pair = kw.compare(net, x).bures.to_numpy().ravel().tolist()
        return [e.value for layer in record for e in layer.estimates.values()] + pair

    expected = all_of_it()
    with setting():
        found = all_of_it()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize(
    "call",
    [
        kw.study,
        kw.compare,
        partial(kw.compress, keep=0.9, heal=2),
        kw.collapse_curve,
    ],
)
def test_data_are_made_in_the_gradient_mode_of_the_caller(
    call: Callable[[nn.Module, Any], Any], mode: Callable[[], AbstractContextManager[Any]]
) -> None:
    net, modes = network(), []

    class Data:
        def __iter__(self) -> Iterator[torch.Tensor]:
            for part in inputs(64).split(32):
                modes.append(torch.is_grad_enabled())
                yield part

    with mode():
        expected = torch.is_grad_enabled()
        call(net, Data())
        assert torch.is_grad_enabled() == expected
    assert set(modes) == {expected}


def test_a_default_device_is_not_that_of_its_own_arithmetic() -> None:
    net, x, y = network(), inputs(192), torch.arange(192) % 3
    expected = kw.study(net, (x, y))
    with torch.device("meta"):
        found = kw.study(net, (x, y))
        assert torch.zeros(1).is_meta

    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal([*a.estimates.values()], [*b.estimates.values()])


class Counting(nn.Module):
    """Counts its calls in one buffer in place and in another by a new one, and scales by the first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.ones(()))
        self.register_buffer("anew", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.in_place += 1
        self.anew = self.anew + 1
        return x + self.in_place * x.roll(1, 1)


def test_what_a_network_counts_is_as_before() -> None:
    net, x = nn.Sequential(network(), Counting()), inputs(96)
    anew = net[1].anew
    for run in (
        lambda: kw.study(net, x, batch_size=32),
        lambda: kw.compare(net, x, batch_size=32),
        lambda: kw.collapse_curve(net, x, layers="0.0", ranks=[4]),
        lambda: kw.compress(net, x, keep=0.9),
    ):
        run()
        assert (float(net[1].in_place), float(net[1].anew)) == (1, 0)
    assert net[1].anew is anew


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
def test_caches_of_the_caller_and_settings_of_a_language_model() -> None:
    net = llama()
    plain = numbers(kw.study(net, DATA, layers="blocks"))
    for name, value in (("use_cache", False), ("output_hidden_states", True)):
        before = getattr(net.config, name)
        setattr(net.config, name, value)
        assert numbers(kw.study(net, DATA, layers="blocks")) == plain
        assert getattr(net.config, name) is value
        setattr(net.config, name, before)
    with torch.no_grad():
        cache = net(TOKENS[:, :4], use_cache=True).past_key_values
        expected = net(TOKENS, output_hidden_states=True).hidden_states[1][:, 4:]
    record = kw.study(net, [{"input_ids": TOKENS[:, 4:], "past_key_values": cache}], layers="model.layers.0")
    assert cache.get_seq_length() == 4
    assert record[0].kets == 12 * 3
    assert record[0].entropy.plain == pytest.approx(entropy_of(expected.flatten(0, 1)), abs=1e-5)
