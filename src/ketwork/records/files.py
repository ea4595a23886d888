"""Files written in one step: no reader, crash or full disk ever leaves half of one, or takes the one before.

Tensors are read and written as safetensors, which hold numbers and text alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ketwork.records.temporary import private_folder

_DIGEST = "digest"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_DEEPEST = 32  # levels of JSON inside each other
_ALIGNMENT = 64  # bytes, at which PyTorch puts new tensors on the CPU
_LONGEST = 300  # letters of another library's message that are passed on


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """The path of an empty file to write to; when the block ends well it takes the place of `path`.

    It lies beside the target in a folder of its own, where what writes it may have temporary files too. It is synced
    to the disk, then renamed over the target, then the target's folder is synced. The target keeps its permissions; a
    new one has those that the process gives new files. Where `path` is a symbolic link, what it points to is replaced.
    A device or a pipe, such as `/dev/stdout`, gets the bytes instead. Whatever fails, the temporary folder is removed;
    one that a killed process left is removed by the next write beside it.

    Raises:
        OSError: the file cannot be written (a full disk, a read-only folder or file); the old one stays as it was.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            with _beside_a_stream(path) as temporary:
                yield temporary
        else:
            with _beside_a_file(Path(os.path.realpath(path))) as temporary:
                yield temporary
    except OSError as error:
        raise OSError(
            error.errno,
            f"{str(path)!r} could not be written: {error.strerror or error}. What was there before is as it was.",
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Writes a text in UTF-8, in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: str | Path, tensors: dict[str, Tensor], about: dict[str, Any], key: str) -> None:
    """Writes a safetensors file, in one step: tensors, and what is said `about` them as JSON under `key`, signed.

    A digest of all of it (SHA-256) is in the JSON; `read_tensors` checks it.
    """
    about = {**about, _DIGEST: _digest(tensors, about)}
    with replacing(path) as temporary:
        try:
            metadata = {key: json.dumps(about, allow_nan=False)}
            safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        except SafetensorError as error:
            number = re.search(r"(?:os error |code: )(\d+)", str(error))  # as newer and older versions say it
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def read_tensors(path: str | Path, key: str) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """What `write_tensors` wrote, tensors and `about`, and whether the digest agrees with both.

    `about` is empty where the file has no such JSON; its texts show control characters, which a terminal would obey.

    Nothing in a safetensors file is run, and no more is made of it than its length holds.

    Raises:
        ValueError: it is something else, or truncated.
        OSError: it cannot be read.
    """
    if (kind := irregular(path)) is not None:
        raise ValueError(f"{str(path)!r} is {kind}, and no file")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(key, "{}")
            tensors = {name: _aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        words = visible(str(error))  # which may hold what the file does
        words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
        raise ValueError(f"{str(path)!r} is not a complete safetensors file ({words})") from error
    about = _parsed(text)
    digest = about.pop(_DIGEST, None)
    return tensors, _visible(about), digest == _digest(tensors, about)


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor where a new one would lie, or a copy there: elsewhere some processors round products otherwise."""
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()


def visible(text: str) -> str:
    """The text with a picture of each control character (␛) in its place, but for tabs and ends of lines.

    What turns the direction of text is spelled out too, as `undirected` does.

    >>> visible("a\x1b[2Jb\tc")
    'a␛[2Jb\tc'
    """
    return undirected(text.translate(_PICTURES))


def undirected(text: str) -> str:
    """The text with the characters spelled out that turn the direction of what follows, as names must not.

    >>> undirected("conv\u202e1.gnp")
    'conv[U+202E]1.gnp'
    """
    return text.translate(_DIRECTIONS)


def irregular(path: str | Path) -> str | None:
    """What there is at a path where it is no regular file, in words; None where it is one, or nothing is there.

    To open a pipe waits for somebody who writes to it, and a device may have no end.

    >>> irregular("/dev/null"), irregular("nothing-here")
    ('a device', None)
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # opening it says why
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


def writable(path: str | Path) -> bool:
    """Whether `replacing` could write that file."""
    path = Path(path)
    if path.exists() and not path.is_file():
        return not path.is_dir() and os.access(path, os.W_OK)
    target = Path(os.path.realpath(path))
    return os.access(target.parent, os.W_OK | os.X_OK) and (not target.exists() or os.access(target, os.W_OK))


@contextmanager
def _beside_a_file(target: Path) -> Iterator[Path]:
    before = target.stat() if target.exists() else None
    if before is not None:  # a rename would ask for the folder's permission alone
        os.close(os.open(target, os.O_WRONLY))
    with private_folder(target.parent) as folder:
        temporary = folder / "file"
        # Made by open, not by tempfile, so that the permissions are those the umask leaves.
        made = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        mode = (before or os.fstat(made)).st_mode
        os.close(made)
        yield temporary
        os.chmod(temporary, stat.S_IMODE(mode))  # writers may have put another file in its place
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, target)
    with suppress(OSError):  # the file is complete either way, and not every system can sync a folder
        _sync(target.parent, os.O_RDONLY)


@contextmanager
def _beside_a_stream(stream: Path) -> Iterator[Path]:
    with private_folder(Path(tempfile.gettempdir())) as folder:
        temporary = folder / "file"
        yield temporary
        with temporary.open("rb") as source, stream.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> str:
    sha256 = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        sha256.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def _parsed(text: str) -> dict[str, Any]:
    """A JSON object; empty where it is none, or holds numbers that neither JSON nor 64 bits have, or no text."""
    try:
        about = json.loads(text, parse_constant=_refused, parse_int=_integer, parse_float=_finite)
        if not isinstance(about, dict) or _depth(about) > _DEEPEST:
            return {}
        json.dumps(about, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
        return about
    except (ValueError, RecursionError):
        return {}


_DIRECTIONS = {code: f"[U+{code:04X}]" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Unicode's embeddings, overrides and isolates of bidirectional text."""

_PICTURES = dict.fromkeys(range(127, 160), 0x2421)
_PICTURES |= {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}


def _visible(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(name): _visible(inner) for name, inner in value.items()}
    return [_visible(inner) for inner in value] if isinstance(value, list) else value


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"{digits[:20]}… is no integer of 64 bits")
    return int(digits)


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise ValueError(f"{digits} is no number of 64 bits")
    return float(digits)


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
