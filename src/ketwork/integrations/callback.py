"""What the callbacks of all libraries have in common: a monitor that is made when the training begins."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ketwork.networks.monitor import Monitor, MonitorWarning, StopTraining


class Watching:
    """Holds the arguments of a `Monitor` until there is a network, and looks when it is time to.

    `monitor` is None before the training begins.
    """

    def __init__(self, data: Any, every: int = 500, **options: Any) -> None:
        self.data, self.every, self.options = data, every, options
        self.monitor: Monitor | None = None

    def begin(self, model: nn.Module, folder: Path) -> None:
        """Makes the monitor, in a folder `ketwork-run` there unless `path=` says where."""
        self.monitor = Monitor(
            model, self.data, self.every, **{"path": folder / "ketwork-run", **self.options}
        )

    def look(self, step: int) -> bool:
        """Looks if it is time to; whether the training is to stop.

        Libraries end a training by a flag, so that what they do at its end is done: nothing is raised.
        """
        assert self.monitor is not None
        try:
            self.monitor(step)
        except StopTraining as stop:
            warnings.warn(f"The training is stopped. {stop}", MonitorWarning, stacklevel=3)
            return True
        return False

    def end(self) -> None:
        """Says that the training has ended."""
        if self.monitor is not None:
            self.monitor.close()
