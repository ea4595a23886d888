"""What compressing a network gave: the smaller network, and the record of what went and why."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
from torch import nn

from ketwork.networks.compression.candidates import LayerChange
from ketwork.networks.compression.costs import Costs
from ketwork.networks.compression.loader import KEY
from ketwork.records.files import replacing


@dataclass(frozen=True)
class LayerRow:
    """One module with parameters of its own, before and after. `reason` says why it was left alone."""

    path: str
    kind: str
    shape: str
    parameters_before: int
    parameters: int
    multiply_adds_before: float
    multiply_adds: float
    change: LayerChange
    reason: str = ""


@dataclass(frozen=True)
class Tried:
    """A candidate as measured: `kl` on held-back data, nats a prediction; `cost` in the unit of the budget."""

    name: str
    kl: float
    cost: float


@dataclass(frozen=True)
class Compressed:
    """A smaller network and the account of it.

    Attributes:
        model: plain torch.nn modules in the original's structure; the original is as it was.
        layers: a `LayerRow` for each module with parameters of its own.
        candidates: what was tried at this size, with the measured KL of each.
        chosen: the name of the best of them.
        before, after: parameters, multiply-adds a sample, measured seconds of one batch.
        kl: of the predictions from the original's, on held-back calibration data, nats a prediction. For outputs that
            are not logits ½ ‖f − f′‖².
        passes: forward passes over the calibration data that all of it took; a backward pass, here
            without gradients of weights, is one too.
        settings: the arguments, and what was chosen where they left it open.
        replaced: what is new in `model`, as its file describes it.
        warnings: what makes the fit or the measured KL less sure than they look.
    """

    model: nn.Module
    layers: tuple[LayerRow, ...]
    candidates: tuple[Tried, ...]
    chosen: str
    before: Costs
    after: Costs
    kl: float
    passes: float
    settings: dict[str, Any]
    replaced: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """One row a module: kind, shape, rank, units kept, costs before and after, what was discarded, why left.

        `discarded` is the share of the layer's own weight, `kl_share` of what all layers are estimated to cost, each
        by itself, and `kl_increase` that share of the measured KL.
        """
        whole = sum(row.change.kl_increase for row in self.layers)
        return pd.DataFrame(
            {
                "layer": row.path,
                "kind": row.kind,
                "shape": row.shape,
                "rank": row.change.rank,
                "units": row.change.units,
                "parameters_before": row.parameters_before,
                "parameters": row.parameters,
                "multiply_adds_before": row.multiply_adds_before,
                "multiply_adds": row.multiply_adds,
                "discarded": row.change.discarded,
                "kl_increase": self.kl * (share := row.change.kl_increase / whole if whole else 0.0),
                "kl_share": share,
                "reason": row.reason or row.change.note,
            }
            for row in self.layers
        ).astype({"rank": "Int64", "units": "Int64"})

    def save(self, path: str | Path) -> None:
        """Writes the weights (safetensors), with what modules are new in the file's metadata.

        `load_compressed(path, network)` puts them into a network of the original's architecture; its few lines
        (`ketwork/networks/compression/loader.py`) need torch and safetensors alone, and may be copied.
        """
        metadata = {KEY: json.dumps(self.replaced)}
        with replacing(path) as temporary:
            safetensors.torch.save_model(self.model, str(temporary), metadata=metadata)

    def __str__(self) -> str:
        before, after = self.before, self.after
        lines = [
            f"parameters     {before.parameters:>14,} -> {after.parameters:>14,}"
            f"  ({after.parameters / before.parameters:.1%})",
            f"multiply-adds  {before.multiply_adds:>14,.0f} -> {after.multiply_adds:>14,.0f}"
            f"  ({_share(after.multiply_adds, before.multiply_adds)}) a sample",
            f"ms a batch     {1e3 * before.latency:>14.3f} -> {1e3 * after.latency:>14.3f}"
            f"  ({_share(after.latency, before.latency)}), {self.settings['timed_batch']} samples",
            f"KL             {self.kl:.3g} nats a prediction, on {self.settings['held_back']} samples held back",
            f"chosen         {self.chosen}, of "
            + ", ".join(f"{tried.name} {tried.kl:.3g}" for tried in self.candidates),
            f"passes         {self.passes:.1f} over {self.settings['samples']} samples",
            *(f"! {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        share = self.after.parameters / self.before.parameters
        return f"Compressed({share:.1%} of {self.before.parameters:,} parameters, KL {self.kl:.3g} nats)"


def described(original: nn.Module, small: nn.Module) -> dict[str, Any]:
    """What `load_compressed` needs: for each path where `small` has a new module its parts, as class and arguments.

    A path that holds a module already described has the first one's path instead.

    Raises:
        TypeError: a new module is none that a file can describe.
    """
    old = dict(original.named_modules(remove_duplicate=False))
    new: dict[str, Any] = {}
    known: dict[nn.Module, str] = {}
    for path, module in small.named_modules(remove_duplicate=False):
        if path.rpartition(".")[0] in new:
            continue
        whole = isinstance(module, nn.Sequential) and not isinstance(old.get(path), nn.Sequential)
        parts = list(module.children()) if whole else [module]
        if whole or (not list(module.children()) and _description(module) != _description(old[path])):
            new[path] = known.get(module) or [_description(part) for part in parts]
            known.setdefault(module, path)
    for parts in new.values():
        unknown = [part for part in parts if isinstance(part, str)] if isinstance(parts, list) else []
        if unknown:
            raise TypeError(
                f"The new modules must be plain layers for a file to describe them, but one is {unknown[0]}."
            )
    return new


_ARGUMENTS: dict[type, tuple[str, ...]] = {
    nn.Linear: ("in_features", "out_features"),
    nn.Identity: (),
    **dict.fromkeys(
        (nn.Conv1d, nn.Conv2d),
        (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "padding_mode",
        ),
    ),
}


def _description(module: nn.Module) -> list[Any] | str:
    """The class of torch.nn and its arguments, or the class alone of what a file cannot describe."""
    kind = type(module)
    if kind not in _ARGUMENTS:
        return kind.__name__
    arguments = {name: getattr(module, name) for name in _ARGUMENTS[kind]}
    if kind is not nn.Identity:
        arguments["bias"] = module.bias is not None
    return [kind.__name__, arguments]


def _share(after: float, before: float) -> str:
    return f"{after / before:.1%}" if before else "–"
