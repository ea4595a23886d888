"""`Monitor`: looks at a network every so many steps of its training, and raises alarms."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ketwork.networks.activations import Forward, Layers, Mask, dtype_of, tokenized, unwrapped
from ketwork.networks.monitor import lines
from ketwork.networks.monitor.alarms import (
    Action,
    Watch,
    act,
    check_action,
    rules_of,
)
from ketwork.networks.monitor.look import Alarm, Look
from ketwork.networks.monitor.probe_pass import ProbePass
from ketwork.networks.monitor.probe_set import ProbeSet
from ketwork.networks.monitor.protection import changed_parameters, undisturbed
from ketwork.networks.monitor.quantities import PROBES, QUANTITIES, chosen
from ketwork.networks.monitor.result import MonitorRun
from ketwork.networks.monitor.rules import Rule
from ketwork.networks.monitor.sinks import Guarded, sink_of, warn_failed


class Monitor:
    """Watches a network while it trains: every `every` steps its layers' quantities on a fixed probe set, and alarms.

    The training is the same, bit for bit, with and without (see `undisturbed` for what that covers): call the monitor
    with the number of steps done, anywhere between two steps of the optimizer. Each look is appended to
    `path/monitor.jsonl` at once; `ketwork monitor path/` shows the run, also while it goes on.

    Args:
        model: the network that trains, on whatever device it is. `torch.compile` and data-parallel wrappers are looked
            through; in a job of `torch.distributed` process 0 alone looks.
        data: the probe set, as `study` takes data. It is read once, here, and kept; a training loader may be given.
        every: steps from one look to the next. The first one is at the first call.
        layers: which modules, as in `study`. None for the main layers: of repeated blocks their outputs alone, and
            none of more than 4,096 features.
        quantities: names of `QUANTITIES`; None for `DEFAULT`, of which those hold for which the probe set has
            positions, labels or views.
        alarms: True for all rules, False for none, or names and rules (`Collapse(share=0.05)`).
        action: what an alarm does: "warn" (a `MonitorWarning`), "stop" (raises `StopTraining`), or a function that gets
            each `Alarm`.
        path: the folder of the run. One that has a run is continued: looks replace those at the same and later steps.
        labels: what is decoded from the layers, as in `study`; targets of each position only where they are named.
        held_out: samples of the same kind that the network is not trained on, with labels in their batches, as many as
            `data` has: then the gap of the linear probe between both is among the quantities, for memorisation.
        mask, tokenizer: as in `study`; the tokenizer makes tokens of the texts of `held_out` too.
        forward: `forward(model, batch)` in place of the usual call.
        views: how many views of one sample stand next to each other in the data; then LiDAR is among the quantities.
        max_samples: of the probe set, drawn by the seed where the data have a length.
        batch_size: for data that is not batched yet.
        sinks: further places for the numbers: "parquet" (`path/monitor.parquet`), "tensorboard", "wandb", "mlflow", a
            `SummaryWriter`, a run of wandb, or functions that get each `Look`. One that fails is dropped with one
            warning.
        seed: draws the samples kept for standard errors, and the entries of parameters that are followed.

    Raises:
        TypeError, ValueError, SelectorError: an argument is not what it must be.
        ImportError: a sink that is named is not installed.
        OSError: the folder cannot be made or written to.

    Cost: every `every` steps one forward pass over the probe set in evaluation mode, O(d²) a vector and layer, and
    O(d³) a layer. Memory: the probe set, and one batch's activations at a time.

    >>> import tempfile, torch
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    >>> x = torch.randn(256, 8)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> with tempfile.TemporaryDirectory() as folder, Monitor(net, x, every=10, path=folder) as monitor:
    ...     for step in range(20):
    ...         _ = monitor(step)
    ...         loss = net(x).square().mean()
    ...         optimizer.zero_grad()
    ...         loss.backward()
    ...         optimizer.step()
    >>> monitor.run.steps, monitor.run.looks[-1].value("1", "dead").value
    ((0, 10), 0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        every: int = 500,
        layers: Layers = None,
        quantities: Sequence[str] | None = None,
        alarms: bool | str | Rule | Iterable[str | Rule] = True,
        *,
        action: Action = "warn",
        path: str | PathLike[str] = "ketwork-run",
        labels: Any = None,
        held_out: Any = None,
        mask: Mask = None,
        tokenizer: Any = None,
        forward: Forward | None = None,
        views: int | None = None,
        max_samples: int = 1024,
        batch_size: int = 256,
        sinks: Iterable[Any] = (),
        seed: int = 0,
    ) -> None:
        for name, value in (("every", every), ("max_samples", max_samples), ("batch_size", batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"Argument `{name}` must be a whole number of at least 1, but is {value!r}.")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"Argument `seed` must be an integer, but is {seed!r}.")
        check_action(action)
        network = unwrapped(model)
        lazy = next((name for name, p in network.named_parameters() if is_lazy(p)), None)
        if lazy is not None:
            raise ValueError(
                f"Argument `model` must have its parameters, but {lazy!r} is made at the first forward pass. Run the "
                "network once before."
            )
        self.every, self.action = every, action
        self.path = Path(path)
        followed = chosen(quantities)
        self._watch = Watch(rules_of(alarms, {each.name for each in followed}))
        self._silent = _other_process()
        probe = ProbeSet.from_data(
            tokenized(data, tokenizer),
            labels,
            mask,
            max_samples=max_samples,
            batch_size=batch_size,
            seed=seed,
            dtype=dtype_of(network),
        )
        if views is not None and (views < 2 or probe.samples % views):
            raise ValueError(
                f"Argument `views` must be at least 2 and divide the {probe.samples} samples of the probe set, whose "
                f"views stand next to each other, but is {views}. Give `max_samples` as a multiple of it."
            )
        if views is not None and probe.taken is not None:
            raise ValueError(
                f"Argument `views` needs the views of a sample next to each other, but of the data {probe.taken} are "
                "taken. Give no more samples than `max_samples`."
            )
        unseen = None
        if held_out is not None:
            more = ProbeSet.held_out(
                tokenized(held_out, tokenizer), probe, labels, batch_size=batch_size, seed=seed
            )
            probes = tuple(QUANTITIES[name] for name in PROBES)
            unseen = ProbePass(network, more, layers, probes, forward, seed)
        self._pass = ProbePass(network, probe, layers, followed, forward, seed, views, unseen)
        self.settings = {
            "model": type(network).__name__,
            "every": every,
            "samples": probe.samples,
            "taken": probe.taken,
            "layers": "default" if layers is None else str(layers),
            "quantities": [each.name for each in self._pass.quantities],
            "alarms": [rule.name for rule in self._watch.rules],
            "views": views,
            "held_out": None if unseen is None else unseen.probe.samples,
            "seed": seed,
            "torch": str(torch.__version__),
        }
        self._lines: list[lines.Line] = []
        self._last: int | None = None
        self._earlier: tuple[Look, ...] = ()
        self._failed = self._closed = False
        self._written = not self._silent
        if not self._silent:
            self.path.mkdir(parents=True, exist_ok=True)
            self._resume()
            self._sinks = Guarded([sink_of(each, self.path) for each in sinks])

    def __call__(self, step: int) -> Look | None:
        """Looks if it is time to: at the first call, and whenever `every` steps have gone by; else returns None.

        `step` is how many steps of the optimizer are done. Costs nothing in between.

        Raises:
            TypeError, ValueError: `step` is no whole number from 0 on.
            StopTraining: an alarm was raised, and `action` is "stop".
        """
        if isinstance(step, bool) or not hasattr(step, "__index__") or (step := step.__index__()) < 0:
            raise ValueError(f"Argument `step` must be a whole number of at least 0, but is {step!r}.")
        if self._last is not None and step // self.every == self._last // self.every:
            return None
        return self.look(step)

    def look(self, step: int) -> Look | None:
        """Looks at this step, whether it is time or not; None where the look failed, or in another process.

        An error of the first look is raised, since the data or the network do not fit. A later one, as of a full
        memory, is warned of once, and the training goes on.
        """
        if self._silent or self._closed:
            return None
        first, self._last = self._last is None, step
        began = time.perf_counter()
        try:
            layers = self._first_layers() if first else self._layers()
        except Exception as error:
            if first:
                self._last = None
                raise
            if not self._failed:
                warn_failed("A look", error, f"step {step:,}", "Such looks are skipped")
            self._failed = True
            self._keep([lines.NoteLine(step, f"The look at step {step} failed ({type(error).__name__}).")])
            return None
        for earlier in self._earlier if first else ():
            if earlier.step < step:
                self._watch(earlier)
        look = Look(step, time.perf_counter() - began, tuple(layers))
        alarms = self._watch(look)
        look = Look(step, look.seconds, look.layers, alarms)
        notes = [lines.NoteLine(step, note) for note in self._pass.notes] if first else []
        self._keep([*lines.look_lines(look, self.skipped if first else None), *notes])
        self._sinks(look)
        act(self.action, alarms, level=3)
        return look

    @property
    def run(self) -> MonitorRun:
        """What was seen so far."""
        return MonitorRun.from_lines(self._lines)

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """The alarms so far."""
        return self.run.alarms

    @property
    def skipped(self) -> dict[str, str]:
        """The modules that have no row, each with the reason."""
        return dict(self._pass.skipped)

    def close(self) -> None:
        """Says in the file that the training has ended; there are no further looks. Sinks stay open: they are yours."""
        if not self._closed and not self._silent:
            self._keep([lines.EndLine(self._last or 0)])
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self.close()

    def __repr__(self) -> str:
        return (
            f"Monitor of {self.settings['model']}: every {self.every:,} steps on {self.settings['samples']:,} samples, "
            f"{len(self.run)} looks, {len(self.alarms)} alarms, {self.path}"
        )

    def _layers(self) -> list[Any]:
        with undisturbed(self._pass.network):
            return self._pass()

    def _first_layers(self) -> list[Any]:
        network = self._pass.network
        with changed_parameters(network) as changed:
            layers = self._layers()
        if changed:
            raise ValueError(
                f"Argument `model` must not change its parameters in a forward pass, but changed {changed[0]!r} (it is "
                "what it was again). Give `forward=` a call that does not."
            )
        if not layers:
            reasons = dict.fromkeys(self._pass.skipped.values())
            raise ValueError(
                "Argument `layers` must name a layer that can be read, but none was: "
                f"{'; '.join(reasons) or 'none ran'}."
            )
        if self._pass.held_out is not None and not any("linear_gap" in layer.values for layer in layers):
            raise ValueError(
                "Argument `held_out` needs labels in its batches and in those of `data`, and 'linear_gap' among "
                "`quantities`, but no layer has that gap. Give both as pairs (inputs, labels), or drop `held_out`."
            )
        return layers

    def _resume(self) -> None:
        """Takes over what the folder's run has, and begins to write."""
        file = self.path / lines.NAME
        if file.exists() and file.stat().st_size:
            self._lines = lines.read_lines(file)[0]
        self._earlier = MonitorRun.from_lines(self._lines).looks
        lines.append(file, [begin := lines.RunLine(lines.VERSION, self.settings)])
        self._lines.append(begin)

    def _keep(self, new: list[lines.Line]) -> None:
        self._lines += new
        if not self._written:
            return
        try:
            lines.append(self.path / lines.NAME, new)
        except OSError as error:
            self._written = False
            warn_failed(
                f"Writing {str(self.path / lines.NAME)!r}",
                error,
                "this look",
                "Nothing more is written there",
            )


def _other_process() -> bool:
    """Whether this is a process of a job that another one looks for."""
    dist = torch.distributed
    return dist.is_available() and dist.is_initialized() and dist.get_rank() != 0
