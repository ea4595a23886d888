"""Entanglement of all positions of a sample: closed forms, the dense path, and parts that add up."""

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

import ketwork as kw
from ketwork.networks.moments import BatchKeys, Entanglements, EntropySolver, Positions, entanglements


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def keys(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def taken(values: Tensor, present: Tensor | None, order: Tensor, cut: float | None = None) -> Entanglements:
    solver = EntropySolver()
    found = Entanglements.from_batch(values, Positions.of(values, present), BatchKeys(order), solver, cut)
    solver.run()
    return found


def by_key(found: Entanglements) -> dict[float, float]:
    return dict(zip(found.keys.tolist(), found.entropies.tolist(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize(("t", "d"), [(90, 70), (70, 90), (300, 5), (5, 300), (1, 8), (8, 1)])
def test_all_positions_against_the_ket(t: int, d: int, dtype: torch.dtype) -> None:
    values, order = random(4, t, d, dtype=dtype), keys(4)
    found = by_key(taken(values, None, order))
    for value, key in zip(values, order.tolist(), strict=True):
        wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
        exact = kw.Ket.normalized(wide.flatten(), dims=(t, d)).entanglement_entropy([0])
        assert found[key] == pytest.approx(float(exact), abs=1e-9)


def test_long_random_states_have_the_entropy_of_page() -> None:
    """⟨S⟩ = Σ_{k=n+1}^{mn} 1/k − (m − 1)/(2n) nats for m ≤ n (Page 1993), of states that 64 positions would cut."""
    m, n = 96, 128
    page = (sum(1 / k for k in range(n + 1, m * n + 1)) - (m - 1) / (2 * n)) / math.log(2)
    for shape in ((24, m, n), (24, n, m)):
        entropies = taken(random(*shape, dtype=torch.complex128), None, keys(24)).entropies
        assert float(entropies.mean()) == pytest.approx(page, abs=4 * float(entropies.std()) / 24**0.5)
        assert float(entropies.std()) < 0.01


def test_repeating_positions_changes_nothing() -> None:
    """So that layers before and after a pooling compare: 64 positions, and 320 of which each five are equal."""
    values, order = random(6, 64, 80), keys(6)
    short = taken(values, None, order)
    long = taken(values.repeat_interleave(5, dim=1), None, order)
    torch.testing.assert_close(long.entropies, short.entropies)
    assert long.sides.tolist() == [80] * 6


def test_positions_that_do_not_exist_or_are_zero_do_not_count() -> None:
    values, order = random(5, 120, 90), keys(5)
    present = torch.arange(120)[None] < torch.tensor([120, 77, 1, 30, 0])[:, None]
    values[0, 10:40] = 0
    exact = {
        float(key): float(
            kw.Ket.normalized(v[p].flatten(), dims=(int(p.sum()), 90)).entanglement_entropy([0])
        )
        for v, p, key in zip(values, present, order, strict=True)
        if bool(p.any())
    }
    valid = present & (values.abs().amax(-1) > 0)
    values[~present] = torch.nan
    found = taken(values, valid, order)
    assert by_key(found) == pytest.approx(exact, abs=1e-9)
    counts = dict(zip(order.tolist(), [90, 77, 1, 30, 0], strict=True))
    assert found.positions.tolist() == [counts[key] for key in found.keys.tolist()]


def test_units_of_any_size() -> None:
    values = random(3, 70, 80, dtype=torch.float32)
    exact = taken(values, None, keys(3)).entropies
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(taken(values * scale, None, keys(3)).entropies, exact)


@pytest.mark.parametrize(("work", "kept"), [(10**12, 40), (60_000, 24), (0, 5)])
def test_parts_add_up_to_the_whole(work: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entanglements, "WORK", work)
    monkeypatch.setattr(entanglements, "LEAST", 5)
    monkeypatch.setattr(entanglements, "MOST", 40)
    values, order = random(120, 12, 10), keys(120, 1)
    present = torch.rand(120, 12, generator=torch.Generator().manual_seed(2)) < 0.7
    whole = taken(values, present, order)
    assert len(whole.keys) == pytest.approx(kept, abs=8 if kept == 24 else 0)
    assert by_key(whole).keys() == set(order.sort().values[: len(whole.keys)].tolist())

    def part(some: slice, cut: float | None = None) -> Entanglements:
        return taken(values[some], present[some], order[some], cut)

    pieces = [slice(0, 1), slice(1, 50), slice(50, 53), slice(53, 120)]
    streamed = part(pieces[0])
    for piece in pieces[1:]:
        streamed += part(piece, streamed.cut)
    late = part(pieces[3])
    late += part(pieces[1])
    other = part(pieces[2])
    other += part(pieces[0])
    late += other
    for found in (streamed, late):
        for field in fields(whole):
            torch.testing.assert_close(getattr(found, field.name), getattr(whole, field.name))


def test_what_is_kept_has_a_bound_of_its_work() -> None:
    """Samples of 512 positions and features: sixteen, however many there are; of short ones as many as ever."""
    long = taken(random(20, 512, 512, dtype=torch.float32), None, keys(20))
    assert len(long.keys) == entanglements.LEAST
    assert long.cut == float(keys(20).sort().values[16])
    short = taken(random(140, 16, 64, dtype=torch.float32), None, keys(140))
    assert len(short.keys) == entanglements.MOST
