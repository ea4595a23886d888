"""Several processes of a job share a run: the same run in each, that of one process where nothing is drawn."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ketwork.records import Checkpoint
from ketwork.waves import RBM, FullSum, Wave, chain, expect, ground_state, heisenberg
from ketwork.waves.processes import Processes

H = heisenberg(chain(12))


def job(scenario: str, folder: Path, count: int = 2) -> list[dict[str, Tensor]]:
    """What each process of a job wrote."""
    script = str(Path(__file__).with_name("job.py"))
    started = [
        subprocess.Popen(
            [sys.executable, script, scenario, str(rank), str(count), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * count, errors
    return [load_file(folder / f"{rank}.safetensors") for rank in range(count)]


def test_all_processes_have_one_run_that_comes_to_the_ground_state(tmp_path: Path) -> None:
    first, second = job("sampled", tmp_path)

    for name in ("vector", "energies", "energy"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)
    assert first["energies"][-1] < first["energies"][0]
    wave = Wave(RBM(alpha=1, dtype=torch.complex128), H.space)
    wave.set_vector(torch.view_as_complex(first["vector"]))
    value, error = first["energy"].tolist()
    assert value == pytest.approx(float(expect(H, wave, FullSum().sample(wave, 1))), abs=4 * error)
    assert (int(first["seen"]), int(second["seen"])) == (12, 0)  # the first one alone reports


def test_a_full_sum_is_that_of_one_process(tmp_path: Path) -> None:
    first, _ = job("summed", tmp_path)
    wave = Wave(RBM(alpha=1, dtype=torch.complex128), H.space, seed=0)
    alone = ground_state(H, wave, steps=12, n_samples=None, seed=3)

    torch.testing.assert_close(
        first["energies"],
        torch.tensor([step.energy.value for step in alone.history], dtype=torch.float64),
        rtol=1e-9,
        atol=0,
    )
    torch.testing.assert_close(first["vector"], torch.view_as_real(wave.vector()), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [2, 3])
def test_log_derivatives_are_those_of_one_process(tmp_path: Path, count: int) -> None:
    """O†O and O†ε of rows that a process computed a part of."""
    for found in job("parts", tmp_path, count):
        for name in ("rows", "condensed"):
            torch.testing.assert_close(
                found[f"{name} together"], found[f"{name} alone"], rtol=1e-10, atol=1e-12
            )


def test_networks_that_draw_split_their_draws(tmp_path: Path) -> None:
    first, second = job("drawn", tmp_path)
    torch.testing.assert_close(first["energy"], second["energy"], rtol=0, atol=0)
    assert 0 < float(first["energy"][1]) < 1


def test_a_run_that_resumes_has_the_numbers_of_one_that_did_not_stop(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    through, resumed = job("sampled", tmp_path / "a")[1], job("stopped", tmp_path / "b")[1]
    torch.testing.assert_close(resumed["vector"], through["vector"], rtol=1e-9, atol=1e-10)

    with pytest.raises(ValueError, match="The checkpoint is of 2 processes, but 1 resume it"):
        ground_state(
            H,
            Wave(RBM(alpha=1, dtype=torch.complex128), H.space),
            n_samples=512,
            checkpoint=Checkpoint(tmp_path / "b" / "half.safetensors", every=100, resume=True),
        )


def test_processes_draw_by_seeds_of_their_own() -> None:
    draws = [
        torch.rand(4, generator=Processes(rank, 3).draws(torch.Generator().manual_seed(0))).tolist()
        for rank in range(3)
    ]
    assert len({tuple(each) for each in draws}) == 3
    assert draws[0] == torch.rand(4, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize(
    ("distributed", "message"),
    [("own", "must be None or \"split\", but is 'own'"), ("split", "this process is in no job")],
)
def test_what_cannot_be_is_refused(distributed: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ground_state(H, Wave(RBM(alpha=1, dtype=torch.complex64), H.space), distributed=distributed)


def test_the_command_under_torchrun_reports_once(tmp_path: Path) -> None:
    """A full sum, whose run is that of one process."""
    system = ["heisenberg", "--sites", "6", "--steps", "4", "--samples", "0", "--json"]
    command = ["-m", "ketwork", "ground", *system, "--out", str(tmp_path / "run.safetensors")]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--log-dir", str(tmp_path)]
    ran = [
        subprocess.run(
            [sys.executable, *before, *command],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            check=True,
        )
        for before in ([], launch)
    ]
    alone, together = (json.loads(each.stdout) for each in ran)

    assert together["steps"] == pytest.approx(alone["steps"], rel=1e-6)
    assert ran[1].stderr.count("Saved the run") == 1
