"""What stands between layers and has numbers for each channel: normalisations, PReLU, grouped convolutions, scales.

Where channels are removed it must lose theirs. Modules that are known to work channel by channel say so by their class;
any other parameter with one number for each channel is found by where NaN put into it comes out (`unit_discovery`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.compression.surgery import resized


@dataclass(frozen=True)
class Carrier:
    """A module at `path` with numbers for each of `channels` channels.

    `name` is the one parameter that has them, "" where the whole module works channel by channel.
    """

    path: str
    name: str
    channels: int

    @property
    def key(self) -> str:
        """One name for both."""
        return f"{self.path}:{self.name}" if self.name else self.path


def by_class(model: nn.Module) -> dict[str, Carrier]:
    """The modules whose class says that they work channel by channel on the second axis, by path."""
    result = {}
    for path, module in model.named_modules():
        channels = _channels(module)
        if channels is not None:
            result[path] = Carrier(path, "", channels)
    return result


def _channels(module: Any) -> int | None:
    if isinstance(module, nn.modules.batchnorm._NormBase) and module.num_features > 1:
        has_numbers = any(t is not None for t in [*module._parameters.values(), *module._buffers.values()])
        return module.num_features if has_numbers else None
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1 and not module.transposed:
        return module.out_channels
    return None


def raw(model: nn.Module, sizes: set[int]) -> list[Carrier]:
    """Parameters of other modules with one axis longer than 1, of one of these sizes: scales and shifts."""
    result = []
    for path, module in model.named_modules():
        plain = isinstance(
            module, (nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.RMSNorm, nn.RNNBase)
        )
        if plain or isinstance(module, nn.modules.conv._ConvNd) or _channels(module) is not None:
            continue
        for name, parameter in module._parameters.items():
            if parameter is None or not parameter.is_floating_point():
                continue
            if max(parameter.shape, default=0) == parameter.numel() > 1 and parameter.numel() in sizes:
                result.append(Carrier(path, name, parameter.numel()))
    return result


def narrowed(module: Any, name: str, kept: Tensor) -> Any:
    """The module with the numbers of the `kept` channels alone.

    Raises:
        ValueError: what stays is no whole number of groups.
    """
    if name:
        tensor = module._parameters[name]
        axis = max(range(tensor.ndim), key=lambda i: tensor.shape[i])
        return resized(module, {name: tensor.detach().index_select(axis, kept.to(tensor.device))})
    channels = _channels(module)
    assert channels is not None
    if isinstance(module, nn.modules.conv._ConvNd):
        groups = _groups(kept, channels, module.groups)
        tensors = {n: _taken(module._parameters[n], kept) for n in ("weight", "bias")}
        inputs = module.in_channels // module.groups * groups
        return resized(module, tensors, in_channels=inputs, out_channels=len(kept), groups=groups)
    tensors = {
        n: _taken(t, kept)
        for n, t in [*module._parameters.items(), *module._buffers.items()]
        if t is not None and t.ndim == 1 and len(t) == channels
    }
    if isinstance(module, nn.GroupNorm):
        groups = _groups(kept, channels, module.num_groups)
        return resized(module, tensors, num_channels=len(kept), num_groups=groups)
    return resized(
        module, tensors, **{"num_parameters" if isinstance(module, nn.PReLU) else "num_features": len(kept)}
    )


def _taken(tensor: Tensor | None, kept: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.detach()[kept.to(tensor.device)]


def _groups(kept: Tensor, channels: int, groups: int) -> int:
    """How many groups the kept channels are."""
    size = channels // groups
    counts = torch.bincount(kept // size, minlength=groups)
    if bool(((counts != 0) & (counts != size)).any()):
        raise ValueError("Only whole groups of channels can be removed.")
    return int((counts != 0).sum())
