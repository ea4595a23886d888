"""Networks named on a command line: a factory with optional weights, or a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ketwork.sources.errors import SourceError, readable
from ketwork.sources.factories import Factory, call, parse, resolve
from ketwork.sources.folders import load_folder
from ketwork.sources.images import Processor
from ketwork.sources.weights import load_weights


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode, with what reads texts for it and a JSON-able account of its origin."""

    model: nn.Module
    tokenizer: Any | None
    description: dict[str, Any]
    notes: tuple[str, ...] = ()
    processor: Processor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The real floating dtype of the network's parameters (that of the first), float32 if it has none."""
        for parameter in self.model.parameters():
            if parameter.is_complex():
                return parameter.dtype.to_real()
            if parameter.is_floating_point():
                return parameter.dtype
        return torch.float32


def load_model(spec: str, device: str | torch.device = "cpu") -> LoadedModel:
    """The network that `spec` names, on `device`, in evaluation mode.

    `spec` is one of
    - `package.module:factory` or `path/to/file.py:factory`: a function or class called without arguments,
      or a `torch.nn.Module` itself; the working directory is on the import path;
    - the same with `@weights.safetensors`, `@weights.pt` or `@weights.pth`: a state dict, or a checkpoint
      that holds one under "state_dict" or "model", loaded strictly and without running code of the file;
    - a Hugging Face model folder (extra `hf`), read offline.

    Errors: `SourceError` where the spec cannot be used, `SourceFailed` where the factory's own code raises.

    >>> loaded = load_model("ketwork.demo.digits:model")
    >>> loaded.model.training, loaded.description["parameters"]
    (False, 29914)
    """
    where = _device(device)
    with readable("model", spec):
        if Path(spec).is_dir():
            folder = load_folder(Path(spec))
            model, tokenizer, notes = folder.model, folder.tokenizer, folder.notes
            processor = folder.processor
            kind = "Hugging Face folder"
        elif (factory := parse(spec)) is not None:
            model, tokenizer, notes = _build(factory), None, ()
            processor = _of_timm(model)
            kind = "factory"
        else:
            raise SourceError(
                "Argument `model` must be `package.module:factory`, `file.py:factory` (either with "
                "`@weights.safetensors` or `@weights.pt`) or a Hugging Face model folder, but there is no "
                f"folder {spec!r}."
            )
    model = model.to(where).eval()
    return LoadedModel(model, tokenizer, _describe(spec, kind, model, where), notes, processor)


def _build(factory: Factory) -> nn.Module:
    name = f"{factory.module}:{factory.attribute}"
    made = resolve(factory, "model")
    model = made if isinstance(made, nn.Module) else call(made, name, "model")
    if not isinstance(model, nn.Module):
        raise SourceError(
            f"Argument `model` must name a torch.nn.Module or what returns one, but {name!r} returned "
            f"{type(model).__module__}.{type(model).__qualname__}."
        )
    if factory.weights is not None:
        load_weights(model, Path(factory.weights))
    return model


def _of_timm(model: nn.Module) -> Processor | None:
    """What a network of timm says of its images (`pretrained_cfg`), which is not applied."""
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or not {"mean", "std"} <= config.keys():
        return None
    wants = "".join(f", {name} {', '.join(f'{x:g}' for x in config[name])}" for name in ("mean", "std"))
    return Processor("`pretrained_cfg`", None, "it is not applied by itself", wants)


def _device(device: str | torch.device) -> torch.device:
    try:
        where = torch.device(device)
        torch.empty(0, device=where)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise SourceError(
            "Argument `device` must be a device that torch has here, such as 'cpu', but was "
            f"{str(device)!r}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return where


def _describe(spec: str, kind: str, model: nn.Module, device: torch.device) -> dict[str, Any]:
    return {
        "spec": spec,
        "kind": kind,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(device),
    }
