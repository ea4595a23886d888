"""Whatever the command is given, it ends: with a result, or with one line that says what was wrong and an exit code."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ketwork.cli.app import app

from .mutations import MANY

NETS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

number = 3
"""

VALUES = (
    "", " ", "-", "--", ".", "..", "/", "/dev/null", "x.npz", "x.csv", "nets_of_trust:small", "nets_of_trust:number",
    "nets_of_trust:nothing", "nets_of_trust.py:small", "nets_of_trust:small@x.npz", "nets_of_trust:small@w.pt", "no:",
    ":", "a:b:c@d@e", "0", "1", "2", "-1", "1e3", "nan", "inf", "9" * 30, "0x10", "4x4", "x", "y", "[0]", "*", "[",
    "cpu", "cuda:99", "meta", "state", "ensemble", "separate", "all", "blocks", "0.weight", "\0", "\udcff", "ψ",
    "a" * 5000, "../../x", "</script>", "{{ 7 * 7 }}", "%s", "$(ls)",
)  # fmt: skip
OPTIONS = (
    "--data", "--text", "--input", "--label", "--layers", "--samples", "--batch-size", "--image-size", "--device",
    "--seed", "--normalize", "--calls", "--out", "--json", "--center", "--skip-bad", "--positions", "--nothing", "-o",
    "--sites", "--steps", "--lattice", "--model", "--alpha", "--resume", "--field", "--debug", "-h",
    "--checkpoint", "--every", "--memory", "--keep",
)  # fmt: skip
COMMANDS = {
    "study": ["nets_of_trust:small", "--data", "x.npz"],
    "compare": ["nets_of_trust:small", "--data", "x.npz"],
    "collapse": ["nets_of_trust:small", "--data", "x.npz", "--samples", "8"],
    "ground": ["ising", "--sites", "4", "--steps", "1", "--samples", "8"],
    "show": ["x.npz"],
    "report": ["x.npz"],
    "": [],
}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    (tmp_path / "nets_of_trust.py").write_text(NETS)
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, y=np.arange(12) % 2)
    (tmp_path / "x.csv").write_text("a,b,c,y\n" + "1,2,3,p\n2,1,0,q\n" * 6)
    (tmp_path / "w.pt").write_bytes(b"PK\x03\x04 no weights")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


values = st.one_of(
    st.sampled_from(VALUES), st.text(max_size=12), st.integers().map(str), st.floats().map(str)
)
extra = st.lists(st.tuples(st.sampled_from(OPTIONS), st.lists(values, max_size=1)), max_size=3)


@pytest.mark.filterwarnings("ignore")  # whatever the numbers warn of
@settings(
    max_examples=settings.default.max_examples * 3 // 2 * MANY,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@example(command="ground", changed=4, value="", extra=[("--sites", ["99999999999"])])
@given(command=st.sampled_from(sorted(COMMANDS)), changed=st.integers(0, 3), value=values, extra=extra)
def test_arguments(here, bounded, command, changed, value, extra):
    arguments = [command, *COMMANDS[command]]
    if changed < len(arguments):
        arguments[changed] = value
    arguments += [word for option, given in extra for word in (option, *given)]
    with bounded():
        found = CliRunner().invoke(app, [word for word in arguments if word])
    assert found.exception is None or isinstance(found.exception, SystemExit), arguments
    assert found.exit_code in (0, 1, 2), arguments
    if found.exit_code == 1 and "--debug" not in arguments:
        last = found.stderr.splitlines()[-1]
        assert last.startswith("ketwork: "), (arguments, found.stderr)
        assert "Traceback" not in found.stderr
    assert not list(here.glob("**/.ketwork-*"))
