"""Checkpoints of a run (safetensors): everything that the next step depends on, and what it belongs to."""

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from ketwork.records import Count, Malformed, check_tensors, unpack
from ketwork.records import files as _files
from ketwork.waves.operators import Operator
from ketwork.waves.optimizers import State
from ketwork.waves.results import COLUMNS, RUN_KEY, Step, steps_of, table_of
from ketwork.waves.wave import Wave

SCHEMA = 1
_KEY = "ketwork.waves"


@dataclass(frozen=True)
class _Header:
    """What a checkpoint says of itself beside its schema."""

    step: Count
    belongs: dict[str, str]


@dataclass(frozen=True)
class Saved:
    """Parameters, chains, the optimizer's state, the random generator and the history after `step` steps.

    Of several processes the chains and the generators' states stand one below the other.
    """

    step: int
    vector: Tensor
    chains: Tensor
    optimizer: State
    generator: Tensor
    history: Tensor

    @classmethod
    def from_steps(
        cls, history: list[Step], vector: Tensor, chains: Tensor, optimizer: State, generator: Tensor
    ) -> "Saved":
        """The state after these steps."""
        return cls(len(history), vector, chains, optimizer, generator, table_of(history))

    def steps(self) -> list[Step]:
        """The history as steps."""
        return steps_of(self.history)


def save(path: str | PathLike[str], saved: Saved, wave: Wave, operator: Operator) -> None:
    """Writes the state of a run in one step, so that a crash while writing loses nothing."""
    tensors = {
        "vector": saved.vector,
        "chains": saved.chains,
        "generator": saved.generator,
        "history": saved.history,
        **{f"optimizer.{name}": value for name, value in saved.optimizer.items()},
    }
    tensors = {name: _plain(value) for name, value in tensors.items()}
    about = {"schema": SCHEMA, "step": saved.step, "belongs": _belongs(wave, operator)}
    _files.write_tensors(Path(path), tensors, about, _KEY)


def steps_in(path: str | PathLike[str]) -> list[Step]:
    """The steps of a run in a file of `ground_state(checkpoint=…)` or `Run.save`, without its network.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither, or damaged.
    """
    for key, name in ((_KEY, "history"), (RUN_KEY, "run.history")):
        tensors, _, complete = _files.read_tensors(Path(path), key)
        if name in tensors:
            if not complete or tensors[name].ndim != 2:
                raise ValueError(f"{path} is damaged: what it holds is not what was written.")
            return steps_of(tensors[name])
    raise ValueError(f"{path} holds no run of `ketwork ground`.")


def load(path: str | PathLike[str], wave: Wave, operator: Operator) -> Saved:
    """Reads a checkpoint of this wave and this operator; refuses one of another."""
    tensors, about, complete = _files.read_tensors(Path(path), _KEY)
    if about.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a checkpoint of schema {SCHEMA}, but has {about.get('schema')}.")
    if not complete:
        raise ValueError(f"{path} is damaged: what it holds is not what was written.")
    like = wave.vector()
    try:
        header = unpack(_Header, about, {})
        for what, here in _belongs(wave, operator).items():
            there = header.belongs.get(what)
            if there != here:
                raise ValueError(
                    f"{path} is a checkpoint of another {what}: it has {there}, and here is {here}."
                )
        vector = "real p two" if like.is_complex() else "real p"
        sizes = {"p": len(like), "two": 2, "steps": header.step}
        check_tensors(tensors, sizes, vector=vector, generator="byte state", history="value steps numbers")
        if tensors["history"].shape[1] not in (COLUMNS - 1, COLUMNS):  # before turns were kept
            raise Malformed(
                f"tensor 'history' must have {COLUMNS} columns, but has {tensors['history'].shape[1]}"
            )
        if "chains" not in tensors:
            raise Malformed("there is no tensor 'chains'")
        _check_chains(tensors["chains"], wave)
        _check_generator(tensors["generator"])
    except Malformed as error:
        raise ValueError(f"{path} lacks a part of a checkpoint ({error}).") from error
    return Saved(
        header.step,
        _given(tensors["vector"], like),
        tensors["chains"],
        {
            name.partition(".")[2]: _given(value, like) if value.dim() else value
            for name, value in tensors.items()
            if name.startswith(("optimizer.", "optimiser."))  # as version 0.1 wrote it
        },
        tensors["generator"],
        tensors["history"],
    )


def _check_chains(chains: Tensor, wave: Wave) -> None:
    """Raises Malformed where they are no configurations of the wave's space."""
    if chains.ndim != 2 or chains.shape[1] != wave.space.sites:
        raise Malformed(
            f"tensor 'chains' must have shape (chains, {wave.space.sites}), but has {tuple(chains.shape)}"
        )
    if chains.dtype != wave.dtype:
        raise Malformed(f"tensor 'chains' must have dtype {wave.dtype}, but has {chains.dtype}")
    if not bool(wave.space.contains(chains.cpu()).all()):
        raise Malformed("tensor 'chains' holds what is no configuration of the space")


def _check_generator(state: Tensor) -> None:
    try:
        size = len(torch.Generator().get_state())
        for part in state.cpu().split(size):  # of each process
            torch.Generator().set_state(part.clone())  # a view makes torch read beyond it
    except RuntimeError as error:
        raise Malformed(f"tensor 'generator' is no generator's state ({error})") from error


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
