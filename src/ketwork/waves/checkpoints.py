"""Checkpoints of a run (safetensors): everything that the next step depends on, and what it belongs to."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ketwork import _files
from ketwork.waves.operators import Operator
from ketwork.waves.optimisers import State
from ketwork.waves.wave import Wave

SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """Parameters, chains, the optimiser's state, the random generator and the history after `step` steps."""

    step: int
    vector: Tensor
    chains: Tensor
    optimiser: State
    generator: Tensor
    history: Tensor = field(default_factory=lambda: torch.empty(0))


def save(path: str | Path, checkpoint: Checkpoint, wave: Wave, operator: Operator) -> None:
    """Writes a checkpoint in one step, so that a crash while writing loses nothing."""
    tensors = {
        "vector": checkpoint.vector,
        "chains": checkpoint.chains,
        "generator": checkpoint.generator,
        "history": checkpoint.history,
        **{f"optimiser.{name}": value for name, value in checkpoint.optimiser.items()},
    }
    tensors = {name: _plain(value) for name, value in tensors.items()}
    about = {"schema": SCHEMA, "step": checkpoint.step, "belongs": _belongs(wave, operator)}
    _files.write_tensors(path, tensors, {"ketwork.waves": json.dumps(about)})


def load(path: str | Path, wave: Wave, operator: Operator) -> Checkpoint:
    """Reads a checkpoint of this wave and this operator; refuses one of another."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("ketwork.waves", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a checkpoint of schema {SCHEMA}, but has {about.get('schema')}.")
    for what, here in _belongs(wave, operator).items():
        there = about["belongs"].get(what)
        if there != here:
            raise ValueError(f"{path} is a checkpoint of another {what}: it has {there}, and here is {here}.")
    like = wave.vector()
    return Checkpoint(
        about["step"],
        _given(tensors["vector"], like),
        tensors["chains"],
        {
            name.removeprefix("optimiser."): _given(value, like) if value.dim() else value
            for name, value in tensors.items()
            if name.startswith("optimiser.")
        },
        tensors["generator"],
        tensors["history"],
    )


def _belongs(wave: Wave, operator: Operator) -> dict[str, str]:
    shapes = {name: list(p.shape) for name, p in wave.module.named_parameters()}
    return {
        "model": f"{type(wave.module).__name__} {json.dumps(shapes)} {wave.vector().dtype}",
        "space": repr(wave.space),
        "operator": f"{operator!r}, scale {operator.scale:.10g}, bound {operator.lower_bound():.10g}",
    }


def _plain(value: Tensor) -> Tensor:
    return torch.view_as_real(value).contiguous() if value.is_complex() else value.contiguous()


def _given(value: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_complex(value) if like.is_complex() and value.dim() == 2 else value
