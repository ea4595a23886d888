"""Loads a compressed network. Needs torch and safetensors alone: copy this file where ketwork is not installed."""

import json

import safetensors
import safetensors.torch
from torch import nn

KEY = "replaced"


def load_compressed(path: str, network: nn.Module) -> nn.Module:
    """The compressed network in `path`, in the place of a `network` of the original's architecture."""
    with safetensors.safe_open(path, "pt") as file:
        replaced = json.loads(file.metadata()[KEY])
    weight = next(network.parameters())
    for name, parts in replaced.items():
        parent, _, last = name.rpartition(".")
        if isinstance(parts, str):  # the same module under another name
            new = network.get_submodule(parts)
        else:
            modules = [getattr(nn, kind)(**arguments) for kind, arguments in parts]
            new = modules[0] if len(modules) == 1 else nn.Sequential(*modules)
        setattr(
            network.get_submodule(parent), last, new.to(weight.device, weight.dtype).train(network.training)
        )
    safetensors.torch.load_model(network, path)
    return network
