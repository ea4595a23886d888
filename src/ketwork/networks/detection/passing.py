"""One streaming pass of a network over data, whose layers are scored as they run."""

from __future__ import annotations

import contextlib
from typing import Any

from torch import nn

from ketwork.networks.activations import (
    Batch,
    Forward,
    Mask,
    Reading,
    SelectorError,
    batches,
    capture,
    dtype_of,
    needs_labels,
    placed,
    unwrapped,
)
from ketwork.networks.detection.scoring import Scoring
from ketwork.networks.runtime import Ending, Progress, show_progress, stream


def score_data(
    scoring: Scoring,
    model: nn.Module,
    data: Any,
    *,
    calls: str,
    mask: Mask = None,
    forward: Forward | None = None,
    max_samples: int | None = None,
    batch_size: int = 64,
    reading: Reading = Reading(),  # noqa: B008  frozen
    progress: Progress = False,
) -> Ending:
    """Scores every batch; how it ended. What was scored before an error stays in `scoring`.

    Raises:
        TypeError, ValueError: an argument is not what it must be, or the network is not the one that was studied.
    """
    if batch_size < 1:
        raise ValueError(f"Argument `batch_size` must be at least 1, but is {batch_size}.")
    if max_samples is not None and max_samples < 1:
        raise ValueError(f"Argument `max_samples` must be at least 1, but is {max_samples}.")
    network = unwrapped(model)
    with contextlib.ExitStack() as stack:
        try:
            live = stack.enter_context(
                capture(
                    network,
                    scoring.paths,
                    receive=scoring.receive,
                    calls=calls,
                    feature_axis=reading.feature_axis,
                    axes=reading.layers,
                )
            )
        except SelectorError as error:
            raise ValueError(
                f"Argument `model` must be of the architecture that was studied, but is {type(network).__name__} and "
                f"lacks a layer of it. {error} Make a detector from a study of this network."
            ) from error
        target = stack.enter_context(placed(network, reading.device))
        place = [0]

        def take(batch: Batch) -> int:
            scoring.begin()
            live.forward(lambda net: batch.run(net, forward), batch.size, batch.trial(forward), batch.masks)
            if missing := scoring.missing():
                reason = live.reasons().get(missing[0], "it did not run in the forward pass")
                raise ValueError(
                    f"Argument `model` must run the layers that were studied, but {missing[0]!r} gave no vectors: "
                    f"{reason}. Make a detector from a study of this network, called in this way."
                )
            rows = scoring.row()
            if scoring.bad and not reading.skip_bad:
                label, samples = next(iter(scoring.bad.items()))
                places = ", ".join(str(place[0] + i) for i in samples[:5])
                raise ValueError(
                    f"Layer {label!r} put out NaN or infinite values for sample {places} (counted from 0). Fix the "
                    "data or the network there, or leave such samples without a score by "
                    "`reading=kw.Reading(skip_bad=True)` (--skip-bad)."
                )
            scoring.keep(*rows)
            place[0] += batch.size
            return place[0]

        source = batches(
            data,
            batch_size=batch_size,
            max_samples=max_samples,
            mask=mask,
            dtype=dtype_of(network),
            device=target,
            feed_labels=needs_labels(network),
        )
        bar = stack.enter_context(show_progress(progress, max_samples))
        return stream(source, take, progress=bar)
