"""What deleting samples does to a state, against decompositions of every state that is left."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.deletion import Deletion

SETTINGS = [(normalize, center) for normalize in ("state", "ensemble") for center in (False, True)]


def _data(n: int, t: int, d: int = 6, *, complex_: bool = False, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if complex_ else torch.float64
    x = torch.randn(n, 1, d, dtype=dtype, generator=draw) + 0.5 * torch.randn(
        n, t, d, dtype=dtype, generator=draw
    )
    return x * torch.arange(1, d + 1) ** -0.7 + torch.tensor([0.5, *[0.0] * (d - 2), 0.1])


def _layer(x: Tensor, normalize: str, center: bool, **settings: object) -> kw.Layer:
    return kw.study(nn.Identity(), x, normalize=normalize, center=center, labels=False, **settings)[0]


def _numbers(vectors: NDArray[np.complex128], center: bool) -> dict[str, float]:
    rows = vectors.reshape(-1, vectors.shape[-1])
    rows = rows - rows.mean(0) if center else rows
    moment = rows.T @ rows.conj()
    moment = moment / np.trace(moment).real
    values = np.linalg.eigvalsh(moment)
    values, p = values[values > 1e-14], np.diag(moment).real
    entropy, diagonal = -(values * np.log(values)).sum(), -(p * np.log(p)).sum()
    return {
        "entropy": entropy,
        "populations": diagonal,
        "coherence": diagonal - entropy,
        "top": values.max(),
    }


def _left(x: Tensor, normalize: str, center: bool) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """The numbers of all samples, and of all but each, by decomposing each state that is left."""
    vectors = x.numpy()
    if normalize == "state":
        vectors = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    without = [_numbers(np.delete(vectors, i, axis=0), center) for i in range(len(vectors))]
    full = _numbers(vectors, center)
    return full, {name: np.array([each[name] for each in without]) for name in full}


@pytest.mark.parametrize(("normalize", "center"), SETTINGS)
@pytest.mark.parametrize(("positions", "complex_"), [(1, False), (4, False), (9, False), (4, True)])
def test_it_is_what_decompositions_give(positions: int, complex_: bool, normalize: str, center: bool) -> None:
    x = _data(30, positions, complex_=complex_)
    layer = _layer(x, normalize, center)
    full, without = _left(x, normalize, center)
    # The reservoir has all samples, in the order of their keys: each is found by its own part.
    found = Deletion(layer.state())
    assert found.possible
    exact = np.sort(without["top"] - full["top"])
    assert np.sort(found.top.exact.numpy()) == pytest.approx(exact, abs=2e-6)
    for name, changes in (
        ("entropy", found.entropy),
        ("populations", found.populations),
        ("coherence", found.coherence),
    ):
        exact = np.sort(without[name] - full[name])
        assert np.sort(changes.exact.numpy()) == pytest.approx(exact, abs=2e-6), name
        assert float(changes.linear.sum()) == pytest.approx(0, abs=1e-9), name


def test_what_the_leading_eigenstate_of_the_others_holds_of_each_sample() -> None:
    x = _data(25, 3)
    layer = _layer(x, "state", center=False)
    kets = (x / x.norm(dim=-1, keepdim=True)).numpy()
    held = 0.0
    for i in range(25):
        rest = np.delete(kets, i, axis=0).reshape(-1, 6)
        leading = np.linalg.eigh(rest.T @ rest)[1][:, -1]
        held += float(np.sum((kets[i] @ leading) ** 2)) / 75
    seen = Deletion(layer.state()).top.seen
    assert seen == pytest.approx(held, rel=1e-9)
    assert seen < layer.top_weight.plain


@pytest.mark.parametrize(("normalize", "center"), SETTINGS)
def test_how_the_leading_eigenstate_turns(normalize: str, center: bool) -> None:
    """By M/((λ₁ − λₖ)² + M), M the mean squares of what samples have beside λ₁ in the eigenbasis."""
    x = _data(40, 3)
    vectors = x.numpy() / (np.linalg.norm(x.numpy(), axis=-1, keepdims=True) if normalize == "state" else 1)
    flat = vectors.reshape(-1, 6)
    vectors = vectors - flat.mean(0) if center else vectors
    parts = np.einsum("itj,itk->ijk", vectors, vectors)
    parts = parts / np.trace(parts.sum(0))
    values, states = np.linalg.eigh(parts.sum(0))
    beside = np.einsum("ijk,j,kl->il", parts, states[:, -1], states[:, -2::-1])
    squares = (beside**2).sum(0)
    top = Deletion(_layer(x, normalize, center).state()).top
    turns = squares / ((values[-1] - values[-2::-1]) ** 2 + squares)
    # Centred samples have one column more, by which deleting them moves the mean: of order 1/N.
    assert top.turns.numpy() == pytest.approx(turns, rel=0.1 if center else 1e-9)
    assert 0 < top.own < (float(values[-1]) - top.seen) ** 2


@pytest.mark.parametrize(("normalize", "center"), SETTINGS)
def test_the_second_order_is_that_of_all_pairs(normalize: str, center: bool) -> None:
    """½ Σ_{i≠j} ⟨Dᵢ, Dⱼ⟩², with the second derivative of the entropy by finite differences of matrices."""
    x = _data(12, 2, 4)
    layer = _layer(x, normalize, center)
    vectors = x.numpy() / (np.linalg.norm(x.numpy(), axis=-1, keepdims=True) if normalize == "state" else 1)
    vectors = vectors - vectors.reshape(-1, 4).mean(0) if center else vectors
    parts = np.einsum("itj,itk->ijk", vectors, vectors)
    parts = parts / np.trace(parts.sum(0))
    rho = parts.sum(0)
    deviations = [part - np.trace(part) * rho for part in parts]

    def entropy(state: NDArray[np.float64]) -> float:
        values = np.linalg.eigvalsh(state)
        return -float((values * np.log(values)).sum())

    total, h = 0.0, 1e-3
    for i, one in enumerate(deviations):
        for j, other in enumerate(deviations):
            if i != j:
                corners = [a * b * entropy(rho + h * (a * one + b * other)) for a in (1, -1) for b in (1, -1)]
                total += (sum(corners) / (4 * h * h)) ** 2 / 2
    assert Deletion(layer.state()).entropy.second == pytest.approx(total, rel=1e-3)


def test_what_is_kept_of_long_samples_gives_the_correction_of_all_positions() -> None:
    """Samples of 600 positions, of which 128 are kept: the jackknife over all of them, within its own noise."""
    biases = []
    for seed in range(6):
        draw = torch.Generator().manual_seed(seed)
        x = 0.2 * torch.randn(40, 1, 8, generator=draw) + torch.randn(40, 600, 8, generator=draw)
        layer = _layer((x * torch.arange(1, 9) ** -0.7).double(), "state", center=False)
        full, without = _left((x * torch.arange(1, 9) ** -0.7).double(), "state", center=False)
        exact = 39 * (without["entropy"].mean() - full["entropy"])
        changes = Deletion(layer.state()).entropy
        biases.append((39 / 40 * float((changes.exact - changes.linear).sum()), exact))
    found, exact = np.mean(biases, axis=0)
    assert found == pytest.approx(exact, rel=0.15)


def test_a_state_of_one_sample_has_none_to_delete() -> None:
    assert not Deletion(_layer(_data(1, 5), "state", center=False).state()).possible
    x = torch.cat([1e9 * _data(1, 1), _data(9, 1)])
    assert not Deletion(_layer(x, "ensemble", center=False).state()).possible


def test_equal_samples_change_nothing() -> None:
    changes = Deletion(_layer(torch.ones(40, 1, 5), "state", center=False).state())
    assert float(changes.top.exact.abs().max()) < 1e-7
    for each in (changes.entropy, changes.populations, changes.coherence):
        assert float(each.exact.abs().max()) < 1e-7
        assert math.sqrt(max(each.second, 0.0)) < 1e-7
