"""`MonitorCallback` for Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    try:
        from pytorch_lightning import Callback
    except ModuleNotFoundError as error:
        raise ImportError(
            "`ketwork.integrations.lightning` needs Lightning. Install it with `pip install lightning`."
        ) from error

from ketwork.integrations.callback import Watching
from ketwork.networks.monitor import Monitor


class MonitorCallback(Callback):
    """Watches the training of a `LightningModule`: `Trainer(callbacks=[MonitorCallback(probe, every=500)])`.

    The first look is before the first step, the others after every `every` steps of the optimizer. `module` names the
    part of the `LightningModule` that is looked at and that the probe set is given to, as "encoder"; "" is itself.
    Other arguments are those of `kw.Monitor`; the folder of the run is `ketwork-run` in `default_root_dir`. With
    `action="stop"` an alarm sets `trainer.should_stop`. `monitor` is the `Monitor`, from the begin of the training on.
    """

    def __init__(self, data: Any, every: int = 500, *, module: str = "", **options: Any) -> None:
        super().__init__()
        self._watching = Watching(data, every, **options)
        self.module = module

    @property
    def monitor(self) -> Monitor | None:
        """The monitor; None before the training begins."""
        return self._watching.monitor

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Looks for the first time."""
        self._watching.begin(pl_module.get_submodule(self.module), Path(trainer.default_root_dir))
        self._look(trainer)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        """Looks if it is time to."""
        self._look(trainer)

    def on_train_end(self, *_: Any) -> None:
        """The training has ended."""
        self._watching.end()

    def _look(self, trainer: Any) -> None:
        if self._watching.look(trainer.global_step):
            trainer.should_stop = True
