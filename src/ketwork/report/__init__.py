"""How records are shown: terminal tables, plain JSON, HTML pages, plots. Reads records, computes nothing."""

from ketwork.report.comparisons import render_comparison
from ketwork.report.compression import render_compressed
from ketwork.report.curves import render_curve
from ketwork.report.page import ready, write_comparison, write_study
from ketwork.report.plots import plot_comparison, plot_spectrum, plot_study
from ketwork.report.records import as_json, comparison_as_json, compressed_as_json, curve_as_json
from ketwork.report.terminal import render, render_plan

__all__ = [
    "as_json",
    "comparison_as_json",
    "compressed_as_json",
    "curve_as_json",
    "plot_comparison",
    "plot_spectrum",
    "plot_study",
    "ready",
    "render",
    "render_comparison",
    "render_compressed",
    "render_curve",
    "render_plan",
    "write_comparison",
    "write_study",
]
