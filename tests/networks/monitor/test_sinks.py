"""Sinks: what they get, and that one which fails stops nothing."""

import warnings

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


def test_a_named_sink_that_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    with pytest.raises(
        ImportError,
        match=r"`sinks` has 'mlflow', which is not installed\. Install it with `pip install mlflow`",
    ):
        kw.Monitor(network(), X, path=tmp_path, sinks=["mlflow"])
