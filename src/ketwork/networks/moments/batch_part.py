"""`BatchPart`: what a hook makes of one layer's activation, at once and without waiting for the layer's device.

Which samples are kept is decided on the host, by their keys; what depends on the activations themselves (how many
vectors are zero, or not finite; every sum) stays on the device. `unread` names it, `read_numbers` brings it over with
that of all other layers when the network has run, and `finished` is the layer's accumulator then.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ketwork.networks.activations import Activation, unit
from ketwork.networks.moments.accumulator import Keep, LayerAccumulator
from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.batch_labels import Labelled
from ketwork.networks.moments.device_numbers import Place, numbers_of, read_numbers
from ketwork.networks.moments.entanglements import Entanglements
from ketwork.networks.moments.entropy_solver import EntropySolver
from ketwork.networks.moments.labelled_moments import LabelledMoments
from ketwork.networks.moments.moment import Moment
from ketwork.networks.moments.positions import Positions
from ketwork.networks.moments.reservoir import HEAVIEST, Reservoir
from ketwork.networks.moments.sample_weights import SampleWeights
from ketwork.networks.moments.sums import Vectors


class NonFiniteActivationError(ValueError):
    """A layer put out NaN or infinite values; `samples` are their indices in the batch, `masked` where all are −∞."""

    def __init__(self, samples: list[int], masked: bool) -> None:
        super().__init__(samples)
        self.samples, self.masked = samples, masked


@dataclass(eq=False)
class BatchPart:
    """One batch of one layer, reduced; `bad` counts vectors that are not finite, `masked` says that all are −∞ there.

    `odd` (n,) are these vectors, `owners` (n,) their samples, `usable` (m,) the rows with labels that can be used and
    `unusable` how many cannot. A sample lighter than `lightest` does not stay for its weight. Until they are read, the
    numbers are tensors.
    """

    accumulator: LayerAccumulator
    bad: int | Tensor
    masked: bool | Tensor
    odd: Tensor
    owners: Tensor
    by_square: bool
    usable: Tensor | None = None
    unusable: int | Tensor = 0
    lightest: float = 0.0

    @classmethod
    def from_activation(
        cls,
        activation: Activation,
        positions: Positions,
        keys: BatchKeys,
        keep: Keep,
        solver: EntropySolver,
        labels: Labelled | None = None,
        before: LayerAccumulator | None = None,
    ) -> BatchPart:
        """That of an activation: the positions that exist, the samples' keys (N,).

        Of `before`, the accumulator that it will be added to, only samples that would stay are kept. Entropies are
        there once the `solver` has run. The accumulator's `labelled` is None where the layer does not have the
        positions that labels are of. With `keep.skip_bad` the bad samples must be known at once, and are waited for.
        """
        values, info = activation.values, activation.info
        rows = positions.rows(values)
        kets, norms = unit(rows)
        odd, labelled = ~norms.isfinite(), None
        if labels is not None:
            labelled = LabelledMoments.from_batch(values, rows, positions, keys, labels, keep.limits)
        if keep.skip_bad and bool(odd.any()):
            samples = positions.owners[odd].unique()
            good = torch.ones(len(values), dtype=torch.bool, device=values.device)
            good[samples] = False
            present = None if positions.present is None else positions.present[good]
            finite = replace(activation, values=values[good])
            left = BatchKeys(keys.values[good.to(keys.values.device)])
            part = cls.from_activation(
                finite, Positions.of(finite.values, present), left, keep, solver, None, before
            )
            part.accumulator.dropped = len(samples)
            part._take(labelled)
            return part
        vectors = Vectors(rows, positions.owners, norms, positions)
        sums = {name: kind.from_vectors(vectors) for name, kind in keep.sums.items()}
        by_square = keep.normalize == "ensemble"
        lengths = positions.grid(norms)
        centred = (rows if by_square else kets) if keep.center else None
        nonzero = Positions.of(values, lengths > 0)
        weights = lengths.double().square().sum(dim=1) if by_square else None
        worst = math.inf if before is None else before.reservoir.worst
        lightest = 0.0 if before is None else before.lightest
        heaviest = entanglements = None
        if weights is not None:
            most = min(HEAVIEST, max(keep.samples // 4, 1))
            heaviest = Reservoir.from_batch(values, nonzero, keys, most, weights, heaviest=True)
        if info.positions:
            cut = None if before is None or before.entanglements is None else before.entanglements.cut
            entanglements = Entanglements.from_batch(values, positions, keys, solver, cut, nonzero.counts)
        accumulator = LayerAccumulator(
            info,
            len(values),
            (norms == 0).sum(),  # type: ignore[arg-type]
            0,
            norms.sum(dtype=torch.float64),  # type: ignore[arg-type]
            Moment.from_batch(
                kets,
                norms.square() if by_square else None,
                keep.rank,
                activation.span,
                None if before is None else before.moment,
            ),
            Reservoir.from_batch(values, nonzero, keys, keep.samples, weights, below=worst),
            None,
            sums,
            SampleWeights.from_batch(lengths, positions, by_square, centred),
            entanglements,
            heaviest,
        )
        masked = torch.zeros((), dtype=torch.bool, device=values.device)
        if not rows.is_complex():  # finite numbers and −∞ sum to −∞, others to NaN or ∞
            masked = (~odd | (rows.sum(dim=1) == -torch.inf)).all()
        part = cls(accumulator, odd.sum(), masked, odd, positions.owners, by_square, lightest=lightest)
        part._take(labelled)
        return part

    def unread(self) -> list[Place]:
        """What is on the device still, and must be known before the batch can be added."""
        row = self.accumulator
        records = [self, row, row.sample_weights, *row.sums.values()]
        places = numbers_of([record for record in records if record is not None]) + row.moment.unread()
        if row.entanglements is not None:
            places.append((row.entanglements, "positions"))
        if row.heaviest is not None:
            places.append((row.heaviest, "keys"))
        return places

    def finished(self) -> LayerAccumulator:
        """The accumulator of the batch, once all was read.

        Raises:
            NonFiniteActivationError: NaN or infinite values, unless they were to be skipped.
        """
        if self.bad:
            raise NonFiniteActivationError(self.owners[self.odd].unique().tolist(), bool(self.masked))
        row = self.accumulator
        row.moment.settle(row.zeros, alike=not self.by_square)
        if row.entanglements is not None:
            row.entanglements.settle()
        if row.heaviest is not None:
            row.heaviest.settle(below=-self.lightest)
        if row.labelled is not None and self.unusable and self.usable is not None:
            row.labelled.drop(self.usable)
        return row

    def _take(self, labelled: tuple[LabelledMoments, Tensor] | None) -> None:
        if labelled is not None:
            self.accumulator.labelled, self.usable = labelled
            self.unusable = (~self.usable).sum()


def read_parts(parts: Collection[BatchPart], solver: EntropySolver) -> None:
    """Brings over what the hooks left on devices, once the network has run: the one time that these are waited for.

    A GPU is also waited for where samples were kept whose entropies need its eigenvalues.
    """
    solver.run()
    read_numbers(place for part in parts for place in part.unread())
