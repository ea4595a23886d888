"""Studies on disk, and the sums and reservoirs that they are made of."""

import copy
import json
import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ketwork import _files
from ketwork.networks import Study, moments, study
from ketwork.networks.moments import Moment
from ketwork.networks.record import SCHEMA
from ketwork.networks.reservoir import SAMPLES, Reservoir


def _study(complex_: bool = False) -> Study:
    torch.manual_seed(0)
    dtype = torch.complex64 if complex_ else torch.float32
    network = nn.Sequential(
        nn.Linear(5, 40, dtype=dtype), nn.Tanh(), nn.Dropout(), nn.Linear(40, 3, dtype=dtype)
    )
    return study(network, torch.randn(30, 4, 5, dtype=dtype), mask=torch.ones(30, 4))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "one.study"
    _study().save(path)
    return path


@pytest.mark.parametrize("complex_", [False, True])
def test_a_study_comes_back_equal(tmp_path: Path, complex_: bool) -> None:
    record = _study(complex_)
    record.save(tmp_path / "one.study")
    back = Study.load(tmp_path / "one.study")
    assert (back.skipped, back.settings, back.samples, back.complete, back.error, back.notes) == (
        record.skipped, record.settings, record.samples, True, None, record.notes,
    )  # fmt: skip
    assert back.table().equals(record.table())
    assert back.long().equals(record.long())
    assert repr(back) == repr(record)
    for one, other in zip(back, record, strict=True):
        assert one.header() == other.header()
        mine, theirs = one.statistics.tensors(), other.statistics.tensors()
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        assert torch.equal(one.density.matrix(), other.density.matrix())
    back.save(tmp_path / "two.study")
    assert (tmp_path / "two.study").read_bytes() == (tmp_path / "one.study").read_bytes()


def test_a_study_that_ended_early_says_so_when_it_comes_back(tmp_path: Path) -> None:
    record = study(nn.Linear(5, 3), [torch.ones(4, 5), torch.ones(4, 6)])
    record.save(tmp_path / "one.study")
    back = Study.load(tmp_path / "one.study")
    assert (back.complete, back.samples) == (False, 4)
    assert str(back.error).startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


def test_a_loaded_study_can_be_added_to(saved: Path) -> None:
    a, b = (Study.load(saved)["0"].statistics for _ in range(2))
    a += b
    assert (a.samples, a.kets) == (60, 240)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="Argument `path` must be a saved study, but there is no file"
    ):
        Study.load(tmp_path / "none.study")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_files(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(
        ValueError, match=r"Argument `path` must be a saved study, but .* not a whole safetensors file"
    ):
        Study.load(saved)


def test_files_of_something_else(saved: Path) -> None:
    for metadata in (
        None,
        {"ketwork": "{"},
        {"ketwork": "3"},
        {"ketwork": '{"kind": "comparison", "schema": 1}'},
    ):
        save_file({"x": torch.ones(2)}, saved, metadata=metadata)
        with pytest.raises(ValueError, match="is a safetensors file of something else"):
            Study.load(saved)


def test_files_of_a_newer_schema(saved: Path) -> None:
    save_file(
        {"x": torch.ones(2)}, saved, metadata={"ketwork": json.dumps({"kind": "study", "schema": SCHEMA + 1})}
    )
    with pytest.raises(
        ValueError, match=rf"has schema {SCHEMA + 1}: a newer ketwork wrote it. Upgrade ketwork"
    ):
        Study.load(saved)


def test_files_that_lack_a_part(saved: Path) -> None:
    tensors = load_file(saved)
    _files.write_tensors(saved, tensors, {"kind": "study", "schema": SCHEMA}, "ketwork")
    with pytest.raises(ValueError, match="lacks a part of one"):
        Study.load(saved)


def test_fuzzed_headers_never_end_in_anything_but_a_value_error(saved: Path) -> None:
    whole, draw = saved.read_bytes(), random.Random(0)
    size = 8 + int.from_bytes(whole[:8], "little")
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.choice((1, 1, 4, 30))):
            damaged[draw.randrange(size)] = draw.randrange(256)
        saved.write_bytes(damaged)
        try:
            Study.load(saved)
        except ValueError as error:
            assert "Argument `path` must be a s" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 150


def _kets(n: int, d: int, seed: int, complex_: bool = False) -> Tensor:
    dtype = torch.complex128 if complex_ else torch.float64
    kets = torch.randn(n, d, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return kets / kets.norm(dim=-1, keepdim=True)


def _sum(*moments: Moment) -> Moment:
    total = copy.deepcopy(moments[0])
    for moment in moments[1:]:
        total += copy.deepcopy(moment)
    return total


@settings(max_examples=settings.default.max_examples * 3 // 5)
@given(
    sizes=st.tuples(*[st.integers(0, 40)] * 3),
    d=st.integers(1, 24),
    complex_=st.booleans(),
    weighted=st.booleans(),
)
def test_moments_are_a_monoid(sizes: tuple[int, int, int], d: int, complex_: bool, weighted: bool) -> None:
    batches = [_kets(n, d, seed, complex_) for seed, n in enumerate(sizes)]
    weights = [torch.arange(1.0, n + 1, dtype=torch.float64) if weighted else None for n in sizes]
    a, b, c = (Moment.of(k, w) for k, w in zip(batches, weights, strict=True))
    every = torch.cat(batches)
    scale = torch.cat([w if w is not None else torch.ones(n) for n, w in zip(sizes, weights, strict=True)])
    exact = torch.einsum("n,ni,nj->ij", scale.to(every), every, every.conj())
    for total in (
        _sum(_sum(a, b), c),
        _sum(a, _sum(b, c)),
        _sum(c, a, b),
        _sum(Moment.empty(d, every), a, b, c),
    ):
        assert total.n == sum(sizes)
        assert math.isclose(total.weight, float(scale.sum()), rel_tol=1e-12, abs_tol=1e-12)
        torch.testing.assert_close(total.matrix(), exact, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(total.diagonal(), exact.diagonal().real, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(total.first, (every * scale.sqrt()[:, None].to(every)).sum(dim=0))
        tensors = {name: t.contiguous() for name, t in total.tensors().items()}
        back = Moment.from_tensors(tensors, d=d, n=total.n, weight=total.weight)
        torch.testing.assert_close(back.matrix(), total.matrix(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [511, 512, 515, 1030])
def test_wide_moments_from_their_upper_blocks(d: int) -> None:
    kets = torch.randn(3 * d, d, generator=torch.Generator().manual_seed(0))
    moment = Moment.of(kets)
    assert moment.rows is None
    exact = kets.double().T @ kets.double()
    torch.testing.assert_close(moment.matrix(), exact, rtol=0, atol=1e-5 * float(exact.abs().max()))
    assert torch.equal(moment.matrix(), moment.matrix().T)


def test_a_dense_moment_is_kept_as_its_upper_triangle_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_CHUNK", 5)
    total = Moment.of(_kets(40, 13, 0, complex_=True))
    packed = total.tensors()
    i, j = torch.triu_indices(13, 13)
    torch.testing.assert_close(packed["upper"], total.matrix()[i, j], rtol=0, atol=1e-12)
    back = Moment.from_tensors(packed, d=13, n=total.n, weight=total.weight)
    assert torch.equal(back.matrix(), total.matrix())


def test_moments_of_different_widths_do_not_add() -> None:
    with pytest.raises(ValueError, match="Moments of 3 and of 4 features"):
        _sum(Moment.of(_kets(2, 3, 0)), Moment.of(_kets(2, 4, 0)))


def _reservoir(samples: int, seed: int, positions: int = 3) -> Reservoir:
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, positions, 4, generator=draw)
    keys = torch.rand(samples, generator=draw, dtype=torch.float64)
    return Reservoir.of(values, None, keys, True)


@pytest.mark.parametrize("sizes", [(5, 7, 9), (100, 100, 100), (1, 400, 3), (128, 0, 1)])
def test_reservoirs_keep_the_smallest_keys_in_any_order(sizes: tuple[int, ...]) -> None:
    parts = [_reservoir(n, seed) for seed, n in enumerate(sizes)]
    every = torch.cat(
        [torch.rand(n, generator=_after(n, seed), dtype=torch.float64) for seed, n in enumerate(sizes)]
    )
    expected = every.sort()[0][:SAMPLES]
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        total = copy.deepcopy(parts[order[0]])
        for i in order[1:]:
            total += copy.deepcopy(parts[i])
        assert torch.equal(total.keys.sort()[0], expected)
        assert len({len(t) for t in total.tensors().values()}) == 1


def _after(samples: int, seed: int) -> torch.Generator:
    draw = torch.Generator().manual_seed(seed)
    torch.randn(samples, 3, 4, generator=draw)
    return draw


def test_reservoirs_of_different_lengths_grow_together() -> None:
    total = _reservoir(5, 0, positions=2)
    total += _reservoir(6, 1, positions=9)
    assert total.kets.shape == (11, 9, 4)
    assert total.valid().sum(dim=1).tolist() == [2] * 5 + [9] * 6


def test_every_sample_has_the_same_chance_to_stay() -> None:
    stays = torch.zeros(400)
    values = torch.arange(1.0, 401).reshape(400, 1, 1)
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        row = study(nn.Identity(), values, generator=draw, batch_size=50)["(model)"]
        stays[row.statistics.reservoir.norms[:, 0].long() - 1] += 1
    # Each stays 200 × 128/400 = 64 times, ± 6.6.
    assert float(((stays - 64) ** 2).sum()) / (64 * (1 - 128 / 400)) == pytest.approx(400, rel=0.25)
    assert float(stays[:100].mean()) == pytest.approx(float(stays[300:].mean()), abs=3)


def test_parts_of_data_draw_independent_samples_with_one_generator() -> None:
    """Each of 40 first parts keeps 128 of 400 places, and so does its second part: 41 in common by chance."""
    draw = torch.Generator().manual_seed(0)
    common = []
    for _ in range(40):
        values = torch.randn(800, 1, 2, generator=draw)
        kept = []
        for part in values.split(400):
            reservoir = study(nn.Identity(), part)["(model)"].statistics.reservoir
            norms = part[:, 0].norm(dim=1)
            kept.append({int((norms - norm).abs().argmin()) for norm in reservoir.norms[:, 0]})
        common.append(len(kept[0] & kept[1]))
    # Hypergeometric: mean 128²/400 = 40.96, standard deviation 4.36; of the mean of 40, 0.69.
    assert sum(common) / len(common) == pytest.approx(40.96, abs=4 * 0.69)


def test_a_sample_keeps_the_same_positions_whatever_batch_it_came_in() -> None:
    values = torch.randn(300, 90, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = (study(nn.Identity(), values, batch_size=size)["(model)"] for size in (7, 100))
    for name, estimate in one.estimates.items():
        assert estimate.stderr == pytest.approx(other.estimates[name].stderr, rel=1e-6, nan_ok=True), name
