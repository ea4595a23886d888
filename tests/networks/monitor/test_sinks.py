"""Sinks: what they get, and that one which fails stops nothing."""

import json
import struct
import time
import warnings

import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.monitor.sinks import Mlflow, Wandb, scalars

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU())


def test_a_sink_that_fails_is_dropped_with_one_warning_and_the_others_go_on(tmp_path):
    got = []

    def failing(look):
        if look.step == 1:
            raise ConnectionError("the server is gone")
        got.append(("failing", look.step))

    monitor = kw.Monitor(
        network(), X, every=1, path=tmp_path, sinks=[failing, lambda look: got.append(look.step)]
    )
    monitor(0)
    with pytest.warns(
        kw.MonitorWarning, match="The sink failing failed at step 1 .ConnectionError: the server is gone."
    ) as seen:
        monitor(1)
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor(2)
    assert got == [("failing", 0), 0, 1, 2]
    assert kw.MonitorRun.load(tmp_path).steps == (0, 1, 2)


def test_a_writer_gets_each_finite_number(tmp_path):
    class Writer:
        def __init__(self):
            self.scalars, self.texts = {}, []

        def add_scalar(self, name, value, step):
            self.scalars[name, step] = value

        def add_text(self, name, text, step):
            self.texts.append((name, step))

        def flush(self):
            pass

    net, writer = network(), Writer()
    monitor = kw.Monitor(net, X, every=1, path=tmp_path, sinks=[writer], action=lambda alarm: None)
    look = monitor(0)
    assert writer.scalars == {(name, 0): value for name, value in scalars(look)}
    assert writer.scalars["ketwork/norm/1", 0] == look.value("1", "norm").value
    assert ("ketwork/parameter_change/0", 0) not in writer.scalars  # there is none yet
    with torch.no_grad():
        net[0].weight[:] = 0
        net[0].bias[:] = -1
    monitor(1)
    assert ("ketwork/dying", 1) in writer.texts
    assert writer.scalars["ketwork/alarms", 1] >= 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_tensorboard_reads_what_was_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monitor = kw.Monitor(network(), X, every=1, path=tmp_path, sinks=["tensorboard"])
    looks = [monitor(0), monitor(1)]
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    written = events.Scalars("ketwork/effective_rank/0")
    assert [event.step for event in written] == [0, 1]
    assert [event.value for event in written] == pytest.approx(
        [x.value("0", "effective_rank") for x in looks]
    )


def test_a_run_of_wandb_keeps_its_own_steps(tmp_path):
    class Run:
        """What wandb does: numbers without commit wait for the next log of the same step."""

        def __init__(self):
            self.step, self.waiting, self.rows, self.alerts = 0, {}, [], []

        def define_metric(self, name, step_metric=None):
            pass

        def log(self, numbers, commit=True):
            self.waiting |= numbers
            if commit:
                self.rows.append(self.waiting)
                self.step, self.waiting = self.step + 1, {}

        def alert(self, title, text):
            self.alerts.append(title)

    run = Run()
    monitor = kw.Monitor(network(), X, every=1, path=tmp_path, sinks=[run])
    monitor(0)
    run.log({"loss": 1.0})
    monitor(1)
    monitor(2)  # without a log of the training in between
    run.log({"loss": 0.5})
    assert [(row["ketwork/step"], row.get("loss")) for row in run.rows] == [(0, 1.0), (1, None), (2, 0.5)]
    assert isinstance(Wandb(run).run, Run)


def test_mlflow_gets_metrics_and_tags(tmp_path):
    class Module:
        metrics, tags = {}, {}

        @classmethod
        def log_metrics(cls, metrics, step):
            cls.metrics[step] = metrics

        @classmethod
        def set_tag(cls, name, text):
            cls.tags[name] = text

    net = network()
    monitor = kw.Monitor(net, X, every=1, path=tmp_path, sinks=[Module], action=lambda alarm: None)
    look = monitor(0)
    with torch.no_grad():
        net[0].weight[:] = 0
        net[0].bias[:] = -1
    monitor(1)
    assert Module.metrics[0] == dict(scalars(look))
    assert Module.tags["ketwork.dying.1"].startswith("Dying neurons at 1")
    assert Mlflow(Module).module is Module


def logged(content: bytes):
    """The records of a LevelDB log with wandb's head of 7 bytes: blocks of 32 KiB, records that may span several."""
    place, record = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # complete, or the last part
            yield record
            record = b""


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_run_of_the_real_wandb_without_network_has_what_was_logged(tmp_path, monkeypatch):
    import wandb
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", project="test", dir=tmp_path) as run:
        monitor = kw.Monitor(network(), X, every=1, path=tmp_path / "run", sinks=["wandb"])
        looks = [monitor(0)]
        run.log({"loss": 1.0})
        looks.append(monitor(1))
        run.log({"loss": 0.5})
    (file,) = tmp_path.glob("wandb/offline-run*/*.wandb")

    def records():
        return [wandb_internal_pb2.Record.FromString(data) for data in logged(file.read_bytes())]

    end = time.monotonic() + 30
    while not any(each.HasField("exit") for each in records()) and time.monotonic() < end:
        time.sleep(0.05)  # its own process writes
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in each.history.item}
        for each in records()
        if each.HasField("history")
    ]
    assert [(row["loss"], row["ketwork/step"]) for row in rows] == [(1.0, 0), (0.5, 1)]
    assert [row["ketwork/effective_rank/0"] for row in rows] == pytest.approx(
        [look.value("0", "effective_rank").value for look in looks]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_the_real_mlflow_has_what_was_logged(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("GIT_PYTHON_REFRESH", "quiet")
    import mlflow

    net, before = network(), mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    try:
        with mlflow.start_run() as run:
            monitor = kw.Monitor(
                net, X, every=1, path=tmp_path / "run", sinks=["mlflow"], action=lambda alarm: None
            )
            looks = [monitor(0)]
            with torch.no_grad():
                net[0].weight[:] = 0
                net[0].bias[:] = -1
            looks.append(monitor(1))
        client = mlflow.MlflowClient()
        metrics = client.get_metric_history(run.info.run_id, "ketwork/norm/0")
        tags = client.get_run(run.info.run_id).data.tags
    finally:
        mlflow.set_tracking_uri(before)
    assert [(each.step, each.value) for each in metrics] == [
        (step, pytest.approx(look.value("0", "norm").value)) for step, look in enumerate(looks)
    ]
    assert tags["ketwork.dying.1"].startswith("Dying neurons at 1")


def test_a_parquet_file_has_the_numbers_of_all_looks(tmp_path):
    monitor = kw.Monitor(network(), X, every=1, path=tmp_path, sinks=["parquet"])
    for step in range(2):
        monitor(step)
        kept = pd.read_parquet(tmp_path / "monitor.parquet")
        pd.testing.assert_frame_equal(kept, kw.MonitorRun.load(tmp_path).long())
        assert set(kept["step"]) == set(range(step + 1))
    again = kw.Monitor(network(), X, every=1, path=tmp_path, sinks=["parquet"])
    again(2)
    assert set(pd.read_parquet(tmp_path / "monitor.parquet")["step"]) == {0, 1, 2}


def test_a_parquet_file_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"`sinks` has 'parquet'.*Install it with `pip install pyarrow`"):
        kw.Monitor(network(), X, path=tmp_path, sinks=["parquet"])


def test_a_named_sink_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(
        ImportError,
        match=r"`sinks` has 'mlflow', which is not installed\. Install it with `pip install mlflow`",
    ):
        kw.Monitor(network(), X, path=tmp_path, sinks=["mlflow"])
