"""A terminal table with one row a layer: columns of less importance go where room is short, numbers are never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.report.terminal import folded

GAP = 2
"""Spaces between columns."""

NARROWEST_NAME = 12
_ALWAYS = 1


@dataclass(frozen=True)
class Column:
    """A column: the lower its `rank` the longer it stays, up to 1 always; `words` are aligned left."""

    header: str
    cells: Sequence[Text]
    rank: int
    words: bool = False

    @property
    def width(self) -> int:
        """The room that it needs, its gap included."""
        lines = (line for cell in self.cells for line in cell.plain.split("\n"))
        return max(len(self.header), *(Text(line).cell_len for line in lines)) + GAP


def drawn(names: Sequence[str], columns: Sequence[Column], width: int) -> Padding:
    """The table: names of layers, folded where they must be, and as many of the columns as there is room for."""
    longest = max(map(len, names))
    left = width - min(longest, max(NARROWEST_NAME, width // 4))
    shown = set()
    for column in sorted(columns, key=lambda column: column.rank):
        if column.width <= left or column.rank <= _ALWAYS:
            left -= column.width
            shown.add(column.header)
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold"
    )
    room = max(NARROWEST_NAME, min(longest, width // 4) + left)
    kept = [column for column in columns if column.header in shown]
    table.add_column("layer", style="bold cyan", no_wrap=True)
    for column in kept:
        table.add_column(
            column.header,
            justify="left" if column.words else "right",
            no_wrap=column.words,
            overflow="fold",
        )
    for i, name in enumerate(names):
        table.add_row(Text(folded(name, room)), *(column.cells[i] for column in kept))
    return Padding(table, (1, 0))
