"""Several processes of one `torch.distributed` job: what each gathered comes together at process 0.

Only tensors and JSON travel, through a gloo group of its own, whatever backend the job itself uses. The parts are
added up along a binary tree, each process handing its sum to the one below: ⌈log₂ W⌉ steps for W processes. A process
that fails takes part to the end and says so; one that ends or hangs is noticed by those that wait for it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ketwork._compat import moved
from ketwork.networks.runtime.streaming import Ending, PartialError, error_words
from ketwork.records import pack, unpack

MODES = ("split", "own")

TIMEOUT = 1800.0
"""Seconds that a process waits for another one."""

_PIECE = 1 << 28  # bytes of a tensor that travel in one message
_DTYPES = {
    str(dtype): dtype
    for dtype in (torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float32, torch.float64)
}
_COMPLEX = {str(torch.complex64): torch.complex64, str(torch.complex128): torch.complex128}


class ProcessError(PartialError):
    """A process failed, or was not heard of; `partial` is what was gathered nevertheless, at process 0, else None."""

    @property
    def found(self) -> Any:
        """`partial`, under its name of version 0.1; warns."""
        moved("`ProcessError.found` is now called `partial`.")
        return self.partial


@dataclass(frozen=True)
class Distributed:
    """Several processes of one `torch.distributed` job, each of which calls the same function.

    Args:
        mode: `"split"`, all are given the same data, and process r of W takes the batches r, r + W, … of it; `"own"`,
            each is given its own part of the data (as a `DistributedSampler` gives it), of any length, none included.
        timeout: seconds that a process waits at the end for another one, which may be slower.
    """

    mode: str
    timeout: float = TIMEOUT

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"Argument `distributed` must be one of {MODES} or None, but is {self.mode!r}.")
        if not self.timeout > 0:
            raise ValueError(f"Argument `timeout` must be positive, but is {self.timeout}.")

    @classmethod
    def from_argument(cls, value: Self | str | None) -> Self | None:
        """What a `distributed` argument names: itself, or a mode."""
        return value if value is None or isinstance(value, cls) else cls(value)  # type: ignore[arg-type]


class Sum(Protocol):
    """A record that processes can add up."""

    def add(self, other: Self, start: int | None = None) -> None:
        """Adds the other, in place."""


Part = TypeVar("Part", bound=Sum)


@dataclass
class Processes:
    """This process among the `count` of a job; `split` says that all are given the same data."""

    rank: int
    count: int
    split: bool
    timeout: float
    _group: dist.ProcessGroup = field(repr=False)

    def mine(self, number: int) -> bool:
        """Whether the batch of that number is studied here."""
        return not self.split or number % self.count == self.rank

    def seeded(self, generator: torch.Generator) -> torch.Generator:
        """The generator of the keys of this process's data: another one in each process that has its own data."""
        return generator if self.split else self.apart(generator)

    def apart(self, generator: torch.Generator) -> torch.Generator:
        """Another generator in each process."""
        seed = int(torch.randint(2**62, (), generator=generator))
        return torch.Generator().manual_seed((seed + self.rank) % 2**62)

    def exchange(self, message: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages of all processes, in the order of their ranks.

        Raises:
            ProcessError: one of them was not heard of in time.
        """
        if self.rank:
            self._send(0, message, {})
            every, _ = self._receive(0, 2 * self.timeout)  # process 0 may itself have to wait
            return every["every"]
        end = time.monotonic() + self.timeout
        heard = [self._receive(rank, max(end - time.monotonic(), 1.0))[0] for rank in range(1, self.count)]
        every = {"every": [message, *heard]}
        for rank in range(1, self.count):
            self._send(rank, every, {})
        return every["every"]

    def add_up(self, part: Part) -> Part:
        """The parts of all processes added to that of process 0, on the CPU.

        In the other processes it is what this one handed on.

        Raises:
            ProcessError: in all processes, where two parts do not fit or a process was not heard of.
        """
        failure: str | None = None
        header, tensors = pack(part)
        if any(tensor.device.type != "cpu" for tensor in tensors.values()):  # as those of the others arrive
            part = unpack(type(part), header, {name: tensor.cpu() for name, tensor in tensors.items()})
        step = 1
        while step < self.count:
            if self.rank % (2 * step):
                self._send(self.rank - step, *pack(part))
                break
            if self.rank + step < self.count:
                other = self._receive(self.rank + step, self.timeout)
                try:
                    part.add(unpack(type(part), *other), 0 if self.split else None)
                except ValueError as error:
                    failure = failure or str(error)
            step *= 2
        failures = [each["error"] for each in self.exchange({"error": failure}) if each["error"]]
        if failures:
            raise ProcessError(failures[0])
        return part

    def endings(self, ending: Ending, **more: Any) -> tuple[list[str], bool, list[dict[str, Any]]]:
        """How the pass ended in all processes: their failures, whether one was interrupted, and `more` of each."""
        messages = self.exchange(
            {"error": error_words(ending.error), "interrupted": ending.interrupted, **more}
        )
        failures = [
            f"process {rank} failed ({each['error']})" for rank, each in enumerate(messages) if each["error"]
        ]
        return failures, any(each["interrupted"] for each in messages), messages

    def _send(self, to: int, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        forms = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()]
        text = json.dumps({"about": about, "tensors": forms}, allow_nan=False).encode()
        head = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        self._over(dist.isend, torch.tensor([len(head)]), to, self.timeout)
        for tensor in (head, *tensors.values()):
            for piece in _bytes(tensor).split(_PIECE):
                self._over(dist.isend, piece, to, self.timeout)

    def _receive(self, source: int, timeout: float) -> tuple[dict[str, Any], dict[str, Tensor]]:
        length = torch.empty(1, dtype=torch.int64)
        self._over(dist.irecv, length, source, timeout)
        head = torch.empty(int(length), dtype=torch.uint8)
        for piece in head.split(_PIECE):
            self._over(dist.irecv, piece, source, self.timeout)
        message = json.loads(head.numpy().tobytes())
        tensors: dict[str, Tensor] = {}
        for name, dtype, shape in message["tensors"]:
            tensor = torch.empty(shape, dtype=_COMPLEX.get(dtype) or _DTYPES[dtype])
            for piece in _bytes(tensor).split(_PIECE):
                self._over(dist.irecv, piece, source, self.timeout)
            tensors[name] = tensor
        return message["about"], tensors

    def _over(self, call: Callable[..., Any], tensor: Tensor, other: int, timeout: float) -> None:
        try:
            # Ranks are those of the job.
            work = call(tensor, other, group=self._group)
            if work is not None:
                work.wait(timedelta(seconds=timeout))
        except RuntimeError as error:
            raise ProcessError(
                f"Process {self.rank} of {self.count} lost process {other}, which ended, gave up waiting, or did not "
                f"answer within {timeout:g} seconds ({str(error).splitlines()[0][:200]}). Look at what the others say; "
                "if one of them only is slow, give a larger `timeout`."
            ) from error


def _bytes(tensor: Tensor) -> Tensor:
    """The memory of a tensor, or of a contiguous copy of it on the CPU, as bytes."""
    plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


@contextmanager
def join(distributed: Distributed | None) -> Iterator[Processes | None]:
    """This process among those of the job, or None where it is to work alone.

    Raises:
        ValueError: there is no job.
        ProcessError: the others do not come.
    """
    if distributed is None:
        yield None
        return
    mode, timeout = distributed.mode, distributed.timeout
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(
            f"Argument `distributed` is {mode!r}, but this process is in no job. Call "
            "`torch.distributed.init_process_group` first, or start the command with `torchrun -m ketwork`."
        )
    try:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    except RuntimeError as error:
        raise ProcessError(
            f"Process {dist.get_rank()} waited {timeout:g} seconds for the others to begin "
            f"({str(error).splitlines()[0][:200]}). All processes of the job must call this."
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), mode == "split", timeout, group)
    finally:
        dist.destroy_process_group(group)
