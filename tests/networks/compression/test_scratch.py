"""What takes more memory than it may lies in files, and is the same to all that use it."""

import gc
import mmap
from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.compression.scratch import Scratch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_fits_stays_and_what_does_not_is_a_file_that_can_be_changed(folder: Path) -> None:
    scratch = Scratch(memory=2 * 8 * 128**2)
    tensors = [torch.rand(128, 128, dtype=torch.float64) for _ in range(3)]
    kept = [scratch.kept(tensor) for tensor in tensors]
    assert [a is b for a, b in zip(kept, tensors, strict=True)] == [True, True, False]
    assert torch.equal(kept[2], tensors[2])
    kept[2] += 1
    (path,) = files(folder)
    assert path.stat().st_size == 8 * 128**2
    there = torch.from_file(str(path), size=128**2, dtype=torch.float64).reshape(128, 128)
    torch.testing.assert_close(there, tensors[2] + 1, atol=0, rtol=0)


def test_memory_that_is_free_again_is_used_and_files_go_with_their_tensors(folder: Path) -> None:
    scratch = Scratch(memory=8 * 128**2)
    first = scratch.kept(torch.rand(128, 128, dtype=torch.float64))
    second = scratch.kept(torch.rand(128, 128, dtype=torch.float64))
    assert len(files(folder)) == 1
    del first, second
    gc.collect()
    assert files(folder) == []
    third = torch.rand(128, 128, dtype=torch.float64)
    assert scratch.kept(third) is third


def test_a_full_disk_is_an_error_that_says_what_to_do(folder: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
    try:
        with pytest.raises(
            OSError, match=r"Argument `memory` leaves 131,072 bytes .* Give more memory, or set TMPDIR"
        ):
            Scratch(memory=0).kept(torch.rand(128, 128, dtype=torch.float64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def resident() -> int:
    """Bytes of files that the process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what is in memory")
def test_what_rests_takes_no_memory_and_loses_nothing(folder: Path) -> None:
    size = 2**25
    scratch = Scratch(memory=0)
    kept = [scratch.kept(torch.zeros(size // 4)) for _ in range(2)]
    for tensor in kept:
        tensor += 3.0
    used = resident()
    scratch.rest()  # less than is worth it
    assert resident() == used
    scratch.rest(most=0)
    assert used - resident() >= 1.9 * size
    assert all(bool((tensor == 3.0).all()) for tensor in kept)
    kept.pop()
    gc.collect()
    more = scratch.kept(torch.ones(size // 4))  # where the other was, perhaps
    scratch.rest(most=0)
    assert [float(tensor.sum()) for tensor in (*kept, more)] == [3 * size / 4, size / 4]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not say what is in memory")
def test_files_in_use_take_a_bounded_part_of_memory(folder: Path) -> None:
    scratch, before, most = Scratch(memory=0), resident(), 0
    size = 2**25
    kept: list[torch.Tensor] = []
    for _ in range(16):  # 512 MB in all
        kept.append(scratch.kept(torch.zeros(size // 4)))
        kept[-1] += 1
        most = max(most, resident() - before)
    assert 2**28 <= most <= 2**28 + 2 * size
    assert all(float(tensor.sum()) == size / 4 for tensor in kept)


def test_small_tensors_are_no_files(folder: Path) -> None:
    small = torch.rand(8)
    assert Scratch(memory=0).kept(small) is small
    assert files(folder) == []


def test_a_network_is_compressed_the_same_from_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(100, 120), nn.ReLU(), nn.Linear(120, 110), nn.ReLU(), nn.Linear(110, 10))
    x, made = torch.randn(300, 100), []
    expected = kw.compress(net, x, keep=0.6)

    def without_memory(memory: int) -> Scratch:
        made.append(Scratch(0))
        return made[-1]

    monkeypatch.setattr("ketwork.networks.compression.preparation.Scratch", without_memory)
    result = kw.compress(net, x, keep=0.6)
    assert made[0].mapped > 10
    for a, b in zip(result.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a, b)
    made.clear()
    gc.collect()
    assert files(folder) == []
