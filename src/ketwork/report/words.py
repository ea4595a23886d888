"""Numbers, names and reasons in words, as terminal tables and pages print them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from rich.text import Text

from ketwork.networks.measures import Measure
from ketwork.quantum import Estimate, decimals

_PLACES = 3  # decimals printed at most; the record has all
_ABSOLUTE = re.compile(
    r"(?<![\w.:/…~+\\])(?:~?/|[A-Za-z]:\\)(?:[^\s'\"`,;()@:/\\]+[/\\])*([^\s'\"`,;()@:/\\]+)[/\\]?"
)
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|\b)")


def measured(measure: Measure, estimate: Estimate) -> str:
    """A measure in words, ± its standard error, shares in per cent.

    >>> from ketwork.networks.measures.registry import MEASURES
    >>> measured(MEASURES["dead"], Estimate(0.125)), measured(MEASURES["entropy"], Estimate(1.5, 0.02))
    ('12.5 %', '1.50 ± 0.02')
    >>> measured(MEASURES["sparsity"], Estimate(0.5, 0.012)), measured(MEASURES["sparsity"], Estimate(0.99963, 3e-6))
    ('50.0 ± 1.2 %', '99.963 ± 0.001 %')
    >>> measured(MEASURES["sparsity"], Estimate(1.0, 0.0))
    '100.0 %'
    """
    if measure.show == "count" or math.isnan(estimate):
        return "–" if math.isnan(estimate) else estimate.words("{:.0f}".format)
    if measure.show == "number":
        return with_error(estimate)
    value, error = estimate.words(_percent), _percent(estimate.stderr)
    if (
        math.isnan(estimate.stderr) or estimate.stderr == 0
    ):  # an error of 0 is none that was found, not certainty
        return f"{value} %"
    small = estimate.stderr > 0 and float(error) == 0  # more decimals than one tell it from none
    return f"{with_error(100 * estimate)} %" if small else f"{value} ± {error} %"


def with_error(value: Estimate) -> str:
    """A value ± its standard error, with as many decimals as that needs, three at most.

    >>> with_error(Estimate(0.98765, 0.0034)), with_error(Estimate(0.5))
    ('0.988 ± 0.003', '0.500')
    """
    return plus_minus([value])[0].strip()


def plus_minus(estimates: Sequence[Estimate]) -> list[str]:
    """Values with their standard errors, with as many decimals in the whole column as its smallest error needs.

    An error too small for three decimals shows as one unit of the last. Of a value that is only known to lie between
    two numbers, these two are shown where their decimals tell them apart.

    >>> plus_minus([Estimate(1.74867, 0.0022), Estimate(12.5, 0.41), Estimate(2.0, bounds=(1.9, 2.2))])
    ['1.749 ± 0.002', '12.500 ± 0.410', '1.900 … 2.200        ']
    """
    known = [estimate.stderr for estimate in estimates if 0 < estimate.stderr < math.inf]
    places = min(_PLACES, max(map(decimals, known), default=_PLACES))
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


def _aligned(cell: str, widest: int) -> str:
    value, sign, error = cell.partition(" ± ")
    if not sign:
        return cell + " " * (widest + 3 if widest else 0) if cell != "–" else cell
    return f"{value} ± {error:>{widest}}"


def dimmed(cell: str) -> Text:
    """A value with its standard error, the error dim."""
    value, sign, error = cell.partition(" ± ")
    return Text.assemble(value, (sign + error, "dim"))


def megabytes(size: int) -> str:
    """Bytes in megabytes, of 10⁶.

    >>> megabytes(1_500_000), megabytes(2_000_000_000), megabytes(1)
    ('1.5 MB', '2,000 MB', '0.0 MB')
    """
    return f"{size / 1e6:,.{0 if size >= 1e7 else 1}f} MB"


def duration(seconds: float) -> str:
    """A time of which two digits are known at most.

    >>> duration(0.0123), duration(41.2), duration(2160), duration(57600)
    ('0.012 s', '41 s', '36 min', '16 h')
    """
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


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


def by_reason(skipped: Mapping[str, str]) -> dict[str, list[str]]:
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
    """A spec without the folders that lead to its files, of which two are kept where that does not name a home.

    >>> short("/home/ann/models/small/net.py:Net@/home/ann/runs/3/best.pt"), short("/home/ann/net.pt")
    ('…/small/net.py:Net@…/3/best.pt', '…/net.pt')
    """
    paths = [part.split("/") for part in spec.split("@")]
    return "@".join(
        "/".join(["…", *path[-1 if len(path) == 4 and not path[0] else -2 :]] if len(path) > 3 else path)
        for path in paths
    )


def is_absolute(spec: str) -> bool:
    r"""Whether a spec has a path in it that starts at the root, or in somebody's home.

    >>> [is_absolute(spec) for spec in ("/srv/x.npz", "net.py:Net@~/net.pt", r"C:\x.npz", "runs/x.npz", "a.b:c")]
    [True, True, True, False, False]
    """
    return _ABSOLUTE.search(spec) is not None


def without_paths(text: str) -> str:
    """Text in which absolute paths are shortened to the names of their files.

    >>> without_paths("Skipped '/home/ann/x/notes.csv' and runs/y.csv; see https://arxiv.org/abs/1, 1/2 and +/- 3")
    "Skipped '…/notes.csv' and runs/y.csv; see https://arxiv.org/abs/1, 1/2 and +/- 3"
    """
    return _ABSOLUTE.sub(r"…/\1", text)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
