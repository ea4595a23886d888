"""Networks that take floats and were given integers: PyTorch's own words name neither the data nor what to do."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from ketwork.networks.activations.outputs import tensors

_WORDS = re.compile(
    r"\b(long int|unsigned char|signed char|short|int|Long|Byte|Char|Short|Int|dtype|scalar type)\b"
)


class IntegersRefusedError(TypeError):
    """A network of floats refused a batch of integers, which `__cause__` says in PyTorch's words."""


def refused_integers(model: nn.Module, inputs: Any, error: RuntimeError) -> IntegersRefusedError | None:
    """What to raise where a call failed since integers met floating parameters; None where it failed otherwise."""
    kinds = {value.dtype for value in tensors(inputs)}
    integers = sorted(str(kind) for kind in kinds if not kind.is_floating_point and not kind.is_complex)
    floats = any(parameter.is_floating_point() or parameter.is_complex() for parameter in model.parameters())
    if not integers or not floats or _WORDS.search(str(error)) is None:
        return None
    words = str(error).splitlines()[0].rstrip(".")
    return IntegersRefusedError(
        f"Argument `data` must hold what the network takes, but holds integers ({', '.join(integers)}) where it takes "
        f"floating numbers ({words}). Give them as in its training: images of 8 bits mostly in [0, 1], by "
        "`x.float() / 255`; others by `x.float()`."
    )
