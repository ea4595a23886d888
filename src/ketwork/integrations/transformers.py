"""`MonitorCallback` for the `Trainer` of Hugging Face's transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise ImportError(
        "`ketwork.integrations.transformers` needs transformers. Install it with `pip install 'ketwork[hf]'`."
    ) from error

from ketwork.integrations.callback import Watching
from ketwork.networks.monitor import Monitor


class MonitorCallback(TrainerCallback):
    """Watches a training: `Trainer(…, callbacks=[MonitorCallback(probe, every=500)])`.

    The first look is before the first step, the others after every `every` steps of the optimizer. Other arguments are
    those of `kw.Monitor`; the folder of the run is `ketwork-run` in `output_dir`. With `action="stop"` an alarm sets
    `control.should_training_stop`. `monitor` is the `Monitor`, from the begin of the training on.
    """

    def __init__(self, data: Any, every: int = 500, **options: Any) -> None:
        self._watching = Watching(data, every, **options)

    @property
    def monitor(self) -> Monitor | None:
        """The monitor; None before the training begins."""
        return self._watching.monitor

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Looks for the first time."""
        self._watching.begin(model, Path(args.output_dir))
        return self._look(state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Looks if it is time to."""
        return self._look(state, control)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The training has ended."""
        self._watching.end()

    def _look(self, state: Any, control: Any) -> Any:
        if self._watching.look(state.global_step):
            control.should_training_stop = True
        return control
