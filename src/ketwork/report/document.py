"""A page as one HTML file that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ketwork._version import __version__
from ketwork.networks.measures import MEASURES, PAIR_MEASURES
from ketwork.quantum import Estimate
from ketwork.records import undirected, write_text
from ketwork.report import findings
from ketwork.report.actions import Action
from ketwork.report.changes import share
from ketwork.report.words import megabytes, with_error, without_paths

_DIGITS = 6
_LONG = 20  # letters of a name that is not elided

TITLES = {
    "keeps": "keeps the metric",
    "share": "rank ÷ d",
    "rank_share": "effective rank ÷ d",
    "weight": "explained variance",
    "n_per_d": "samples per dimension",
    **{name: measure.title for name, measure in MEASURES.items()},
    **{name: measure.title for name, measure in PAIR_MEASURES.items()},
}


@dataclass(frozen=True)
class Page:
    """What a template is filled with, and the data for the page's script."""

    template: str
    title: str
    kind: str
    content: dict[str, Any]
    definitions: dict[str, str]
    data: dict[str, Any]
    actions: Sequence[Action] = ()


def write_page(path: Path, record: Any, page: Page, *, with_command: bool = False) -> Path:
    """Writes the page of a record and returns its path.

    Only `with_command` has it the command line and absolute paths, which may say more than a reader should know.

    Raises:
        ImportError: the extra `report` is missing.
        OSError: the file cannot be written.
    """
    ready()
    library, script = _library(), _resource("page.js")
    environment = Environment(
        loader=PackageLoader("ketwork.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "elided": _elided,
        "megabytes": megabytes,
        "estimate": _estimate,
        "plus_minus": with_error,
        "share": share,
    }
    public = str if with_command else without_paths
    environment.tests["numeral"] = _numeral
    text = environment.get_template(page.template).render(
        **page.content,
        title=page.title,
        kind=page.kind,
        record=record,
        actions=page.actions,
        error=None if getattr(record, "error", None) is None else public(record.error),
        warnings=[public(warning) for warning in getattr(record, "warnings", ())],
        skipped={public(reason): names for reason, names in findings.skipped(record).items()},
        settings={name: public(value) for name, value in findings.settings(record).items()},
        command=record.settings.get("command") if with_command else None,
        definitions={
            name: {"title": titled(name), "text": sentence} for name, sentence in page.definitions.items()
        },
        css=Markup(_resource("page.css")),
        library=Markup(library),
        script=Markup(script),
        trusted=Markup(" ".join(f"'sha256-{_digest(text)}'" for text in (library, script))),
        data=Markup(_embedded(page.data)),
        version=__version__,
    )
    write_text(path, undirected(text))
    return path


def ready() -> None:
    """Raises ImportError where the extra `report` is missing, before any work is done for a page."""
    charts_module()
    _vl_convert()


def titled(name: str) -> str:
    """What a reader calls a measure or a setting."""
    return TITLES.get(name, name.replace("_", " "))


def _breakable(words: object) -> Markup:
    """Words that may be broken after the marks that stand in paths and names.

    >>> _breakable("a.b:<c>")
    Markup('a.<wbr>b:<wbr>&lt;c&gt;')
    """
    parts = re.split(r"(?<=[.:/@_])(?=\w)|(?<=:)(?=<)", str(words))
    return Markup("<wbr>").join(parts)


def _elided(name: str) -> Markup:
    """A long name as two parts, of which the first gives way where the width is short: names differ at their ends.

    >>> print(_elided("conv1"), _elided("encoder.layer.11.attention.output"))
    conv1 <span class="front">encoder.layer.11.attent</span><span class="back">ion.output</span>
    """
    if len(name) <= _LONG:
        return escape(name)
    front, back = name[: -_LONG // 2], name[-_LONG // 2 :]
    return Markup('<span class="front">{}</span><span class="back">{}</span>').format(front, back)


def _estimate(value: Estimate) -> str:
    """A value ± its standard error, alone where that is 0: no spread was seen, which is not certainty.

    >>> _estimate(Estimate(0.5, 0.0)), _estimate(Estimate(0.5, 0.12))
    ('0.5', '0.50 ± 0.12')
    """
    return f"{value.value:.4g}" if value.stderr == 0 else str(value)


def _numeral(name: str) -> bool:
    """Whether a layer's name is but a number, which would read as one in a sentence.

    >>> [_numeral(name) for name in ("0", "3.1", "0 (2)", "conv1")]
    [True, True, True, False]
    """
    return re.fullmatch(r"\d[\d.]*( \(\d+\))?", name) is not None


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that no name in it can end: `<`, `>` and `&` are spelled as escapes.

    >>> print(_embedded({"name": "</script>", "value": float("nan")}))
    {"name":"\\u003c/script\\u003e","value":null}
    """
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _plain(value: Any) -> Any:
    """Numbers with six digits, those that are not finite as null."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    return value


def target_of(path: str | Path) -> Path:
    """The path of a page, whose folder must exist."""
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(
            f"Argument `path` must name a file in a folder that exists, but is {str(path)!r}. Make the folder first."
        )
    return path


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _resource(name: str) -> str:
    return resources.files("ketwork.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def _library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the package that bundles them."""
    bundle: str = _vl_convert().javascript_bundle("window.vegaEmbed = vegaEmbed;")
    bundle = bundle.replace("</script", "<\\/script")
    # In which the characters that names must not have would be spelled out, and the hash be another.
    return re.sub("[\u202a-\u202e\u2066-\u2069]", lambda match: f"\\u{ord(match[0]):04x}", bundle)


def _vl_convert() -> Any:
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return vl_convert


def charts_module() -> Any:
    """The charts' module, which needs the extra."""
    try:
        from ketwork.report import charts
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return charts


_MISSING = "Reports need altair and vl-convert-python. Install them with `pip install 'ketwork[report]'`."
