"""The package as a whole: what is public, what loads when, and names that stand in each other's way."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import types

import pytest

import ketwork as kw

HEAVY = (
    "pandas",
    "scipy",
    "sklearn",
    "jinja2",
    "typer",
    "rich",
    "altair",
    "matplotlib",
    "transformers",
    "msgspec",
)


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after that code."""
    report = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return loaded_by("import torch, numpy")


def test_the_quantum_package_loads_torch_and_numpy_alone(bare: set[str]) -> None:
    loaded = loaded_by("import ketwork.quantum")
    assert not loaded & {*HEAVY, "ketwork.networks", "ketwork.report", "ketwork.records", "ketwork.waves"}
    own = {name for name in loaded if name.split(".")[0] == "ketwork"}
    assert own <= {"ketwork", "ketwork._version", "ketwork._compat"} | {
        name for name in own if name.startswith("ketwork.quantum")
    }
    # What they take of the standard library is all that is loaded beside torch, numpy and the package's own files.
    assert {name.split(".")[0] for name in loaded - bare} <= {"ketwork", *sys.stdlib_module_names}
    assert len(loaded - bare - own) <= 5


def test_the_package_itself_loads_nothing_until_it_is_used() -> None:
    loaded = loaded_by("import ketwork")
    assert not loaded & {"torch", "numpy", *HEAVY}
    assert {name for name in loaded if name.startswith("ketwork")} == {"ketwork", "ketwork._version"}


def test_a_study_loads_no_page_no_plot_and_no_command() -> None:
    loaded = loaded_by(
        "import torch, ketwork as kw\n"
        "study = kw.study(torch.nn.Linear(3, 2), torch.randn(20, 3))\n"
        "study.table(); repr(study); study._repr_html_(); repr(study[0])"
    )
    assert not loaded & {"jinja2", "typer", "rich", "altair", "matplotlib", "ketwork.cli", "ketwork.report"}


def test_dir_lists_everything_public_and_each_can_be_had() -> None:
    assert dir(kw) == sorted(kw.__all__)
    assert len(set(kw.__all__)) == len(kw.__all__)
    for name in kw.__all__:
        assert getattr(kw, name) is not None
    assert {"study", "compare", "collapse", "compress", "probe", "waves", "quantum", "Estimate"} <= {*dir(kw)}
    assert {"StudyError", "ComparisonError", "StudyInterrupted", "ComparisonInterrupted"} <= {*dir(kw)}


def test_a_name_that_there_is_not() -> None:
    with pytest.raises(AttributeError, match="module 'ketwork' has no attribute 'entropie'"):
        kw.entropie  # noqa: B018
    assert not hasattr(kw, "_HOMES_of_nothing")


def test_subpackages_are_attributes_from_the_start() -> None:
    loaded = loaded_by(
        "import ketwork as kw\n"
        "assert kw.waves.__name__ == 'ketwork.waves'\n"
        "assert kw.quantum.Ket is kw.Ket\n"
        "from ketwork import waves, study, Estimate\n"
        "assert waves is kw.waves"
    )
    assert "ketwork.waves" in loaded


def test_what_type_checkers_see_is_what_there_is() -> None:
    """The names under TYPE_CHECKING, which editors complete, are those that `__getattr__` finds."""
    source = inspect.getsource(kw)
    seen = source[source.index("if TYPE_CHECKING:") : source.index("_HOMES = ")]
    namespace: dict[str, object] = {}
    exec(inspect.cleandoc("\n" + seen.partition("\n")[2]), namespace)
    public = {name for name in namespace if not name.startswith("__")}
    assert public | {"__version__", "quantum"} == {*kw.__all__} | {"quantum"}


def packages() -> list[str]:
    """All packages of ketwork, itself included."""
    found = pkgutil.walk_packages(kw.__path__, "ketwork.")
    return ["ketwork", *(each.name for each in found if each.ispkg)]


def modules() -> list[str]:
    """All modules of ketwork but its packages."""
    return [each.name for each in pkgutil.walk_packages(kw.__path__, "ketwork.") if not each.ispkg]


def test_there_are_packages_to_walk() -> None:
    assert {"ketwork.quantum", "ketwork.networks.study", "ketwork.cli"} <= {*packages()}


@pytest.mark.parametrize("name", packages())
def test_no_name_of_a_package_stands_before_a_module_of_that_name(name: str) -> None:
    """`from ketwork.networks import study` must give the package, whatever was imported before."""
    package = importlib.import_module(name)
    inner = {each.name for each in pkgutil.iter_modules(package.__path__)}
    public = {
        *getattr(package, "__all__", ()),
        *(word for word in vars(package) if not word.startswith("__")),
    }
    for word in sorted(inner & public):
        value = getattr(package, word)
        assert isinstance(value, types.ModuleType), f"{name}.{word} is both a module and {value!r}"
        assert value.__name__ == f"{name}.{word}"


@pytest.mark.parametrize("name", modules())
def test_no_function_or_class_bears_the_name_of_its_module(name: str) -> None:
    if name == "ketwork.__main__":
        return  # which runs the command
    module = importlib.import_module(name)
    own = vars(module).get(name.rpartition(".")[2])
    if inspect.isroutine(own) or inspect.isclass(own):
        assert own.__module__ != name, f"{name} has {own!r}"


@pytest.mark.parametrize("name", packages())
def test_each_package_says_what_it_is_for_and_has_what_it_lists(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    assert "TODO" not in package.__doc__
    for word in getattr(package, "__all__", ()):
        assert hasattr(package, word), f"{name}.{word}"
