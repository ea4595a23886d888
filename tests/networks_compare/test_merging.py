"""What compares layers, gathered in parts: the sum is that of all rows, however each part was held."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from ketwork.networks.measures.overlaps import overlaps_of
from ketwork.networks.measures.similarity import groups, similarities
from ketwork.networks.moments.pair_moments import PairMoments
from ketwork.records.record import pack

WIDTHS = {"a": 5, "b": 7, "c": 40, "d": 3}


def rows(n: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 4, generator=draw, dtype=torch.float64)
    found = {}
    for i, (name, d) in enumerate(WIDTHS.items()):
        mix = torch.randn(4, d, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        found[name] = base @ mix + 0.5 * torch.randn(n, d, generator=draw, dtype=torch.float64) + seed
    return found


def gathered(parts: Sequence[dict[str, Tensor]], split: bool = False, **options: Any) -> PairMoments:
    found = PairMoments(**options)
    for part in parts:
        names = list(part)
        both = [{name: part[name] for name in some} for some in (names[:2], names[2:])]
        found.add(*both) if split else found.add(part)
    return found


def same(one: PairMoments, other: PairMoments, split: bool = False) -> None:
    assert (one.n, one.keys, one.split, one.incomplete) == (
        other.n,
        other.keys,
        other.split,
        other.incomplete,
    )
    for a, b in ((one, other), (one.half, other.half)):
        if a is None or b is None:
            assert a is b
            continue
        found, expected = (similarities(overlaps_of(copy.deepcopy(p)), groups(), center=True) for p in (a, b))
        for name, matrix in expected.items():
            torch.testing.assert_close(found[name], matrix, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("sizes", [(20, 30), (400, 30), (30, 400), (300, 500), (2, 600)])
def test_parts_add_up_whatever_form_they_are_in(sizes: tuple[int, int], split: bool) -> None:
    parts = [rows(n, seed) for seed, n in enumerate(sizes)]
    a, b = (gathered([part], split, always=0) for part in parts)
    forms = {len(part["a"]): held.form for part, held in zip(parts, (a, b), strict=True)}
    assert all(form == ("moments" if n >= 300 else "rows") for n, form in forms.items())
    before = {name: tensor.clone() for name, tensor in pack(b)[1].items()}
    a += b
    same(a, gathered(parts, split, always=0))
    after = pack(b)[1]
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("sizes", [(30, 900), (900, 30), (700, 800), (3, 4)])
def test_projected_parts_add_up_to_the_projection_of_all(sizes: tuple[int, int]) -> None:
    parts = [rows(n, seed) for seed, n in enumerate(sizes)]
    memory = 14_000
    a, b = (gathered([part], memory=memory, seed=3, always=0) for part in parts)
    a += b
    whole = gathered(parts, memory=memory, seed=3, always=0)
    assert bool(whole.projections) == (max(sizes) > 100)
    same(a, whole)
    if whole.projections:
        with pytest.raises(
            ValueError, match=r"seed and memory are the same, but they are 3 and .* and 4 and"
        ):
            a += gathered([parts[0]], memory=memory, seed=4, always=0)


@pytest.mark.parametrize("form", ["rows", "moments"])
def test_layers_are_found_by_their_keys(form: str) -> None:
    always = 1 << 30 if form == "rows" else 0
    first, second = rows(400, 0), rows(500, 1)
    turned = {name: second[name] for name in ("d", "b", "a")}  # in another order, and one is missing
    a, b = gathered([first], always=always), gathered([turned], always=always)
    assert (a.form, b.form) == (form, form)
    a += b
    assert a.incomplete == {"c"}
    same(a, gathered([first, turned], always=always))
    with pytest.raises(ValueError, match="Layer 'a' has 5 features in one part and 6 in another"):
        a += gathered([{"a": torch.zeros(3, 6)}])


def test_nothing_is_neutral() -> None:
    part = rows(20, 0)
    a = gathered([])
    a += gathered([part])
    a += gathered([])
    same(a, gathered([part]))
