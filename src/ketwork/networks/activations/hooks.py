"""The one way in which modules' outputs are seen: forward hooks that read each as samples × positions × features.

`walk` puts the hooks on and takes them off on every exit. A `Walker` is told of each forward pass, and for each call of
each chosen module reads the output: which leaf of a tuple, dict or ModelOutput, which axis of it. What becomes of that
is its `visit`'s: `capture` hands it on, `intervene` replaces it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.activations.axes import Grid, Layouts, decides
from ketwork.networks.activations.info import Key
from ketwork.networks.activations.outputs import Leaf, activations
from ketwork.networks.activations.selectors import tidy


@dataclass(frozen=True)
class Call:
    """One call of one chosen module: what it was given and put out; `leaves` are its activations, in order."""

    key: Key
    module: nn.Module
    given: list[Tensor]
    output: Any
    leaves: list[Leaf]


@dataclass
class Walker(ABC):
    """The state of the hooks during a forward pass."""

    model: nn.Module
    layouts: Layouts
    ran: set[str] = field(default_factory=set)
    _calls: Counter[str] = field(default_factory=Counter)

    @abstractmethod
    def listening(self, leaves: list[Leaf]) -> bool:
        """Whether this forward pass is one to read; called for each module that runs."""

    @abstractmethod
    def visit(self, call: Call) -> Any:
        """What the module's output becomes, None to leave it."""

    def begin(self, samples: int) -> None:
        """A forward pass over so many samples begins."""
        self.layouts.begin(samples)
        self._calls.clear()

    def read(self, call: Call, leaf: Leaf) -> Grid | str:
        """A leaf of the output as samples × positions × features, or why it is not."""
        return self.layouts.grid(
            call.key[0], call.module, leaf.tensor, call.given, batch_first=leaf.present is not None
        )

    def output(self, path: str, module: nn.Module, inputs: tuple[Any, ...], output: Any, chosen: bool) -> Any:
        """What the network continues with, None for what the module put out: the hook of a module."""
        leaves = list(activations(output))
        if not self.listening(leaves):
            return None
        given = [x for x in inputs if isinstance(x, Tensor) and not x.is_nested]
        if leaves:
            self.layouts.observe(path, module, leaves[0].tensor, given)
        if not chosen:
            return None
        self.ran.add(path)
        key = (path, self._calls[path])
        self._calls[path] += 1
        return self.visit(Call(key, module, given, output, leaves))


@contextlib.contextmanager
def walk(walker: Walker, chosen: Collection[str], refuse: Callable[[str], None]) -> Iterator[None]:
    """Puts the walker's hooks on the chosen modules, and on those that show how their neighbours' outputs lie.

    `refuse` is told of a chosen module that takes no hooks (TorchScript).
    """
    with contextlib.ExitStack() as stack:
        for path, module in walker.model.named_modules():
            name = tidy(path)
            if "_orig_mod" in module._modules:
                continue  # the wrapper of a compiled part, which passes on what the module inside put out
            if isinstance(module, torch.jit.ScriptModule):
                if name in chosen:
                    refuse(name)
                continue
            if name in chosen or decides(module):
                hook = _hook(walker, name, name in chosen)
                stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _hook(walker: Walker, path: str, chosen: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        return walker.output(path, module, (*inputs, *named.values()), output, chosen)

    return hook
