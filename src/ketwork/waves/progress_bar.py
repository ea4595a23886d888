"""A bar of a run's steps, in terminals and notebooks (tqdm)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ketwork.waves.results import Step


@contextmanager
def bar(steps: int) -> Iterator[Callable[[Step], None]]:
    """What to call after each step, while the block runs."""
    # Here, not above: in notebooks without widgets tqdm warns when it is imported.
    from tqdm.auto import tqdm

    with tqdm(total=steps, unit="step") as line:

        def advance(step: Step) -> None:
            line.set_postfix_str(f"E = {step.energy}", refresh=False)
            line.update(step.index + 1 - line.n)

        yield advance
