import importlib.metadata
import signal
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ketwork.cli.app import app

NETS = """
import math, os, sys, time
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

def double():
    return small().double()

class Chatty(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        print("being made")
    def forward(self, x):
        print("called")
        return super().forward(x)

class Repeats(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.step = nn.Linear(4, 4)
    def forward(self, x):
        return self.step(self.step(x))

def _batch(number):
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(number))

def batches():
    return [_batch(number) for number in range(3)]

def breaks():
    yield _batch(0)
    yield _batch(1)
    raise OSError("disk\\ngone")

def breaks_at_once():
    raise OSError("no disk")
    yield

def exits():
    sys.exit(0)

def exits_at_once():
    sys.exit(0)
    yield

def exits_half_way():
    yield _batch(0)
    yield _batch(1)
    sys.exit(0)

class Exits(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
    def forward(self, x):
        sys.exit()

def nothing():
    yield from ()

def bad():
    x = _batch(0)
    x[3, 1] = math.nan
    return [_batch(1), x]

def waits():
    yield _batch(0)
    yield _batch(1)
    open("waiting", "w").close()
    time.sleep(3600)

def waits_at_once():
    open("waiting", "w").close()
    time.sleep(3600)
    yield
"""


@pytest.fixture(autouse=True, scope="session")
def heard_interrupts():
    """Jobs in the background of a shell ignore Ctrl-C, and so would the commands that these tests interrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a module of networks and batches in it."""
    (tmp_path / "ketwork_cli_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "ketwork_cli_nets", raising=False)
    return tmp_path


@pytest.fixture
def run():
    """Runs the command in this process."""

    def invoke(*arguments: object, **options: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)

    return invoke


@pytest.fixture
def page_of(here, run):
    """The text of the page that a command writes."""

    def written(*arguments: object) -> str:
        done = run(*arguments, "--out", "written.html")
        assert done.exit_code == 0, done.stderr
        return (here / "written.html").read_text()

    return written


@pytest.fixture(scope="session")
def installed():
    """The place of a file of an installed distribution, none of which is imported."""

    def find(distribution: str, name: str) -> Path:
        return Path(str(importlib.metadata.distribution(distribution).locate_file(name)))

    return find
