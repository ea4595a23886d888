"""A study as a table in a terminal, fitted to its width."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.runtime.memory import Plan, Share
from ketwork.networks.study.result import Study
from ketwork.quantum import Estimate

_GAP = 2  # spaces between columns
_PLACES = 3  # decimals shown at most; the record has all
_NARROWEST_NAME = 12
_BAR = 8
_ALWAYS = 3  # columns of this rank and less are shown however narrow the terminal
_FEW = 10  # kets a dimension, below which a row is marked
_REASONS = 6  # lines on what was left out
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|\b)")
_NORMALIZATION = {"state": "every ket has weight 1", "ensemble": "kets weigh by their squared norm"}


@dataclass(frozen=True)
class _Column:
    """A column that may be shown: the lower its rank, the longer it stays as the terminal gets narrower."""

    name: str
    header: str
    unit: str
    rank: int
    cells: Callable[[pd.DataFrame], list[Text]]


def render(study: Study, console: Console) -> None:
    """Prints the study's table and what must be known to read it.

    Numbers are never cut: as the console gets narrower, less important columns are left out and named below,
    and names of layers are folded at their dots. Values stand with ± one standard error, at most three decimals.
    """
    table = study.table()
    console.print(_title(study), highlight=False)
    if len(table):
        columns = _fitting(table, console.width)
        console.print(_drawn(table, columns, console.width))
    else:
        columns = []
        console.print("No layer was reached by the data.", style="yellow")
    _footer(study, table, columns, console)


def render_plan(plan: Plan, console: Console) -> None:
    """Prints what becomes of a memory budget: a row for each width and form of layers, and the bytes of each part."""
    alike: dict[tuple[int, int | None], list[Share]] = {}
    for share in plan.shares:
        alike.setdefault((share.d, share.rank), []).append(share)
    drawn = _plain_table()
    for name in ("layers", "d", "kept", "moments", "samples for ±", "for labels"):
        drawn.add_column(name, justify="left" if name in ("layers", "kept") else "right", overflow="fold")
    for (d, rank), shares in alike.items():
        names = [share.layer for share in shares]
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        sizes = ([getattr(share, part) for share in shares] for part in ("moment", "reservoir", "labels"))
        form = "exact" if rank is None else f"sketch of rank {rank}"
        drawn.add_row(Text(shown, "cyan"), str(d), form, *(megabytes(sum(each)) for each in sizes))
    title = (
        f": {megabytes(plan.total)} of {megabytes(plan.memory)}, on top of the network and one batch in it"
    )
    console.print(Text.assemble(("Plan of the memory", "bold"), title), highlight=False)
    console.print(Padding(drawn, (1, 0)))
    pairs = f", {megabytes(plan.pairs)} to compare layers" if plan.pairs else ""
    console.print(
        f"Of these {megabytes(plan.work)} for work on one layer at a time{pairs}.",
        style="dim",
        highlight=False,
    )


def _plain_table() -> Table:
    return Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), header_style="bold"
    )


def megabytes(size: int) -> str:
    """Bytes in megabytes, of 10⁶.

    >>> megabytes(1_500_000), megabytes(2_000_000_000), megabytes(1)
    ('1.5 MB', '2,000 MB', '0.0 MB')
    """
    return f"{size / 1e6:,.{0 if size >= 1e7 else 1}f} MB"


def plus_minus(estimates: Sequence[Estimate]) -> list[str]:
    """Values with their standard errors, with as many decimals in the whole column as its smallest error needs.

    An error too small for three decimals shows as one unit of the last. Of a value that is only known to lie between
    two numbers, these two are shown where their decimals tell them apart.

    >>> plus_minus([Estimate(1.74867, 0.0022), Estimate(12.5, 0.41), Estimate(2.0, bounds=(1.9, 2.2))])
    ['1.749 ± 0.002', '12.500 ± 0.410', '1.900 … 2.200        ']
    """
    known = [estimate.stderr for estimate in estimates if 0 < estimate.stderr < math.inf]
    places = min(_PLACES, max(map(_decimals, known), default=_PLACES))
    words, unit = f"{{:.{places}f}}".format, 10.0**-places
    cells = []
    for estimate in estimates:
        error = estimate.stderr
        if not math.isfinite(estimate.value):
            cells.append("–")
        elif not math.isfinite(error):
            cells.append(estimate.words(words))
        else:
            cells.append(f"{estimate.words(words)} ± {words(max(error, unit) if error > 0 else 0.0)}")
    widest = max((len(cell.partition(" ± ")[2]) for cell in cells), default=0)
    return [_aligned(cell, widest) for cell in cells]


def _decimals(error: float) -> int:
    """Decimals that show one digit of the error, two where the first is 1.

    >>> [_decimals(error) for error in (0.0022, 0.011, 0.06, 3.0, 14.0)]
    [3, 3, 2, 0, 0]
    """
    exponent = math.floor(math.log10(error))
    return max(0, -exponent + (error / 10.0**exponent < 2 and exponent < 0))


def _aligned(cell: str, widest: int) -> str:
    value, sign, error = cell.partition(" ± ")
    if not sign:
        return cell + " " * (widest + 3 if widest else 0) if cell != "–" else cell
    return f"{value} ± {error:>{widest}}"


def _estimates(name: str) -> Callable[[pd.DataFrame], list[Text]]:
    def cells(table: pd.DataFrame) -> list[Text]:
        return [dimmed(cell) for cell in plus_minus(_of(table, name))]

    return cells


def _of(table: pd.DataFrame, name: str) -> list[Estimate]:
    """A quantity's values with what the table has beside them: standard errors, bounds."""
    beside = [
        table[column].tolist() if column in table else [math.nan] * len(table)
        for column in (f"{name}_se", f"{name}_low", f"{name}_high")
    ]
    return [
        Estimate(value, stderr, None if math.isnan(low) else (low, high))
        for value, stderr, low, high in zip(table[name].tolist(), *beside, strict=True)
    ]


def dimmed(cell: str) -> Text:
    """A value with its standard error, the error dim."""
    value, sign, error = cell.partition(" ± ")
    return Text.assemble(value, (sign + error, "dim"))


def _plain(name: str) -> Callable[[pd.DataFrame], list[Text]]:
    return lambda table: [Text(str(value)) for value in table[name]]


def _percent(name: str) -> Callable[[pd.DataFrame], list[Text]]:
    return lambda table: [Text("–" if math.isnan(value) else f"{value:.1%}") for value in table[name]]


def _sketches(table: pd.DataFrame) -> list[Text]:
    return [
        Text("exact", "dim") if pd.isna(rank) else Text.assemble(str(rank), (f": {error:.1e}", "dim"))
        for rank, error in zip(table["sketch"], table["sketch_error"], strict=True)
    ]


def _calls(table: pd.DataFrame) -> list[Text]:
    return [Text("all" if call < 0 else str(call)) for call in table["call"]]


def _kets(table: pd.DataFrame) -> list[Text]:
    return [
        Text(f"{kets}!", "yellow") if per_d < _FEW else Text(f"{kets} ")
        for kets, per_d in zip(table["kets"], table["n_per_d"], strict=True)
    ]


def _bars(table: pd.DataFrame) -> list[Text]:
    """Entropy as a share of the most that so many dimensions can have, log₂ d."""
    cells = []
    for entropy, d in zip(table["entropy"], table["d"], strict=True):
        share = entropy / math.log2(d) if d > 1 and math.isfinite(entropy) else 0.0
        filled = min(_BAR, max(0, round(share * _BAR)))
        cells.append(Text.assemble(("█" * filled, "cyan"), ("░" * (_BAR - filled), "dim")))
    return cells


_COLUMNS = (
    _Column("call", "call", "", 0, _calls),
    _Column("kind", "kind", "", 12, _plain("kind")),
    _Column("d", "d", "", 1, _plain("d")),
    _Column("kets", "kets ", "", 2, _kets),
    _Column("sketch", "sketch", "rank: error", 2, _sketches),
    _Column("entropy", "entropy", "bits", 3, _estimates("entropy")),
    _Column("of_most", "of log₂ d", "", 8, _bars),
    _Column("effective_rank", "eff. rank", "2^S", 4, _estimates("effective_rank")),
    _Column("participation_ratio", "part. ratio", "1/Tr ρ²", 10, _estimates("participation_ratio")),
    _Column("coherence", "coherence", "bits", 5, _estimates("coherence")),
    _Column("ket_coherence", "of one ket", "bits", 13, _estimates("ket_coherence")),
    _Column("top_weight", "top weight", "", 6, _estimates("top_weight")),
    _Column("dead", "dead", "neurons", 7, _percent("dead")),
    _Column("zero", "zero", "kets", 0, _percent("zero")),
    _Column("dropped", "dropped", "samples", 0, _plain("dropped")),
    _Column("entanglement", "entangl.", "bits", 9, _estimates("entanglement")),
    _Column("rank_collapse", "collapse", "", 11, _estimates("rank_collapse")),
    _Column("norm", "norm", "", 14, _estimates("norm")),
    _Column("holevo", "Holevo", "bits", 7, _estimates("holevo")),
    _Column("holevo_null", "null", "bits", 11, _estimates("holevo_null")),
    _Column("pgm_accuracy", "pgm acc.", "", 13, _estimates("pgm_accuracy")),
    _Column("pgm_balanced", "pgm", "balanced", 9, _estimates("pgm_balanced")),
    _Column("pgm_auc", "pgm AUC", "", 12, _estimates("pgm_auc")),
    _Column("linear_accuracy", "linear acc.", "", 13, _estimates("linear_accuracy")),
    _Column("linear_balanced", "linear", "balanced", 4, _estimates("linear_balanced")),
    _Column("linear_auc", "linear AUC", "", 12, _estimates("linear_auc")),
    _Column("linear_r2", "linear R²", "", 4, _estimates("linear_r2")),
)


def _told(column: _Column, table: pd.DataFrame) -> bool:
    """Whether a column has anything to say about this study."""
    if column.name == "sketch":
        return "sketch" in table
    if column.name in ("zero", "dropped", "call"):
        return bool((table[column.name] != 0).any())
    number = "entropy" if column.name == "of_most" else column.name
    if number not in table:
        return False
    return column.name == "entropy" or bool(table[number].notna().any())


def _width(column: _Column, table: pd.DataFrame) -> int:
    return max(len(column.header), len(column.unit), *(cell.cell_len for cell in column.cells(table)))


def _fitting(table: pd.DataFrame, width: int) -> list[_Column]:
    """The most important columns that fit beside the names, in their order on the page."""
    longest = max(len("layer"), *map(len, table["layer"]))
    left = width - min(longest, max(_NARROWEST_NAME, width // 4))
    chosen = set()
    for column in sorted(_COLUMNS, key=lambda column: column.rank):
        if not _told(column, table):
            continue
        needed = _width(column, table) + _GAP
        if needed > left and column.rank > _ALWAYS:
            continue
        left -= needed
        chosen.add(column.name)
    return [column for column in _COLUMNS if column.name in chosen]


def _drawn(table: pd.DataFrame, columns: Sequence[_Column], width: int) -> Padding:
    drawn = _plain_table()
    used = sum(_width(column, table) + _GAP for column in columns)
    room = max(_NARROWEST_NAME, width - used)
    drawn.add_column("layer", style="bold cyan", no_wrap=True)
    for column in columns:
        header = Text.assemble(column.header, ("\n" + column.unit if column.unit else "", "dim not bold"))
        left = column.name in ("kind", "of_most")
        drawn.add_column(header, justify="left" if left else "right", overflow="fold", no_wrap=left)
    cells = [column.cells(table) for column in columns]
    for name, *row in zip(table["layer"], *cells, strict=True):
        drawn.add_row(Text(folded(name, room)), *row)
    return Padding(drawn, (1, 0))


def folded(name: str, width: int) -> str:
    """The name on as many lines as it needs, broken after dots where there are any.

    >>> folded("encoder.layer.3.output", 10)
    'encoder.\\nlayer.3.\\noutput'
    """
    lines = [""]
    for part in name.replace(".", ".\0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line[i : i + width] for line in lines for i in range(0, len(line), width))


def _title(study: Study) -> Text:
    source = study.settings.get("source", {})
    model = source.get("model", {}).get("spec", study.settings.get("model", "a network"))
    data = source.get("data", {}).get("spec")
    return Text.assemble(
        ("Study of ", "bold"), (short(str(model)), "bold cyan"), f" on {short(str(data))}" if data else ""
    )


def _footer(study: Study, table: pd.DataFrame, columns: Sequence[_Column], console: Console) -> None:
    def say(text: Text | str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    settings = study.settings
    normalize = str(settings.get("normalize", "state"))
    most = f", up to {int(table['kets'].max()):,} kets a layer" if len(table) else ""
    centred = "mean ket subtracted" if settings.get("center") else "not centred"
    say(
        f"{study.samples:,} samples{most}; {_NORMALIZATION.get(normalize, normalize)} "
        f"(normalize={normalize}), "
        f"{centred}. Values ± one standard error."
    )
    for warning in study.warnings:
        say(f"! {' '.join(warning.split())}", "yellow")
    reasons = list(by_reason(study.skipped).items())
    for reason, names in reasons[:_REASONS]:
        shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        say(Text.assemble("Left out: ", (shown, "cyan"), f" ({reason})"), "dim")
    if len(reasons) > _REASONS:
        say("Left out: others, for other reasons; --json names each.", "dim")
    if not columns:
        return
    shown_names = {column.name for column in columns}
    hidden = [
        c.name for c in _COLUMNS if c.name not in shown_names and c.name != "of_most" and _told(c, table)
    ]
    meanings = Table.grid(padding=(0, 2, 0, 0))
    for column in columns:
        if column.name in study.definitions and column.name != "kind":
            meanings.add_row(
                Text(column.header.strip(), "bold dim"), Text(study.definitions[column.name], "dim")
            )
    if "sketch" in shown_names:
        meanings.add_row(Text("error", "bold dim"), Text(study.definitions["sketch_error"], "dim"))
        meanings.add_row(Text("low … high", "bold dim"), Text(study.definitions["bounds"], "dim"))
    console.print(Padding(meanings, (1, 0, 0, 0)), highlight=False)
    if hidden:
        say(f"A wider terminal shows {', '.join(hidden)} too; --json has everything.", "dim")


def by_reason(skipped: dict[str, str]) -> dict[str, list[str]]:
    """Names by reason, repeated blocks as one.

    >>> by_reason({"h.0.drop": "does nothing", "h.1.drop": "does nothing", "flat": "reshapes"})
    {'does nothing': ['h.*.drop'], 'reshapes': ['flat']}
    """
    reasons: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        names = reasons.setdefault(_NUMBER.sub("*", reason), [])
        if (pattern := _NUMBER.sub("*", name)) not in names:
            names.append(pattern)
    return reasons


def short(spec: str) -> str:
    """A spec with the folders that lead to its files left out.

    >>> short("/home/ann/models/small/net.py:Net@/home/ann/runs/3/best.pt")
    '…/small/net.py:Net@…/3/best.pt'
    """
    paths = [part.split("/") for part in spec.split("@")]
    return "@".join("/".join(["…", *path[-2:]] if len(path) > 3 else path) for path in paths)
