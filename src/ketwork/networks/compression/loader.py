"""Loads a compressed network. Needs torch and safetensors alone: copy this file where ketwork is not installed.

A file can run no code: it names its new layers, which are made only if they are of the kinds below and no larger than
the file's own tensors.
"""

import json

import safetensors
import safetensors.torch
import torch
from torch import nn

KEY = "replaced"
KINDS = {kind.__name__: kind for kind in (nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d)}


def load_compressed(path: str, network: nn.Module) -> nn.Module:
    """The compressed network in `path`, in the place of a `network` of the original's architecture.

    Raises:
        ValueError: the file is none of a compressed network, is damaged, or belongs to another architecture; do not use
            `network` then, part of it may have been replaced.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            replaced = json.loads(file.metadata()[KEY])
            most = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
        weight = next(unfused(network).parameters())
        for name, parts in replaced.items():
            parent, _, last = name.rpartition(".")
            if isinstance(parts, str):  # the same module under another name
                new = network.get_submodule(parts)
            else:
                new = _made(parts, most).to(weight.dtype).to_empty(device=weight.device)
            network.get_submodule(name)  # only what is there is replaced
            setattr(network.get_submodule(parent), last, new.train(network.training))
        safetensors.torch.load_model(network, path)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(path, network, error) from error
    except safetensors.SafetensorError as error:
        raise _refused(path, network, error) from error
    return network


def unfused(network: nn.Module) -> nn.Module:
    """The network, with encoders of torch.nn told not to fuse layers into one kernel, which reads their weights."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return network


def _made(parts: list, most: int) -> nn.Module:
    """The layers without their numbers, which take no memory yet; `most` is how many the file has for them."""
    with torch.device("meta"):
        modules = [KINDS[kind](**arguments) for kind, arguments in parts]
    made = modules[0] if len(modules) == 1 else nn.Sequential(*modules)
    declared = sum(parameter.numel() for parameter in made.parameters())
    if declared > most:
        raise ValueError(f"it declares layers of {declared} numbers, and holds {most}")
    return made


def _refused(path: str, network: nn.Module, error: Exception) -> ValueError:
    return ValueError(
        f"Argument `path` must be a compressed {type(network).__name__}, but {str(path)!r} is damaged, something else "
        f"or of another architecture ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
    )
