"""What can be compressed, and its matrix view: linear layers and convolutions as y = W x + b.

For a convolution x is the unfolded patch of one position, so that W is m × k with k = channels · kernel size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, skip_init

from ketwork.networks.compression import patches
from ketwork.networks.compression.forms import Form, possible, taps
from ketwork.networks.compression.recurrent import RecurrentMatrix
from ketwork.networks.compression.surgery import resized

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TIED = "its weight is tied to another module's"
"""Why a module stays unchanged that has its weight together with another."""


@dataclass(frozen=True)
class WeightLayer:
    """A module that computes y = W x + b at each position, W m × k.

    `paths` are all the dotted names under which the network holds it; the first names it. `known` says that its patches
    are those of a convolution of torch.nn, so that its x can be had.
    """

    paths: tuple[str, ...]
    module: Any
    kind: (
        str  # "linear", "Conv1D" (transformers': a linear layer, W transposed), "conv1d", "conv2d", "conv3d"
    )
    m: int
    k: int
    known: bool = True

    @property
    def path(self) -> str:
        """The name."""
        return self.paths[0]

    @property
    def parts(self) -> tuple[WeightLayer, ...]:
        """The layers that have its matrix: itself, and those that are tied to it."""
        return (self,)

    @property
    def refits(self) -> bool:
        """Whether its matrix may be fitted again to what the smaller network gives it."""
        return True

    @property
    def convolution(self) -> bool:
        """Whether positions are pixels, and x a patch of them."""
        return self.kind.startswith("conv")

    @property
    def kernel(self) -> tuple[int, ...]:
        """The sizes of the kernel; () of a linear layer."""
        return tuple(self.module.kernel_size) if self.convolution else ()

    @property
    def channels(self) -> int:
        """Input channels, or inputs."""
        return self.k // prod(self.kernel)

    @property
    def repeated(self) -> bool:
        """Whether it is called once a step of a recurrent network, whose kernels take its matrix whole."""
        return isinstance(self.module, RecurrentMatrix)

    @property
    def looks_up(self) -> bool:
        """Whether it takes columns of W by number, as embeddings do."""
        return self.kind == "embedding"

    @property
    def splits(self) -> tuple[str, ...]:
        """The forms that it can be given, besides dense and `both`."""
        if self.repeated:
            return ()
        return possible(self.kernel) if self.known else possible(self.kernel)[:2]

    @property
    def has_bias(self) -> bool:
        """Whether there is a b."""
        return not self.looks_up and self.module.bias is not None

    @property
    def parameters(self) -> int:
        """m k, and m for the bias."""
        return self.m * self.k + (self.m if self.has_bias else 0)

    def weight(self) -> Tensor:
        """W, (m, k), float64."""
        weight = self.module.weight.detach().to(torch.float64, copy=True)
        transposed = self.kind in ("Conv1D", "embedding")
        return weight.T.contiguous() if transposed else weight.reshape(self.m, self.k)

    def bias(self) -> Tensor:
        """b, (m,), float64; zero where there is none."""
        bias = None if self.looks_up else self.module.bias
        if bias is None:
            return torch.zeros(self.m, dtype=torch.float64, device=self.module.weight.device)
        return bias.detach().to(torch.float64, copy=True)

    def positions(self, x: Tensor) -> int:
        """At how many positions a sample of this input is read."""
        if not self.convolution:
            return max(x[0].numel() // x.shape[-1], 1) if x.ndim > 1 else 1
        return patches.positions(patches.batched(x, self.module), self.module)

    def grid(self, space: Sequence[int]) -> tuple[int, ...]:
        """At how many positions along each axis a convolution reads an input of that size."""
        return patches.grid(space, self.module)

    def row_parts(
        self, x: Tensor, mask: Tensor | None = None, places: Tensor | None = None, most: int = 2**26
    ) -> Iterator[Tensor]:
        """The x of every position, (n, k), from the module's input, in parts of about `most` bytes.

        Of inputs (samples, positions, k), positions that the mask (samples, positions) leaves out do not count.
        `places`
        names some of a convolution's positions, which stand for all.
        """
        if not self.convolution:
            yield _positions(x, mask)
            return
        x = patches.batched(x, self.module)
        count = patches.positions(x, self.module) if places is None else len(places)
        at_once = max(1, most // max(1, count * self.k * x.itemsize))
        for part in x.split(at_once):
            view = patches.windows(part, self.module)
            if count * self.k * x.itemsize <= most:
                yield patches.rows(view, self.module, places)
                continue
            all_places = torch.arange(count) if places is None else places
            for some in all_places.split(max(1, most // (self.k * x.itemsize))):
                yield patches.rows(view, self.module, some)

    def rows_in(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """All of `row_parts`."""
        return torch.cat(list(self.row_parts(x, mask)))

    def channel_rows(self, x: Tensor) -> Tensor:
        """The channels at every position of a convolution's input, (n, c)."""
        return patches.batched(x, self.module).movedim(1, -1).reshape(-1, self.channels)

    def rows_out(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """The y of every position, (n, m), from the module's output; as `row_parts` says of positions."""
        if not self.convolution:
            return _positions(y, mask)
        return y.movedim(-1 - len(self.kernel), -1).reshape(-1, self.m)

    def gradient_rows(self, gradient: Tensor, mask: Tensor | None = None) -> Tensor:
        """The gradients whose second moments say how much the layer matters: those of y, as `rows_out` has them."""
        return self.rows_out(gradient, mask)

    def in_form(self, form: Form, matrices: list[Tensor], bias: Tensor) -> dict[str, nn.Module]:
        """`factored`, in each of the layer's places."""
        return dict.fromkeys(self.paths, self.factored(form, matrices, bias))

    def copied(self) -> dict[str, nn.Module]:
        """A copy of the layer's own module, in each of its places."""
        return dict.fromkeys(self.paths, self.with_weight(self.weight()).module)

    def factored(self, form: Form, matrices: list[Tensor], bias: Tensor | None) -> nn.Sequential:
        """y = … second (first x) + bias as plain modules, in the layer's dtype.

        `matrices` are those of the form's modules, each (outputs, channels · taps).
        """
        like = self.module.weight
        options = {"dtype": like.dtype, "device": like.device}
        last = len(matrices) - 1
        parts: list[Any] = []
        for i, matrix in enumerate(matrices):
            out, wide = matrix.shape
            if self.looks_up and i == 0:
                parts.append(skip_init(nn.Embedding, wide, out, self.module.padding_idx, **options))
                matrix = matrix.T
            elif not self.convolution:
                biased = i == last and bias is not None
                parts.append(skip_init(nn.Linear, wide, out, bias=biased, **options))
            else:
                parts.append(self._convolution(form, i, out, wide, i == last, options))
            with torch.no_grad():
                parts[-1].weight.copy_(matrix.reshape(parts[-1].weight.shape))
        if bias is not None:
            with torch.no_grad():
                parts[-1].bias.copy_(bias)
        return nn.Sequential(*parts).train(self.module.training)

    def _convolution(
        self, form: Form, i: int, out: int, wide: int, bias: bool, options: dict[str, Any]
    ) -> Any:
        """The form's i-th convolution: with 1 × 1, with the layer's own kernel, or with a part of that."""
        conv, n = self.module, len(self.kernel)
        one = tuple(1 for _ in range(n))
        kernels = (one, self.kernel, one) if form.name == "both" else taps(form.name, self.kernel)
        kernel = kernels[i]
        total = kernel == self.kernel and (kernel != one or i == 0)
        if not total and kernel == one:
            return skip_init(_CONVOLUTIONS[n], wide, out, 1, bias=bias, **options)
        if total and not self.known:
            weight = conv.weight.new_empty(out, wide // prod(kernel), *kernel)
            tensors = {"weight": weight, "bias": weight.new_empty(out) if bias else None}
            return resized(conv, tensors, in_channels=wide // prod(kernel), out_channels=out)
        here = [total or size > 1 for size in kernel]
        settings: dict[str, Any] = {"padding_mode": conv.padding_mode}
        settings["stride"] = tuple(s if own else 1 for s, own in zip(conv.stride, here, strict=True))
        settings["dilation"] = tuple(d if own else 1 for d, own in zip(conv.dilation, here, strict=True))
        settings["padding"] = (
            conv.padding
            if isinstance(conv.padding, str)
            else tuple(p if own else 0 for p, own in zip(conv.padding, here, strict=True))
        )
        return skip_init(
            _CONVOLUTIONS[n], wide // prod(kernel), out, kernel, bias=bias, **settings, **options
        )

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
        """A layer of the same kind with W of any size and, unless it is None, that b, in a module of its own."""
        m, k = weight.shape
        like, old = self.module.weight, self.module
        has_bias = bias is not None or self.has_bias
        shift = None if not has_bias else (self.bias() if bias is None else bias).to(like)
        module: Any
        if self.convolution:
            c = k // prod(self.kernel)
            tensors = {"weight": weight.reshape(m, c, *self.kernel).to(like), "bias": shift}
            module = resized(old, tensors, in_channels=c, out_channels=m)
        elif self.looks_up:
            module = resized(
                old, {"weight": weight.T.contiguous().to(like)}, embedding_dim=m, num_embeddings=k
            )
        elif self.kind == "Conv1D":
            options: Any = {"dtype": like.dtype, "device": like.device, "bias": has_bias}
            module = skip_init(nn.Linear, k, m, **options)
            with torch.no_grad():
                module.weight.copy_(weight)
                if has_bias:
                    module.bias.copy_(shift)
        else:
            module = resized(old, {"weight": weight.to(like), "bias": shift}, in_features=k, out_features=m)
        module.train(old.training).requires_grad_(like.requires_grad)
        kind = "linear" if self.kind == "Conv1D" else self.kind
        return WeightLayer(self.paths, module, kind, m, k, self.known)


def weight_layers(model: nn.Module) -> tuple[list[WeightLayer], dict[str, str]]:
    """The layers that can be compressed, and why each other module with parameters of its own stays unchanged.

    >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 3), nn.LayerNorm(3))
    >>> layers, left = weight_layers(net)
    >>> [(layer.path, layer.kind, layer.m, layer.k) for layer in layers], left["2"]
    ([('0', 'embedding', 4, 9), ('1', 'linear', 3, 4)], 'normalisations are left')
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
            reason = TIED
        if reason is None:
            layers.append(weight_layer(module, tuple(names)))
        else:
            left[names[0] or "(model)"] = reason
    return layers, left


def _reason(module: Any, path: str) -> str | None:
    """Why a module with parameters stays unchanged, or None where it can be compressed."""
    kind = type(module).__name__
    if _kind(module) is None:
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            return "embeddings are left"
        if isinstance(module, nn.modules.batchnorm._NormBase) or kind.endswith("Norm"):
            return "normalisations are left"
        if isinstance(module, nn.Linear):
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


def _kind(module: nn.Module) -> tuple[str, bool] | None:
    """The kind, and whether the forward is torch.nn's own; None of what is no layer."""
    of = type(module)
    if isinstance(module, nn.Linear) and of.forward is nn.Linear.forward:
        return "linear", True
    for n, plain in _CONVOLUTIONS.items():
        if isinstance(module, plain):
            own: Any = plain
            known = of.forward is own.forward and getattr(of, "_conv_forward", None) is own._conv_forward
            return f"conv{n}d", known
    if isinstance(module, nn.Embedding) and of.forward is nn.Embedding.forward and module.max_norm is None:
        return "embedding", False
    if (of.__module__, of.__name__) == ("transformers.pytorch_utils", "Conv1D"):
        return "Conv1D", True
    return None


def weight_layer(module: Any, paths: tuple[str, ...]) -> WeightLayer:
    """The layer that a module is which has a kind."""
    result = _kind(module)
    assert result is not None
    kind, known = result
    weight = module.weight
    if kind in ("Conv1D", "embedding"):
        k, m = weight.shape
    else:
        m, k = len(weight), weight[0].numel()
    return WeightLayer(paths, module, kind, m, k, known)


def _positions(x: Tensor, mask: Tensor | None) -> Tensor:
    if mask is not None and x.ndim > 2 and x.shape[:2] == mask.shape:
        return x[mask].reshape(-1, x.shape[-1])
    return x.reshape(-1, x.shape[-1])
