"""One process of a job on this machine: `python job.py SCENARIO RANK COUNT FOLDER`; what it got it writes there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from ketwork.records import Checkpoint
from ketwork.waves import RBM, Direct, MaskedDense, Step, Wave, chain, ground_state, heisenberg
from ketwork.waves.processes import Processes
from ketwork.waves.reconfiguration import condensed, rows

H = heisenberg(chain(12))
Result = dict[str, Tensor]


def wave(seed: int) -> Wave:
    return Wave(RBM(alpha=1, dtype=torch.complex128), H.space, seed=seed)


def run(rank: int, folder: Path, **options: object) -> Result:
    """A run, from parameters that are others in each process: those of the first one count."""
    seen: list[int] = []
    done = ground_state(
        H, wave(rank), steps=12, seed=3, distributed="split", on_step=lambda step: seen.append(1), **options
    )
    energies = torch.tensor([step.energy.value for step in done.history], dtype=torch.float64)
    return {
        "vector": torch.view_as_real(done.wave.vector()),
        "energies": energies,
        "energy": torch.tensor([done.energy.value, done.energy.stderr], dtype=torch.float64),
        "seen": torch.tensor(len(seen)),
    }


def sampled(rank: int, folder: Path) -> Result:
    return run(rank, folder, n_samples=512)


def summed(rank: int, folder: Path) -> Result:
    return run(rank, folder, n_samples=None)


def drawn(rank: int, folder: Path) -> Result:
    """Draws of an autoregressive network."""
    module = MaskedDense(phase=True)
    done = ground_state(
        H,
        Wave(module, H.space, seed=0),
        steps=5,
        n_samples=200,
        sampler=Direct(),
        seed=1,
        distributed="split",
    )
    return {"energy": torch.tensor([done.energy.value, done.energy.stderr], dtype=torch.float64)}


def stopped(rank: int, folder: Path) -> Result:
    """The second half of the steps, from a checkpoint after the first."""
    file, half = folder / "run.safetensors", folder / "half.safetensors"

    def keep(step: Step) -> None:
        if step.index == 6:
            shutil.copyfile(file, half)

    ground_state(
        H,
        wave(rank),
        steps=12,
        seed=3,
        n_samples=512,
        distributed="split",
        checkpoint=Checkpoint(file, every=6),
        on_step=keep,
    )
    dist.barrier()
    return run(rank, folder, n_samples=512, checkpoint=Checkpoint(half, every=100, resume=True))


def parts(rank: int, folder: Path) -> Result:
    """Rows of 23 configurations, of which no process has as many as another one, joined and condensed."""
    here, generator = wave(0), torch.Generator().manual_seed(1)
    x = H.space.random(23, seed=generator, dtype=here.dtype)
    energies = torch.randn(23, dtype=torch.complex128, generator=generator)
    result: Result = {}
    together = Processes.from_argument("split")
    for name, make in {"rows": rows, "condensed": condensed}.items():
        for who, processes in {"together": together, "alone": Processes()}.items():
            o, epsilon = make(here, x, energies, None, processes)
            result[f"{name} {who}"] = torch.view_as_real(torch.cat([o.mH @ o, (o.mH @ epsilon)[None]]))
    return result


SCENARIOS: dict[str, Callable[[int, Path], Result]] = {
    each.__name__: each for each in (sampled, summed, drawn, stopped, parts)
}

if __name__ == "__main__":
    scenario, rank, count, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/job", rank=rank, world_size=count)
    found = SCENARIOS[scenario](rank, folder)
    save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{rank}.safetensors")
    dist.barrier()  # one that leaves early may take the others with it
    dist.destroy_process_group()
