"""The command, or the line of Python, that does what a page suggests, on the model and data of its record."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ketwork.report.words import is_absolute

_DEMO = "ketwork.demo.digits:"
_FUNCTIONS = {"collapse": "collapse_curve", "study": "study", "compress": "compress"}


@dataclass(frozen=True)
class Commands:
    """Commands on the model and data that a record's settings name, its `source`.

    `private`: where these are absolute paths, MODEL and DATA stand for them. Of a model that was given as an object the
    command is a line of Python.

    >>> source = {"model": {"spec": "net.py:Net"}, "data": {"spec": "/home/ann/x.csv", "label": "spam"}}
    >>> print(Commands({"source": source})("collapse", layers=["h.0", "h.1"], max_kl=0.01))
    ketwork collapse net.py:Net --data DATA --label spam --layers h.0 --layers h.1 --max-kl 0.01
    >>> print(Commands({"source": source})("compress", layers=["h.0"], max_kl=0.01))
    ketwork compress net.py:Net --data DATA --label spam --layers h.0 --max-kl 0.01 --out small.safetensors
    >>> print(Commands({})("compress", layers=["h.0"], max_kl=0.01))
    kw.compress(model, data, layers=['h.0'], max_kl=0.01)
    """

    settings: Mapping[str, Any]
    private: bool = True

    def __call__(self, verb: str, **options: Any) -> str:
        """`ketwork verb` with these options; lists are repeated, True is a flag, `out` is the path of a page."""
        source = self.settings.get("source") or {}
        if "model" not in source:
            page = options.pop("out", None)
            words = ", ".join(["model", "data", *(f"{name}={value!r}" for name, value in options.items())])
            return f"kw.{_FUNCTIONS[verb]}({words})" + (f".report({page!r})" if page else "")
        parts = ["ketwork", verb, *self._source(source)]
        if verb == "compress":
            options["out"] = "small.safetensors"
        for name, value in options.items():
            option = "--" + name.replace("_", "-")
            for each in value if isinstance(value, list | tuple) else [value]:
                parts += [option] if each is True else [option, str(each)]
        return shlex.join(parts)

    def detect(self, new: str) -> tuple[str, ...]:
        """What saves the study, and scores other data, `new`, by it."""
        source = self.settings.get("source") or {}
        if "model" not in source:
            return (f"study.detector().score(model, {new.lower()})",)
        saved = "study.safetensors"
        model = self._named(str(source["model"].get("spec") or "MODEL"), "MODEL")
        scored = ["ketwork", "detect", model, "--study", saved, "--data", new]
        return self("study", out=saved), shlex.join([*scored, *_columns(source, "text", "input")])

    def _source(self, source: Mapping[str, Any]) -> list[str]:
        """The model and its data, as they are given to a command; nothing for the demonstration."""
        model, data = (str(source.get(side, {}).get("spec") or side.upper()) for side in ("model", "data"))
        if model.startswith(_DEMO) and data.startswith(_DEMO):
            return []
        words = [self._named(model, "MODEL"), "--data", self._named(data, "DATA")]
        return words + _columns(source, "text", "input", "label")

    def _named(self, spec: str, instead: str) -> str:
        return instead if self.private and is_absolute(spec) else spec


def _columns(source: Mapping[str, Any], *names: str) -> list[str]:
    """The columns of the data that these options name."""
    words = []
    for name in names:
        value = source.get("data", {}).get(name)
        for each in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if each:
                words += [f"--{name}", str(each)]
    return words
