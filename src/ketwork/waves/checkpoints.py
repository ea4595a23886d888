"""Checkpoints of a run (safetensors): everything that the next step depends on, and what it belongs to."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor

from ketwork.records import files as _files
from ketwork.records.forms import Count, Malformed, check, check_tensors
from ketwork.waves.estimates import Estimate
from ketwork.waves.operators import Operator
from ketwork.waves.optimisers import State
from ketwork.waves.wave import Wave

SCHEMA = 1
_KEY = "ketwork.waves"


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
    _files.write_tensors(path, tensors, about, _KEY)


def load(path: str | Path, wave: Wave, operator: Operator) -> Checkpoint:
    """Reads a checkpoint of this wave and this operator; refuses one of another."""
    tensors, about, whole = _files.read_tensors(path, _KEY)
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a checkpoint of schema {SCHEMA}, but has {about.get('schema')}.")
    if not whole:
        raise ValueError(f"{path} is damaged: what it holds is not what was written.")
    like = wave.vector()
    try:
        check(about, {"step": Count, "belongs": {str: str}}, "checkpoint")
        for what, here in _belongs(wave, operator).items():
            there = about["belongs"].get(what)
            if there != here:
                raise ValueError(
                    f"{path} is a checkpoint of another {what}: it has {there}, and here is {here}."
                )
        vector = "real p two" if like.is_complex() else "real p"
        sizes = {"p": len(like), "two": 2, "numbers": len(fields(Estimate)) + 2}
        check_tensors(tensors, sizes, vector=vector, generator="byte state", history="value steps numbers")
        if "chains" not in tensors:
            raise Malformed("there is no tensor 'chains'")
    except Malformed as error:
        raise ValueError(f"{path} lacks a part of a checkpoint ({error}).") from error
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
