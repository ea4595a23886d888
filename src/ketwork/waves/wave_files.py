"""Waves in files (safetensors): parameters, the space, the network where it is one of ketwork's; no pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from ketwork.records import files, packed_tensors, unpacked_tensors
from ketwork.waves.models import specs
from ketwork.waves.models.network import Network
from ketwork.waves.spaces import Space

SCHEMA = 1
_STATE = "state."


class Parts(Protocol):
    """What a file holds of a wave."""

    module: nn.Module
    space: Space
    signs: tuple[int, ...] | None
    chunk: int


Kind = TypeVar("Kind", bound=Parts)


def pack_wave(wave: Parts) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a wave, and all else as JSON has it."""
    tensors = {f"{_STATE}{name}": value.detach() for name, value in wave.module.state_dict().items()}
    spec = None
    if isinstance(wave.module, Network):
        try:
            spec = specs.pack(wave.module, tensors)
        except specs.NotPlain:
            tensors = {name: value for name, value in tensors.items() if not name.startswith("spec.")}
    return tensors, {
        "space": asdict(wave.space),
        "signs": None if wave.signs is None else list(wave.signs),
        "network": spec,
        "class": type(wave.module).__name__,
        "chunk": wave.chunk,
    }


def unpack_wave(
    kind: Callable[..., Kind],
    path: str | Path,
    tensors: dict[str, Tensor],
    about: Any,
    module: nn.Module | None,
) -> Kind:
    """The wave of what `pack_wave` gave; the user's own module is given anew.

    Raises:
        ValueError: the parts are not those of a wave, or the module is another.
    """
    if not isinstance(about, dict):
        raise broken(path, "wave", "what it says of itself is missing")
    if module is None and about.get("network") is None:
        raise broken(
            path, "wave", f"its network, {about.get('class')}, is no file's to make: give it as `module`"
        )
    try:
        space = Space(**{name: _tuples(value) for name, value in about["space"].items()})
        module = specs.unpack(about["network"], tensors) if module is None else module
        wave = kind(module, space, signs=about["signs"], chunk=about["chunk"])
        state = {name: value for name, value in tensors.items() if name.startswith(_STATE)}
        wave.module.load_state_dict({name.removeprefix(_STATE): value for name, value in state.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise broken(path, "wave", f"{type(error).__name__}: {error}") from error
    return wave


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def write(path: str | Path, key: str, tensors: dict[str, Tensor], about: dict[str, Any]) -> Path:
    """Writes the parts to a file, in one step, and returns the path."""
    files.write_tensors(path, packed_tensors(tensors), {"schema": SCHEMA, **about}, key)
    return Path(path)


def read(path: str | Path, key: str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The parts that `write` wrote; refuses other and damaged files."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"Argument `path` must be a saved {kind}, but there is no file {str(path)!r}."
        )
    tensors, about, complete = files.read_tensors(path, key)
    if about.get("schema") != SCHEMA:
        raise broken(path, kind, "it is a file of something else")
    if not complete:
        raise broken(path, kind, "it is damaged: what it holds is not what was written")
    return unpacked_tensors(tensors), about


def broken(path: str | Path, kind: str, why: str) -> ValueError:
    """What is wrong with a file."""
    return ValueError(f"Argument `path` must be a saved {kind}, but {str(path)!r} is not: {why}.")
