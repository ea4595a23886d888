"""`Monitor`: when it looks, what it does about alarms and failures, what stays when a run ends or is continued."""

import json
import math
import warnings

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import ketwork as kw
from ketwork.networks.monitor import Collapse, Dying
from ketwork.networks.monitor.probe_pass import main_layers

X = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))


def kill(net: nn.Module) -> None:
    """Half of the first layer's neurons fire no more."""
    with torch.no_grad():
        net[0].weight[:6] = 0
        net[0].bias[:6] = -1


def test_it_looks_at_the_first_call_and_every_so_many_steps(tmp_path):
    monitor = kw.Monitor(network(), X, every=10, path=tmp_path)
    looked = [step for step in (0, 1, 9, 10, 10, 11, 25, 29, 30) if monitor(step) is not None]
    assert looked == [0, 10, 25, 30]
    assert monitor.run.steps == (0, 10, 25, 30)
    assert kw.Monitor(network(), X, every=10, path=tmp_path / "b")(7).step == 7


def test_an_alarm_warns_once_and_says_what_to_do(tmp_path):
    net = network()
    monitor = kw.Monitor(net, X, every=1, path=tmp_path)
    monitor(0)
    kill(net)
    with pytest.warns(
        kw.MonitorWarning, match=r"Dying neurons at 1, step 1: dead 0.* → 0\.5.*since step 0.*GELU"
    ) as seen:
        monitor(1)
    assert seen[0].filename == __file__
    monitor(2)
    assert [(alarm.kind, alarm.step) for alarm in monitor.alarms] == [("dying", 1)]


def test_an_alarm_stops_or_calls(tmp_path):
    for action in ("stop", (heard := []).append):
        net = network()
        monitor = kw.Monitor(net, X, every=1, path=tmp_path / str(callable(action)), action=action)
        monitor(0)
        kill(net)
        if callable(action):
            assert [alarm.kind for alarm in monitor(1).alarms] == ["dying"] == [alarm.kind for alarm in heard]
        else:
            with pytest.raises(kw.StopTraining, match="Dying neurons at 1") as stop:
                monitor(1)
            assert [alarm.layer for alarm in stop.value.alarms] == ["1"]
        assert kw.MonitorRun.load(monitor.path).alarms[0].after.value == 0.5  # written before


def test_rules_can_be_chosen(tmp_path):
    for alarms in (False, "collapse", [Collapse(), Dying(rise=0.6)]):
        net = network()
        monitor = kw.Monitor(net, X, every=1, path=tmp_path, alarms=alarms)
        monitor(0)
        kill(net)
        monitor(1)
        assert monitor.alarms == ()


def test_nan_is_an_alarm_at_the_first_layer_that_has_it_and_goes_with_it(tmp_path):
    net = network()
    monitor = kw.Monitor(net, X, every=1, path=tmp_path, action=(heard := []).append)
    monitor(0)
    with torch.no_grad():
        net[2].weight[0, 0] = math.nan
    look = monitor(1)
    assert [(a.kind, a.layer, a.after.value) for a in heard] == [("not_finite", "2", 1.0)]
    assert [layer.bad for layer in look.layers] == [0, 0, 64]
    assert math.isfinite(look.value("1", "effective_rank"))
    assert math.isnan(look.value("2", "effective_rank"))
    assert monitor(2).layers[2].bad == 64
    with torch.no_grad():
        net[2].weight[0, 0] = 0.1
    assert math.isfinite(monitor(3).value("2", "effective_rank"))
    assert len(heard) == 1
    for line in (tmp_path / "monitor.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(word))


def test_a_network_that_is_nan_from_the_begin_is_read_once_it_is_not(tmp_path):
    net = network()
    with torch.no_grad():
        net[0].weight[:] = math.nan
    monitor = kw.Monitor(net, X, every=1, path=tmp_path, action=(heard := []).append)
    monitor(0)
    assert heard[0].layer == "0"
    net.load_state_dict(network().state_dict())
    assert [math.isfinite(layer.values["norm"]) for layer in monitor(1).layers] == [True] * 3


def test_the_first_look_that_fails_is_an_error_and_a_later_one_a_warning(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        kw.Monitor(network(), X[:, :4], path=tmp_path / "a")(0)

    class Full(nn.Sequential):
        full = False

        def forward(self, x):
            if self.full:
                raise MemoryError("out of memory")
            return super().forward(x)

    net = Full(*network())
    monitor = kw.Monitor(net, X, every=1, path=tmp_path)
    monitor(0)
    net.full = True
    with pytest.warns(
        kw.MonitorWarning, match=r"A look failed at step 1 \(MemoryError: out of memory\).*training goes on"
    ):
        assert monitor(1) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert monitor(2) is None
        net.full = False
        assert monitor(3).step == 3
    assert kw.MonitorRun.load(tmp_path).notes[-1] == "The look at step 2 failed (MemoryError)."


def test_a_run_that_is_continued_takes_the_place_of_what_follows(tmp_path):
    net = network()
    first = kw.Monitor(net, X, every=10, path=tmp_path)
    for step in (0, 10, 20, 30):
        first(step)
    kill(net)
    second = kw.Monitor(net, X, every=10, path=tmp_path, action=(heard := []).append)
    second(20)
    second.close()
    run = kw.MonitorRun.load(tmp_path)
    assert run.steps == second.run.steps == (0, 10, 20)
    assert run.ended
    assert not first.run.ended
    assert [(alarm.kind, alarm.since, alarm.step) for alarm in heard] == [
        ("dying", 0, 20)
    ]  # against the first part
    kw.Monitor(net, X, every=10, path=tmp_path)(0)
    assert kw.MonitorRun.load(tmp_path).steps == (0,)


def test_an_end_is_written_and_an_error_writes_none(tmp_path):
    with kw.Monitor(network(), X, path=tmp_path / "a") as monitor:
        monitor(0)
    assert kw.MonitorRun.load(tmp_path / "a").ended
    assert monitor.look(1) is None

    def train():
        with kw.Monitor(network(), X, path=tmp_path / "b") as monitor:
            monitor(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert not kw.MonitorRun.load(tmp_path / "b").ended


def test_labels_that_are_learned_by_heart_are_an_alarm_and_true_ones_none(tmp_path):
    table = load_digits()
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    x, y = (
        torch.tensor(table.images, dtype=torch.float32).flatten(1)[order] / 8 - 1,
        torch.tensor(table.target)[order],
    )
    mixed = y[torch.randperm(1797, generator=torch.Generator().manual_seed(1))]
    for name, labels in (("true", y), ("mixed", mixed)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        seen, unseen = (x[:400], labels[:400]), (x[400:800], labels[400:800])
        monitor = kw.Monitor(
            net, seen, every=300, held_out=unseen, path=tmp_path / name, action=lambda alarm: None
        )
        for step in range(601):
            monitor(step)
            batch = torch.randint(400, (64,))
            loss = nn.functional.cross_entropy(net(x[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert {alarm.kind for alarm in monitor.alarms} == (set() if name == "true" else {"memorisation"})
        # Both probes are those of a monitor that looks at either set alone.
        apart = [
            kw.Monitor(net, data, path=tmp_path / f"{name}{i}").look(0).value("1", "linear_balanced")
            for i, data in enumerate((seen, unseen))
        ]
        gap = monitor.look(601).value("1", "linear_gap")
        assert gap == pytest.approx(apart[0].value - apart[1].value, abs=1e-9)
        assert gap.stderr == pytest.approx(math.hypot(apart[0].stderr, apart[1].stderr), rel=1e-9)
        assert monitor.settings["held_out"] == 400


def test_held_out_samples_need_labels_and_be_as_many(tmp_path):
    with pytest.raises(
        ValueError, match=r"`held_out` must have as many samples as the probe set, 64, .* has 20"
    ):
        kw.Monitor(
            network(), (X, torch.arange(64) % 2), held_out=(X[:20], torch.arange(20) % 2), path=tmp_path
        )
    for data, held_out in ((X, (X, torch.arange(64) % 2)), ((X, torch.arange(64) % 2), X)):
        with pytest.raises(
            ValueError, match=r"`held_out` needs labels in its batches and in those of `data`"
        ):
            kw.Monitor(network(), data, held_out=held_out, path=tmp_path)(0)


def test_a_disk_that_fails_is_one_warning_and_the_numbers_stay(tmp_path):
    monitor = kw.Monitor(network(), X, every=1, path=tmp_path / "run")
    monitor(0)
    (tmp_path / "run" / "monitor.jsonl").unlink()
    (tmp_path / "run").rmdir()
    with pytest.warns(kw.MonitorWarning, match=r"Writing .*monitor\.jsonl' failed .*FileNotFoundError"):
        monitor(1)
    monitor(2)
    assert monitor.run.steps == (0, 1, 2)


def test_blocks_are_followed_by_their_outputs_and_wide_layers_when_named(tmp_path):
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    net = nn.Sequential(nn.Embedding(9, 8), encoder, nn.Linear(8, 5000))
    assert main_layers(net) == ["(model)", "0", "1", "1.layers.0", "1.layers.1", "2"]
    texts = torch.randint(9, (6, 3))
    monitor = kw.Monitor(net, texts, path=tmp_path)
    assert [layer.layer for layer in monitor(0).layers] == ["0", "1.layers.0", "1"]
    assert "5,000 features, more than 4,096" in monitor.skipped["2"]
    named = kw.Monitor(net, texts, layers="2", quantities=["norm"], path=tmp_path)
    assert [layer.d for layer in named(0).layers] == [5000]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "`every` must be a whole number of at least 1, but is 0"),
        (
            {"max_samples": True},
            ValueError,
            "`max_samples` must be a whole number of at least 1, but is True",
        ),
        ({"action": "halt"}, ValueError, "`action` must be 'warn', 'stop' or a function.* but is 'halt'"),
        (
            {"alarms": ["colapse"]},
            ValueError,
            "`alarms` must name alarms, but has 'colapse'. Near it: collapse",
        ),
        (
            {"alarms": "collapse", "quantities": ["norm", "spread"]},
            ValueError,
            "`alarms` has 'collapse', which needs 'effective_rank' among `quantities`",
        ),
        ({"alarms": 3}, TypeError, "`alarms` must be True, False, or names"),
        ({"layers": "missing"}, LookupError, "`layers` must name modules of the network, but 'missing'"),
        ({"data": X[:0]}, ValueError, "`data` must hold at least one sample, but is empty"),
        ({"data": 3}, TypeError, "`data` must be an array"),
        ({"labels": [1, 2]}, ValueError, "`labels` must have one entry a sample, but has 2 for at least 64"),
        ({"views": 5}, ValueError, "`views` must be at least 2 and divide the 64 samples"),
        (
            {"views": 2, "max_samples": 32},
            ValueError,
            "`views` needs the views of a sample next to each other",
        ),
        ({"seed": 1.5}, TypeError, "`seed` must be an integer, but is 1.5"),
        (
            {"sinks": ["comet"]},
            ValueError,
            "`sinks` must hold 'parquet', 'tensorboard', 'wandb', 'mlflow'.* but has 'comet'",
        ),
        ({"sinks": [3]}, TypeError, "`sinks` must hold names.* but has a int"),
        (
            {"model": nn.LazyLinear(3)},
            ValueError,
            "`model` must have its parameters, but 'weight' is made at the first",
        ),
        ({"model": print}, TypeError, "`model` must be a torch.nn.Module"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_arguments_are_named(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        kw.Monitor(**({"model": network(), "data": X, "path": tmp_path} | arguments))(0)


def test_a_step_is_a_number(tmp_path):
    monitor = kw.Monitor(network(), X, path=tmp_path)
    for step in (-1, "3", 2.5, None, True):
        with pytest.raises(ValueError, match="`step` must be a whole number of at least 0"):
            monitor(step)
    assert monitor(torch.tensor(3)).step == 3


def test_a_forward_pass_that_changes_parameters_is_refused(tmp_path):
    class Drifting(nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.mul_(1.01)
            return super().forward(x)

    net = Drifting(6, 3)
    before = net.weight.clone()
    with pytest.raises(
        ValueError, match="`model` must not change its parameters in a forward pass, but changed 'weight'"
    ):
        kw.Monitor(net, X, path=tmp_path)(0)
    assert torch.equal(net.weight, before)


def test_it_prints_well(tmp_path):
    monitor = kw.Monitor(network(), X, path=tmp_path)
    assert repr(monitor.run) == "MonitorRun of Sequential: no look yet"
    monitor(0)
    assert (
        repr(monitor)
        == f"Monitor of Sequential: every 500 steps on 64 samples, 1 looks, 0 alarms, {tmp_path}"
    )
    assert (
        repr(monitor.run) == "MonitorRun of Sequential: 1 look at 3 layers (0, 1, 2), steps 0 to 0, not ended"
    )
