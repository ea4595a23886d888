"""`ketwork doctor`: what is installed, where networks can run, and whether ketwork gets its numbers right."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import time
from typing import Any

import torch
import typer
from rich.console import Console
from rich.text import Text

from ketwork._version import __version__
from ketwork.cli import options, printing
from ketwork.cli.console import Quiet, one_line_errors, wide_console
from ketwork.networks.study import study
from ketwork.report import plain_table

HELP = "Example: `ketwork doctor --json`, for a report of a problem"

_EXTRA = re.compile(r"""extra == ['"]([\w-]+)['"]""")
_NAME = re.compile(r"[\w.-]+")
_FOR_DEVELOPERS = ("dev", "docs")


def command(
    as_json_: printing.Json = False,
    quiet: Quiet = False,
    debug: options.Debug = False,
) -> None:
    """What is installed and where networks can run, and a self-test of some seconds; exit code 1 where it fails."""
    with one_line_errors(debug):
        report: dict[str, Any] = {
            "ketwork": __version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "devices": devices(),
            "threads": torch.get_num_threads(),
            "packages": packages(),
            "extras": extras(),
            "self-test": self_test(),
        }
        if as_json_:
            print(json.dumps(report, indent=1, ensure_ascii=False), flush=True)
        else:
            _print(report, wide_console())
        if not all(test["passed"] for test in report["self-test"]):
            raise typer.Exit(1)


def devices() -> list[str]:
    """The devices that networks can run on, by the names that --device takes."""
    names = ["cpu"]
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return names + (["mps"] if torch.backends.mps.is_available() else [])


def packages() -> dict[str, str | None]:
    """The versions of what ketwork needs; None of what is missing."""
    return {name: _version(name) for name, extra in _requirements() if extra is None}


def extras() -> dict[str, dict[str, Any]]:
    """Each extra: the versions of its packages, and those that are missing."""
    result: dict[str, dict[str, Any]] = {}
    for name, extra in _requirements():
        if extra is None or extra in _FOR_DEVELOPERS:
            continue
        parts = result.setdefault(extra, {"installed": {}, "missing": []})
        version = _version(name)
        if version is None:
            parts["missing"].append(name)
        else:
            parts["installed"][name] = version
    return result


def self_test() -> list[dict[str, Any]]:
    """Studies whose numbers are known: pure and mixed states of eight orthogonal inputs, and the demonstration."""
    tests: list[tuple[str, Any]] = [
        ("eight orthogonal inputs have 3 bits", _bits),
        ("the trained demonstration tells ten digits apart", _digits),
    ]
    results = []
    for name, test in tests:
        begun = time.perf_counter()
        try:
            passed, words = test()
        except Exception as error:  # noqa: BLE001  whatever is broken here is what is to be said
            passed, words = False, f"{type(error).__name__}: {error}"
        seconds = round(time.perf_counter() - begun, 2)
        results.append({"name": name, "passed": passed, "result": words, "seconds": seconds})
    return results


def _bits() -> tuple[bool, str]:
    record = study(torch.nn.Sequential(torch.nn.Identity()), torch.eye(8).repeat(8, 1), layers="all")
    assert record is not None
    layer = record[0] if len(record) else None
    value = float("nan") if layer is None else layer.density.entropy().item()
    return abs(value - 3) < 1e-5, f"{value:.6f} bits"


def _digits() -> tuple[bool, str]:
    from ketwork.demo import digits

    record = study(digits.model(), digits.held_out(), layers=["hidden"], max_samples=200)
    assert record is not None
    value = record["hidden"].estimate("linear_balanced").value
    return value > 0.8, f"balanced accuracy {value:.2f} of a linear probe"


def _requirements() -> list[tuple[str, str | None]]:
    """The packages that ketwork names, each with the extra that needs it."""
    matches = []
    for line in importlib.metadata.requires("ketwork") or ():
        name, extra = _NAME.match(line), _EXTRA.search(line)
        if name is not None and name[0] != "ketwork":
            matches.append((name[0], extra[1] if extra else None))
    return matches


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _print(report: dict[str, Any], console: Console) -> None:
    def say(text: str | Text) -> None:
        console.print(text, highlight=False, markup=False)

    say(
        Text.assemble(
            ("ketwork ", "bold"),
            (report["ketwork"], "bold cyan"),
            f", Python {report['python']}, {report['system']}",
        )
    )
    say(f"Devices: {', '.join(report['devices'])}; {report['threads']} threads")
    say(
        "Needed: "
        + ", ".join(f"{name} {version or 'MISSING'}" for name, version in report["packages"].items())
    )
    table = plain_table("extra", "installed", "to install")
    for column in table.columns:
        column.justify = "left"
    for name, parts in report["extras"].items():
        installed = (
            ", ".join(f"{package} {version}" for package, version in parts["installed"].items()) or "–"
        )
        missing = f"pip install 'ketwork[{name}]'" if parts["missing"] else ""
        table.add_row(Text(name, "cyan"), Text(installed), Text(missing, "yellow"))
    console.print(table)
    for test in report["self-test"]:
        mark = Text("passed", "green") if test["passed"] else Text("FAILED", "red")
        say(
            Text.assemble(
                "Self-test: ", test["name"], ": ", mark, f" ({test['result']}, {test['seconds']:.1f} s)"
            )
        )
