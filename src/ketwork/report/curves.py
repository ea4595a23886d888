"""A collapse curve as a table in a terminal, fitted to its width: each layer's smallest rank and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ketwork.networks.collapse import CollapseCurve
from ketwork.quantum import Estimate
from ketwork.report.terminal_table import Column, bar, drawn
from ketwork.report.words import dimmed, plus_minus, short

_BAR = 10


def render_curve(curve: CollapseCurve, console: Console) -> None:
    """Prints one row a layer: the smallest rank that keeps the metric, as a share of d, and the metric there.

    As the console gets narrower, the kind, the bar and the explained variance are hidden, in this order.
    """
    source = curve.settings.get("source", {})
    model = source.get("model", {}).get("spec", curve.settings["model"])
    data = source.get("data", {}).get("spec")
    title = Text.assemble(("Collapse curve of ", "bold"), (short(str(model)), "bold cyan"))
    console.print(title.append(f" on {short(str(data))}" if data else ""), highlight=False)
    if not curve.layers:
        console.print("No layer was reached by the data.", style="yellow")
        return
    console.print(_table(curve, console.width))
    itself = curve.settings["to_original"]
    before = "" if itself else f"Original: {curve.metric} {curve.original}. "
    paired = "." if itself else "; that of the change pairs each sample with itself in the original network."
    taken = f" ({curve.settings['taken']})" if curve.settings.get("taken") else ""
    explanation = (
        f"{curve.samples:,} samples{taken}, {curve.passes} forward passes over them. {before}Rank: the fewest leading "
        f"eigenstates of that layer alone with which the network keeps {curve.criterion}; explained "
        f"variance: their share of the layer's state. Values ± one standard error{paired}"
    )
    console.print(explanation, highlight=False, markup=False)


def _table(curve: CollapseCurve, width: int) -> Padding:
    best = [layer.smallest for layer in curve.layers]
    names = [layer.label for layer in curve.layers]
    columns = [
        Column("kind", [Text(layer.kind) for layer in curve.layers], 7, words=True),
        Column("d", [Text(str(layer.d)) for layer in curve.layers], 0),
        Column("rank", [Text(str(point.rank), "bold") for point in best], 0),
        Column(
            "of d",
            [bar(max(p.rank / layer.d, 1 / _BAR), _BAR) for p, layer in zip(best, curve.layers, strict=True)],
            6,
            words=True,
        ),
        Column("variance", [Text(f"{point.weight:.4f}") for point in best], 5),
        Column(curve.metric if curve.metric != "kl" else "KL", _values([point.value for point in best]), 3),
    ]
    if not curve.settings["to_original"]:  # the KL is the change
        columns.append(Column("change", _values([point.change for point in best]), 4))
    return drawn(names, columns, width)


def _values(estimates: Sequence[Estimate]) -> list[Text]:
    return [dimmed(cell) for cell in plus_minus(estimates)]
