"""What compressing a network gave, in a terminal: the layers, the candidates and the totals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.compression import Compressed
from ketwork.records import presents
from ketwork.report.plots import axes_of
from ketwork.report.terminal_table import Column, bar, drawn, plain_table
from ketwork.report.words import by_reason, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REASONS = 8  # lines on what is unchanged
_UNITS = {"parameters": "parameters", "macs": "multiply-adds", "latency": "ms a batch", "bytes": "bytes"}


@presents(Compressed, "plot")
def plot_compressed(result: Compressed, ax: Axes | None = None) -> Axes:
    """The axes with the share of its parameters that each layer keeps, from the first at the top."""
    ax = axes_of(ax)
    table = result.table().iloc[::-1]
    ax.barh(table["layer"], table["parameters"] / table["parameters_before"])
    ax.set_xlabel("share of the parameters kept")
    return ax


def render_compressed(result: Compressed, console: Console) -> None:
    """Prints what became of each layer that could be cut, what is unchanged and why, the candidates, and the totals.

    As the console gets narrower, the kind, the bar, the shape and the KL share are hidden, in this order.
    """

    def say(text: Text | str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    source = result.settings.get("source", {})
    data = source.get("data", {}).get("spec")
    title = Text.assemble(
        ("Compressed ", "bold"), (short(str(source.get("model", {}).get("spec", "network"))), "bold cyan")
    )
    say(title.append(f" by {short(str(data))}" if data else ""))
    table = result.table()
    layers = table[[not row.reason for row in result.layers]]
    console.print(_layers(layers, console.width))
    console.print(Padding(_totals(result), (0, 0, 1, 0)))
    console.print(Padding(_candidates(result), (0, 0, 1, 0)))
    left = table[~table["layer"].isin(layers["layer"])]
    reasons = list(by_reason(dict(zip(left["layer"], left["reason"], strict=True))).items())
    for reason, names in reasons[:_REASONS]:
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        say(Text.assemble("Unchanged: ", (", ".join(names[:2]) + more, "cyan"), f" ({reason})"), "dim")
    for became, names in by_reason(result.dead).items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        say(Text.assemble("Dead: ", (", ".join(names[:2]) + more, "cyan"), f" ({became})"), "dim")
    if len(reasons) > _REASONS:
        say("Unchanged: others, for other reasons; --json names each.", "dim")
    settings = result.settings
    taken = f" ({settings['taken']})" if settings.get("taken") else ""
    say(
        f"{settings['samples']:,} samples{taken}, of which {settings['held_back']:,} held back to measure the KL (nats "
        f"a prediction); {result.passes:.1f} forward passes over them. Rank and units that stay: – is all; kept: of "
        "its parameters; discarded: of the variance of the layer's output; KL share: of what all layers are estimated "
        "to add to the KL."
    )
    for warning in result.warnings:
        say(f"! {warning}", "yellow")


def _layers(table: pd.DataFrame, width: int) -> Padding:
    kept = (table["parameters"] / table["parameters_before"]).tolist()
    columns = [
        Column("kind", [Text(kind) for kind in table["kind"]], 8, words=True),
        Column("m × k", [Text(shape) for shape in table["shape"]], 6),
        *(Column(name, [_count(count) for count in table[name]], 0) for name in ("rank", "units")),
        Column("parameters", [Text(f"{count:,}") for count in table["parameters"]], 0),
        Column("kept", [Text(f"{share:.1%}") for share in kept], 4),
        Column("", [bar(max(share, 0.125)) for share in kept], 7, words=True),
        Column("discarded", [_share(share) for share in table["discarded"]], 5),
        Column("KL share", [_share(share) for share in table["kl_share"]], 5),
    ]
    return drawn(table["layer"].tolist(), columns, width)


def _totals(result: Compressed) -> Table:
    before, after = result.before, result.after
    rows: list[tuple[str, float, float, str]] = [
        ("parameters", before.parameters, after.parameters, ",.0f"),
        ("multiply-adds", before.multiply_adds, after.multiply_adds, ",.0f"),
        ("ms a batch", 1e3 * before.latency, 1e3 * after.latency, ",.3f"),
    ]
    printed = plain_table("network", "before", "after", "")
    for name, old, new, form in rows:
        share = f"{new / old:.1%}" if old else "–"
        printed.add_row(name, f"{old:{form}}", Text(f"{new:{form}}", "bold"), share)
    if accuracy := result.settings.get("accuracy"):
        old, new = accuracy["before"], accuracy["after"]
        change = f"{100 * (new - old):+.1f} points"
        printed.add_row(
            f"accuracy, {result.settings['held_back']:,} held back",
            f"{old:.1%}",
            Text(f"{new:.1%}", "bold"),
            change,
        )
    return printed


def _candidates(result: Compressed) -> Table:
    kind = result.settings["cost"]
    printed = plain_table("candidate", "KL", _UNITS[kind], "")
    for tried in result.candidates:
        best = tried.name == result.chosen
        cost = f"{1e3 * tried.cost:,.3f}" if kind == "latency" else f"{tried.cost:,.0f}"
        printed.add_row(
            Text(tried.name, "bold" if best else ""),
            f"{tried.kl:.3g}",
            cost,
            Text("chosen" if best else "", "green"),
        )
    return printed


def _count(count: Any) -> Text:
    return Text("–" if pd.isna(count) else str(count), "bold")


def _share(share: float) -> Text:
    return Text(
        "–" if not math.isfinite(share) or share == 0 else f"{share:.2%}" if share >= 1e-4 else f"{share:.0e}"
    )
