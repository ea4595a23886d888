"""Python objects named on a command line: `package.module:attribute` or `path/to/file.py:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ketwork.sources.errors import SourceError, SourceFailed, listed, nearest

_SPEC = re.compile(r"(?P<module>.+?):(?P<attribute>[A-Za-z_][\w.]*)(?:@(?P<weights>.+))?")


class Factory(NamedTuple):
    """A parsed spec: where the code is, which attribute of it, and an optional weights file."""

    module: str
    attribute: str
    weights: str | None


def parse(spec: str) -> Factory | None:
    """The parts of `module:attribute[@weights]`, or None where `spec` has another form.

    >>> parse("nets.small:build@runs/best.pt")
    Factory(module='nets.small', attribute='build', weights='runs/best.pt')
    >>> parse("folder/of/a/model") is None
    True
    """
    match = _SPEC.fullmatch(spec)
    return Factory(**match.groupdict()) if match else None


def resolve(factory: Factory, argument: str) -> Any:
    """The object that a spec names, its module imported with the working directory on the path.

    Errors: `SourceError` where there is no such module, file or attribute; `SourceFailed` where the
    module's own code raises.
    """
    result: Any = _module(factory.module, argument)
    for part in factory.attribute.split("."):
        if not hasattr(result, part):
            names = nearest(part, (name for name in dir(result) if not name.startswith("_")))
            raise SourceError(
                f"Argument `{argument}` must name something in {factory.module!r}, but there is no {part!r} "
                "in it. "
                f"Nearest names: {listed(names, 5) or 'none'}."
            )
        result = getattr(result, part)
    return result


def call(function: Any, name: str, argument: str) -> Any:
    """What `function()` returns; `SourceFailed` where it raises, `SourceError` where it needs arguments."""
    if not callable(function):
        raise SourceError(
            f"Argument `{argument}` must name a function or class to call, but {name!r} is {_kind(function)}."
        )
    try:
        needed = [
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except ValueError:  # built-in classes have no signature to read
        needed = []
    if needed:
        raise SourceError(
            f"Argument `{argument}` must name something callable without arguments, but {name!r} needs "
            f"{listed(needed)}. Write a function without parameters that calls it."
        )
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise SourceFailed(f"{name!r} raised {_said(error)}.") from error


def _module(name: str, argument: str) -> ModuleType:
    if name.endswith(".py"):
        return _file(Path(name), argument)
    if not all(part.isidentifier() for part in name.split(".")):
        raise SourceError(
            f"Argument `{argument}` must name a module as `package.module`, or a file as `path/to/file.py`, "
            "but "
            f"{name!r} is neither."
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise SourceFailed(f"Importing {name!r} raised {_said(error)}.") from error
        raise SourceError(
            f"Argument `{argument}` must name an importable module, but there is no module {error.name!r} "
            f"installed or in {here}. Name it as `package.module:factory` or `path/to/file.py:factory`."
        ) from error
    except (Exception, SystemExit) as error:
        raise SourceFailed(f"Importing {name!r} raised {_said(error)}.") from error


def _file(path: Path, argument: str) -> ModuleType:
    if not path.is_file():
        raise SourceError(f"Argument `{argument}` must name a Python file, but there is no file {path}.")
    name = f"ketwork_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SourceError(
            f"Argument `{argument}` must name a Python file, but {path} cannot be loaded as one."
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being run
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # so that a script finds its neighbours, after everything installed
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise SourceFailed(f"Running {path} raised {_said(error)}.") from error
    return module


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def _said(error: Exception | SystemExit) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit: it called sys.exit({error.code!r})"
    return f"{type(error).__name__}: {error}".rstrip(": .")
