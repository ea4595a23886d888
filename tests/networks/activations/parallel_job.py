"""One of two processes of networks that are spread over both; writes what it saw for `test_parallel` to read."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.networks.activations.language import DATA, llama, logits

import ketwork as kw


def fsdp2(model: Any, mesh: DeviceMesh) -> nn.Module:
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def fsdp1(model: Any, mesh: DeviceMesh) -> nn.Module:
    for i, block in enumerate(model.model.layers):
        model.model.layers[i] = FullyShardedDataParallel(block, device_id=torch.device("cpu"))
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def tensors(model: Any, mesh: DeviceMesh) -> nn.Module:
    plan = {"gate_proj": ColwiseParallel(), "up_proj": ColwiseParallel(), "down_proj": RowwiseParallel()}
    for block in model.model.layers:
        parallelize_module(block.mlp, mesh, plan)
    return model


def kept(model: Any, mesh: DeviceMesh) -> nn.Module:
    """As `tensors`, but the last layer puts out a DTensor that nobody gathers."""
    tensors(model, mesh)
    parallelize_module(
        model, mesh, {"lm_head": ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)}
    )
    return model


def run(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    plain = llama()
    said: dict[str, Any] = {}
    # FSDP2 waits for the device's streams, which the CPU of PyTorch 2.6 has not.
    first = (fsdp2, fsdp1) if hasattr(torch.cpu.Stream, "record_event") else (fsdp1,)
    for place in (*first, tensors, kept):
        model = place(copy.deepcopy(plain), mesh)
        name = place.__name__
        before = logits(model)
        record = kw.study(model, DATA, layers=["*", "*down_proj:input"])
        after = logits(model)
        if hasattr(after, "full_tensor"):
            before, after = before.full_tensor(), after.full_tensor()
        said[name] = {
            "same": torch.equal(before, after),
            "skipped": record.skipped,
            "model": record.settings["model"],
            "values": {f"{a.name} {k}": e.value for a in record for k, e in a.estimates.items()},
        }
        if place is first[0]:
            split = kw.study(model, DATA, distributed="split", checkpoint=folder / "run")
            said["split"] = None if split is None else split["lm_head"].entropy.value
            resumed = kw.study(model, DATA, checkpoint=kw.Checkpoint(folder / "run", resume=True))
            said["resumed"] = resumed["lm_head"].entropy.value
            cka = kw.compare(model, DATA, plain, layers="model.layers.?").cka
            said["compared"] = cka.to_numpy().diagonal().tolist()
            said["own"] = run(lambda model=model: kw.study(model, DATA, distributed="own"))
            said["compared split"] = run(lambda model=model: kw.compare(model, DATA, distributed="split"))
            other = [{"input_ids": batch["input_ids"].roll(rank, 1)} for batch in DATA]
            said["other data"] = run(lambda model=model, other=other: kw.study(model, other))
            said["compressed"] = run(lambda model=model: kw.compress(model, DATA, keep=0.9))
            said["collapsed"] = run(lambda model=model: kw.collapse_curve(model, DATA))
    (folder / f"{rank}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
