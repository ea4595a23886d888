"""A training run as a table in a terminal: the last look, what changed since the first, and the alarms."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.text import Text

from ketwork.networks.monitor import QUANTITIES, MonitorRun
from ketwork.quantum import Estimate
from ketwork.report.terminal_table import Column, drawn
from ketwork.report.words import dimmed, plus_minus

_HEADERS = {
    "effective_rank": ("eff. rank", 2),
    "spread": ("spread", 5),
    "dead": ("dead", 6),
    "linear_balanced": ("linear", 4),
    "holevo": ("Holevo", 7),
    "norm": ("norm", 8),
    "rank_collapse": ("collapse", 9),
    "parameter_change": ("change", 10),
    "participation_ratio": ("part. ratio", 11),
    "lidar": ("LiDAR", 4),
}


def render_monitor(run: MonitorRun, console: Console) -> None:
    """Prints the layers at the last look, with as many of the quantities as fit, then the alarms and notes."""
    model = str(run.settings.get("model", "a network"))
    console.print(Text.assemble(("Training run of ", "bold"), (model, "bold cyan")), highlight=False)
    if not run.looks:
        console.print("No look yet.", style="yellow")
        return
    look = run.looks[-1]
    columns = [Column("kind", [Text(layer.kind) for layer in look.layers], 12, words=True)]
    columns.append(Column("d", [Text(f"{layer.d:,}") for layer in look.layers], 3))
    for name in run.quantities:
        known = QUANTITIES.get(name)
        values = [layer.values.get(name, Estimate()) for layer in look.layers]
        if known is None or all(map(math.isnan, values)):
            continue
        share = known.show == "percent"
        header, rank = _HEADERS.get(name, (known.title, 20))
        cells = plus_minus([100 * value for value in values] if share else values)
        columns.append(Column(header, [dimmed(cell) for cell in cells], rank, unit="%" if share else ""))
    console.print(drawn([layer.label for layer in look.layers], columns, console.width))
    state = "The training has ended." if run.ended else "The training goes on, or was interrupted."
    console.print(
        f"Step {look.step:,}, {len(run)} look{'s' if len(run) > 1 else ''} since step {run.steps[0]:,}. {state} "
        "Values ± one standard error.",
        highlight=False,
        markup=False,
    )
    for alarm in run.alarms:
        console.print(Text(f"! {alarm}", style="yellow"))
    if not run.alarms:
        console.print("No alarm.", style="dim")
    for note in run.notes:
        console.print(Text(f"! {note}", style="dim"))


def monitor_as_json(run: MonitorRun) -> dict[str, Any]:
    """The run's numbers as a list of records, its alarms and settings; a number that does not exist (NaN) is None."""
    rows = [{name: _number(value) for name, value in row.items()} for row in run.long().to_dict("records")]
    alarms = [
        {
            "kind": alarm.kind,
            "step": alarm.step,
            "layer": alarm.layer,
            "others": list(alarm.others),
            "quantity": alarm.quantity,
            "since": alarm.since,
            "before": _number(alarm.before.value),
            "before_stderr": _number(alarm.before.stderr),
            "after": _number(alarm.after.value),
            "after_stderr": _number(alarm.after.stderr),
            "message": str(alarm),
        }
        for alarm in run.alarms
    ]
    return {
        "ended": run.ended,
        "settings": run.settings,
        "warnings": list(run.notes),
        "alarms": alarms,
        "table": rows,
        "definitions": run.definitions,
    }


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
