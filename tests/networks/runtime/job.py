"""One process of a job on this machine: `python job.py SCENARIO RANK COUNT FOLDER`; what it found it writes there."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.compression.calibration import calibrate
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.survey import Survey, run_survey
from ketwork.networks.runtime.distributed import Distributed, join
from ketwork.records.checkpoint import Checkpoint
from ketwork.records.record import pack

N = 150
BATCH = 16
WORDS = ("d", "a", "c", "b")


class Network(nn.Module):
    """Positions and features, a shared module, and a branch that only some batches take."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mix, self.act, self.rare, self.head = (
            nn.Linear(6, 80),
            nn.Tanh(),
            nn.Linear(80, 7),
            nn.Linear(80, 5),
        )
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.mix(x))
        if float(x[0, 0, 0]) > 0.2:
            self.rare(x)
        return self.head(x.mean(dim=1))


def data() -> tuple[Tensor, list[str]]:
    """Samples (N, 70, 6), and a word each, of which the last batches have one more."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(N, 70, 6, generator=draw, dtype=torch.float64)
    x[:, :, 0] += torch.randn(N, 1, generator=draw, dtype=torch.float64)
    words = [WORDS[int(v > 0)] for v in x[:, :, 0].mean(dim=1)]
    words[-40:] = [WORDS[2 + int(v > 0)] for v in x[-40:, :, 0].mean(dim=1)]
    return x, words


def batches() -> list[dict[str, Any]]:
    x, words = data()
    return [{"x": x[i : i + BATCH], "labels": words[i : i + BATCH]} for i in range(0, N, BATCH)]


def run(**options: Any) -> kw.Study:
    return kw.study(Network(), batches(), layers="all", **options)


def split(folder: Path, rank: int, count: int) -> None:
    keep(run(distributed="split", compare=True), folder, rank)


def uneven(folder: Path, rank: int, count: int) -> None:
    """Process 0 has nothing, the others shares of different lengths."""
    mine = [[], batches()[:3], batches()[3:]][rank]
    keep(kw.study(Network(), mine, layers="all", compare=True, distributed="own"), folder, rank)


def last_empty(folder: Path, rank: int, count: int) -> None:
    """The last two have nothing."""
    mine = batches() if rank == 0 else []
    keep(kw.study(Network(), mine, layers="all", compare=True, distributed="own"), folder, rank)


def wrapped(folder: Path, rank: int, count: int) -> None:
    model = nn.parallel.DistributedDataParallel(Network(), find_unused_parameters=True)
    keep(kw.study(model, batches(), layers="all", distributed="split"), folder, rank)


def empty(folder: Path, rank: int, count: int) -> None:
    kw.study(Network(), [], distributed="own")


def fails(folder: Path, rank: int, count: int) -> None:
    """Process 1 meets NaN in its second batch."""
    mine = batches()
    mine[count + 1]["x"][2, 0, 0] = torch.nan
    kw.study(Network(), mine, layers="all", distributed="split")


def fails_at_once(folder: Path, rank: int, count: int) -> None:
    kw.study(Network(), batches() if rank != 1 else [{"x": torch.ones(3, 4)}], distributed="own")


def other_data(folder: Path, rank: int, count: int) -> None:
    kw.study(Network(), batches()[rank:], distributed="split")


def other_network(folder: Path, rank: int, count: int) -> None:
    network = Network() if rank != count - 1 else nn.Sequential(nn.Linear(6, 3).double())
    kw.study(network, data()[0], distributed="own")


def resumed(folder: Path, rank: int, count: int) -> None:
    """The data break off, differently far for each process; then the job goes on."""

    def breaks() -> Any:
        yield from batches()[: 5 + rank]
        raise OSError("disk gone")

    options = {"layers": "all", "distributed": "split"}
    kept = Checkpoint(folder / "kept", every=1)
    with pytest.raises(kw.ProcessError, match="disk gone"):
        kw.study(Network(), breaks(), checkpoint=kept, **options)
    keep(kw.study(Network(), batches(), checkpoint=replace(kept, resume=True), **options), folder, rank)


def compared(folder: Path, rank: int, count: int) -> None:
    found = kw.compare(Network(), data()[0], distributed="split")
    keep(found, folder, rank)


class Classifier(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 40), nn.Tanh(), nn.Linear(40, 5))
        self.double()


def surveyed(distributed: Distributed | None) -> Survey | None:
    """What compression learns of the layers of a classifier."""
    model = Classifier().requires_grad_(False)
    with join(distributed) as group:
        mine = None if group is None else group.mine
        gathered = calibrate(model, data()[0][:, 0], samples=None, batch_size=BATCH, mine=mine)
        found = run_survey(model, weight_layers(model)[0], gathered, torch.Generator().manual_seed(0))
        if group is None:
            return found
        found = group.add_up(found)
        return None if group.rank else found


def compressed(folder: Path, rank: int, count: int) -> None:
    result = kw.compress(
        Classifier(), data()[0][:, 0], keep=0.6, multiple_of=2, processes="split", batch_size=BATCH
    )
    assert (result is None) == (rank > 0)
    found = surveyed(Distributed("split", timeout=60))
    if found is not None:
        header, tensors = pack(found)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "found")
        share = {"kept": result.after.parameters / result.before.parameters}
        (folder / "header.json").write_text(json.dumps(header | share))


def dies(folder: Path, rank: int, count: int) -> None:
    def batch() -> Any:
        yield batches()[0]
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    kw.study(Network(), batch(), distributed=Distributed("own", timeout=30))


def hangs(folder: Path, rank: int, count: int) -> None:
    def batch() -> Any:
        yield batches()[0]
        if rank == 1:
            time.sleep(3600)

    kw.study(Network(), batch(), distributed=Distributed("own", timeout=2))


def keep(found: Any, folder: Path, rank: int) -> None:
    if rank:
        assert found is None
    else:
        found.save(folder / "found")


def main(scenarios: str, rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=count)
    for scenario in scenarios.split(","):
        there = folder / scenario
        there.mkdir(exist_ok=True)
        call: Callable[[Path, int, int], None] = globals()[scenario]
        told: dict[str, Any] = {"error": None}
        try:
            call(there, rank, count)
        except Exception as error:  # noqa: BLE001 - it is what the test looks at
            told = {
                "error": f"{type(error).__name__}: {error}",
                "partial": getattr(error, "partial", None) is not None,
            }
            if told["partial"]:
                error.partial.save(there / "found")
        (there / f"{rank}.json").write_text(json.dumps(told))
        print(scenario, rank, told, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
