"""A terminal table with one row a layer: less important columns go where width is short, numbers are never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.report.words import folded

GAP = 2
"""Spaces between columns."""

NARROWEST_NAME = 12
_NAMES = "layer"
_ALWAYS = 3
_BAR = 8


@dataclass(frozen=True)
class Column:
    """A column: the lower its `rank` the longer it stays, up to 3 always; `words` are aligned left.

    `name` is what it is found by where its header is not that. It stays only while the column named `beside` does.
    """

    header: str
    cells: Sequence[Text]
    rank: int
    words: bool = False
    unit: str = ""
    name: str = ""
    beside: str = ""

    @property
    def width(self) -> int:
        """The width that it needs, its gap included."""
        lines = (line for cell in self.cells for line in cell.plain.split("\n"))
        return max(len(self.header), len(self.unit), *(Text(line).cell_len for line in lines)) + GAP


def fitting(names: Sequence[str], columns: Sequence[Column], width: int) -> list[Column]:
    """The most important columns that fit beside the names, in their order."""
    left = width - min(max(len(_NAMES), *map(len, names)), max(NARROWEST_NAME, width // 4))
    kept: set[int] = set()
    there = {""}
    for i, column in sorted(enumerate(columns), key=lambda pair: pair[1].rank):
        if column.beside in there and (column.width <= left or column.rank <= _ALWAYS):
            left -= column.width
            kept.add(i)
            there.add(column.name)
    return [column for i, column in enumerate(columns) if i in kept]


def drawn(names: Sequence[str], columns: Sequence[Column], width: int) -> Padding:
    """The table: names of layers, folded where they must be, and as many of the columns as fit."""
    kept = fitting(names, columns, width)
    free = width - sum(column.width for column in kept)
    table = plain_table()
    table.add_column(_NAMES, style="bold cyan", no_wrap=True)
    for column in kept:
        header = Text.assemble(column.header, ("\n" + column.unit if column.unit else "", "dim not bold"))
        justify = "left" if column.words else "right"
        table.add_column(header, justify=justify, no_wrap=column.words, overflow="fold")  # type: ignore[arg-type]
    for i, name in enumerate(names):
        table.add_row(Text(folded(name, max(NARROWEST_NAME, free))), *(column.cells[i] for column in kept))
    return Padding(table, (1, 0))


def plain_table(*headers: str) -> Table:
    """A table without lines but under its head; columns after the first are aligned right."""
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold"
    )
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left", overflow="fold")
    return table


def bar(share: float, length: int = _BAR) -> Text:
    """A share of 1 as a bar."""
    filled = round(min(1.0, max(0.0, share)) * length)
    return Text.assemble(("█" * filled, "cyan"), ("░" * (length - filled), "dim"))
