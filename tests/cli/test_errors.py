"""What goes wrong ends in one line on stderr and the right exit code, and what was gathered is kept."""

import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from ketwork.networks.study import Study

NETS = "ketwork_cli_nets"
MODEL = f"{NETS}:small"
DATA = f"{NETS}:batches"


def one_line(stderr: str) -> str:
    assert stderr.startswith("ketwork: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture
def files(here):
    pd.DataFrame({"text": ["a"], "a": [1.0], "b": [2.0]}).to_csv("t.csv", index=False)
    (here / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (here / "a_folder").mkdir()
    return here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MODEL,), "MODEL needs --data beside it"),
        (("--data", DATA), "--data needs MODEL beside it"),
        (("nothing:here", "--data", DATA), "no module 'nothing'"),
        ((f"{NETS}:smal", "--data", DATA), "no 'smal' in it. Nearest names: small"),
        ((f"{MODEL}@none.pt", "--data", DATA), "no file none.pt"),
        ((f"{MODEL}@cut.safetensors", "--data", DATA), "truncated or not safetensors"),
        (("a_folder", "--data", DATA), "no config.json"),
        ((MODEL, "--data", "none.npz"), "no file none.npz"),
        ((MODEL, "--data", "t.csv", "--label", "spam"), "no 'spam'. Nearest first: "),
        ((MODEL, "--data", "t.csv", "--text", "text"), "this one has none"),
        ((MODEL, "--data", "t.csv", "--input", "text"), "holds 'a' in row 0"),
        ((MODEL, "--data", "a_folder"), "no image in them"),
        ((MODEL, "--data", DATA, "--layers", "3"), "Argument `layers`"),
        ((MODEL, "--data", DATA, "--layers", "all", "--layers", "0"), "--layers all stands alone"),
        ((MODEL, "--data", DATA, "--device", "nowhere"), "Argument `device`"),
        ((MODEL, "--data", DATA, "--image-size", "big"), "--image-size must be"),
        ((MODEL, "--data", DATA, "--out", "no/such/folder.safetensors"), "--out must name a file"),
        ((MODEL, "--data", DATA, "--out", "a_folder"), "--out must end in"),
    ],
)
def test_wrong_usage_exits_with_2(files, run, arguments, message):
    done = run("study", *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert message in one_line(done.stderr)


EXITED = "the code of the data or of the network called sys.exit"


@pytest.mark.parametrize("command", ["study", "compare", "collapse", "compress"])
@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        ("exits.py:model", DATA, "Running exits.py raised SystemExit: it called sys.exit(0)."),
        (f"{NETS}:exits", DATA, f"'{NETS}:exits' raised SystemExit: it called sys.exit(0)."),
        (MODEL, f"{NETS}:exits", f"'{NETS}:exits' raised SystemExit: it called sys.exit(0)."),
        (MODEL, f"{NETS}:exits_at_once", "called sys.exit(0)"),
        (MODEL, f"{NETS}:exits_half_way", "called sys.exit(0)"),
        (f"{NETS}:Exits", DATA, "called sys.exit(None)"),
    ],
)
def test_code_that_calls_sys_exit_is_a_failure(here, run, command, model, data, message):
    (here / "exits.py").write_text("import sys\nsys.exit(0)\ndef model(): ...\n")
    done = run(command, model, "--data", data)
    assert done.exit_code == 1
    assert message in one_line(done.stderr)


def test_data_that_call_sys_exit_half_way_are_shown_and_saved(here, run):
    done = run("study", MODEL, "--data", f"{NETS}:exits_half_way", "--out", "s.safetensors", "--json")
    assert done.exit_code == 1
    assert f"{EXITED}(0). What 32 samples before it gave is shown, and saved to s.safetensors." in one_line(
        done.stderr
    )
    assert json.loads(done.stdout)["complete"] is False
    saved = Study.load("s.safetensors")
    assert (saved.samples, saved.complete) == (32, False)
    assert f"{EXITED}(0)" in saved.error


def test_data_that_fail_half_way_are_shown_saved_and_reported(here, run):
    done = run("study", MODEL, "--data", f"{NETS}:breaks", "--out", "s.safetensors", "--json")
    assert done.exit_code == 1
    assert (
        "OSError: disk gone. What 32 samples before it gave is shown, and saved to s.safetensors."
        in one_line(done.stderr)
    )
    told = json.loads(done.stdout)
    assert told["complete"] is False
    assert "disk" in told["error"]
    assert [row["N"] for row in told["table"]] == [32, 32, 32]
    saved = Study.load("s.safetensors")
    assert (saved.samples, saved.complete) == (32, False)
    table = run("study", MODEL, "--data", f"{NETS}:breaks")
    assert "32 samples" in table.stdout
    assert "not saved: no --out with .safetensors was given" in one_line(table.stderr)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (MODEL, f"{NETS}:breaks_at_once", "OSError: no disk"),
        (MODEL, f"{NETS}:nothing", "must hold at least one sample"),
        (f"{NETS}:Missing.name", DATA, None),
        (
            "ketwork_cli_broken:net",
            DATA,
            "Importing 'ketwork_cli_broken' raised ZeroDivisionError: division by zero",
        ),
        (f"{NETS}.py:torch.nn.Identity", f"{NETS}:bad", "ketwork: Layer '(model)' put out NaN"),
    ],
)
def test_runs_that_fail(here, run, model, data, message):
    (here / "ketwork_cli_broken.py").write_text("1 / 0\n")
    done = run("study", model, "--data", data)
    line = one_line(done.stderr)
    assert done.exit_code == (2 if message is None else 1)
    assert message is None or message in line


def test_bad_samples_are_skipped_and_counted_on_request(here, run):
    done = run("study", MODEL, "--data", f"{NETS}:bad", "--skip-bad", "--json")
    assert done.exit_code == 0
    assert [row["dropped"] for row in json.loads(done.stdout)["table"]] == [1, 1, 1]


def test_debug_adds_the_traceback(here, run):
    done = run("study", MODEL, "--data", f"{NETS}:breaks_at_once", "--debug")
    assert done.exit_code == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "ketwork: OSError: no disk"


def command(*arguments, **options):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "ketwork", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def interrupted(folder, *arguments):
    """Starts the command, sends it Ctrl-C once its data stall, and gives its exit code and outputs."""
    process = command(*arguments)
    try:
        end = time.monotonic() + 300
        while not (folder / "waiting").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out, err


def test_ctrl_c_saves_what_was_gathered(here):
    code, out, err = interrupted(
        here, "study", MODEL, "--data", f"{NETS}:waits", "--out", "s.safetensors", "--json"
    )
    assert code == 130
    assert (
        one_line(err)
        == "ketwork: interrupted. What 32 samples before it gave is shown, and saved to s.safetensors.\n"
    )
    told = json.loads(out)
    assert told["complete"] is False
    saved = Study.load("s.safetensors")
    assert (saved.samples, saved.complete, saved.error) == (32, False, "interrupted")
    assert [row["entropy"] for row in told["table"]] == saved.table()["entropy"].tolist()


def test_ctrl_c_before_anything_was_gathered(here):
    code, out, err = interrupted(
        here, "study", MODEL, "--data", f"{NETS}:waits_at_once", "--out", "s.safetensors"
    )
    assert code == 130
    assert out == ""
    assert "interrupted before there was anything to show or save" in one_line(err)
    assert not (here / "s.safetensors").exists()


def test_a_pipe_has_no_bar_no_colour_and_may_close_early(here):
    process = command("study", "--json")
    assert process.stdout is not None
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=300) in (0, 1)
    process = command("study", MODEL, "--data", DATA)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    assert err == ""
    assert "\x1b" not in out


def test_a_terminal_without_unicode_still_gets_its_numbers(here):
    process = command("study", MODEL, "--data", DATA)
    wide, _ = process.communicate(timeout=300)
    os.environ["PYTHONIOENCODING"] = "ascii"
    try:
        process = command("study", MODEL, "--data", DATA)
        plain, err = process.communicate(timeout=300)
    finally:
        del os.environ["PYTHONIOENCODING"]
    assert process.returncode == 0, err
    numbers = re.compile(r"\d+\.\d+")
    assert len(numbers.findall(plain)) > 20
    assert numbers.findall(plain) == numbers.findall(wide)


def test_a_terminal_sees_a_bar_with_samples_rate_and_time_left(here):
    leader, follower = pty.openpty()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TERM": "xterm",
    }
    with open("out.txt", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ketwork", "study"], stdout=out, stderr=follower, env=environment
        )
    os.close(follower)
    seen = to_the_end(leader).decode()
    assert process.wait() == 0
    assert b"\x1b" not in (here / "out.txt").read_bytes()
    assert "540/540" in seen
    assert "samples" in seen


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(here):
    command = [sys.executable, "-m", "ketwork", "study", MODEL, "--data", DATA]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def to_the_end(leader):
    """All that is written to a terminal, which is read on the way: it holds only a few thousand bytes at a time."""
    chunks = []
    with open(leader, "rb", buffering=0) as terminal:
        while True:
            try:
                chunks.append(terminal.read(4096))
            except OSError as error:  # what Linux says once no process has the other end open
                if error.errno != errno.EIO:
                    raise
                return b"".join(chunks)
            if not chunks[-1]:  # what other systems say
                return b"".join(chunks)
