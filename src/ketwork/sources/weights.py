"""Trained weights from a safetensors file or a torch checkpoint into a network, strictly."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ketwork.sources.errors import DAMAGED, SourceError, listed, readable

_TORCH_SUFFIXES = {".pt", ".pth", ".bin", ".ckpt"}
_WRAPPERS = ("module.", "_orig_mod.", "model.")
_NESTED_UNDER = ("state_dict", "model", "model_state_dict")


def load_weights(model: nn.Module, path: Path, argument: str = "model") -> None:
    """Fills `model` with the tensors of `path`; every tensor must be there, with its shape.

    Tensors that the model shares under several names may be stored once, as safetensors does. Names may begin with what
    a wrapper puts before them: `module.` (data parallel), `_orig_mod.` (compiled) or `model.` (Lightning).
    Errors: `SourceError` for a file that is not there, is truncated, or holds something else, and for the
    weights of another architecture, with the names that differ.
    """
    with readable(argument, str(path)):
        state = read_state_dict(path, argument)
    own = model.state_dict(keep_vars=True)
    state = _without_wrapper(state, own)
    shared = {id(tensor) for name, tensor in own.items() if name in state}
    missing = [name for name, tensor in own.items() if name not in state and id(tensor) not in shared]
    unexpected = [name for name in state if name not in own]
    mismatched = [
        f"{name} {tuple(tensor.shape)} for {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if missing or unexpected or mismatched:
        differences = [
            f"{len(names)} {word}: {listed(names, 4)}"
            for word, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", mismatched),
            )
            if names
        ]
        raise SourceError(
            f"Argument `{argument}` must give weights that fit {type(model).__name__}, but {path} is of "
            "another "
            f"architecture ({'; '.join(differences)})."
        )
    model.load_state_dict(state, strict=False)  # what may lack here is shared with what is there


def _without_wrapper(state: dict[str, Tensor], own: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors under the model's own names, where all have a wrapper's prefix that no name of the model has."""
    for prefix in _WRAPPERS:
        wrapped = bool(state) and all(name.startswith(prefix) for name in state)
        if wrapped and not any(name.startswith(prefix) for name in own):
            return _without_wrapper({name[len(prefix) :]: value for name, value in state.items()}, own)
    return state


def read_state_dict(path: Path, argument: str = "model") -> dict[str, Tensor]:
    """The named tensors of a `.safetensors` file, or of a `.pt`/`.pth` state dict or checkpoint."""
    if not path.is_file():
        raise SourceError(f"Argument `{argument}` must name a weights file, but there is no file {path}.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, argument)
    if path.suffix in _TORCH_SUFFIXES:
        return _read_checkpoint(path, argument)
    raise SourceError(
        f"Argument `{argument}` must name weights in .safetensors, .pt or .pth, but was {path}. "
        "Save them with `safetensors.torch.save_file(model.state_dict(), path)`."
    )


def _read_safetensors(path: Path, argument: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise SourceError(
            f"Argument `{argument}` must name a complete safetensors file, but {path} ({path.stat().st_size:,} "
            "bytes) "
            f"is truncated or not safetensors: {error}."
        ) from error


def _read_checkpoint(path: Path, argument: str) -> dict[str, Tensor]:
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SourceError(
            f"Argument `{argument}` must name a file of tensors, but {path} is not one, or holds other "
            "Python "
            "objects, which could run code. Save the weights alone: `torch.save(model.state_dict(), path)`."
        ) from error
    except DAMAGED as error:
        raise SourceError(
            f"Argument `{argument}` must name a complete torch weights file, but {path} "
            f"({path.stat().st_size:,} bytes) is truncated or not one."
        ) from error
    for key in _NESTED_UNDER:
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise SourceError(
            f"Argument `{argument}` must name a state dict, or a checkpoint with one under "
            f"{' or '.join(map(repr, _NESTED_UNDER))}, but {path} holds {_contents(held)}."
        )
    return dict(held)


def _contents(held: object) -> str:
    if isinstance(held, Mapping):
        return f"a mapping with {listed(map(repr, held), 6) or 'nothing in it'}"
    return f"{type(held).__name__}"
