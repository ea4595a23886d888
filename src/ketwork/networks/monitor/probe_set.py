"""`ProbeSet`: the fixed samples on which a network is looked at again and again while it trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ketwork.networks.activations import Batch, Mask, batches, drawn
from ketwork.networks.monitor.protection import same_order
from ketwork.quantum import Seed


@dataclass(frozen=True)
class ProbeSet:
    """Batches as the data gave them once, kept where they came, with their labels and mask.

    `labels` is what `Labels` takes; `taken` says in words which samples they are where the data had more.
    """

    contents: tuple[Any, ...]
    labels: Any
    mask: Mask
    samples: int
    taken: str | None
    dtype: torch.dtype

    @classmethod
    def from_data(
        cls,
        data: Any,
        labels: Any,
        mask: Mask,
        *,
        max_samples: int,
        batch_size: int,
        seed: Seed,
        dtype: torch.dtype,
    ) -> ProbeSet:
        """Reads the data once, and no more than it takes.

        Random numbers that this draws, and a loader's generator, are afterwards where they were.

        Raises:
            TypeError, ValueError: data that hold no sample, or are nothing that batches can be made of.
        """
        with same_order(data):
            data, labels, mask, _, taken = drawn(data, labels, mask, max_samples, seed)
            read = list(batches(data, batch_size=batch_size, max_samples=max_samples, mask=mask, dtype=dtype))
        if labels is None and any(
            isinstance(batch.labels, Tensor) and batch.labels.ndim > 1 for batch in read
        ):
            labels = (
                False  # the targets of each position, as a language model's, are decoded on request alone
            )
        samples = sum(batch.size for batch in read)
        return cls(tuple(batch.content for batch in read), labels, mask, samples, taken, dtype)

    @classmethod
    def held_out(cls, data: Any, probe: ProbeSet, labels: Any, *, batch_size: int, seed: Seed) -> ProbeSet:
        """As many samples of other data as a probe set has, with the labels of their batches.

        Raises:
            TypeError, ValueError: as `from_data`; there are fewer, of which a linear probe would read less.
        """
        unseen = cls.from_data(
            data,
            labels if isinstance(labels, str) else None,
            None,
            max_samples=probe.samples,
            batch_size=batch_size,
            seed=seed,
            dtype=probe.dtype,
        )
        if unseen.samples < probe.samples:
            raise ValueError(
                f"Argument `held_out` must have as many samples as the probe set, {probe.samples}, since a linear "
                f"probe that is fitted to fewer reads less, but has {unseen.samples}. Give more, or "
                f"`max_samples={unseen.samples}`."
            )
        return unseen

    def batches(self, device: torch.device, feed_labels: bool) -> Iterator[Batch]:
        """The batches on a device."""
        return batches(
            list(self.contents),
            batch_size=1,
            mask=self.mask,
            dtype=self.dtype,
            device=device,
            feed_labels=feed_labels,
        )
