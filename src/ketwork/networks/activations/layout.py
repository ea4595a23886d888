"""`Layout`: which axis of an output counts the samples and which holds the features, and how that was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ketwork.networks.activations.encoding import features_last

Order = Literal["one", "sample by sample", "position by position", "nested"]
"""How rows lie on the axis of the samples.

One a sample; each sample's rows together (windows); each position's rows together; or so within a number of parts.
"""

By = Literal["experiment", "size", "format", "given", "rules"]


@dataclass(frozen=True)
class Layout:
    """The axes of one layer's output.

    `samples` and `features` are axes, counted from the front, of an output with `ndim` of them (0 in records of version
    0.1, which do not say); `features` is None where a sample has a single number at each position. `order` says how
    rows lie on the axis of the samples, `outer` the parts of a nested one. `samples_by` says how that axis was found:
    by `"experiment"` (the rows follow theirs), by `"size"` alone (its length follows their number; the rows are all
    alike), by the `"format"` (packed and nested tensors), `"given"`, or by declared `"rules"`. `features_by` says what
    settled the axis of the features.
    """

    samples: int = 0
    features: int | None = -1
    ndim: int = 2
    order: Order = "one"
    outer: int = 1
    samples_by: By = "rules"
    features_by: str = ""

    def split(self, tensor: Tensor, n: int) -> tuple[int, int, int] | str:
        """How many rows stand before, at and after the samples on their axis; or why n samples do not fit."""
        shape = tuple(tensor.shape)
        if len(shape) != self.ndim:
            return f"its output {shape} has another number of axes than the {self.ndim} of before"
        rows, rest = divmod(shape[self.samples], n)
        if rest or not rows:
            return f"its output {shape} does not have the batch's {n} samples on axis {self.samples}"
        if self.order == "one":
            if rows == 1:
                return 1, n, 1
            return f"its output {shape} has {rows} rows for each of the {n} samples, where it had one"
        if self.order == "sample by sample":
            return 1, n, rows
        if self.order == "position by position":
            return rows, n, 1
        if rows % self.outer:
            return f"its output {shape} does not have {self.outer} parts on axis {self.samples}"
        return self.outer, n, rows // self.outer

    def grid(self, tensor: Tensor, n: int) -> Grid | str:
        """The output as samples × positions × features, or a sentence that says why it has no such form."""
        split = self.split(tensor, n)
        if isinstance(split, str):
            return split
        if self.features is None:
            values, axis = features_last(tensor[..., None], -1), self.samples
        else:
            values = features_last(tensor, self.features)
            axis = self.samples - (self.samples > self.features)
        values = values.unflatten(axis, split).movedim(axis + 1, 0)
        values = values.reshape(n, -1, values.shape[-1])
        positions = self.ndim > (1 if self.features is None else 2) or split != (1, n, 1)
        return Grid(values, self, positions)

    @property
    def words(self) -> str:
        """Both axes and how they were found, in words."""
        features = (
            (self.features_by or "one number a sample")
            if self.features is None
            else f"features on axis {self.features}"
        )
        by = f" ({self.features_by})" if self.features_by and self.features is not None else ""
        order = "" if self.order == "one" else f", {self.order}"
        return f"samples on axis {self.samples}{order} (by {self.samples_by}), {features}{by}"


@dataclass(frozen=True)
class Grid:
    """One call's activation as samples × positions × features.

    `values` is (N, T, d); T is 1 and `positions` False where a sample has a single vector.
    """

    values: Tensor
    layout: Layout
    positions: bool

    def restored(self, values: Tensor, output: Tensor) -> Tensor:
        """Other values (N, T, d) in the shape, dtype and strides of the output that the grid was made from."""
        layout, n = self.layout, len(self.values)
        split = layout.split(output, n)
        assert not isinstance(split, str)
        rows = output[..., None] if layout.features is None else output.movedim(layout.features, -1)
        axis = layout.samples
        if layout.features is not None:
            axis -= layout.samples > layout.features
        shape = rows.unflatten(axis, split).movedim(axis + 1, 0).shape
        rows = values.reshape(shape).movedim(0, axis + 1).flatten(axis, axis + 2)
        rows = rows[..., 0] if layout.features is None else rows.movedim(-1, layout.features)
        return torch.empty_like(output).copy_(rows)  # what follows may take a `view` of it
