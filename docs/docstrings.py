"""A Sphinx extension: ketwork's docstrings, which are plain sentences, as reStructuredText.

Signs that reStructuredText would read as markup (`|ψ⟩`, `*batch`, a trailing `_`) are escaped where they stand outside
code, lists get the empty line that they need, and a name in backticks becomes a link where it is a public one.
"""

import inspect
import re
from importlib import import_module
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

KEPT = re.compile(r"(`+[^`]+`+|(?<![\w*])\*\*\w[^*`]*\*\*(?![\w*])|(?<![\w*])\*\w[^*`]*\w\*(?![\w*]))")
"""Code and emphasis."""
ITEM = re.compile(r"\s*- ")
PROMPT = re.compile(r"\s*>>> ")
COLON = "\ue000"
"""Stands for a colon; from the private part of Unicode."""


def escaped(line: str) -> str:
    """A line of prose whose signs mean themselves."""
    parts = KEPT.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([|*]|_(?!\w))", r"\\\1", parts[i])
    for i in range(1, len(parts), 2):  # code that is no name is shown as it is written
        code = parts[i].strip("`")
        if parts[i].startswith("`") and not re.fullmatch(r"[\w.]+", code):
            parts[i] = f"``{code}``"
    return "".join(parts)


def prepared(lines: list[str]) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    result: list[str] = []
    example = False
    for line in lines:
        if PROMPT.match(line):
            if not example and result and result[-1].strip():
                result.append("")
            example = True
        elif not line.strip():
            example = False
        if example:
            result.append(line)
            continue
        item = ITEM.match(line)
        if item and result and result[-1].strip() and not _within_item(result):
            result.append("")
        result.append(escaped(line))
    return result


def _within_item(lines: list[str]) -> bool:
    """Whether the last lines belong to an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if ITEM.match(line):
            return True
    return False


def process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Before Napoleon reads the sections, of which it takes what stands before a property's colon for its type."""
    lines[:] = prepared(lines)
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(":", COLON)


def restore(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """After Napoleon: the colons that it was not to see."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def skip(app: Sphinx, what: str, name: str, obj: Any, skipped: bool, options: Any) -> bool | None:
    """Old names, which warn, are in the changelog alone."""
    return True if "under its name of version 0.1" in (getattr(obj, "__doc__", None) or "") else None


def resolve(app: Sphinx, env: Any, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """`Ket` is `ketwork.Ket`, wherever it stands; names that are none of ours are code."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    target = node["reftarget"]
    for home in ("ketwork", "ketwork.waves", "ketwork.circuits", "ketwork.quantum"):
        name = f"{home}.{target}"
        if name in domain.objects:
            entry = domain.objects[name]
            link = nodes.reference("", "", internal=True)
            link["refuri"] = f"{app.builder.get_relative_uri(node['refdoc'], entry.docname)}#{entry.node_id}"
            link += contnode
            return link
    return None


def named(path: str) -> Any:
    """The object of a public name, such as `ketwork.study`."""
    home, _, name = path.rpartition(".")
    return getattr(import_module(home), name)


class Documented(SphinxDirective):
    """`.. ketwork:: ketwork.study`: what has that name, from its docstring."""

    required_arguments = 1
    option_spec: ClassVar = {"no-index": directives.flag}

    def run(self) -> list[nodes.Node]:
        """The nodes that autodoc makes of it, by what it is."""
        path = self.arguments[0]
        thing = named(path)
        if inspect.ismodule(thing):
            lines = [f".. automodule:: {path}", "   :members:"]
        elif inspect.isclass(thing) and issubclass(thing, BaseException):
            lines = [f".. autoexception:: {path}"]
        elif inspect.isclass(thing):
            lines = [f".. autoclass:: {path}", "   :members:"]
        elif callable(thing):
            lines = [f".. autofunction:: {path}"]
        else:
            lines = [f".. py:data:: {path}"]
        if "no-index" in self.options:
            lines.append("   :no-index:")
        if lines[0].startswith(".. py:data::"):  # a name for several types
            plain = re.sub(r"[\w.]+\.(?=\w)", "", str(thing))
            lines += ["", f"   ``{plain}``, as a type."]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("ketwork", Documented)
    app.connect("autodoc-process-docstring", process, priority=100)
    app.connect("autodoc-process-docstring", restore, priority=900)
    app.connect("autodoc-skip-member", skip)
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True}
