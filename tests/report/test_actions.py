"""What a page suggests: the findings of a record with their severity, and commands that run as they stand."""

import re
import shlex
from dataclasses import replace

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.demo import digits
from ketwork.report import actions
from ketwork.report.commands import Commands
from ketwork.report.views import layer_views


def actions_of(study, **settings):
    rows = list(layer_views(study))
    return actions.of_study(study, rows, study.comparison, Commands(study.settings | settings))


@pytest.fixture(scope="module")
def digits_study():
    return kw.study(digits.model(), digits.held_out(), compare=True)


def test_the_most_severe_come_first_and_each_says_what_to_do(digits_study):
    given = actions_of(digits_study)
    order = [list(actions.SEVERITIES).index(action.severity) for action in given]
    assert order == sorted(order)
    assert given[0].severity == "act"
    for action in given:
        assert action.meaning.endswith(".")
        assert action.remedy.endswith(".")


def test_dead_neurons_are_cut_at_the_weights_before_them(digits_study):
    (dead,) = [action for action in actions_of(digits_study) if action.title.startswith("Dead")]
    worst = max(digits_study, key=lambda layer: layer.dead.value)
    assert dead.meaning.startswith(
        f"{round(worst.dead.value * worst.d)} of {worst.d} neurons of {worst.name} are 0"
    )
    assert worst.name == "relu3"
    assert dead.commands == ("kw.compress(model, data, layers=['hidden', 'conv1'], max_kl=0.01)",)


def test_lines_of_python_run_and_keep_what_they_promise(digits_study):
    given = [command for action in actions_of(digits_study) for command in action.commands]
    names = {"kw": kw, "model": digits.model(), "data": digits.held_out()}
    compress = next(command for command in given if "hidden" in command and "compress" in command)
    small = eval(compress, names)
    assert small.kl <= 0.01
    assert small.after.parameters < 0.6 * small.before.parameters


def test_commands_are_those_of_the_command_line(digits_study):
    source = {"model": {"spec": "net.py:Net"}, "data": {"spec": "x y.csv", "text": "text", "label": "spam"}}
    given = [command for action in actions_of(digits_study, source=source) for command in action.commands]
    assert given
    for command in given:
        words = shlex.split(command)
        assert words[0] == "ketwork"
        if words[1] == "detect":
            continue  # of other data, below
        assert words[2:9] == ["net.py:Net", "--data", "x y.csv", "--text", "text", "--label", "spam"]
    demo = {"model": {"spec": "ketwork.demo.digits:model"}, "data": {"spec": "ketwork.demo.digits:held_out"}}
    assert Commands({"source": demo})("collapse", layers=["hidden"]) == "ketwork collapse --layers hidden"


def test_absolute_paths_are_only_in_commands_that_may_have_them():
    source = {"model": {"spec": "/home/ann/net.py:Net"}, "data": {"spec": "data/x.csv", "label": None}}
    private, open_ = (
        Commands({"source": source}, private=each)("study", center=True) for each in (True, False)
    )
    assert private == "ketwork study MODEL --data data/x.csv --center"
    assert open_ == "ketwork study /home/ann/net.py:Net --data data/x.csv --center"


def test_layers_without_weights_that_repeat_others_ask_for_nothing():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Identity(), nn.LeakyReLU(0.9))
    study = kw.study(net, torch.randn(300, 6), layers=["0", "2"], compare=True)
    (action,) = [action for action in actions_of(study) if "repeat" in action.title]
    assert (action.severity, action.commands) == ("note", ())


def test_labels_that_no_layer_tells_apart():
    x = torch.randn(400, 6, generator=torch.Generator().manual_seed(1))
    study = kw.study(nn.Sequential(nn.Linear(6, 8)), (x, torch.arange(400) % 2))
    assert any(action.title == "No layer tells the labels apart" for action in actions_of(study))


def test_labels_that_the_last_layer_loses():
    torch.manual_seed(0)
    x = torch.randn(600, 6)
    net = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(6))
        net[1].weight.copy_(torch.tensor([[0, 1.0, 0, 0, 0, 0], [0, 0, 1.0, 0, 0, 0]]))
    study = kw.study(net, (x, (x[:, 0] > 0).long()))
    (action,) = [action for action in actions_of(study) if action.title.endswith("before the end")]
    assert action.severity == "look"
    assert action.remedy.startswith("As features for these labels, take the activations of 0 instead")


def test_few_samples_are_said_with_how_many_would_do():
    study = kw.study(
        nn.Sequential(nn.Linear(64, 64)), torch.randn(80, 64, generator=torch.Generator().manual_seed(0))
    )
    (few,) = [action for action in actions_of(study) if action.title.startswith("Few samples")]
    needed = int(re.search(r"about ([\d,]+) would", few.remedy)[1].replace(",", ""))
    assert needed >= 4 * study[0].effective_rank.plain


def test_sinks_and_one_direction_name_the_study_to_compare_with():
    x = torch.randn(60, 9, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 1000 * x[0, 0]
    study = kw.study(nn.Sequential(nn.Linear(4, 6)), x + 3, normalize="ensemble")
    commands = [command for action in actions_of(study) for command in action.commands]
    assert "kw.study(model, data, positions='no-sinks').report('without-sinks.html')" in commands
    assert "kw.study(model, data, center=True).report('centered.html')" in commands
    centred = replace(study, settings=study.settings | {"center": True, "positions": "no-sinks"})
    assert not [each for each in actions_of(centred) if "Sinks" in each.title or "direction" in each.title]


def test_a_curve_names_the_layers_to_cut():
    curve = kw.collapse_curve(
        digits.model(), digits.held_out(), layers=["conv2", "hidden"], ranks=[8, 16, 32]
    )
    (action,) = actions.of_curve(curve, Commands(curve.settings))
    best = {layer.label: layer.smallest.rank / layer.d for layer in curve.layers}
    assert best["hidden"] <= 0.5
    assert action.severity == "act"
    assert "'hidden'" in action.commands[0]


def test_a_study_with_labels_of_samples_says_how_to_score_new_data_by_it(digits_study):
    def last(study, **settings):
        return [each for each in actions_of(study, **settings) if each.title.startswith("New inputs")]

    (given,) = last(digits_study)
    assert f"held out {len(digits_study[0].labels.held_out):,} samples" in given.meaning
    new = torch.rand(40, 1, 8, 8)
    names = {"study": digits_study, "model": digits.model(), "new": new}
    scores = eval(given.commands[0], names)
    assert (scores.p_value <= 0.05).mean() > 0.5  # noise is no digit

    source = {"model": {"spec": "net.py:Net"}, "data": {"spec": "x.csv", "text": "words", "label": "spam"}}
    (given,) = last(digits_study, source=source)
    assert given.commands == (
        "ketwork study net.py:Net --data x.csv --text words --label spam --out study.safetensors",
        "ketwork detect net.py:Net --study study.safetensors --data NEW --text words",
    )
    demo = {"model": {"spec": "ketwork.demo.digits:model"}, "data": {"spec": "ketwork.demo.digits:held_out"}}
    (given,) = last(digits_study, source=demo)
    assert given.commands[1] == (
        "ketwork detect ketwork.demo.digits:model --study study.safetensors --data NEW"
    )
    assert not last(kw.study(digits.model(), digits.held_out()[0]))


def test_a_repeated_block_is_named_where_layers_inside_stand_between() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    flat = nn.Sequential(nn.Linear(6, 8), Block(), Block(), nn.Linear(8, 3))
    nested = nn.Sequential(nn.Linear(6, 8), nn.Sequential(*flat[1:3]), nn.Linear(8, 3))
    nn.init.zeros_(flat[2].down.weight)
    nn.init.zeros_(flat[2].down.bias)
    for net, first, second in ((flat, "1", "2"), (nested, "1.0", "1.1")):
        study = kw.study(net, torch.randn(300, 6), layers="all", compare=True)
        (repeated,) = [action for action in actions_of(study) if "repeat" in action.title]
        assert f"{second} holds nearly what {first} does (CKA 1.000)." in repeated.meaning
        assert f"layers=['{second}.*'" in repeated.commands[0]


def test_a_copied_layer_comes_before_activation_functions() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(16) + 0.02 * torch.randn(16, 16))
        net[2].bias.fill_(1e-3)
    study = kw.study(net, torch.randn(300, 6), layers="all", compare=True)
    (repeated,) = [action for action in actions_of(study) if "repeat" in action.title]
    assert "2 holds nearly what 1 does" in repeated.meaning
    assert repeated.commands == ("kw.compress(model, data, layers=['2'], max_kl=0.01)",)
