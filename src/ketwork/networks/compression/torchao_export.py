"""Compressed networks for PyTorch with torchao, its tensors of 8 bits in the place of the weights that have 8 bits.

What ketwork decides is which weights have 8 bits and the scale of each output channel, of which they are multiples; the
tensors, and the kernels that multiply with them, are torchao's. Activations stay floating.
"""

from __future__ import annotations

from torch import nn

from ketwork.networks.compression.costs import EIGHT_BITS
from ketwork.networks.compression.reductions import scales_of
from ketwork.networks.compression.surgery import copied


def in_torchao(model: nn.Module) -> nn.Module:
    """A copy of `model` whose linear layers that `compress(cost="bytes")` gave 8 bits have weights of torchao.

    What it computes is the same: the weights are the same numbers. Of convolutions and embeddings of 8 bits the numbers
    stay floating, since torchao has no kernels for them here.

    Raises:
        ValueError: no linear layer has 8 bits.
        ImportError: torchao is missing, or older than its `Int8Tensor`.
    """
    try:
        from torchao.quantization import Int8Tensor, PerRow
    except ImportError as error:
        raise ImportError(
            "Weights of torchao need a torchao that has `torchao.quantization.Int8Tensor`: pip install -U torchao."
        ) from error
    small = copied(model)
    chosen = [
        module
        for module in small.modules()
        if isinstance(module, nn.Linear) and getattr(module, EIGHT_BITS, False)
    ]
    if not chosen:
        raise ValueError(
            "Argument `model` must have linear layers of 8 bits, but has none. Compress it with `cost='bytes'`."
        )
    for module in chosen:
        weight = module.weight.detach()
        tensor = Int8Tensor.from_hp(weight, PerRow(), scale=scales_of(weight).float()[:, None])
        module.weight = nn.Parameter(tensor, requires_grad=False)
    return small
