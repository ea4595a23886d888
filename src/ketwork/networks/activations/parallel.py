"""Networks whose layers are spread over processes (FSDP, tensor parallelism, DTensor).

Each forward pass of such a network needs all of its processes, so all of them make the same passes over the same data.
What a process sees of a layer is read where all see the same: under tensor parallelism some modules put out a part of
their features in each process, which is no layer of the network.
"""

from __future__ import annotations

import sys
from typing import Any

import torch.distributed as dist
from torch import nn

from ketwork.networks.activations.findings import Findings
from ketwork.networks.activations.layout import Layout
from ketwork.networks.activations.observation import Observation
from ketwork.networks.activations.row_fingerprints import Fingerprint

PART = "each process has a part of its output, as under tensor parallelism"
"""Why a module gave no row whose output is not the same in all processes."""


def is_sharded(model: nn.Module) -> bool:
    """Whether parts of the network's parameters are elsewhere; looked up in loaded modules alone."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kinds = tuple(
        kind
        for name in ("FullyShardedDataParallel", "FSDPModule")
        if (kind := getattr(fsdp, name, None)) is not None
    )
    return any(isinstance(module, kinds) for module in model.modules()) or bool(_meshes(model))


def leave_parts_out(model: nn.Module, seen: Observation, findings: Findings) -> None:
    """Refuses the layers whose outputs are not the same in all processes.

    Raises:
        ValueError: none is, in any process: they were given other data.
    """
    places = [
        (key, path)
        for key, layouts in findings.layouts.items()
        for path, layout in layouts.items()
        if isinstance(layout, Layout) and path in seen.outputs.get(key, {})
    ]
    mine = [seen.outputs[key][path].print for key, path in places]
    different = {
        place
        for group in _groups(model)
        for others in _gathered(mine, group)
        for place, one, other in zip(places, mine, others, strict=False)
        if len(others) != len(mine) or not one.same(other)
    }
    if places and len(different) == len(places):
        raise ValueError(
            "Argument `data` must be the same in all processes, since the network is sharded over them and each pass "
            "needs them all, but no layer put out the same in all of them. Give each process all of the data."
        )
    for key, path in different:
        findings.layouts[key][path] = PART


def _gathered(prints: list[Fingerprint], group: Any) -> list[list[Fingerprint]]:
    everyone: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(everyone, prints, group=group)
    return everyone


def _groups(model: nn.Module) -> list[Any]:
    """The groups of processes that hold the network together; all processes where it does not say."""
    meshes = _meshes(model)
    return [mesh.get_group(axis) for mesh in meshes for axis in range(mesh.ndim)] or [dist.group.WORLD]


def _meshes(model: nn.Module) -> list[Any]:
    """The device meshes of the parameters, each once."""
    meshes: list[Any] = []
    for parameter in model.parameters():
        mesh = getattr(parameter, "device_mesh", None)
        if mesh is not None and mesh not in meshes:
            meshes.append(mesh)
    return meshes
