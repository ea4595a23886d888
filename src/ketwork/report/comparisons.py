"""A comparison in a terminal: what changed between two models, or where one repeats itself, layer by layer."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.comparison import Comparison
from ketwork.networks.measures import PAIR_MEASURES
from ketwork.report import findings
from ketwork.report.changes import DEFINITIONS, TITLES, changes_columns, sentences, what_changed
from ketwork.report.studies import EXPLAIN
from ketwork.report.terminal_table import NARROWEST_NAME, Column, drawn
from ketwork.report.words import dimmed, folded, plus_minus, short, with_error

_RANKS = {"cka": 3, "bures": 4, "bures_null": 7, "r2": 5, "r2_reverse": 6}
"""The measures printed, by how long they stay as the terminal gets narrower."""


def render_comparison(comparison: Comparison, console: Console, explain: bool = False) -> None:
    """Prints the answer in sentences, and one row a layer: what changed of it, or its best match in the same model."""
    names = [short(name) for name in findings.sides(comparison)]
    with_whom = " with itself" if comparison.itself else f" with {names[1]}"
    title = Text.assemble(("Comparison of ", "bold"), (names[0], "bold cyan"), with_whom)
    console.print(title, highlight=False)
    if what := what_changed(comparison):
        for sentence in sentences(what):
            console.print(sentence, highlight=False, markup=False)
        columns = changes_columns(comparison, what, console.width)
        console.print(drawn([str(name) for name in what.frame.index], columns, console.width))
    else:
        _best_matches(comparison, console)
    _footer(comparison, console, explain)


def _best_matches(comparison: Comparison, console: Console) -> None:
    best = comparison.best_match().reset_index()
    if best.empty:
        console.print("No pair of layers has a value.", style="yellow")
        return
    rows = {layer.name: i for i, layer in enumerate(comparison.rows)}
    others = {layer.name: j for j, layer in enumerate(comparison.columns)}
    at = [(rows[a], others[b]) for a, b in zip(best["layer"], best["match"], strict=True)]
    width = max(NARROWEST_NAME, console.width // 4)
    matches = [Text(folded(match, width)) for match in best["match"]]
    columns = [Column("best match", matches, 0, words=True)]
    for measure in _printed(comparison):
        cells = [dimmed(cell) for cell in plus_minus([comparison.estimate(measure, *place) for place in at])]
        columns.append(Column(PAIR_MEASURES[measure].title, cells, _RANKS.get(measure, 3)))
    console.print(drawn(best["layer"].tolist(), columns, console.width))


def _printed(comparison: Comparison) -> list[str]:
    """The usual measures, and that of the match whatever it is."""
    return [name for name in comparison.matrices if name in _RANKS or name == comparison.measures[0]]


def _footer(comparison: Comparison, console: Console, explain: bool) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    if near := findings.redundant(comparison):
        measure = PAIR_MEASURES[near.measure].title
        value = with_error(near.value)
        say(
            f"{near.second} repeats the layer before it, {near.first}, most closely ({measure} {value}); "
            f"{len(near.alike)} of {near.pairs} adjacent pairs are at {findings.ALIKE} or above."
        )
    unit = "positions" if comparison.settings.get("unit") == "position" else "samples"
    taken = f" ({comparison.settings['taken']})" if comparison.settings.get("taken") else ""
    if comparison.independent != comparison.n:
        unit += f" of {comparison.independent:,} samples"
    layers = f"{len(comparison.rows)} × {len(comparison.columns)} layers"
    matched_by = PAIR_MEASURES[comparison.measures[0]].title
    say(
        f"{comparison.n:,} {unit}{taken}, {layers}; the match is the best by {matched_by}. Values ± one standard "
        "error."
    )
    for warning in comparison.warnings:
        say(f"! {' '.join(warning.split())}", "yellow")
    if not explain:
        say(EXPLAIN, "dim")
        return
    meanings = Table.grid(padding=(0, 2, 0, 0))
    for measure in _printed(comparison):
        meanings.add_row(
            Text(PAIR_MEASURES[measure].title, "bold dim"), Text(comparison.definitions[measure], "dim")
        )
    for name, sentence in ({} if comparison.itself else DEFINITIONS).items():
        meanings.add_row(Text(TITLES[name], "bold dim"), Text(sentence, "dim"))
    console.print(Padding(meanings, (1, 0, 0, 0)), highlight=False)
