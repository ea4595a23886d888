"""Attention of torch.nn taken apart, so that its matrices are layers like others."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ketwork.networks.compression.loader import Attention
from ketwork.networks.compression.surgery import replace


def taken_apart(model: nn.Module) -> dict[str, nn.Module]:
    """Puts an `Attention` in the place of each `nn.MultiheadAttention`, in place; the originals by path.

    Those that add biases or zeros to the keys are left.
    """
    result: dict[str, nn.Module] = {
        path: module
        for path, module in model.named_modules()
        if type(module) is nn.MultiheadAttention
        and path
        and module.bias_k is None
        and not module.add_zero_attn
        and not module._forward_hooks
        and not module._forward_pre_hooks
    }
    replace(model, {path: _apart(module) for path, module in result.items()})
    return result


def arguments(original: Any) -> dict[str, Any]:
    """What an `Attention` like the original is made with."""
    return {
        "width": original.embed_dim,
        "heads": original.num_heads,
        "kdim": original.kdim,
        "vdim": original.vdim,
        "bias": original.in_proj_bias is not None,
        "batch_first": original.batch_first,
        "dropout": original.dropout,
    }


def _apart(original: Any) -> nn.Module:
    with torch.device("meta"):
        new: Any = Attention(**arguments(original))
    width = original.embed_dim
    if original.in_proj_weight is not None:
        weights = original.in_proj_weight.detach().split(width)
    else:
        weights = [getattr(original, f"{name}_proj_weight").detach() for name in "qkv"]
    biases = [None] * 3 if original.in_proj_bias is None else original.in_proj_bias.detach().split(width)
    for layer, weight, bias in zip((new.q_proj, new.k_proj, new.v_proj), weights, biases, strict=True):
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    new.out_proj.weight, new.out_proj.bias = original.out_proj.weight, original.out_proj.bias
    return new.eval()
