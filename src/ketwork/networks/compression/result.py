"""What compressing a network gave: the smaller network, and the record of what went and why."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
import torch
from torch import Tensor, nn

from ketwork.networks.compression.candidates import DEAD, LayerChange
from ketwork.networks.compression.costs import EIGHT_BITS, Costs
from ketwork.networks.compression.description import tied, unique
from ketwork.networks.compression.forms import Form
from ketwork.networks.compression.loader import KEY, SCALE, digest, load_compressed
from ketwork.networks.compression.onnx_export import export_onnx
from ketwork.networks.compression.reductions import scales_of
from ketwork.networks.compression.torchao_export import in_torchao
from ketwork.records import Presented, replacing


@dataclass(frozen=True)
class LayerRow:
    """One module with parameters of its own, before and after. `reason` says why it is unchanged, `form` what
    became of its matrix."""

    path: str
    kind: str
    shape: str
    parameters_before: int
    parameters: int
    multiply_adds_before: float
    multiply_adds: float
    change: LayerChange
    reason: str = ""
    form: str = ""


@dataclass(frozen=True)
class Tried:
    """A candidate as measured: `kl` on held-back data, nats a prediction; `cost` in the unit of the budget."""

    name: str
    kl: float
    cost: float


@dataclass(frozen=True)
class Compressed(Presented):
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
        kl_stderr: the standard error of `kl` over the samples held back.
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
    kl_stderr: float = 0.0

    @property
    def dead(self) -> dict[str, str]:
        """What became of each layer on which the predictions did not depend, by path."""
        notes = {row.path: row.change.note for row in self.layers}
        return {
            path: note.removeprefix(DEAD).split(";")[0]
            for path, note in notes.items()
            if note.startswith(DEAD)
        }

    def table(self) -> pd.DataFrame:
        """One row a module: kind, shape, rank, units kept, costs before and after, what was discarded, why left.

        `discarded` is the share of the layer's own weight, `kl_share` of what all layers are estimated to cost, each
        by itself, and `kl_increase` that share of the measured KL.
        """
        total = sum(row.change.kl_increase for row in self.layers)
        return pd.DataFrame(
            {
                "layer": row.path,
                "kind": row.kind,
                "shape": row.shape,
                "rank": row.change.rank,
                "form": row.form,
                "bits": row.change.form.bits or None,
                "units": row.change.units,
                "parameters_before": row.parameters_before,
                "parameters": row.parameters,
                "multiply_adds_before": row.multiply_adds_before,
                "multiply_adds": row.multiply_adds,
                "discarded": row.change.discarded,
                "kl_increase": self.kl * (share := row.change.kl_increase / total if total else 0.0),
                "kl_share": share,
                "reason": row.reason or row.change.note,
            }
            for row in self.layers
        ).astype({"rank": "Int64", "units": "Int64", "bits": "Int64"})

    def save(self, path: str | Path) -> None:
        """Writes the weights (safetensors), with what modules are new in the file's metadata.

        `load_compressed(path, network)` puts them into a network of the original's architecture; its few lines
        (`ketwork/networks/compression/loader.py`) need torch and safetensors alone, and may be copied.
        """
        tensors = self._tensors()
        about: dict[str, Any] = {"replaced": self.replaced, "record": _plain(self)}
        if ties := tied(self.model, self.replaced):
            about["tied"] = ties
        about |= {"digest": digest(tensors, about)}
        with replacing(path) as temporary:
            safetensors.torch.save_file(tensors, str(temporary), metadata={KEY: json.dumps(about)})

    def export_onnx(
        self, path: str | Path, example: Tensor | Sequence[Tensor], calibration: Iterable[Any] | None = None
    ) -> None:
        """Writes the network for ONNX Runtime, as `onnx_export.export_onnx` says."""
        export_onnx(self.model, path, example, calibration)

    def to_torchao(self) -> nn.Module:
        """A copy of the network with weights of 8 bits that are torchao's, as `torchao_export.in_torchao` says."""
        return in_torchao(self.model)

    def _tensors(self) -> dict[str, Tensor]:
        """What the file holds: each number once, weights of 8 bits as integers and scales."""
        tensors = unique(self.model.state_dict())
        for path, module in self.model.named_modules():
            name = f"{path}.weight"
            if getattr(module, EIGHT_BITS, False) and name in tensors:
                weight = tensors[name].float()
                scale = scales_of(weight)
                shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
                tensors[name] = (weight / shaped).round().to(torch.int8)
                tensors[name + SCALE] = scale
        return tensors

    @classmethod
    def load(cls, path: str | Path, network: nn.Module) -> Compressed:
        """What `save` wrote: the smaller network, in the place of one of the original's architecture, and its account.

        Raises:
            ValueError: as `load_compressed`; or the file has no account, being of version 0.1.
        """
        return replace(cls.load_account(path), model=load_compressed(str(path), network))

    @classmethod
    def load_account(cls, path: str | Path) -> Compressed:
        """The account of what `save` wrote, without the network: `model` is an empty one.

        Raises:
            ValueError: the file has no account, being of version 0.1, or is no such file.
        """
        try:
            with safetensors.safe_open(str(path), "pt") as file:
                about = json.loads((file.metadata() or {}).get(KEY, "{}"))
        except safetensors.SafetensorError as error:
            raise ValueError(
                f"Argument `path` must be a compressed network, but {str(path)!r} is damaged."
            ) from error
        if "record" not in about:
            raise ValueError(
                f"Argument `path` must be a file with the account of its network, but {str(path)!r} is of version 0.1. "
                "Use `load_compressed` for the network alone."
            )
        record = about["record"]
        layers = tuple(
            LayerRow(
                **row | {"change": LayerChange(**row["change"] | {"form": Form(**row["change"]["form"])})}
            )
            for row in record.pop("layers")
        )
        tried = tuple(Tried(**one) for one in record.pop("candidates"))
        before, after = (Costs(**record.pop(name)) for name in ("before", "after"))
        return cls(
            model=nn.Module(),
            layers=layers,
            candidates=tried,
            before=before,
            after=after,
            replaced=about["replaced"],
            warnings=tuple(record.pop("warnings")),
            **record,
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>{self.table().to_html(index=False)}"

    def __str__(self) -> str:
        before, after = self.before, self.after
        lines = [
            f"parameters     {before.parameters:>14,} -> {after.parameters:>14,}"
            f"  ({after.parameters / before.parameters:.1%})",
            f"multiply-adds  {before.multiply_adds:>14,.0f} -> {after.multiply_adds:>14,.0f}"
            f"  ({_share(after.multiply_adds, before.multiply_adds)}) a sample",
            *self._bytes(),
            f"ms a batch     {1e3 * before.latency:>14.3f} -> {1e3 * after.latency:>14.3f}"
            f"  ({_share(after.latency, before.latency)}), {self.settings['timed_batch']} samples",
            *(
                f"output         {one['output']} as {one['loss']} ({one['why']})"
                for one in self.settings["heads"]
            ),
            f"KL             {self.kl:.3g} ± {self.kl_stderr:.1g} nats a prediction, "
            f"on {self.settings['held_back']} samples held back",
            f"chosen         {self.chosen}, of "
            + ", ".join(f"{tried.name} {tried.kl:.3g}" for tried in self.candidates),
            f"passes         {self.passes:.1f} over {self.settings['samples']} samples",
            *(f"! {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)

    def _bytes(self) -> list[str]:
        before, after = self.before.bytes, self.after.bytes
        return [f"bytes          {before:>14,} -> {after:>14,}  ({after / before:.1%})"]

    def __repr__(self) -> str:
        share = self.after.parameters / self.before.parameters
        return f"Compressed({share:.1%} of {self.before.parameters:,} parameters, KL {self.kl:.3g} nats)"


def _plain(result: Compressed) -> dict[str, Any]:
    """All of a result but the network, as JSON has it; numbers that do not exist are None."""
    matches = {
        field.name: getattr(result, field.name)
        for field in fields(result)
        if field.name not in ("model", "replaced")
    }
    matches |= {name: asdict(matches[name]) for name in ("before", "after")}
    matches |= {name: [asdict(one) for one in matches[name]] for name in ("layers", "candidates")}
    matches["warnings"] = list(matches["warnings"])
    return _finite(matches)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    return [_finite(inner) for inner in value] if isinstance(value, list) else value


def _share(after: float, before: float) -> str:
    return f"{after / before:.1%}" if before else "–"
