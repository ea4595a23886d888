"""`Tabulated`: the tables of a study's layers."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pandas as pd

from ketwork.networks.measures import Measure
from ketwork.networks.study import tables
from ketwork.networks.study.expert_load import expert_table, load_table
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.sinks import sink_table


class Tabulated(ABC):
    """What has layers and measures, as pandas frames."""

    layers: tuple[Layer, ...]

    @property
    @abstractmethod
    def measures(self) -> tuple[Measure, ...]:
        """The measures of the layers."""

    def table(self) -> pd.DataFrame:
        """One row a layer and call, in order of execution; `definitions` says what the columns mean.

        `table().loc["layer"]` is a layer's row; `table().attrs["units"]` has the units. Where layers are sketched there
        are `sketch` and `sketch_error`, and for each number that this touches `…_low` and `…_high`; of exact layers
        these are missing (NaN).
        """
        return tables.table(self.layers, self.measures)

    def long(self) -> pd.DataFrame:
        """One row a layer, call and measure: value, standard error, bounds, plain value, unit, N and d.

        `value` is corrected for finite data where that is known how, `plain` is the number of the data at hand."""
        return tables.long(self.layers, self.measures)

    def experts(self) -> pd.DataFrame:
        """One row an expert, where `layers="experts"` was studied: its vectors, their share, whether they are few."""
        return expert_table(self.layers)

    def loads(self) -> pd.DataFrame:
        """One row a mixture of experts: the entropy of their shares of the vectors (in bits), and unused experts.

        `load_entropy` is log₂ of the number of experts where all are given as many, 0 where one is given all;
        `effective_experts` is 2 to that power. Standard errors are over samples.
        """
        return load_table(self.layers)

    def sinks(self) -> pd.DataFrame:
        """One row for each layer that has sinks (positions) or massive dimensions (neurons), and what they hold.

        Sinks are positions whose ‖a‖² is more than 100 times the median over their sample: `sinks` of them,
        `per_sample`, their `places` in samples with how many are there, the `share` of ρ that they hold (that is
        `vectors` or `weight`, by `normalize`). `dimensions` are the up to eight largest neurons whose share of ρ is
        more than 100 times the median, `dimensions_share` what all such hold.
        """
        return sink_table(self.layers)
