"""What can be compressed, and its matrix view: linear layers and convolutions as y = W x + b.

For a convolution x is the unfolded patch of one position, so that W is m × k with k = channels · kernel size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, skip_init

_CONVOLUTION = ("kernel_size", "stride", "padding", "dilation", "padding_mode")


@dataclass(frozen=True)
class WeightLayer:
    """A module that computes y = W x + b at each position, W m × k.

    `paths` are all the dotted names under which the network holds it; the first names it.
    """

    paths: tuple[str, ...]
    module: Any
    kind: str  # "linear", "Conv1D" (transformers': a linear layer, W transposed), "conv1d", "conv2d"
    m: int
    k: int

    @property
    def path(self) -> str:
        """The name."""
        return self.paths[0]

    @property
    def convolution(self) -> bool:
        """Whether positions are pixels, and x a patch of them."""
        return self.kind in ("conv1d", "conv2d")

    @property
    def has_bias(self) -> bool:
        """Whether there is a b."""
        return self.module.bias is not None

    @property
    def parameters(self) -> int:
        """m k, and m for the bias."""
        return self.m * self.k + (self.m if self.has_bias else 0)

    def factored_parameters(self, rank: int) -> int:
        """r (m + k), and m for the bias, which the factors always have: it takes the mean's correction."""
        return rank * (self.m + self.k) + self.m

    def weight(self) -> Tensor:
        """W, (m, k), float64."""
        weight = self.module.weight.detach().double()
        return weight.T.contiguous() if self.kind == "Conv1D" else weight.reshape(self.m, self.k)

    def bias(self) -> Tensor:
        """b, (m,), float64; zero where there is none."""
        bias = self.module.bias
        if bias is None:
            return torch.zeros(self.m, dtype=torch.float64, device=self.module.weight.device)
        return bias.detach().double()

    def rows_in(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The x of every position, (n, k), from the module's input.

        Of inputs (samples, positions, k), positions that the mask (samples, positions) leaves out do not count.
        """
        if not self.convolution:
            return _positions(x, mask)
        if self.kind == "conv1d":
            x = x.unsqueeze(-2) if x.ndim == 3 else x.unsqueeze(0).unsqueeze(-2)
        elif x.ndim == 3:
            x = x.unsqueeze(0)
        conv = self.module
        two = [_pair(value) for value in (conv.kernel_size, conv.dilation, conv.stride)]
        mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
        x = F.pad(x, _pads(conv), mode=mode)
        kernel, dilation, stride = two
        patches = F.unfold(x, kernel, dilation=dilation, stride=stride)  # (samples, k, positions)
        return patches.transpose(1, 2).reshape(-1, self.k)

    def rows_out(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """The y of every position, (n, m), from the module's output; as `rows_in` says of positions."""
        if not self.convolution:
            return _positions(y, mask)
        positions = 1 if self.kind == "conv1d" else 2
        return y.movedim(-1 - positions, -1).reshape(-1, self.m)

    def factored(self, first: Tensor, second: Tensor, bias: Tensor) -> nn.Sequential:
        """y = second (first x) + bias as plain modules: `first` (r, k), `second` (m, r), in the layer's dtype."""
        like = self.module.weight
        rank = len(first)
        options = {"dtype": like.dtype, "device": like.device}
        parts: list[Any]
        if self.convolution:
            conv = self.module
            kind = nn.Conv1d if self.kind == "conv1d" else nn.Conv2d
            alike = {name: getattr(conv, name) for name in _CONVOLUTION}
            parts = [
                skip_init(kind, conv.in_channels, rank, bias=False, **alike, **options),
                skip_init(kind, rank, self.m, 1, **options),
            ]
        else:
            parts = [
                skip_init(nn.Linear, self.k, rank, bias=False, **options),
                skip_init(nn.Linear, rank, self.m, **options),
            ]
        with torch.no_grad():
            for part, matrix in zip(parts, (first, second), strict=True):
                part.weight.copy_(matrix.reshape(part.weight.shape))
            parts[1].bias.copy_(bias)
        return nn.Sequential(*parts).train(self.module.training)

    def narrowed(self, rows: Tensor | None, columns: Tensor | None) -> WeightLayer:
        """The layer with some of its outputs, as a smaller module that reads some of its columns; None: all of them.

        Of a convolution's columns only whole channels can go.
        """
        weight, bias = self.weight(), self.bias()
        if columns is not None:
            weight = weight[:, columns]
        if rows is not None:
            weight, bias = weight[rows], bias[rows]
        return self.with_weight(weight, bias if self.has_bias else None)

    def with_weight(self, weight: Tensor, bias: Tensor | None = None) -> WeightLayer:
        """A layer of the same kind with W of any size and, unless it is None, that b, in a plain module of its own."""
        m, k = weight.shape
        like, old = self.module.weight, self.module
        has_bias = bias is not None or self.has_bias
        options: Any = {"dtype": like.dtype, "device": like.device, "bias": has_bias}
        if self.convolution:
            area = self.k // old.in_channels
            options |= {name: getattr(old, name) for name in _CONVOLUTION}
            module = skip_init(nn.Conv1d if self.kind == "conv1d" else nn.Conv2d, k // area, m, **options)
        else:
            module = skip_init(nn.Linear, k, m, **options)
        with torch.no_grad():
            module.weight.copy_(weight.reshape(module.weight.shape))
            if has_bias:
                module.bias.copy_(self.bias() if bias is None else bias)
        module.train(old.training).requires_grad_(like.requires_grad)
        return WeightLayer(self.paths, module, self.kind if self.convolution else "linear", m, k)


def weight_layers(model: nn.Module) -> tuple[list[WeightLayer], dict[str, str]]:
    """The layers that can be compressed, and why each other module with parameters of its own is left alone.

    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    >>> layers, left = weight_layers(net)
    >>> [(layer.path, layer.kind, layer.m, layer.k) for layer in layers], left["0"]
    ([('1', 'linear', 3, 4)], 'embeddings are left')
    """
    holders: dict[int, set[int]] = {}
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(module, []).append(path)
        for parameter in module._parameters.values():
            if parameter is not None:
                holders.setdefault(id(parameter), set()).add(id(module))
    tied = {parameter for parameter, modules in holders.items() if len(modules) > 1}
    layers, left = [], {}
    for module, names in paths.items():
        own = [p for p in module._parameters.values() if p is not None]
        parametrized = parametrize.is_parametrized(module)
        if not own and not parametrized:
            continue
        reason = "its weight is parametrized" if parametrized else _reason(module, names[0])
        if reason is None and any(id(parameter) in tied for parameter in own):
            reason = "its weight is tied to another module's"
        if reason is None:
            layers.append(_weight_layer(module, tuple(names)))
        else:
            left[names[0] or "(model)"] = reason
    return layers, left


def _reason(module: Any, path: str) -> str | None:
    """Why a module with parameters is left alone, or None where it can be compressed."""
    kind = type(module).__name__
    if _linear_kind(module) is None:
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            return "embeddings are left"
        if isinstance(module, nn.modules.batchnorm._NormBase) or kind.endswith("Norm"):
            return "normalisations are left"
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            return f"{kind} has a forward of its own"
        if isinstance(module, nn.modules.conv._ConvNd):
            return f"{kind} is not handled"
        names = ", ".join(name for name, p in module._parameters.items() if p is not None)
        return f"{kind} uses raw parameters ({names})"
    if path == "":
        return "it is the whole network"
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed from other parameters"
    if weight.is_complex() or not weight.is_floating_point():
        return f"its weights are {weight.dtype}"
    if module._forward_hooks or module._forward_pre_hooks:
        return "it has hooks, which a new module would lose"
    if getattr(module, "groups", 1) != 1:
        return "depthwise" if module.groups == module.in_channels else f"{module.groups} groups"
    return None


def _linear_kind(module: nn.Module) -> str | None:
    forward = type(module).forward
    if isinstance(module, nn.Linear) and forward is nn.Linear.forward:
        return "linear"
    if isinstance(module, nn.Conv1d) and forward is nn.Conv1d.forward:
        return "conv1d" if type(module)._conv_forward is nn.Conv1d._conv_forward else None
    if isinstance(module, nn.Conv2d) and forward is nn.Conv2d.forward:
        return "conv2d" if type(module)._conv_forward is nn.Conv2d._conv_forward else None
    of = type(module)
    return "Conv1D" if (of.__module__, of.__name__) == ("transformers.pytorch_utils", "Conv1D") else None


def _weight_layer(module: Any, paths: tuple[str, ...]) -> WeightLayer:
    kind = _linear_kind(module)
    assert kind is not None
    weight = module.weight
    if kind == "Conv1D":
        k, m = weight.shape
    else:
        m, k = len(weight), weight[0].numel()
    return WeightLayer(paths, module, kind, m, k)


def _positions(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and x.ndim > 2 and x.shape[:2] == mask.shape:
        return x[mask].reshape(-1, x.shape[-1])
    return x.reshape(-1, x.shape[-1])


def _pads(conv: Any) -> list[int]:
    """What `F.pad` takes for an image; a 1-d convolution's input stands as an image of height 1."""
    pads = list(conv._reversed_padding_repeated_twice)
    return pads if len(pads) == 4 else [*pads, 0, 0]


def _pair(value: object) -> tuple[int, int]:
    assert isinstance(value, tuple)
    return value if len(value) == 2 else (1, *value)
