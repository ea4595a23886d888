"""Compressed networks for ONNX Runtime, quantized by its own quantizer where weights have 8 bits.

What ketwork decides is which weights have 8 bits; they are rounded to multiples of a scale for each output channel,
which
the quantizer finds again. Activations of those layers become 8 bits too, as its integer kernels want, with ranges that
it takes from calibration data. Needs the extra `onnx`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ketwork.networks.compression.costs import EIGHT_BITS
from ketwork.records import replacing


def export_onnx(
    model: nn.Module,
    path: str | Path,
    example: Tensor | Sequence[Tensor],
    calibration: Iterable[Any] | None = None,
) -> None:
    """Writes `model` as an ONNX file with a dynamic batch.

    Args:
        model: the network; layers that `compress(cost="bytes")` gave 8 bits are quantized.
        path: the file.
        example: its inputs, samples first.
        calibration: batches of inputs, each like `example`, by which the ranges of 8-bit activations are taken; needed
            where layers have 8 bits.

    Raises:
        ValueError: layers have 8 bits and there are no calibration data.
        ImportError: onnx, onnxscript or onnxruntime is missing.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    eight = [f"{name}.weight" for name, module in model.named_modules() if getattr(module, EIGHT_BITS, False)]
    if eight and calibration is None:
        raise ValueError(
            f"Argument `calibration` must be batches of inputs, since {len(eight)} layers have 8 bits and their "
            "activations need ranges, but is None."
        )
    with tempfile.TemporaryDirectory(prefix="ketwork-") as folder, replacing(path) as target:
        total = Path(folder, "float.onnx")
        _exported(model, inputs).save(str(total))
        if not eight:
            target.write_bytes(total.read_bytes())
            return
        _quantized(total, Path(folder, "int8.onnx"), set(eight), calibration or ())
        target.write_bytes(Path(folder, "int8.onnx").read_bytes())


def _exported(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it names every extension that is not installed
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                model, inputs, dynamo=True, verbose=False, dynamic_shapes=tuple({0: batch} for _ in inputs)
            )
    finally:
        quiet.setLevel(level)
    assert program is not None
    return program


def _quantized(source: Path, target: Path, weights: set[str], calibration: Iterable[Any]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    graph = onnx.load(str(source)).graph
    nodes = [node.name for node in graph.node if weights & set(node.input)]
    names = [value.name for value in graph.input]

    class Reader(CalibrationDataReader):
        """Batches, one after another."""

        def __init__(self) -> None:
            self.batches: Iterator[Any] = iter(calibration)

        def get_next(self) -> dict[str, Any] | None:
            """The next batch by input, None at the end."""
            batch = next(self.batches, None)
            if batch is None:
                return None
            parts = (batch,) if isinstance(batch, Tensor) else batch
            return {name: part.numpy() for name, part in zip(names, parts, strict=True)}

    quantize_static(
        str(source),
        str(target),
        Reader(),
        quant_format=QuantFormat.QDQ,
        nodes_to_quantize=nodes,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
