"""Seeded ways to damage a file, or to put something else into what it says, and to try what comes of it."""

import copy
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

MANY = int(os.environ.get("KETWORK_FUZZ", "1"))
"""How many times the usual number of inputs is tried."""

NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 3, 2**31, 10**15, 2**63 - 1, 10**30, -(10**15), 0.5, -1.5, 1e308, 5e-324,
    "", "x", "\0", "../../x", "</script>", "\ud800", "NaN", [], [None], [[]], {}, {"": {}}, [1, 2, 3], {"d": 1},
)  # fmt: skip

_DTYPES = (
    torch.int8,
    torch.uint8,
    torch.int64,
    torch.bool,
    torch.float16,
    torch.bfloat16,
    torch.float32,
)


def bytes_of(whole: bytes, draw: random.Random) -> bytes:
    """The file with flipped bits, cut, or with bytes put in, taken out or moved."""
    data = bytearray(whole)
    # Half of the damage goes to the beginning, where formats keep what everything else depends on.
    reach = draw.choice((len(data), min(len(data), 64)))
    at = draw.randrange(reach)
    match draw.randrange(7):
        case 0:
            for _ in range(draw.choice((1, 1, 2, 8, 64))):
                data[draw.randrange(reach)] ^= 1 << draw.randrange(8)
        case 1:
            del data[draw.randrange(len(data)) :]
        case 2:
            del data[at : at + draw.choice((1, 4, 100))]
        case 3:
            data[at:at] = draw.randbytes(draw.choice((1, 4, 100)))
        case 4:
            data[at : at + 8] = draw.choice((b"\0", b"\xff", b"\x7f")) * 8
        case 5:
            data[at : at + 8] = draw.choice((10**15, 2**63 - 1, 2**31, len(data), 3)).to_bytes(8, "little")
        case 6:
            other = draw.randrange(len(data))
            data[at : at + 32], data[other : other + 32] = data[other : other + 32], data[at : at + 32]
    return bytes(data)


def plain_of(value: Any, draw: random.Random) -> Any:
    """Plain data with one or two parts replaced, taken out, doubled or moved."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(value))
        if not places:
            break
        holder, key = draw.choice(places)
        match draw.randrange(5):
            case 0 | 1:
                holder[key] = copy.deepcopy(draw.choice(NASTY))
            case 2:
                del holder[key]
            case 3:
                holder[key] = [holder[key]] if isinstance(holder, dict) else {"x": holder[key]}
            case 4:
                other, elsewhere = draw.choice(places)
                holder[key] = copy.deepcopy(other[elsewhere])
    return value


def tensors_of(tensors: dict[str, Tensor], draw: random.Random) -> dict[str, Tensor]:
    """Tensors of which one is missing, of another shape or dtype, or holds other numbers."""
    tensors = dict(tensors)
    name = draw.choice(sorted(tensors))
    tensor = tensors.pop(name)
    match draw.randrange(8):
        case 0:
            tensors[draw.choice((name + "x", "x", ""))] = tensor
        case 1:
            tensors[name] = tensor.flatten() if tensor.ndim != 1 else tensor[None]
        case 2:
            tensors[name] = torch.cat([tensor, tensor]) if tensor.ndim else tensor[None]
        case 3:
            tensors[name] = tensor[:-1].clone() if tensor.ndim and len(tensor) else torch.zeros(())
        case 4:
            tensors[name] = tensor.to(draw.choice(_DTYPES))
        case 5:
            huge = torch.finfo(tensor.dtype).max if _real(tensor) else 2**62
            tensors[name] = torch.full_like(tensor, draw.choice((-1, 0, 100, huge)))
        case 6:
            tensors[name] = torch.full_like(tensor, float("nan") if _real(tensor) else -(2**63))
        case 7:
            tensors[name] = tensors[draw.choice(sorted(tensors))].clone() if tensors else tensor
    return tensors


def attempt(read: Callable[[Any], Any], source: Any, *refusals: type[Exception]) -> tuple[Any, str]:
    """What reading gave, or None and the words of its refusal: a ValueError, or one of those named."""
    try:
        return read(source), ""
    except (ValueError, *refusals) as error:
        return None, str(error)


def _real(tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and mappings, as what holds it and its key."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from _places(value[key])
