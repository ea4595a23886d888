"""Logs of a run as it goes, called after each step (`on_step=JsonLines(path)`): lines of JSON, or TensorBoard."""

import json
import math
from pathlib import Path
from typing import Any

from ketwork.waves.results import Step


class JsonLines:
    """Appends one line of JSON a step to a file, at once: `step, energy, stderr, variance, tau, rhat, …`.

    A number that is not finite is null. A run that is resumed goes on in the same file.

    >>> import tempfile
    >>> from ketwork.waves import RBM, Wave, chain, ground_state, ising
    >>> H = ising(chain(4), field=1.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = JsonLines(Path(folder, "run.jsonl"))
    ...     run = ground_state(H, Wave(RBM(), H.space), steps=2, n_samples=None, on_step=log)
    ...     lines = log.path.read_text().splitlines()
    >>> len(lines), json.loads(lines[1])["step"], json.loads(lines[1])["energy"] == run.history[1].energy
    (2, 1, True)
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, step: Step) -> None:
        """Writes the step."""
        numbers = {name: value if math.isfinite(value) else None for name, value in numbers_of(step).items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step.index, **numbers}) + "\n")


class TensorBoard:
    """Writes the energy, its error, variance, R̂, acceptance and turn of each step for TensorBoard.

    `writer` is a folder, or any object with `add_scalar(tag, value, step)`.
    """

    def __init__(self, writer: str | Path | Any) -> None:
        if isinstance(writer, str | Path):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    "TensorBoard logs need it. Install it with `pip install tensorboard`."
                ) from error
            writer = SummaryWriter(str(writer))
        self.writer = writer

    def __call__(self, step: Step) -> None:
        """Writes the step."""
        for name, value in numbers_of(step).items():
            if math.isfinite(value):
                self.writer.add_scalar(f"waves/{name}", value, step.index)


def numbers_of(step: Step) -> dict[str, float]:
    """What is logged of a step, by name."""
    energy = step.energy
    return {
        "energy": float(energy),
        "stderr": energy.stderr,
        "variance": energy.variance,
        "tau": energy.tau,
        "rhat": energy.rhat,
        "vscore": energy.vscore,
        "acceptance": step.acceptance,
        "turn": step.turn,
        "seconds": step.seconds,
    }
