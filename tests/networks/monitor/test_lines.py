"""A monitor's file: what was appended is read again, damaged files are errors, killed runs keep what they wrote."""

import json
import math
import random

import pytest

from ketwork.networks.monitor import Alarm, LayerLook, Look, MonitorRun
from ketwork.networks.monitor import lines as forms
from ketwork.quantum import Estimate


def look(step: int, rank: float = 2.5) -> Look:
    values = {"effective_rank": Estimate(rank, 0.1, unit="dimensions"), "holevo": Estimate(unit="bit")}
    alarm = Alarm(
        "dying", "Dying neurons", step, "a.1", "dead", 0, Estimate(0.0, 0.01), Estimate(0.4, 0.02), ("b",)
    )
    layers = (LayerLook("a.1", 0, "Linear", 8, 64, 0, values), LayerLook("b", 1, "ReLU", 8, 60, 4, {}))
    return Look(step, 0.25, layers, (alarm,) if step else ())


@pytest.fixture
def file(tmp_path):
    """Three looks."""
    path = tmp_path / forms.NAME
    forms.append(path, [forms.RunLine(forms.VERSION, {"model": "Net", "every": 10})])
    for step in (0, 10, 20):
        forms.append(path, forms.look_lines(look(step)))
    return path


def told(run: MonitorRun) -> str:
    """All that is said of a run."""
    return f"{run!r}\n{run.long().to_json()}\n{run.table().to_json()}\n{run.settings}"


def test_what_was_written_is_read(file):
    run = MonitorRun.load(file)
    assert [forms.look_lines(each) for each in run.looks] == [
        forms.look_lines(look(step)) for step in (0, 10, 20)
    ]
    assert run.settings == {"model": "Net", "every": 10}
    assert told(MonitorRun.load(file.parent)) == told(run)
    long = run.long()
    assert len(long) == 6
    assert long.iloc[0].tolist() == [0, "a.1", 0, "effective_rank", 2.5, 0.1, "dimensions"]
    assert math.isnan(long["value"][1])
    assert run.table(10).loc["b", "bad"] == 4
    assert run.looks[1].value("a.1", "effective_rank") == 2.5
    assert [alarm.others for alarm in run.alarms] == [("b",), ("b",)]


def test_a_line_cut_short_loses_that_line_alone(file):
    text = file.read_bytes()
    start = text.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start, len(text)):
        file.write_bytes(text[:end])
        run = MonitorRun.load(file)
        assert run.steps == (0, 10, 20)
        assert len(run.alarms) == (2 if end == len(text) - 1 else 1)
        assert bool(run.notes) == (start < end < len(text) - 1)
    file.write_bytes(text[: start + 40])
    forms.append(file, [forms.RunLine(forms.VERSION, {}), *forms.look_lines(look(30))])
    assert MonitorRun.load(file).steps == (0, 10, 20, 30)


def test_a_missing_other_or_newer_file_is_an_error(file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.jsonl'\. Name the folder"):
        MonitorRun.load(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="a device, and no file"):
        MonitorRun.load("/dev/null")
    for text, message in [
        ("", "does not begin with a line of a run"),
        ('{"step": 1}\n', "line 1 is no line of one"),
        (
            '{"line": "look", "step": 0, "seconds": 1.0, "layers": []}\n',
            "does not begin with a line of a run",
        ),
        ('{"line": "run", "version": 99, "settings": {}}\n', "written by a newer ketwork"),
        (
            '{"line": "run", "version": 1, "settings": {}}\n{"line": "look", "step": -1, "seconds": 0, "layers": []}',
            "line 2",
        ),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            MonitorRun.load(file)


def test_damaged_files_give_what_was_written_or_an_error(file):
    text = file.read_bytes()
    draw = random.Random(7)
    errors: list[str] = []
    for _ in range(250):
        damaged = bytearray(text)
        for _ in range(draw.choice((1, 1, 3))):
            place = draw.randrange(len(damaged))
            match draw.randrange(4):
                case 0:
                    damaged[place] = draw.randrange(256)
                case 1:
                    del damaged[place : place + draw.randrange(1, 60)]
                case 2:
                    damaged[place:place] = draw.choice(
                        [b"-", b"9" * 30, b"null", b"\x1b[2J", b"[" * 3000, b"1e999"]
                    )
                case _:
                    damaged = damaged[: place + 1]
        file.write_bytes(bytes(damaged))
        try:
            run = MonitorRun.load(file)
        except ValueError as error:
            errors.append(str(error))
            continue
        assert "\x1b" not in told(run) + "".join(map(str, run.alarms))
    assert 50 < len(errors) < 250
    assert all("line" in error or "newer" in error for error in errors)


def test_numbers_that_are_not_finite_are_null(file):
    forms.append(file, forms.look_lines(look(30, math.inf)))
    for line in file.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))
    assert math.isnan(MonitorRun.load(file).looks[-1].value("a.1", "effective_rank"))
    with pytest.raises(KeyError, match=r"No layer 'c' in this look; it has a\.1, b \(call 2\)"):
        MonitorRun.load(file).looks[-1].value("c", "norm")
    with pytest.raises(
        ValueError, match="`step` must be a step that was looked at, but is 5; there are 0, 10, 20, 30"
    ):
        MonitorRun.load(file).table(5)
