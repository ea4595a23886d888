"""Progress: the library's own bar, or a function of the caller's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Progress = bool | Callable[[int], None]
"""True for a bar in terminals and notebooks, or a function that gets the number of samples so far.

It is called after each batch, and again after each layer's state is decomposed. Where it has a method `stage`, that is
called with a `Stage` instead, once the pass is over.
"""


LAYERS, PAIRS = "layers", "pairs"
"""What is worked at after a pass: each layer's numbers, and how alike pairs of layers are."""


@dataclass(frozen=True)
class Stage:
    """How far the work after a pass is: `done` of `total` of what `name` says, and the `share` of its time."""

    name: str
    done: int
    total: int
    share: float


@contextlib.contextmanager
def show_progress(progress: Progress, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """What to call with the number of samples so far; None where nobody wants to know.

    Raises:
        TypeError: it is neither a truth value nor callable.
    """
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool):
        raise TypeError(f"Argument `progress` must be True, False or a function, but is {progress!r}.")
    if not progress:
        yield None
        return
    with contextlib.ExitStack() as stack:
        yield _Bars(stack, total)


def show_stage(report: Callable[[int], None] | None, samples: int, stage: Stage) -> None:
    """Reports how far the work after the pass is, which can take longer than the pass.

    A caller's function without a method `stage` is called with the number of samples once more for each layer.
    """
    staged = getattr(report, "stage", None)
    if staged is not None:
        staged(stage)
    elif report is not None and stage.name == LAYERS:
        report(samples)


class _Bars:
    """The library's own: one of samples, then one for each stage after the pass, with the time left."""

    def __init__(self, stack: contextlib.ExitStack, total: int | None) -> None:
        from tqdm.auto import tqdm

        self._new, self._stack, self._name = tqdm, stack, ""
        self.bar: Any = stack.enter_context(tqdm(total=total, unit="sample", leave=False))

    def __call__(self, done: int) -> None:
        self.bar.update(done - self.bar.n)

    def stage(self, stage: Stage) -> None:
        """Shows how far a stage is."""
        if stage.name != self._name:
            self.bar.close()
            self._name = stage.name
            form = "{desc}: {percentage:3.0f}%|{bar}| {postfix} [{elapsed}<{remaining}]"
            self.bar = self._stack.enter_context(self._new(total=1.0, leave=False, bar_format=form))
            self.bar.set_description_str(stage.name)
        self.bar.update(stage.share - self.bar.n)
        self.bar.set_postfix_str(f"{stage.done} of {stage.total}")
