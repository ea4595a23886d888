"""A comparison in a terminal: where two models differ or one repeats itself, and each layer's best match."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.comparison import Comparison
from ketwork.networks.measures import PAIR_MEASURES
from ketwork.report import findings
from ketwork.report.terminal_table import NARROWEST_NAME, Column, drawn
from ketwork.report.words import dimmed, folded, plus_minus, short

_RANKS = {"cka": 3, "bures": 4, "bures_null": 7, "r2": 5, "r2_reverse": 6}
"""The measures printed, by how long they stay as the terminal gets narrower."""


def render_comparison(comparison: Comparison, console: Console) -> None:
    """Prints the answer as a sentence, then one row a layer: its best match, and the measures of the two."""
    names = [short(name) for name in findings.sides(comparison)]
    with_whom = " with itself" if comparison.itself else f" with {names[1]}"
    title = Text.assemble(("Comparison of ", "bold"), (names[0], "bold cyan"), with_whom)
    console.print(title, highlight=False)
    best = comparison.best_match().reset_index()
    if best.empty:
        console.print("No pair of layers has a value.", style="yellow")
    else:
        rows = {layer.name: i for i, layer in enumerate(comparison.rows)}
        others = {layer.name: j for j, layer in enumerate(comparison.columns)}
        at = [(rows[a], others[b]) for a, b in zip(best["layer"], best["match"], strict=True)]
        width = max(NARROWEST_NAME, console.width // 4)
        matches = [Text(folded(match, width)) for match in best["match"]]
        columns = [Column("best match", matches, 0, words=True)]
        for measure in _printed(comparison):
            cells = [
                dimmed(cell) for cell in plus_minus([comparison.estimate(measure, *place) for place in at])
            ]
            columns.append(Column(PAIR_MEASURES[measure].title, cells, _RANKS.get(measure, 3)))
        console.print(drawn(best["layer"].tolist(), columns, console.width))
    _footer(comparison, console)


def _printed(comparison: Comparison) -> list[str]:
    """The usual measures, and that of the match whatever it is."""
    return [name for name in comparison.matrices if name in _RANKS or name == comparison.measures[0]]


def _footer(comparison: Comparison, console: Console) -> None:
    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    if change := findings.changed(comparison):
        measure = PAIR_MEASURES[change.measure].title
        if change.same:
            say(f"All {change.shared} layers of the same name are alike ({measure} 1.000).")
        else:
            least, most = (plus_minus([each[1]])[0].strip() for each in (change.least, change.most))
            say(
                f"Of {change.shared} layers of the same name, {change.least[0]} differs most ({measure} {least}), "
                f"{change.most[0]} least ({most}); for {change.themselves} of them the best match is the layer of the "
                "same name."
            )
    if near := findings.redundant(comparison):
        measure = PAIR_MEASURES[near.measure].title
        value = plus_minus([near.value])[0].strip()
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
    meanings = Table.grid(padding=(0, 2, 0, 0))
    for measure in _printed(comparison):
        meanings.add_row(
            Text(PAIR_MEASURES[measure].title, "bold dim"), Text(comparison.definitions[measure], "dim")
        )
    console.print(Padding(meanings, (1, 0, 0, 0)), highlight=False)
