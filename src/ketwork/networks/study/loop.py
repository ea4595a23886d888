"""What `study` does with each batch of the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ketwork.networks.activations import Batch, Capture, Forward
from ketwork.networks.runtime import Checkpoints, Plan
from ketwork.networks.study.gathering import Gathering, GatheringState
from ketwork.records import deferred, without_children


@dataclass
class Loop:
    """What is done with each batch of the data."""

    run: Gathering
    live: Capture
    saved: Checkpoints[GatheringState] | None
    forward: Forward | None
    label_key: str | None
    budget: int | None
    on_plan: Callable[[Plan], None] | None

    def take(self, batch: Batch) -> int | None:
        """Runs the network on a batch unless a checkpoint has it (None) or another process takes it."""
        run, saved = self.run, self.saved
        labels = None if saved is None else run.gathered.labels.given_to(saved.samples, batch.size)
        if saved is not None and saved.has(batch, labels):
            return None

        if self.budget is not None and run.gathered.plan is None and not batch.elsewhere:
            plan = run.plan(self.live, batch, lambda: self._forward(batch), self.budget)
            if self.on_plan is not None:
                self.on_plan(plan)
        batch = self._without_inputs(batch)
        run.begin(batch)
        if not batch.elsewhere:
            self._forward(batch)
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

    def _without_inputs(self, batch: Batch) -> Batch:
        """The batch without labels that are none, but an input that `forward=` gives the network."""
        axes = self.live.axes
        if self.forward is None or not batch.is_pair or self.run.gathered.labels.given is not None:
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

    def _forward(self, batch: Batch) -> None:
        self.live.forward(
            lambda network: batch.run(network, self.forward, self.label_key),
            batch.size,
            batch.trial(self.forward, self.label_key),
            batch.masks,
            self.run.draws,
        )

    def end(self, limited: bool) -> None:
        """Checks at the end of the data that nothing is left over."""
        if self.saved is not None:
            self.saved.ended()
        self.run.gathered.labels.check_length(self.run.position, limited=limited)
        self.run.check_positions()

    def save(self) -> None:
        """Writes a checkpoint, unless a batch is half taken in."""
        if self.saved is None or self.run.torn:
            return
        with without_children():
            run = self.run
            note = self.saved.save(run.gathered.batches, run.number, lambda: run.state(self.live))
            if note is not None:
                run.gathered.note(note)
