"""What compressing a network gave, in a terminal: the layers, the candidates and the totals."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.compression.result import Compressed
from ketwork.report.terminal import by_reason, folded, short

_GAP = 2
_NARROWEST_NAME = 12
_BAR = 8
_REASONS = 8  # lines on what was left alone
_UNITS = {"parameters": "parameters", "macs": "multiply-adds", "latency": "ms a batch"}


def render_compressed(result: Compressed, console: Console) -> None:
    """Prints what became of each layer that could be cut, what was left and why, the candidates, and the totals.

    As the console gets narrower, the kind, the bar, the shape and the share of the KL are left out, in this order.
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
        say(Text.assemble("Left alone: ", (", ".join(names[:2]) + more, "cyan"), f" ({reason})"), "dim")
    if len(reasons) > _REASONS:
        say("Left alone: others, for other reasons; --json names each.", "dim")
    settings = result.settings
    say(
        f"{settings['samples']:,} samples, of which {settings['held_back']:,} held back to measure the KL (nats a "
        f"prediction); {result.passes:.1f} forward passes over them. Rank and units that stay: – is all; kept: of its "
        "parameters; discarded: of the layer's own weight; KL share: of what all layers are estimated to cost."
    )
    for warning in result.warnings:
        say(f"! {warning}", "yellow")


def _layers(table: pd.DataFrame, width: int) -> Padding:
    kept = (table["parameters"] / table["parameters_before"]).tolist()
    # header, cells, left aligned, rank of importance
    columns: list[tuple[str, list[Text], bool, int]] = [
        ("kind", [Text(kind) for kind in table["kind"]], True, 5),
        ("m × k", [Text(shape) for shape in table["shape"]], False, 3),
        *((name, [_count(count) for count in table[name]], False, 0) for name in ("rank", "units")),
        ("parameters", [Text(f"{count:,}") for count in table["parameters"]], False, 0),
        ("kept", [Text(f"{share:.1%}") for share in kept], False, 1),
        ("", [_bar(share) for share in kept], True, 4),
        ("discarded", [_share(share) for share in table["discarded"]], False, 2),
        ("KL share", [_share(share) for share in table["kl_share"]], False, 2),
    ]
    names = table["layer"].tolist()
    longest = max(map(len, names))
    left = width - min(longest, max(_NARROWEST_NAME, width // 4))
    shown = set()
    for header, cells, _, importance in sorted(columns, key=lambda column: column[-1]):
        needed = max(len(header), *(cell.cell_len for cell in cells)) + _GAP
        if needed <= left or importance == 0:
            left -= needed
            shown.add(header)
    drawn = _plain()
    room = max(_NARROWEST_NAME, min(longest, width // 4) + left)
    drawn.add_column("layer", style="bold cyan", no_wrap=True)
    chosen = [column for column in columns if column[0] in shown]
    for header, _, words, _ in chosen:
        drawn.add_column(header, justify="left" if words else "right", no_wrap=words, overflow="fold")
    for i, name in enumerate(names):
        drawn.add_row(Text(folded(name, room)), *(cells[i] for _, cells, _, _ in chosen))
    return Padding(drawn, (1, 0))


def _totals(result: Compressed) -> Table:
    before, after = result.before, result.after
    rows: list[tuple[str, float, float, str]] = [
        ("parameters", before.parameters, after.parameters, ",.0f"),
        ("multiply-adds", before.multiply_adds, after.multiply_adds, ",.0f"),
        ("ms a batch", 1e3 * before.latency, 1e3 * after.latency, ",.3f"),
    ]
    drawn = _plain("the whole", "before", "after", "")
    for name, old, new, form in rows:
        share = f"{new / old:.1%}" if old else "–"
        drawn.add_row(name, f"{old:{form}}", Text(f"{new:{form}}", "bold"), share)
    return drawn


def _candidates(result: Compressed) -> Table:
    kind = result.settings["cost"]
    drawn = _plain("candidate", "KL", _UNITS[kind], "")
    for tried in result.candidates:
        best = tried.name == result.chosen
        cost = f"{1e3 * tried.cost:,.3f}" if kind == "latency" else f"{tried.cost:,.0f}"
        drawn.add_row(
            Text(tried.name, "bold" if best else ""),
            f"{tried.kl:.3g}",
            cost,
            Text("taken" if best else "", "green"),
        )
    return drawn


def _plain(*headers: str) -> Table:
    drawn = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold"
    )
    for i, header in enumerate(headers):
        drawn.add_column(header, justify="right" if i else "left", overflow="fold")
    return drawn


def _count(count: Any) -> Text:
    return Text("–" if pd.isna(count) else str(count), "bold")


def _share(share: float) -> Text:
    return Text(
        "–" if not math.isfinite(share) or share == 0 else f"{share:.2%}" if share >= 1e-4 else f"{share:.0e}"
    )


def _bar(share: float) -> Text:
    filled = min(_BAR, max(1, round(share * _BAR)))
    return Text.assemble(("█" * filled, "cyan"), ("░" * (_BAR - filled), "dim"))
