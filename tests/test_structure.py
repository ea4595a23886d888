"""The house: arrows without cycles, packages that are entered by their doors, files that can be read in one sitting."""

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest

import ketwork

SOURCE = Path(ketwork.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
PACKAGES = {
    ".".join(("ketwork", *parts))
    for path in FILES
    if path.name == "__init__.py"
    and len(parts := path.parent.relative_to(SOURCE).parts) == 1 + (parts[:1] == ("networks",))
}


def module_of(path: Path) -> str:
    return ".".join(("ketwork", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def package_of(module: str) -> str | None:
    """The package that a module is in, or is."""
    return next((name for name in PACKAGES if module == name or module.startswith(f"{name}.")), None)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = grimp.build_graph("ketwork")
    arrows = networkx.DiGraph(
        (module, other)
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
        if not other.startswith(f"{module}.")
        and not module.startswith(f"{other}.")  # a package and its parts
    )
    assert [found for found in networkx.strongly_connected_components(arrows) if len(found) > 1] == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_others_import_from_a_package_and_not_from_inside_it(path: Path) -> None:
    mine = package_of(module_of(path))
    inside = [
        f"line {line}: {other}"
        for line, other in imports(path)
        if other.startswith("ketwork.")
        and package_of(other) not in (None, mine, other)
        and not other.startswith(f"{mine}.")
    ]
    assert inside == [], f"{module_of(path)} reaches past a package's own names"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("name", sorted(PACKAGES))
def test_a_package_says_what_it_is_for(name: str) -> None:
    text = importlib.import_module(name).__doc__
    assert text is not None
    assert len(text.split()) >= 3


def test_no_public_function_shadows_the_module_of_its_name() -> None:
    shadowed = []
    for name in sorted({"ketwork", "ketwork.networks"} | PACKAGES):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name == "__main__":
                continue
            value = getattr(importlib.import_module(name), module.name, None)
            if value is not None and value is not importlib.import_module(f"{name}.{module.name}"):
                shadowed.append(f"{name}.{module.name}")
    assert shadowed == []


TESTS = Path(__file__).parent
MIRRORED = sorted(
    path
    for folder in ("networks", "records")
    for path in (TESTS / folder).rglob("test_*.py")
    if path.parent != TESTS / "networks"  # where trained networks go through all of it
)
OF_MORE_THAN_A_MODULE = {
    "networks/collapse/test_docs.py",
    "networks/compression/test_docs.py",
    "networks/detection/test_docs.py",
    "networks/study/test_docs.py",
    "networks/compression/test_example.py",
    "networks/compression/test_kinds.py",
    "networks/compression/test_networks.py",
    "networks/study/test_synchronisation.py",
    "records/test_version_0_1.py",
}


@pytest.mark.parametrize("path", MIRRORED, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_a_test_stands_where_the_module_does_that_it_is_of(path: Path) -> None:
    place = path.relative_to(TESTS)
    if place.as_posix() not in OF_MORE_THAN_A_MODULE:
        module = SOURCE / place.parent / place.name.removeprefix("test_")
        assert module.is_file(), f"there is no {module.relative_to(SOURCE.parent)}"
