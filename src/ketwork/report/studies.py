"""A study as a table in a terminal, fitted to its width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ketwork.networks.measures import Measure, by_label
from ketwork.networks.runtime import Plan, Share
from ketwork.networks.study import Layer, Study
from ketwork.report.terminal_table import Column, bar, drawn, fitting, plain_table
from ketwork.report.words import by_reason, dimmed, duration, megabytes, plus_minus, short

EXPLAIN = "--explain says what each number means."
_REASONS = 6  # lines on what was skipped
_NORMALIZATION = {"state": "every vector has weight 1", "ensemble": "vectors weigh by their squared norm"}


def render(study: Study, console: Console, explain: bool = False) -> None:
    """Prints the study's table and what must be known to read it; with `explain` what each number means.

    Numbers are never cut: as the console gets narrower, less important columns are hidden and named below,
    and names of layers are folded at their dots. Values stand with ± one standard error, at most three decimals.
    """
    console.print(_title(study), highlight=False)
    names = [layer.name for layer in study]
    columns = _columns(study)
    if names:
        console.print(drawn(names, columns, console.width))
        kept = fitting(names, columns, console.width)
    else:
        kept = []
        console.print("No layer was reached by the data.", style="yellow")
    _footer(study, columns, kept, console, explain)


def render_plan(plan: Plan, console: Console) -> None:
    """Prints what becomes of a memory budget: a row for each width and form of layers, and the bytes of each part."""
    alike: dict[tuple[int, int | None], list[Share]] = {}
    for share in plan.shares:
        alike.setdefault((share.d, share.rank), []).append(share)
    table = plain_table()
    for name in ("layers", "d", "kept", "moments", "samples for ±", "for labels"):
        table.add_column(name, justify="left" if name in ("layers", "kept") else "right", overflow="fold")
    for (d, rank), shares in alike.items():
        names = [share.layer for share in shares]
        first = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        sizes = ([getattr(share, part) for share in shares] for part in ("moment", "reservoir", "labels"))
        form = "exact" if rank is None else f"sketch of rank {rank}"
        table.add_row(Text(first, "cyan"), str(d), form, *(megabytes(sum(each)) for each in sizes))
    title = (
        f": {megabytes(plan.total)} of {megabytes(plan.memory)}, on top of the network and one batch in it"
    )
    console.print(Text.assemble(("Plan of the memory", "bold"), title), highlight=False)
    console.print(Padding(table, (1, 0)))
    pairs = f", {megabytes(plan.pairs)} to compare layers" if plan.pairs else ""
    if plan.batch_seconds is not None and plan.end_seconds is not None:
        console.print(
            f"Beside the network ≈ {duration(plan.batch_seconds)} a batch; end of study ≈ {duration(plan.end_seconds)}"
            " (by operations and this machine's speed).",
            style="dim",
            highlight=False,
        )
    console.print(
        f"Of these {megabytes(plan.work)} for work on one layer at a time{pairs}.",
        style="dim",
        highlight=False,
    )


def _columns(study: Study) -> list[Column]:
    """All columns that have anything to show of this study."""
    layers = list(study)
    columns = []
    if any(layer.call for layer in layers):
        columns.append(
            Column("call", [Text("all" if x.call < 0 else str(x.call)) for x in layers], 0, name="call")
        )
    columns += [
        Column("kind", [Text(layer.kind) for layer in layers], 12, words=True),
        Column("d", [Text(str(layer.d)) for layer in layers], 1, name="d"),
        Column("vectors", [_vectors(layer) for layer in layers], 2, name="kets"),
    ]
    if any(layer.sketch is not None for layer in layers):
        columns.append(Column("sketch", [_sketch(x) for x in layers], 2, unit="rank: error", name="sketch"))
    if any(layer.accumulator.dropped for layer in layers):
        dropped = [Text(str(layer.accumulator.dropped)) for layer in layers]
        columns.append(Column("dropped", dropped, 0, unit="samples", name="dropped"))
    for each in study.measures:
        if each.column is None or not _worth(each, layers):
            continue
        header, unit, rank = each.column.header, each.column.unit, each.column.rank
        beside = each.column.beside
        columns.append(Column(header, _cells(each, layers), rank, unit=unit, name=each.name, beside=beside))
        if each.name == "entropy":
            columns.append(Column("of log₂ d", [_share_of_most(x) for x in layers], 8, words=True))
    return columns


def _worth(measure: Measure, layers: Sequence[Layer]) -> bool:
    """Whether a measure has anything to tell of these layers."""
    values = [layer.estimate(measure.name) for layer in layers]
    if measure.name == "entropy":
        return True
    return measure.column is not None and measure.column.tells(values)


def _cells(measure: Measure, layers: Sequence[Layer]) -> list[Text]:
    estimates = [layer.estimate(measure.name) for layer in layers]
    if measure.show == "count":
        return [Text("–" if math.isnan(e) else e.words("{:.0f}".format)) for e in estimates]
    if measure.show == "percent" and not measure.stderr:
        return [Text("–" if math.isnan(e) else e.words("{:.1%}".format)) for e in estimates]
    return [dimmed(cell) for cell in plus_minus(estimates)]


def _vectors(layer: Layer) -> Text:
    return Text(f"{layer.kets}!", "yellow") if layer.few_samples else Text(f"{layer.kets} ")


def _sketch(layer: Layer) -> Text:
    if layer.sketch is None:
        return Text("exact", "dim")
    return Text.assemble(str(layer.sketch), (f": {layer.sketch_error:.1e}", "dim"))


def _share_of_most(layer: Layer) -> Text:
    """Entropy as a share of the most that so many dimensions can have, log₂ d."""
    entropy = layer.estimate("entropy")
    return bar(entropy.value / math.log2(layer.d) if layer.d > 1 and math.isfinite(entropy) else 0.0)


def _title(study: Study) -> Text:
    source = study.settings.get("source", {})
    model = source.get("model", {}).get("spec", study.settings.get("model", "a network"))
    data = source.get("data", {}).get("spec")
    return Text.assemble(
        ("Study of ", "bold"), (short(str(model)), "bold cyan"), f" on {short(str(data))}" if data else ""
    )


def _footer(
    study: Study, columns: Sequence[Column], kept: Sequence[Column], console: Console, explain: bool
) -> None:
    def say(text: Text | str, style: str = "") -> None:
        console.print(text, style=style, highlight=False, markup=False)

    settings = study.settings
    taken = f" ({settings['taken']})" if settings.get("taken") else ""
    taken += f", positions {settings['positions']}" if settings.get("positions") else ""
    normalize = str(settings.get("normalize", "state"))
    most = f", up to {max(layer.kets for layer in study):,} vectors (kets) a layer" if len(study) else ""
    centred = "mean vector subtracted" if settings.get("center") else "not centred"
    say(
        f"{study.samples:,} samples{taken}{most}; {_NORMALIZATION.get(normalize, normalize)} "
        f"(normalize={normalize}), {centred}. Values ± one standard error, "
        "corrected for finite data."
    )
    decoded = next((layer.labels for layer in study if layer.labels is not None), None)
    if decoded is not None and len(decoded.held_out):
        held = f"{len(decoded.held_out):,} samples{by_label(decoded.held_counts)}"
        say(f"Scores are of {held}, held out; 1.96 errors reach the ends of their 95 % intervals.")
    for warning in study.warnings:
        say(f"! {' '.join(warning.split())}", "yellow")
    reasons = list(by_reason(study.skipped).items())
    for reason, names in reasons[:_REASONS]:
        first = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        say(Text.assemble("Skipped: ", (first, "cyan"), f" ({reason})"), "dim")
    if len(reasons) > _REASONS:
        say("Skipped: others, for other reasons; --json names each.", "dim")
    if not kept:
        return
    meanings = Table.grid(padding=(0, 2, 0, 0))
    for column in kept:
        if column.name in study.definitions:
            text = Text(study.definitions[column.name], "dim")
            meanings.add_row(Text(column.header.strip(), "bold dim"), text)
    if any(column.name == "sketch" for column in kept):
        meanings.add_row(Text("error", "bold dim"), Text(study.definitions["sketch_error"], "dim"))
        meanings.add_row(Text("low … high", "bold dim"), Text(study.definitions["bounds"], "dim"))
    if explain:
        console.print(Padding(meanings, (1, 0, 0, 0)), highlight=False)
    hidden = [column.name for column in columns if column.name and column not in kept]
    wider = f"A wider terminal shows {', '.join(hidden)} too; --json has everything. " if hidden else ""
    say(f"{wider}{'' if explain else EXPLAIN}".strip(), "dim")
