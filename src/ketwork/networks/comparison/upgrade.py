"""Comparisons of version 0.1, brought to today's form."""

from __future__ import annotations

from typing import Any

from torch import Tensor

UNITS = {"pooled": "sample", "positions": "position", "flattened": "flat"}
"""What the units of comparison were called."""


def upgraded_comparison(
    schema: int, header: dict[str, Any], tensors: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and tensors of schema 1 in those of schema 2: matrices are named by their places."""
    names = [str(name) for name in header["measures"]]
    matrices = {name: name for name in names}
    errors = {name: f"error.{name}" for name in names if f"error.{name}" in tensors}
    settings = dict(header["settings"])
    settings["unit"] = UNITS.get(settings.get("unit", "pooled"), "sample")
    error = header["error"] if header["complete"] or header["error"] else "it ended early"
    return header | {"matrices": matrices, "errors": errors, "settings": settings, "error": error}, tensors
