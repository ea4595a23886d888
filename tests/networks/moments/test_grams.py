"""Precision: small eigenvalues beside a large one, long sums, and half-precision networks against the float32 one."""

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.encoding import unit
from ketwork.networks.moments.class_moments import ClassMoments
from ketwork.networks.moments.grams import gram
from ketwork.networks.moments.moment import Moment

U16, UB16 = 2.0**-11, 2.0**-8  # unit roundoffs of float16 and bfloat16


def _led(n: int, d: int, kind: str, rest: float = 1e-6, seed: int = 0) -> Tensor:
    """Kets in float64 of which one direction carries 1 − rest, and the others spread a factor 100 in weight."""
    draw = torch.Generator().manual_seed(seed)
    leading = unit(torch.randn(d, generator=draw, dtype=torch.float64))[0]
    small = torch.randn(n, d, generator=draw, dtype=torch.float64) * torch.linspace(1, 0.1, d).double()
    small -= torch.outer(small @ leading, leading)
    small *= math.sqrt(rest) / small.square().sum(dim=1).mean().sqrt()
    if kind == "mean":
        return unit(leading + small)[0]
    if kind == "signs":
        signs = torch.randint(0, 2, (n, 1), generator=draw).double() * 2 - 1
        return unit(signs * leading + small)[0]
    phases = torch.rand(n, 1, generator=draw, dtype=torch.float64) * 2 * math.pi
    return unit(torch.polar(torch.ones_like(phases), phases) * (leading + small))[0]


def _narrow(kets: Tensor) -> Tensor:
    return kets.to(torch.complex64 if kets.is_complex() else torch.float32)


@pytest.mark.parametrize("kind", ["mean", "signs", "phases"])
@pytest.mark.parametrize("d", [24, 520])
@pytest.mark.parametrize("normalize", ["state", "ensemble"])
def test_small_eigenvalues_beside_0_999999(kind: str, d: int, normalize: str) -> None:
    kets = _led(4 * d, d, kind)
    lengths = torch.rand(len(kets), 1, generator=torch.Generator().manual_seed(1)).double() + 0.5
    raw = kets * lengths
    record = kw.study(nn.Identity(), list(_narrow(raw).split(500)), normalize=normalize)
    layer = record.layers[0]
    assert layer.accumulator.moment.rows is None  # past n > d/2: the dense moment
    exact = raw if normalize == "ensemble" else kets
    truth = torch.linalg.eigvalsh(exact.mT @ exact.conj() / exact.abs().square().sum()).flip(0)
    assert 1 - float(truth[0]) == pytest.approx(1e-6, rel=0.1)
    found = layer.density.spectrum()
    # The last but one is the weakest direction orthogonal to the leading one; the very last is rounding.
    torch.testing.assert_close(found[: d - 1], truth[: d - 1], rtol=1e-3, atol=0)


def test_small_eigenvalues_of_the_covariance() -> None:
    """Centred, what remains is the small part alone."""
    kets = _led(3000, 60, "mean")
    record = kw.study(nn.Identity(), list(_narrow(kets).split(500)), center=True)
    apart = kets - kets.mean(dim=0)
    truth = torch.linalg.eigvalsh(apart.T @ apart / apart.square().sum()).flip(0)
    torch.testing.assert_close(record.layers[0].density.spectrum()[:59], truth[:59], rtol=1e-3, atol=0)


def test_small_eigenvalues_of_class_moments() -> None:
    kets = _led(6000, 40, "mean")
    codes = torch.arange(6000) % 3
    moments = ClassMoments.from_vectors(_narrow(kets), codes, 3)
    assert moments.dense is not None
    mean, covariance = moments.balanced()
    groups = [kets[codes == k] for k in range(3)]
    centre = torch.stack([group.mean(dim=0) for group in groups]).mean(dim=0)
    torch.testing.assert_close(mean, centre, rtol=0, atol=1e-8)
    exact = sum((g - centre).T @ (g - centre) / len(g) for g in groups) / 3
    truth = torch.linalg.eigvalsh(torch.as_tensor(exact))
    torch.testing.assert_close(torch.linalg.eigvalsh(covariance)[1:], truth[1:], rtol=1e-3, atol=0)


def test_ten_million_nearly_equal_kets_do_not_drift() -> None:
    """Batches of 100,000 by `+=`, in two moments that are then joined; every sum is known in float64."""
    kets = _narrow(_led(100_000, 8, "mean", rest=1e-4))
    exact = kets.double().T @ kets.double() / len(kets)
    halves = []
    for _ in range(2):
        total = Moment.empty(8, kets)
        for _ in range(50):
            total += Moment.from_vectors(kets)
        halves.append(total)
    total = halves[0]
    total += halves[1]
    assert total.n == 10_000_000
    drift = torch.linalg.matrix_norm(total.matrix() / total.n - exact, 2)
    assert float(drift) < 1e-9  # of a trace of 1; the claim is 1e-6
    equal = Moment.empty(8, kets)
    one = kets[:1].expand(100_000, 8)
    for _ in range(100):
        equal += Moment.from_vectors(one)
    state = equal.matrix() / equal.n
    assert float((state - torch.outer(one[0].double(), one[0].double())).abs().max()) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize(("n", "d"), [(3, 1), (1, 5), (7, 3), (9000, 12), (40, 600), (300, 1030)])
def test_gram_is_the_product(n: int, d: int, dtype: torch.dtype) -> None:
    rows = torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(n))
    wide = rows.to(torch.complex128 if rows.is_complex() else torch.float64)
    exact = wide.mH @ wide
    torch.testing.assert_close(gram(rows), exact, rtol=0, atol=2e-6 * float(exact.abs().max()))
    assert torch.equal(gram(rows), gram(rows).mH)
    assert torch.equal(rows.to(wide), wide)  # left as they were
    rows[0] = 0
    wide[0] = 0
    torch.testing.assert_close(gram(rows), wide.mH @ wide, rtol=0, atol=2e-6 * float(exact.abs().max()))


class _Rounded(nn.Module):
    """Activations as a network of that precision would hand them over."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


@pytest.mark.parametrize(("dtype", "u"), [(torch.float16, U16), (torch.bfloat16, UB16)])
@pytest.mark.parametrize("kind", ["mean", "signs", "gaussian"])
def test_rounded_activations_move_the_state_by_at_most_the_unit_roundoff(
    dtype: torch.dtype, u: float, kind: str
) -> None:
    """Each amplitude moves by a share u at most, so each ket by an angle of sine u, and ρ by trace distance u."""
    draw = torch.Generator().manual_seed(0)
    x = (
        torch.randn(3000, 48, generator=draw)
        if kind == "gaussian"
        else 4 * _led(3000, 48, kind, 1e-2).float()
    )
    wide = kw.study(nn.Identity(), list(x.split(512))).layers[0].density
    network = _Rounded(dtype)
    narrow = kw.study(network, list(x.split(512)), layers=[network]).layers[0].density
    distance = float(kw.trace_distance(narrow, wide))
    assert 0 < distance <= u
    # Fannes–Audenaert: |ΔS| ≤ D log₂(d − 1) + h₂(D)
    most = distance * math.log2(47) - sum(p * math.log2(p) for p in (distance, 1 - distance))
    assert abs(float(narrow.entropy() - wide.entropy())) <= most
    # The study adds nothing of its own: it equals the float64 moment of the very numbers that came in.
    kets = unit(x.to(dtype).double())[0]
    torch.testing.assert_close(narrow.matrix(), kets.T @ kets / len(kets), rtol=0, atol=2e-7)


def _angles(wide: nn.Module, narrow: nn.Module, batches: list[Any], names: list[str]) -> dict[str, float]:
    """The mean sine of the angle between the two networks' kets at each layer, which bounds the trace distance."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    kept: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            out = output if isinstance(output, Tensor) else output[0]
            kept[name] = unit((out.movedim(1, -1) if out.ndim == 4 else out).flatten(0, -2).double())[0]

        return hook

    for batch_wide, batch_narrow, mask in batches:
        outputs = []
        for model, batch in ((wide, batch_wide), (narrow, batch_narrow)):
            modules = dict(model.named_modules())
            hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
            with torch.inference_mode():
                model(**batch) if isinstance(batch, dict) else model(batch)
            for hook in hooks:
                hook.remove()
            outputs.append(dict(kept))
        for name in names:
            a, b = outputs[0][name], outputs[1][name]
            both = (a.abs().sum(-1) > 0) & (b.abs().sum(-1) > 0)
            if mask is not None:
                both &= mask.flatten().bool()
            sines = (1 - (a * b).sum(-1).square()).clamp(min=0).sqrt()
            found[name].append(sines[both])
    return {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


@pytest.fixture(scope="module")
def tokenised(minilm: Path, sms: Path) -> tuple[nn.Module, list[dict[str, Tensor]]]:
    from transformers import AutoModel, AutoTokenizer

    texts = pd.read_csv(sms).text.tolist()[:32]
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    batches = [
        dict(tokenizer(texts[i : i + 16], padding=True, truncation=True, return_tensors="pt"))
        for i in range(0, len(texts), 16)
    ]
    return AutoModel.from_pretrained(minilm).eval(), batches


@pytest.mark.parametrize(("dtype", "u"), [(torch.float16, U16), (torch.bfloat16, UB16)])
def test_half_precision_minilm(
    tokenised: tuple[nn.Module, list[dict[str, Tensor]]], dtype: torch.dtype, u: float
) -> None:
    """A layer's state is as far from float32's as its kets are, a few unit roundoffs: the study adds nothing."""
    model, batches = tokenised
    half = copy.deepcopy(model).to(dtype)
    names = [f"encoder.layer.{i}" for i in range(6)]
    wide = kw.study(model, batches, layers=names)
    narrow = kw.study(half, batches, layers=names)
    sines = _angles(model, half, [(batch, batch, batch["attention_mask"]) for batch in batches], names)
    for name in names:
        distance = float(kw.trace_distance(narrow[name].density, wide[name].density))
        assert distance <= sines[name] + 1e-6
        assert distance <= 8 * u, name
        most = distance * math.log2(383) - sum(p * math.log2(p) for p in (distance, 1 - distance))
        assert abs(narrow[name].entropy.plain - wide[name].entropy.plain) <= most


@pytest.mark.parametrize(("dtype", "u"), [(torch.float16, U16), (torch.bfloat16, UB16)])
def test_half_precision_digits(
    digit_network: nn.Module, mnist: tuple[Tensor, Tensor], dtype: torch.dtype, u: float
) -> None:
    images = list(mnist[0][:512].split(128))
    half = copy.deepcopy(digit_network).to(dtype)
    wide = kw.study(digit_network, images)
    narrow = kw.study(half, _as(images, dtype))
    names = [layer.name for layer in wide if layer.call == 0]
    assert names == [layer.name for layer in narrow if layer.call == 0]
    for name in names:
        distance = float(kw.trace_distance(narrow[name].density, wide[name].density))
        assert distance <= 8 * u, name


def _as(images: list[Tensor], dtype: torch.dtype) -> Iterator[Tensor]:
    return (batch.to(dtype) for batch in images)
