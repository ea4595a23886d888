"""A collapse curve as a table in a terminal, fitted to its width: each layer's smallest rank and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks import CollapseCurve, Estimate
from ketwork.report.terminal import dimmed, folded, plus_minus, short

_GAP = 2
_BAR = 10
_NARROWEST_NAME = 12


def render_curve(curve: CollapseCurve, console: Console) -> None:
    """Prints one row a layer: the smallest rank that keeps the metric, as a share of d, and the metric there.

    As the console gets narrower, the kind, the bar and the weight are left out, in this order.
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
    itself = curve.settings["to_untouched"]
    before = "" if itself else f"Untouched: {curve.metric} {curve.untouched}. "
    paired = "." if itself else "; that of the change pairs each sample with itself in the untouched network."
    told = (
        f"{curve.samples:,} samples, {curve.passes} forward passes over them. {before}Rank: the fewest leading "
        f"eigenstates of that layer alone from which the network goes on with {curve.criterion}; weight: their share "
        f"of the layer's state. Values ± one standard error{paired}"
    )
    console.print(told, highlight=False, markup=False)


def _table(curve: CollapseCurve, width: int) -> Padding:
    best = [layer.smallest for layer in curve.layers]
    names = [layer.name if layer.call <= 0 else f"{layer.name} ({layer.call + 1})" for layer in curve.layers]
    # name, header, cells, left aligned, rank of importance
    columns: list[tuple[str, list[Text], bool, int]] = [
        ("kind", [Text(layer.kind) for layer in curve.layers], True, 5),
        ("d", [Text(str(layer.d)) for layer in curve.layers], False, 0),
        ("rank", [Text(str(point.rank), "bold") for point in best], False, 0),
        ("of d", [_bar(p.rank / layer.d) for p, layer in zip(best, curve.layers, strict=True)], True, 4),
        ("weight", [Text(f"{point.weight:.4f}") for point in best], False, 3),
        (
            curve.metric if curve.metric != "kl" else "KL",
            _values([point.value for point in best]),
            False,
            1,
        ),
        ("change", _values([point.change for point in best]), False, 2),
    ]
    if curve.settings["to_untouched"]:
        columns.pop()  # the KL is the change
    left = width - min(max(map(len, names)), max(_NARROWEST_NAME, width // 4))
    shown = set()
    for header, cells, _, importance in sorted(columns, key=lambda column: column[-1]):
        needed = max(len(header), *(cell.cell_len for cell in cells)) + _GAP
        if needed <= left or importance <= 1:
            left -= needed
            shown.add(header)
    drawn = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold"
    )
    room = max(_NARROWEST_NAME, min(max(map(len, names)), width // 4) + left)
    drawn.add_column("layer", style="bold cyan", no_wrap=True)
    kept = [column for column in columns if column[0] in shown]
    for header, _, words, _ in kept:
        drawn.add_column(header, justify="left" if words else "right", no_wrap=words, overflow="fold")
    for i, name in enumerate(names):
        drawn.add_row(Text(folded(name, room)), *(cells[i] for _, cells, _, _ in kept))
    return Padding(drawn, (1, 0))


def _values(estimates: Sequence[Estimate]) -> list[Text]:
    shown = plus_minus([each.value for each in estimates], [each.stderr for each in estimates])
    return [dimmed(cell) for cell in shown]


def _bar(share: float) -> Text:
    filled = min(_BAR, max(1, round(share * _BAR)))
    return Text.assemble(("█" * filled, "cyan"), ("░" * (_BAR - filled), "dim"))
