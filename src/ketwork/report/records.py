"""A study as plain JSON: every number of its table, and everything said about it."""

from __future__ import annotations

import math
from typing import Any

from ketwork.networks import Study


def as_json(study: Study) -> dict[str, Any]:
    """The study's table as a list of records, its settings, and what else it says, all of them JSON-able.

    Numbers are those of `Study.table()`, unrounded; one that does not exist (NaN) is None.
    """
    return {
        "samples": study.samples,
        "complete": study.complete,
        "error": None if study.error is None else str(study.error),
        "settings": study.settings,
        "warnings": list(study.warnings),
        "skipped": study.skipped,
        "table": [
            {name: _number(value) for name, value in row.items()} for row in study.table().to_dict("records")
        ],
        "definitions": study.definitions,
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
