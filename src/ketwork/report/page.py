"""The pages of studies and comparisons: what is said in them, and the data of their pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ketwork.networks.comparison import Comparison
from ketwork.networks.runtime import Stage
from ketwork.networks.study import RANK_SHARE, Layer, Study, StudyAccumulator
from ketwork.quantum import Estimate
from ketwork.records import presents
from ketwork.report import actions, findings
from ketwork.report.changes import DEFINITIONS, changes_points, changes_table, what_changed
from ketwork.report.commands import Commands
from ketwork.report.document import TITLES, Page, charts_module, target_of, write_page
from ketwork.report.page_tables import best_matches, layer_table, side_by_side
from ketwork.report.views import View, label_order, layer_views
from ketwork.report.words import measured, short, with_error

_MATRIX_CELLS = 120_000
_NUMBERED = 48  # dead neurons that are listed by number
_BALL = 0.5  # of the variance that the plane of a Bloch ball must hold to be a picture of the layer


@presents(Study, "page")
def write_study(
    study: Study,
    path: str | Path,
    comparison: Comparison | None = None,
    beside: Study | None = None,
    on_stage: Callable[[Stage], None] = lambda stage: None,
    with_command: bool = False,
) -> Path:
    """Writes the page of a study and returns its path; `comparison` (of the model with itself) is shown in it.

    `beside` is a study of layers with the same names, whose numbers stand beside this one's, in pictures and a table.
    `with_command` has the page show the command line and absolute paths.

    `on_stage` gets each layer as it is done. Cost: one decomposition a layer that has none yet, and about 4 s for the
    charts' JavaScript.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: `path` cannot be written.
        ValueError: `comparison` is of two models, or `beside` of other layers.
    """
    if beside is not None and not {x.info.key for x in study} & {x.info.key for x in beside}:
        raise ValueError(
            "Argument `beside` must be a study of layers with the same names, but has none of them."
        )
    if comparison is not None and not comparison.itself:
        raise ValueError(
            "Argument `comparison` must be of one model with itself, but is of two models. "
            "Use `comparison.report(path)` for its page."
        )
    path = target_of(path)
    rows = []
    for row in layer_views(study):
        rows.append(row)
        on_stage(Stage("page", len(rows), len(study), len(rows) / len(study)))
    page = _study_page(study, rows, comparison, beside, Commands(study.settings, not with_command))
    return write_page(path, study, page, with_command=with_command)


@presents(Layer, "page")
def write_layer(layer: Layer, path: str | Path, *, with_command: bool = False) -> Path:
    """Writes the page of one layer, as of a study that has it alone."""
    settings = {"model": layer.name, "normalize": layer.normalize, "center": layer.center}
    task = None if layer.labels is None else ("classes" if layer.labels.names else "values")
    return write_study(
        Study(StudyAccumulator(layer.normalize, samples=layer.N), (layer,), settings | {"task": task}),
        path,
        with_command=with_command,
    )


@presents(Comparison, "page")
def write_comparison(comparison: Comparison, path: str | Path, *, with_command: bool = False) -> Path:
    """Writes the page of a comparison and returns its path; raises as `write_study` does."""
    page = _comparison_page(comparison, Commands(comparison.settings, not with_command))
    return write_page(target_of(path), comparison, page, with_command=with_command)


def _study_page(
    study: Study, rows: Sequence[View], comparison: Comparison | None, beside: Study | None, say: Commands
) -> Page:
    charts = charts_module()
    source = study.settings.get("source", {})
    labels = findings.labels(study, rows)
    readings = () if beside is None else findings.readings(study, beside)
    drawn = charts.study_charts(rows, labels.classes if labels else 0, readings)
    aligned, dead = findings.aligned(rows), findings.dead(rows)
    definitions = study.definitions | {"rank_share": RANK_SHARE}
    data: dict[str, Any] = {
        "charts": drawn.specs,
        "layerCharts": charts.layer_charts(),
        "layers": [_layer_data(row, study, aligned, dead, beside) for row in rows],
        "details": [_details(row) for row in rows],
    }
    content: dict[str, Any] = {
        "rows": rows,
        "data_spec": short(str(source.get("data", {}).get("spec", ""))),
        "dimensions": findings.dimensions(rows),
        "cut": findings.cut(rows),
        "labels": labels,
        "aligned": aligned,
        "dead": dead,
        "sinks": findings.sinks(study, rows),
        "beside": None if beside is None else side_by_side(rows, beside),
        "readings": readings,
        "most_dead": charts.MOST_DEAD,
        "charts": drawn.specs,
        "pictures": drawn.groups,
        "comparison": comparison,
        "not_compared": findings.not_compared(study, comparison),
        "table": layer_table(rows, study.settings.get("task")),
        "sketched": any(row.layer.sketch is not None for row in rows),
        **_matrix_content(comparison, data, rows),
    }
    if comparison is not None:
        definitions = definitions | comparison.definitions
    data["quantities"] = [
        {
            "name": measure.name,
            "title": measure.title,
            "unit": "" if measure.show == "percent" else measure.unit,
            "definition": definitions[measure.name],
        }
        for measure in study.measures
    ]
    title = source.get("model", {}).get("spec") or study.settings.get("model") or "A network"
    suggested = actions.of_study(study, rows, comparison, say)
    return Page("study.html.j2", short(str(title)), "study", content, definitions, data, suggested)


def _comparison_page(comparison: Comparison, say: Commands) -> Page:
    data: dict[str, Any] = {"charts": {}}
    what = what_changed(comparison)
    charts_module()  # which says what to install where it is missing
    from ketwork.report.change_charts import changes_charts

    charts = {} if what is None else changes_charts(changes_points(what))
    data["charts"] |= charts
    content = {
        "what": what,
        "changes_charts": charts,
        "table": best_matches(comparison) if what is None else changes_table(comparison, what),
        **_matrix_content(comparison, data),
        "missing_pairs": None,  # its warnings say so
    }
    names = [short(name) for name in findings.sides(comparison)]
    content["names"] = names
    title = names[0] if comparison.itself else " and ".join(names)
    definitions = comparison.definitions | ({} if what is None else DEFINITIONS)
    suggested = actions.of_comparison(comparison, say)
    return Page("comparison.html.j2", title, "comparison", content, definitions, data, suggested)


def _matrix_content(
    comparison: Comparison | None, data: dict[str, Any], rows: Sequence[View] = ()
) -> dict[str, Any]:
    """What the template shows of a comparison; its matrices and their picture go to the script's data."""
    content: dict[str, Any] = {
        "redundant": findings.redundant(comparison, rows),
        "alike": findings.ALIKE,
        "names_of_measures": TITLES,
        "matrices": [],
        "omitted": False,
        "missing_pairs": None if comparison is None else comparison.missing_pairs,
    }
    if comparison is None or not comparison.rows or not comparison.columns:
        return content
    cells = len(comparison.rows) * len(comparison.columns)
    visible = list(comparison.matrices)[: max(1, _MATRIX_CELLS // cells)]  # each with its errors
    sides = len(comparison.rows), len(comparison.columns)
    data["charts"]["matrix"] = charts_module().matrix_chart(*sides)
    names = _distinct([layer.name for layer in comparison.rows])
    content["matrix_width"] = round(charts_module().matrix_width(names, sides[1]))
    data["matrices"] = {
        "rows": names,
        "columns": _distinct([layer.name for layer in comparison.columns]),
        "values": {name: comparison.matrices[name].double().round(decimals=4).tolist() for name in visible},
        "errors": {
            name: comparison.stderrs[name].double().round(decimals=4).tolist()
            for name in visible
            if name in comparison.stderrs
        },
    }
    return content | {"matrices": visible, "omitted": len(visible) < len(comparison.matrices)}


def _layer_data(
    row: View, study: Study, aligned: Sequence[View], dead: Sequence[View], beside: Study | None
) -> dict[str, Any]:
    """A layer's numbers for the charts: value, standard error, and both in words, by quantity."""
    data: dict[str, Any] = {"id": row.place, "place": row.place + 1, "label": row.label}
    data |= {
        "named": row in (*aligned[:1], *aligned[-1:]),
        "dead_visible": row in dead[: charts_module().MOST_DEAD],
    }
    for measure in study.measures:
        data |= _number(measure.name, row[measure.name], row.words(measure.name))
    if row.part is not None:
        share = row.layer.rank_share
        data |= {"part": row.part.name, "block": row.part.block, "role": row.part.role}
        data |= _number("rank_share", share, f"{with_error(100 * share)} %")
    if beside is not None and row.layer.info.key in beside:
        other = beside[row.layer.info.key]
        for measure in study.measures:
            estimate = other.estimate(measure.name)
            data |= _number(charts_module().BESIDE + measure.name, estimate, measured(measure, estimate))
        if row.part is not None:
            data |= _number(charts_module().BESIDE + "rank_share", other.rank_share, "")
    return data


def _number(name: str, estimate: Estimate, words: str) -> dict[str, Any]:
    """A number under its name, with its words, its standard error and its bounds as far as it has them."""
    if not math.isfinite(estimate.value):
        return {}
    data: dict[str, Any] = {name: estimate.value, f"{name}_text": words}
    if math.isfinite(estimate.stderr):
        data[f"{name}_stderr"] = estimate.stderr
    if estimate.bounds is not None:
        data |= dict(zip((f"{name}_low", f"{name}_high"), estimate.bounds, strict=True))
    return data


def _details(row: View) -> dict[str, Any]:
    """What the page shows when a layer is clicked."""
    layer, ranks = row.layer, row.ranks()
    aliases = f" The same tensor as {', '.join(layer.aliases)}." if layer.aliases else ""
    dead = _dead(row)
    details: dict[str, Any] = {
        "summary": f"{layer.kind}, {layer.d} features, {layer.N:,} samples, {layer.kets:,} vectors.{aliases}{dead}",
        "ranks": ranks,
        "eigenvalues": [float(f"{row.spectrum[k - 1]:.4g}") for k in ranks],
        "discarded": [float(f"{row.discarded[k - 1]:.4g}") for k in ranks],
    }
    if row.has("rank_kept"):
        details["spectrum"] = (
            f"The {row.words('rank_kept')} largest of {layer.d} eigenvalues carry 99 % of the variance, "
            f"the largest one {row['top_weight'].words('{:.1%}'.format)}."
        )
        if layer.sketch is not None:
            details["spectrum"] += (
                f" The layer is a sketch of rank {layer.sketch}, certain to {layer.sketch_error:.1e}: drawn is the "
                "middle between the purest and the most mixed spectrum that it allows."
            )
    if row.confusion is not None:
        details["confusion"] = row.confusion
    if row.plane is not None and row.plane.weight >= _BALL:
        details["ball"] = _plane(row)
    return details


def _dead(row: View) -> str:
    """Which neurons never fire, where there are some."""
    if not (dead := row.layer.dead_neurons):
        return ""
    more = f" and {len(dead) - _NUMBERED} more" if len(dead) > _NUMBERED else ""
    return f" Dead neurons, counted from 0: {', '.join(map(str, dead[:_NUMBERED]))}{more}."


def _plane(row: View) -> dict[str, Any]:
    plane = row.plane
    assert plane is not None
    words = (
        f"The span of |1⟩ and |2⟩, the two leading eigenstates, holds {plane.weight:.1%} of the layer's variance. Each "
        "state is projected onto it and scaled back to trace 1, so this is a picture of that plane alone. "
        "The blue line is the layer's state, on the axis because |1⟩ and |2⟩ are its eigenstates; grey dots are "
        "single vectors of the data"
    )
    words += "; orange ones the labels' states (of pooled kets)." if plane.labels else "."
    if row.layer.sketch is not None:
        words += " All of this is of what the layer's sketch keeps."
    flat = not row.layer.accumulator.reservoir.kets.is_complex()
    words += (
        " All amplitudes are real, so all states lie in the disc that is drawn, y = 0."
        if flat
        else " y points out of the page."
    )
    return {
        "caption": words,
        "own": _vector(plane.own),
        "kets": [_vector(ket) for ket in plane.kets],
        "labels": _label_vectors(row),
    }


def _label_vectors(row: View) -> list[list[Any]]:
    """The labels' Bloch vectors by their names, in the order of a reader."""
    plane, labels = row.plane, row.layer.labels
    if plane is None or labels is None or not plane.labels:
        return []
    names, order = label_order(labels, row.label_names)
    return [
        [names[i], _vector(plane.labels[labels.names[i]])] for i in order if labels.names[i] in plane.labels
    ]


def _vector(bloch: Any) -> list[float]:
    return [round(x, 3) for x in bloch.tolist()]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that occur again are numbered, since a picture's axis would draw them as one."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return distinct
