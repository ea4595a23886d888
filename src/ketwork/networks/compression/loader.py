"""Loads a compressed network. Needs torch and safetensors alone: copy this file where ketwork is not installed.

A file can run no code: it names its new layers, which are made only if they are of the kinds below and no larger than
the file's own tensors; modules of the network that is given may get other sizes.
"""

import copy
import hashlib
import json
import math

import safetensors
import safetensors.torch
import torch
from torch import nn

KEY = "ketwork.compressed"
OLD_KEY = "replaced"  # of version 0.1, whose files have no digest
KINDS = {
    kind.__name__: kind for kind in (nn.Identity, nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d)
}
SCALE = ".8bit_scale"  # the tensor beside one of 8 bits: a factor for each output channel
COUNTS = [
    "in_features",
    "out_features",
    "in_channels",
    "out_channels",
    "groups",
    "num_features",
    "num_parameters",
    "num_channels",
    "num_groups",
]


def load_compressed(path: str, network: nn.Module) -> nn.Module:
    """The compressed network in `path`, in the place of a `network` of the original's architecture.

    Raises:
        ValueError: the file is none of a compressed network, is damaged, or belongs to another architecture; do not use
            `network` then, part of it may have been replaced.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if KEY in metadata:
            about = json.loads(metadata[KEY])
            if about["digest"] != digest(tensors, about["replaced"]):
                raise ValueError("what it holds is not what was written")
            replaced = about["replaced"]
        else:
            replaced = json.loads(metadata[OLD_KEY])
        most = sum(tensor.numel() for tensor in tensors.values())
        weight = next(unfused(network).parameters())
        for name, parts in replaced.items():
            parent, _, last = name.rpartition(".")
            old = network.get_submodule(name)  # only what is there is replaced
            same = isinstance(parts, str)  # the same module under another name
            new = network.get_submodule(parts) if same else _made(parts, old, most, weight)
            setattr(network.get_submodule(parent), last, new.train(network.training))
        _fill(network, tensors)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(path, network, error) from error
    except safetensors.SafetensorError as error:
        raise _refused(path, network, error) from error
    return network


def digest(tensors: dict, replaced: dict) -> str:
    """SHA-256 of the tensors, their names and shapes, and what is new."""
    found = hashlib.sha256(json.dumps(replaced, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def unfused(network: nn.Module) -> nn.Module:
    """The network, with encoders of torch.nn told not to fuse layers into one kernel, which reads their weights."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return network


def _fill(network: nn.Module, tensors: dict) -> None:
    """Puts the numbers into the network, those of 8 bits times their scales."""
    whole = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name in tensors.keys() - whole.keys():
        integers, scale = whole[name.removesuffix(SCALE)], tensors[name]
        whole[name.removesuffix(SCALE)] = integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1))
    state = network.state_dict(keep_vars=True)
    shared: dict = {}
    for name, tensor in state.items():
        shared.setdefault(id(tensor), []).append(name)
    missing, unexpected = network.load_state_dict(whole, strict=False)
    known = {other for names in shared.values() if any(name in whole for name in names) for other in names}
    missing = [name for name in missing if name not in known]
    if missing or unexpected:
        raise ValueError(f"it lacks {missing[:3]} and has {unexpected[:3]} besides")


def _made(parts: list, old: nn.Module, most: int, like: torch.Tensor) -> nn.Module:
    """The layers without their numbers; `most` is how many the file has, `like` of which kind the network's are."""
    modules = []
    for kind, *arguments in parts:
        if kind == "resized":
            shapes, counts = arguments
            modules.append(_resized(old, shapes, counts, most, like))
            continue
        with torch.device("meta"):  # takes no memory yet
            module = KINDS[kind](**arguments[0])
        declared = sum(parameter.numel() for parameter in module.parameters())
        if declared > most:
            raise ValueError(f"it declares layers of {declared} numbers, and holds {most}")
        modules.append(module.to(like.dtype).to_empty(device=like.device))
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _resized(old: nn.Module, shapes: dict, counts: dict, most: int, like: torch.Tensor) -> nn.Module:
    """The network's own module with tensors of these shapes and with these counts."""
    new = copy.copy(old)
    new._parameters, new._buffers = dict(old._parameters), dict(old._buffers)
    new._modules = dict(old._modules)
    for name, shape in shapes.items():
        where: dict = new._buffers if name in old._buffers else new._parameters
        if name not in where:
            raise ValueError(f"{type(old).__name__} has no {name!r}")
        if shape is not None and math.prod(shape) > most:
            raise ValueError(f"it declares a tensor of {math.prod(shape)} numbers, and holds {most}")
        tensor = None if shape is None else torch.empty(shape, dtype=like.dtype, device=like.device)
        where[name] = tensor if tensor is None or where is new._buffers else nn.Parameter(tensor)
    for name, value in counts.items():
        if name not in COUNTS or type(value) is not int:
            raise ValueError(f"{name!r} is no count")
        setattr(new, name, value)
    return new


def _refused(path: str, network: nn.Module, error: Exception) -> ValueError:
    return ValueError(
        f"Argument `path` must be a compressed {type(network).__name__}, but {str(path)!r} is damaged, something else "
        f"or of another architecture ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
    )
