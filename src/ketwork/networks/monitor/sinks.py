"""Where a monitor's numbers go beside its file: a Parquet file, TensorBoard, Weights & Biases, MLflow, any function.

A sink is given as the object itself (a `SummaryWriter`, a `wandb` run, a function that gets each `Look`) or by name.
One that fails is dropped with one warning: the training goes on.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ketwork.networks.monitor.alarms import MonitorWarning
from ketwork.networks.monitor.look import Look
from ketwork.networks.monitor.result import MonitorRun
from ketwork.records import replacing

Sink = Callable[[Look], object]

NAMES = ("parquet", "tensorboard", "wandb", "mlflow")

_PACKAGES = {"parquet": "pyarrow"}


def scalars(look: Look) -> Iterator[tuple[str, float]]:
    """Each quantity of each layer as `ketwork/quantity/layer`, the finite ones.

    Names keep to what all sinks take: letters, digits, dots, underscores, dashes and slashes.
    """
    for layer in look.layers:
        for name, value in layer.values.items():
            if math.isfinite(value):
                yield f"ketwork/{name}/{_plain(layer.label)}", value.value
    yield "ketwork/alarms", float(len(look.alarms))


class TensorBoard:
    """Writes scalars to a `SummaryWriter`, and alarms as text."""

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def __call__(self, look: Look) -> None:
        """Writes a look."""
        for name, value in scalars(look):
            self.writer.add_scalar(name, value, look.step)
        for alarm in look.alarms:
            self.writer.add_text(f"ketwork/{alarm.kind}", str(alarm), look.step)
        self.writer.flush()


class Wandb:
    """Logs scalars to a run of Weights & Biases, over an axis `ketwork/step` of their own, and alarms as its alerts."""

    def __init__(self, run: Any) -> None:
        self.run = run
        self._waiting: int | None = None
        run.define_metric("ketwork/step")
        run.define_metric("ketwork/*", step_metric="ketwork/step")

    def __call__(self, look: Look) -> None:
        """Logs a look."""
        if self._waiting == self.run.step:  # nobody logged since: what waits there would be overwritten
            self.run.log({}, commit=True)
        # Without commit the numbers wait for the training's own next log, whose steps stay as they are.
        self.run.log({"ketwork/step": look.step, **dict(scalars(look))}, commit=False)
        self._waiting = self.run.step
        for alarm in look.alarms:
            self.run.alert(title=alarm.title, text=str(alarm))


class Mlflow:
    """Logs scalars as metrics of the active MLflow run, and alarms as its tags."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def __call__(self, look: Look) -> None:
        """Logs a look."""
        self.module.log_metrics(dict(scalars(look)), step=look.step)
        for alarm in look.alarms:
            self.module.set_tag(f"ketwork.{alarm.kind}.{alarm.step}", str(alarm)[:5000])


class Parquet:
    """Keeps a run's numbers, one row a step, layer, call and quantity, in `monitor.parquet` beside its file.

    The file is replaced in one step after each look, so that it can be read while the training goes on.
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow  # noqa: F401  that it is missing shows before the training begins

        self.folder = folder

    def __call__(self, look: Look) -> None:
        """Writes all looks so far."""
        with replacing(self.folder / "monitor.parquet") as temporary:
            MonitorRun.load(self.folder).long().to_parquet(temporary, index=False)


class Guarded:
    """Sinks of which one that fails is dropped, with a warning that says so."""

    def __init__(self, sinks: list[tuple[str, Sink]]) -> None:
        self._sinks = sinks

    def __call__(self, look: Look) -> None:
        """Hands a look to each sink that has not failed."""
        for name, sink in list(self._sinks):
            try:
                sink(look)
            except Exception as error:  # noqa: BLE001 - whatever a sink raises, the training goes on
                self._sinks.remove((name, sink))
                warn_failed(f"The sink {name}", error, f"step {look.step:,}", "It gets nothing more")


def warn_failed(what: str, error: BaseException, where: str, consequence: str) -> None:
    """The one warning that something of the monitor failed."""
    warnings.warn(
        f"{what} failed at {where} ({type(error).__name__}: {error}). {consequence}; the training goes on.",
        MonitorWarning,
        stacklevel=2,
    )


def sink_of(given: Any, folder: Path) -> tuple[str, Sink]:
    """The sink that an entry of an argument `sinks` names, with its name.

    Raises:
        ImportError: it is named, but not installed.
        TypeError, ValueError: it is none.
    """
    if isinstance(given, str):
        if given not in NAMES:
            raise ValueError(
                f"Argument `sinks` must hold {', '.join(map(repr, NAMES))}, or objects that get the numbers, but has "
                f"{given!r}."
            )
        return given, _named(given, folder)
    if hasattr(given, "add_scalar") and hasattr(given, "flush"):
        return "TensorBoard", TensorBoard(given)
    if hasattr(given, "define_metric") and hasattr(given, "log"):
        return "wandb", Wandb(given)
    if hasattr(given, "log_metrics") and hasattr(given, "set_tag"):
        return "mlflow", Mlflow(given)
    if callable(given):
        return getattr(given, "__name__", type(given).__name__), given
    raise TypeError(
        f"Argument `sinks` must hold names, a SummaryWriter, a wandb run, the module mlflow, or functions that get a "
        f"`Look`, but has a {type(given).__name__}."
    )


def _named(name: str, folder: Path) -> Sink:
    try:
        if name == "parquet":
            return Parquet(folder)
        if name == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter

            return TensorBoard(SummaryWriter(str(folder / "tensorboard")))
        if name == "wandb":
            import wandb

            if wandb.run is None:
                raise ValueError(
                    "Argument `sinks` has 'wandb', but there is no run of it. Call `wandb.init()` before."
                )
            return Wandb(wandb.run)
        import mlflow

        return Mlflow(mlflow)
    except ImportError as error:
        raise ImportError(
            f"Argument `sinks` has {name!r}, which is not installed. Install it with "
            f"`pip install {_PACKAGES.get(name, name)}`."
        ) from error


def _plain(label: str) -> str:
    return "".join(c if c.isalnum() or c in "._-/" else "_" for c in label.strip("()")) or "model"
