"""`ketwork monitor`: a run in the terminal, as JSON and as a page, also while it goes on."""

import json
import threading
import time

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.cli import monitor as command


@pytest.fixture
def monitor(here):
    """A monitor with two looks, the second with an alarm."""
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))
    watching = kw.Monitor(net, torch.randn(64, 6), every=10, path="run", action=lambda alarm: None)
    watching(0)
    with torch.no_grad():
        net[0].weight[:6] = 0
        net[0].bias[:6] = -1
    watching(10)
    return watching


def test_the_terminal_shows_the_last_look_and_the_alarms(monitor, run):
    done = run("monitor", "run")
    assert done.exit_code == 0
    assert "Training run of Sequential" in done.stdout
    assert "Step 10, 2 looks since step 0. The training goes on, or was interrupted." in done.stdout
    assert "! Dying neurons at 1, step 10: dead 0" in done.stdout
    assert "50.000 ± 0.000" in next(line for line in done.stdout.splitlines() if line.startswith("1 "))
    monitor.close()
    assert "The training has ended." in run("monitor", "run/monitor.jsonl").stdout


def test_json_has_all_numbers(monitor, run):
    record = json.loads(run("monitor", "run", "--json").stdout)
    long = monitor.run.long()
    assert len(record["table"]) == len(long)
    assert [row["value"] for row in record["table"]] == [None if x != x else x for x in long["value"]]
    assert [(alarm["kind"], alarm["after"]) for alarm in record["alarms"]] == [("dying", 0.5)]
    assert record["ended"] is False
    assert record["definitions"]["effective_rank"].endswith("[dimensions]")


def test_pages_are_written_and_wrong_calls_explained(monitor, run, here):
    done = run("monitor", "run", "-o", "page.html", "--other", "run")
    assert (done.exit_code, done.stderr) == (0, "Report written to page.html\n")
    assert "<title>Sequential" in (here / "page.html").read_text()
    for arguments, message in [
        (("none",), "there is no file 'none'. Name the"),
        (("run", "--other", "run"), "--other needs --out with .html, or --open"),
        (("run", "-o", "none/page.html"), "--out must name a file in a folder that can be written to"),
    ]:
        wrong = run("monitor", *arguments)
        assert wrong.exit_code == 2
        assert wrong.stderr.startswith("ketwork: ")
        assert message in wrong.stderr
        assert wrong.stderr.count("\n") == 1


def test_a_page_follows_the_run_until_it_ends(monitor, run, here, monkeypatch):
    monkeypatch.setattr(command, "_PAUSE", 0.05)
    page = here / "run" / "monitor.html"

    def train():
        for _ in range(3000):
            if page.exists():
                break
            time.sleep(0.01)
        monitor.look(20)
        time.sleep(0.2)
        monitor.close()

    thread = threading.Thread(target=train)
    thread.start()
    done = run("monitor", "run", "--follow")
    thread.join()
    assert done.exit_code == 0
    assert "Step 20: 1 alarms" in done.stderr
    text = page.read_text()
    assert "the training goes on" not in text
    assert 'http-equiv="refresh"' not in text


def test_the_page_has_absolute_paths_where_they_are_wanted(monitor, page_of, here):
    file = here / "run" / "monitor.jsonl"
    file.write_text(file.read_text().replace('"model":', '"weights":"/home/ann/net.pt","model":', 1))
    for wanted, options in ((False, ()), (True, ("--with-command",))):
        page = page_of("monitor", "run", *options).replace("<wbr>", "")
        assert ("/home/ann/net.pt" in page) == wanted
        assert "net.pt" in page
