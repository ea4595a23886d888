"""How results are shown: terminal tables, JSON, HTML pages, plots. Reads results, computes nothing.

Imports `networks`, `waves`, `records`; nothing but the command imports it. A result finds its page and plot through
`records.presenting`, where the modules here register them.

- Terminal: `studies`, `comparisons`, `curves`, `compressed`, `detections`, `monitors`, all drawn by `terminal_table`
- What changed between two models, in terminal, page and plot: `changes`
- Pages: `page`, `curve_page`, `compressed_page`, `detection_page`, `monitor_page`, `waves`, all by `document`, with
  `page_tables`; what a record shows: `views`, `findings`, and what to do about it `actions`, `commands`; pictures:
  `charts` and `depth_charts` of a study, `…_charts` of the others, `chart_style`
- Else: `plots`, `monitor_plots`, `json_records`, `words`
"""

from ketwork.report.comparisons import render_comparison
from ketwork.report.compressed import render_compressed
from ketwork.report.compressed_page import write_compressed
from ketwork.report.curve_page import write_curve
from ketwork.report.curves import render_curve
from ketwork.report.detection_page import write_detection
from ketwork.report.detections import render_detection
from ketwork.report.document import ready
from ketwork.report.figures import blank, write
from ketwork.report.json_records import (
    as_json,
    comparison_as_json,
    compressed_as_json,
    curve_as_json,
    detection_as_json,
)
from ketwork.report.monitor_page import write_monitor
from ketwork.report.monitor_plots import plot_monitor
from ketwork.report.monitors import monitor_as_json, render_monitor
from ketwork.report.page import write_comparison, write_study
from ketwork.report.plots import plot_comparison, plot_curve, plot_detector, plot_spectrum, plot_study
from ketwork.report.studies import render, render_plan
from ketwork.report.terminal_table import plain_table

__all__ = [
    "as_json",
    "blank",
    "comparison_as_json",
    "compressed_as_json",
    "curve_as_json",
    "detection_as_json",
    "monitor_as_json",
    "plain_table",
    "plot_comparison",
    "plot_curve",
    "plot_detector",
    "plot_monitor",
    "plot_spectrum",
    "plot_study",
    "ready",
    "render",
    "render_comparison",
    "render_compressed",
    "render_curve",
    "render_detection",
    "render_monitor",
    "render_plan",
    "write",
    "write_comparison",
    "write_compressed",
    "write_curve",
    "write_detection",
    "write_monitor",
    "write_study",
]
