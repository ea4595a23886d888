"""Several processes over gloo on this machine: the numbers of one process, and a clear error in all where one fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import ketwork as kw
from ketwork.networks.runtime.distributed import Distributed
from ketwork.records.record import pack

from . import job

COUNT = 3
TOGETHER = (
    "split", "uneven", "last_empty", "wrapped", "resumed", "compared", "compressed",
    "empty", "fails", "fails_at_once", "other_data", "other_network",
)  # fmt: skip


def started(scenarios: str, folder: Path, count: int = COUNT) -> list[subprocess.Popen[str]]:
    root = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(root / "src")}
    return [
        subprocess.Popen(
            [sys.executable, job.__file__, scenarios, str(rank), str(count), str(folder)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


def ended(processes: list[subprocess.Popen[str]], seconds: float) -> list[tuple[int, str]]:
    """Exit codes and what was said; none is left running."""
    end = time.monotonic() + seconds
    try:
        return [
            (one.wait(), words)
            for one in processes
            for _, words in [one.communicate(timeout=max(end - time.monotonic(), 1))]
        ]
    finally:
        for one in processes:
            one.kill()


def told(folder: Path, rank: int) -> dict[str, Any]:
    return json.loads((folder / f"{rank}.json").read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one job that went through all scenarios after which it can go on."""
    folder = tmp_path_factory.mktemp("job")
    for code, words in ended(started(",".join(TOGETHER), folder), 600):
        assert code == 0, words
    return folder


@pytest.fixture(scope="module")
def whole() -> kw.Study:
    return job.run(compare=True)


def test_the_processes_of_a_job_split_the_data_and_find_what_one_finds(ran: Path, whole: kw.Study) -> None:
    """All numbers, those of the kept samples and the held-out scores too: each sample draws what it drew alone."""
    found = kw.Study.load(ran / "split" / "found")
    assert (found.samples, found.skipped, found.notes, found.settings["processes"]) == (
        job.N, whole.skipped, whole.notes, COUNT,
    )  # fmt: skip
    same(found, whole, exactly=True)
    for one in found:
        known, expected = one.labels, whole[one.name].labels
        assert known is not None
        assert expected is not None
        assert known.names == expected.names
        assert known.held_out.tolist() == expected.held_out.tolist()
        assert all(
            torch.equal(known.confusion[kind], expected.confusion[kind]) for kind in expected.confusion
        )


@pytest.mark.parametrize("scenario", ["uneven", "last_empty"])
def test_shares_of_any_length_and_none(ran: Path, whole: kw.Study, scenario: str) -> None:
    """Each process has data of its own, with labels that another saw in another order, or none at all."""
    found = kw.Study.load(ran / scenario / "found")
    assert found.samples == job.N
    same(found, whole, exactly=False)
    for one in found:
        assert one.labels is not None
        assert sorted(one.labels.names) == sorted(job.WORDS)


@pytest.mark.parametrize("scenario", ["wrapped", "resumed"])
def test_wrapped_for_training_in_parallel_and_resumed(ran: Path, whole: kw.Study, scenario: str) -> None:
    same(kw.Study.load(ran / scenario / "found"), whole, exactly=True, compared=False)


def test_compare_in_several_processes(ran: Path) -> None:
    found, expected = (
        kw.Comparison.load(ran / "compared" / "found"),
        kw.compare(job.Network(), job.data()[0]),
    )
    assert (found.n, found.skipped) == (expected.n, expected.skipped)
    for name, matrix in expected.matrices.items():
        torch.testing.assert_close(found.matrices[name], matrix, rtol=0, atol=1e-8, equal_nan=True)


def test_the_moments_of_compress_in_several_processes(ran: Path) -> None:
    """Gradients are drawn, and by each process anew; all else is as in one process."""
    expected = job.surveyed(None)
    assert expected is not None
    header = json.loads((ran / "compressed" / "header.json").read_text())
    assert header.pop("kept") <= 0.6
    plain, tensors = pack(expected)
    assert header == json.loads(json.dumps(plain))
    found = load_file(ran / "compressed" / "found")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        if name.endswith("fisher"):
            assert float(found[name].trace()) == pytest.approx(float(tensor.trace()), rel=0.5)
        else:
            torch.testing.assert_close(found[name], tensor, rtol=1e-10, atol=1e-10)


def same(found: kw.Study, whole: kw.Study, *, exactly: bool, compared: bool = True) -> None:
    assert {layer.name for layer in found} == {layer.name for layer in whole}
    for one in found:
        other = whole[one.name]
        assert (one.N, one.kets, one.aliases) == (other.N, other.kets, other.aliases)
        torch.testing.assert_close(
            one.accumulator.moment.matrix(), other.accumulator.moment.matrix(), rtol=1e-10, atol=1e-10
        )
        for name, estimate in other.estimates.items():
            mine = one.estimates[name]
            if exactly or name in ("entropy", "effective_rank", "coherence", "top_weight", "dead", "norm"):
                assert mine.plain == pytest.approx(estimate.plain, abs=1e-8, nan_ok=True), (one.name, name)
            if exactly:
                assert mine.value == pytest.approx(estimate.value, abs=1e-8, nan_ok=True), (one.name, name)
                assert mine.stderr == pytest.approx(estimate.stderr, abs=1e-8, nan_ok=True), (one.name, name)
    if compared:
        for name, matrix in whole.compare().matrices.items():
            # The correction comes from kept samples, which are others where each process has data of its own.
            off = 1e-3 if name == "bures_corrected" and not exactly else 1e-8
            torch.testing.assert_close(
                found.compare().matrices[name], matrix, rtol=0, atol=off, equal_nan=True
            )


@pytest.mark.parametrize(
    ("scenario", "words"),
    [
        (
            "empty",
            r"EmptyDataError: Argument `data` must hold at least one sample, but is empty in all processes",
        ),
        (
            "fails",
            r"ProcessError: .* 3 processes, process 1 failed \(ValueError: Layer 'mix' put out NaN .* batch 4,",
        ),
        (
            "fails_at_once",
            r"ProcessError: In a job of 3 processes, process 1 failed \(RuntimeError: mat1 and mat2",
        ),
        (
            "other_data",
            r'ProcessError: Argument `distributed` is "split", but the processes were not given the same data',
        ),
        ("other_network", r"ProcessError: The parts have different layers: .*'mix' is in one part only"),
    ],
)
def test_what_fails_in_one_process_is_told_in_all(ran: Path, scenario: str, words: str) -> None:
    for rank in range(COUNT):
        error = told(ran / scenario, rank)["error"]
        assert error is not None
        assert re.search(words, error), error


def test_what_was_gathered_before_a_process_failed_is_not_lost(ran: Path) -> None:
    assert [told(ran / "fails", rank)["partial"] for rank in range(COUNT)] == [True, False, False]
    found = kw.Study.load(ran / "fails" / "found")
    # Ten batches of 16, the last of 6: process 1 has its first one, and not numbers 4 and 7.
    assert (found.complete, found.samples) == (False, job.N - 32)
    assert str(found.error).startswith("process 1 failed (ValueError: Layer 'mix'")


def test_a_process_that_is_killed_ends_the_wait_of_the_others(tmp_path: Path) -> None:
    codes = ended(started("dies", tmp_path), 600)
    assert [code for code, _ in codes] == [0, -9, 0]
    for rank in (0, 2):
        error = told(tmp_path / "dies", rank)["error"]
        assert re.match(
            r"ProcessError: Process \d of 3 lost process \d, which ended, gave up waiting", error
        ), error


def test_a_process_that_hangs_is_not_waited_for_longer_than_the_time_out(tmp_path: Path) -> None:
    """Process 1 sleeps for an hour, and the others wait two seconds (four, where they wait for one that waits)."""
    running = started("hangs", tmp_path)
    there = [tmp_path / "hangs" / f"{rank}.json" for rank in (0, 2)]
    end = time.monotonic() + 600
    while not all(path.exists() and path.read_text() for path in there) and time.monotonic() < end:
        time.sleep(0.1)
    for one in running:
        one.kill()
    ended(running, 300)
    for rank in (0, 2):
        found = told(tmp_path / "hangs", rank)
        assert re.match(
            r"ProcessError: Process \d of 3 lost process \d, which ended, gave up", found["error"]
        )


def test_what_the_arguments_must_be() -> None:
    with pytest.raises(
        ValueError, match=r"`distributed` must be one of \('split', 'own'\) or None, but is 'all'"
    ):
        kw.study(nn.Identity(), torch.ones(3, 2), distributed="all")
    with pytest.raises(
        ValueError, match=r"`distributed` is 'split', but this process is in no job. Call `torch"
    ):
        kw.study(nn.Identity(), torch.ones(3, 2), distributed="split")
    with pytest.raises(ValueError, match=r"`timeout` must be positive, but is 0"):
        kw.compare(nn.Identity(), torch.ones(3, 2), distributed=Distributed("own", timeout=0))


NETS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

def batches():
    return [torch.randn(16, 4, generator=torch.Generator().manual_seed(number)) for number in range(5)]

def bad():
    found = batches()
    found[3][2, 1] = torch.nan
    return found
"""


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "job_nets.py").write_text(NETS)
    root = Path(__file__).parents[3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root / 'src'}:{folder}"}
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "ketwork",
        *arguments,
    ]
    return subprocess.run(
        [sys.executable, *command],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    ran = torchrun(
        tmp_path,
        "study",
        "job_nets:small",
        "--data",
        "job_nets:batches",
        "--out",
        "two.safetensors",
        "--json",
    )
    assert ran.returncode == 0, ran.stderr
    shown = json.loads(ran.stdout)  # once, by process 0
    namespace: dict[str, Any] = {}
    exec(NETS, namespace)
    expected = kw.study(namespace["small"](), namespace["batches"]())
    found = kw.Study.load(tmp_path / "two.safetensors")
    assert (found.samples, found.settings["processes"]) == (80, 2)
    assert len(shown["table"]) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, estimate in other.estimates.items():
            assert one.estimates[name].value == pytest.approx(estimate.value, abs=1e-8, nan_ok=True), name


def test_the_command_saves_what_was_gathered_before_a_process_failed(tmp_path: Path) -> None:
    ran = torchrun(tmp_path, "study", "job_nets:small", "--data", "job_nets:bad", "--out", "part.safetensors")
    assert ran.returncode != 0
    assert "process 1 failed (ValueError: Layer '0' put out NaN or infinite values in batch 3" in ran.stderr
    found = kw.Study.load(tmp_path / "part.safetensors")
    assert (found.complete, found.samples) == (False, 64)
