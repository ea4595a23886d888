"""What `study` does with each batch of the data."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from ketwork.networks.activations import Batch, Capture, Forward, Generate, Source
from ketwork.networks.runtime import CheckpointError, Checkpoints, Plan
from ketwork.networks.study.gathering import Gathering, GatheringState
from ketwork.records import Malformed, deferred, without_children


@dataclass
class BatchLoop(ABC):
    """What is done with each batch, wherever its activations come from."""

    run: Gathering
    live: Source
    saved: Checkpoints[GatheringState] | None
    budget: int | None = None
    on_plan: Callable[[Plan], None] | None = None
    exact: bool = False
    _planned: bool = field(default=False, init=False)

    @abstractmethod
    def hand_over(self, batch: Batch) -> None:
        """Gives the batch's activations to what receives them."""

    def prepared(self, batch: Batch) -> Batch:
        """The batch as it is taken in."""
        return batch

    def resume(self, device: torch.device) -> None:
        """Continues with the checkpoint, if there is one.

        Raises:
            CheckpointError: it cannot be continued with.
        """
        if self.saved is None:
            return
        state, notes = self.saved.restore()
        if state is not None:
            try:
                self.run.restore(state, self.live, device)
            except Malformed as error:
                raise CheckpointError(
                    f"Argument `checkpoint` must be a folder with a complete checkpoint, but the one after "
                    f"{self.saved.saved} batches in {str(self.saved.folder)!r} lacks a part of one ({error}). Remove "
                    "it to continue with the one before, or to begin anew."
                ) from error
        for note in notes:
            self.run.gathered.note(note)

    def take(self, batch: Batch) -> int | None:
        """Takes a batch in unless a checkpoint has it (None) or another process takes it."""
        run, saved = self.run, self.saved
        labels = None if saved is None else run.gathered.labels.given_to(saved.samples, batch.size)
        if saved is not None and saved.has(batch, labels):
            return None

        wanted = self.budget is not None or self.on_plan is not None
        if wanted and not self._planned and run.gathered.plan is None and not batch.elsewhere:
            again = functools.partial(self.hand_over, batch)
            plan = run.plan(self.live, batch, again, self.budget, self.exact)
            self._planned = True
            if self.on_plan is not None:
                self.on_plan(plan)
        batch = self.prepared(batch)
        run.begin(batch)
        if not batch.elsewhere:
            self.hand_over(batch)
            run.settle(self.live)
        with deferred():
            if batch.elsewhere:
                run.skip()
            else:
                run.commit()
            if saved is not None:
                saved.add(batch, labels)
        if saved is not None and not batch.elsewhere and saved.due(run.gathered.batches):
            self.save()
        return run.position

    def end(self, limited: bool) -> None:
        """Checks at the end of the data that nothing is left over."""
        if self.saved is not None:
            self.saved.ended()
        self.run.gathered.labels.check_length(self.run.position, limited=limited)
        self.run.check_positions()
        for remark in self.run.gathered.labels.remarks():
            self.run.gathered.note(remark)

    def save(self) -> None:
        """Writes a checkpoint, unless a batch is half taken in."""
        if self.saved is None or self.run.torn:
            return
        with without_children():
            run = self.run
            note = self.saved.save(run.gathered.batches, run.number, lambda: run.state(self.live))
            if note is not None:
                run.gathered.note(note)


@dataclass
class Loop(BatchLoop):
    """The loop that runs a network on each batch."""

    live: Capture
    forward: Forward | None = None
    label_key: str | None = None

    def prepared(self, batch: Batch) -> Batch:
        """The batch without labels that are none, but an input that `forward=` gives the network."""
        axes = self.live.axes
        if (
            self.forward is None
            or isinstance(self.forward, Generate)
            or not batch.is_pair
            or self.run.gathered.labels.given is not None
        ):
            return batch
        if axes.uses_second is None and not batch.elsewhere:
            axes.uses_second = self.live.uses(batch.trial(self.forward), (1,))
        if not axes.uses_second:
            return batch
        self.run.gathered.note(
            "The second entry of each batch changes what the network puts out, so it is an input and no label. Give "
            "`labels=` for labels."
        )
        return replace(batch, labels=None)

    def hand_over(self, batch: Batch) -> None:
        """Runs the network on a batch."""
        if isinstance(self.forward, Generate) and self.live.pool_calls:
            generation = self.forward.of_batch(batch, self.label_key)
            self.live.forward(generation.run, batch.size, draws=self.run.draws, steps=generation.masks)
            return
        self.live.forward(
            lambda network: batch.run(network, self.forward, self.label_key),
            batch.size,
            batch.trial(self.forward, self.label_key),
            batch.masks,
            self.run.draws,
        )
