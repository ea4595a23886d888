"""How records are shown: terminal tables and plain JSON. Reads records, computes nothing."""

from ketwork.report.records import as_json
from ketwork.report.terminal import render

__all__ = ["as_json", "render"]
