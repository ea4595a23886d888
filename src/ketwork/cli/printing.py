"""How results are printed: a table for readers, chosen columns, CSV or JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ketwork.cli.console import UsageError, wide_console
from ketwork.report import plain_table

Json = Annotated[
    bool,
    typer.Option(
        "--json", help="Print the numbers as JSON to stdout, and nothing else.", rich_help_panel="Printing"
    ),
]
Csv = Annotated[
    bool,
    typer.Option(
        "--csv", help="Print the table as CSV to stdout, and nothing else.", rich_help_panel="Printing"
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,NAME,…",
        help="Print these columns of the table alone.",
        rich_help_panel="Printing",
        show_default=False,
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Sort the table by a column; -NAME: largest first.",
        rich_help_panel="Printing",
        show_default=False,
    ),
]
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Say below the table what each number means.", rich_help_panel="Printing"),
]


@dataclass(frozen=True)
class Printing:
    """What of a result is printed: all of it, or these columns in that order; for readers, as CSV or as JSON."""

    columns: str | None = None
    sort: str | None = None
    csv: bool = False
    json: bool = False
    explain: bool = False

    def check(self) -> None:
        """Raises a `UsageError` where options exclude each other, before the work is done."""
        if self.json and (self.csv or self.columns or self.sort):
            raise UsageError(
                "--json prints everything, so that --csv, --columns and --sort exclude it. Leave out one of them."
            )

    def show(
        self,
        render: Callable[..., None],
        table: Callable[[], pd.DataFrame],
        numbers: Callable[[], Any],
    ) -> None:
        """Prints a result: `render(console, explain)` draws it for readers, `table` and `numbers` are its data."""
        if self.json:
            print(json.dumps(numbers(), indent=1, ensure_ascii=False, allow_nan=False), flush=True)
        elif self.csv:
            print(self.chosen(table()).to_csv(index=False), end="", flush=True)
        elif self.columns or self.sort:
            _print_frame(self.chosen(table()), wide_console())
        else:
            render(wide_console(), self.explain)

    def chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """The chosen columns, in the chosen order of rows.

        Raises:
            UsageError: there is no such column.
        """
        if self.sort is not None:
            name = self.sort.removeprefix("-")
            _check_names([name], "--sort", table)
            table = table.sort_values(name, ascending=not self.sort.startswith("-"), kind="stable")
        if self.columns is not None:
            names = [name.strip() for name in self.columns.split(",")]
            _check_names(names, "--columns", table)
            table = table[names]
        return table


def glossary(console: Console, definitions: Mapping[str, str]) -> None:
    """Prints what each number means."""
    meanings = Table.grid(padding=(0, 2, 0, 0))
    for name, sentence in definitions.items():
        meanings.add_row(Text(name, "bold dim"), Text(sentence, "dim"))
    console.print(meanings, highlight=False)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as JSON has them; numbers that do not exist are None."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return rows


def _check_names(names: list[str], option: str, table: pd.DataFrame) -> None:
    for name in names:
        if name not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise UsageError(f"{option} must name columns of the table ({known}), but there is no {name!r}.")


def _print_frame(frame: pd.DataFrame, console: Console) -> None:
    table = plain_table(*map(str, frame.columns))
    for column, kind in zip(table.columns, frame.dtypes, strict=True):
        column.justify = "right" if pd.api.types.is_numeric_dtype(kind) else "left"
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_words(value)) for value in row))
    console.print(table)


def _words(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
