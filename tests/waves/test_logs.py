import json
import math

from ketwork import waves

ISING = waves.ising(waves.chain(6), 1.0)


class Writer:
    def __init__(self) -> None:
        self.scalars: dict[str, list[tuple[int, float]]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.scalars.setdefault(tag, []).append((step, value))


def test_every_step_is_a_line_and_a_scalar(tmp_path) -> None:
    writer, path = Writer(), tmp_path / "run.jsonl"
    logs = [waves.JsonLines(path), waves.TensorBoard(writer)]
    run = waves.ground_state(
        ISING, waves.Wave(waves.RBM(), ISING.space), steps=5, n_samples=200, on_step=logs
    )
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(5))
    assert [line["energy"] for line in lines] == [float(step.energy) for step in run.history]
    assert writer.scalars["waves/energy"] == [(s.index, float(s.energy)) for s in run.history]
    assert writer.scalars["waves/turn"] == [(s.index, s.turn) for s in run.history]


def test_numbers_that_are_not_finite_are_null(tmp_path) -> None:
    log = waves.JsonLines(tmp_path / "run.jsonl")
    log(waves.Step(0, waves.Expectation(-1.0, 0.1, 0.2, 0.0, math.nan), 0.5, 0.01))
    assert json.loads(log.path.read_text())["rhat"] is None


def test_a_resumed_run_goes_on_in_the_same_file(tmp_path) -> None:
    log = waves.JsonLines(tmp_path / "run.jsonl")
    for steps in (3, 6):
        checkpoint = waves.Checkpoint(tmp_path / "run", resume=True)
        wave = waves.Wave(waves.RBM(), ISING.space)
        waves.ground_state(ISING, wave, steps=steps, n_samples=64, on_step=log, checkpoint=checkpoint)
    assert [json.loads(line)["step"] for line in log.path.read_text().splitlines()] == list(range(6))
