import shutil
import subprocess
import sys

import pytest
import safetensors.torch
import tokenizers
import torch
import transformers
from torch import nn

from ketwork.sources import SourceError, SourceFailed, load_data, load_model

NETS = """
from dataclasses import dataclass
import tokenizers
import torch
import transformers
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3, bias=False)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

@dataclass
class Settings:
    width: int = 4

ready = small()
class Holder:
    build = staticmethod(small)

def needs(width, depth=2): return small()
def fails(): raise ZeroDivisionError("no luck")
def number(): return 3
text = "not a network"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "ketwork_test_nets.py").write_text(NETS)
    (tmp_path / "needs_torchwhatever.py").write_text("import torchwhatever\n")
    (tmp_path / "broken_syntax.py").write_text("def (:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop("ketwork_test_nets", None)


@pytest.mark.parametrize(
    "spec",
    [
        "ketwork_test_nets:small",
        "ketwork_test_nets:ready",
        "ketwork_test_nets:Holder.build",
        "ketwork_test_nets.py:small",
        "./ketwork_test_nets.py:small",
    ],
)
def test_a_factory_an_instance_and_a_file_give_the_same_network(here, spec):
    torch.manual_seed(0)
    expected = nn.Linear(3, 4).weight
    loaded = load_model(spec)
    assert torch.equal(loaded.model[0].weight, expected)
    assert not loaded.model.training
    assert loaded.tokenizer is None
    assert loaded.dtype == torch.float32
    assert loaded.description["parameters"] == 3 * 4 + 4 + 4 * 2 + 2
    assert loaded.description["spec"] == spec


def _state(scale):
    return {
        "0.weight": torch.full((4, 3), scale),
        "0.bias": torch.zeros(4),
        "2.weight": torch.ones(2, 4),
        "2.bias": torch.ones(2),
    }


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("w.safetensors", None),
        ("w.pt", None),
        ("w.pth", "state_dict"),
        ("w.pt", "model"),
        ("w@home.pth", None),
    ],
)
def test_weights_fill_the_network(here, name, wrapped):
    state = _state(0.25)
    if name.endswith(".safetensors"):
        safetensors.torch.save_file(state, name)
    else:
        torch.save({wrapped: state, "epoch": 3} if wrapped else state, name)
    model = load_model(f"ketwork_test_nets:small@{name}").model
    x = torch.tensor([[1.0, 2.0, 3.0]])
    # four hidden values of 0.25 · 6 each, summed by ones, plus one
    assert torch.equal(model(x), torch.tensor([[7.0, 7.0]]))


def test_tensors_that_the_network_has_no_place_for_are_refused(here):
    safetensors.torch.save_file(_state(1.0) | {"3.weight": torch.zeros(1)}, "more.safetensors")
    with pytest.raises(SourceError, match=r"\(1 unexpected: 3\.weight\)"):
        load_model("ketwork_test_nets:small@more.safetensors")


def test_tensors_shared_under_two_names_may_be_stored_once(here):
    safetensors.torch.save_file({"first.weight": torch.eye(3) * 2}, "tied.safetensors")
    model = load_model("ketwork_test_nets:Tied@tied.safetensors").model
    assert torch.equal(model.second.weight, torch.eye(3) * 2)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_weights_that_a_wrapper_saved_fit(here, prefix):
    weights = {
        name: tensor + 1
        for name, tensor in nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict().items()
    }
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, "w.pt")
    loaded = load_model("ketwork_test_nets:small@w.pt").model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in weights.items())
    torch.save({"module.0.weight": weights["0.weight"], "0.bias": weights["0.bias"]}, "w.pt")
    with pytest.raises(SourceError, match="another architecture"):
        load_model("ketwork_test_nets:small@w.pt")


def test_weights_of_another_architecture_are_refused_by_name(here):
    state = _state(1.0)
    del state["2.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["0.weight"] = torch.zeros(5, 3)
    safetensors.torch.save_file(state, "other.safetensors")
    with pytest.raises(SourceError, match="of another architecture") as caught:
        load_model("ketwork_test_nets:small@other.safetensors")
    message = str(caught.value)
    assert "1 missing: 2.bias" in message
    assert "1 unexpected: extra.weight" in message
    assert "1 of another shape: 0.weight (5, 3) for (4, 3)" in message


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("keep", [0, 6, 100, 0.5, 0.98])
def test_truncated_weights_are_named(here, suffix, keep):
    name = f"w.{suffix}"
    state = {key: value.repeat_interleave(1) for key, value in _state(1.0).items()}
    (safetensors.torch.save_file if suffix == "safetensors" else torch.save)(state, name)
    whole = (here / name).read_bytes()
    (here / name).write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(SourceError, match=r"truncated or not|is not one"):
        load_model(f"ketwork_test_nets:small@{name}")


def test_a_checkpoint_with_objects_is_refused_without_running_it(here):
    model = nn.Linear(2, 2)
    torch.save(model, "whole.pt")
    with pytest.raises(SourceError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        load_model("ketwork_test_nets:small@whole.pt")


def test_a_checkpoint_without_a_state_dict_says_what_it_holds(here):
    torch.save({"epoch": 3, "loss": 0.1}, "nothing.pt")
    with pytest.raises(SourceError, match="holds a mapping with 'epoch', 'loss'"):
        load_model("ketwork_test_nets:small@nothing.pt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_such_module_here:make", "no module 'no_such_module_here'"),
        ("no_such_module_here.inner:make", "no module 'no_such_module_here'"),
        ("os.nothing:make", r"no module 'os\.nothing'"),
        ("nowhere.py:make", "no file nowhere.py"),
        ("a-b:make", "'a-b' is neither"),
        ("ketwork_test_nets:smal", "there is no 'smal' in it. Nearest names: small"),
        ("ketwork_test_nets:number", "'ketwork_test_nets:number' returned builtins.int"),
        ("ketwork_test_nets:text", "is a str"),
        ("ketwork_test_nets:needs", "needs width"),
        ("ketwork_test_nets:small@missing.pt", "there is no file missing.pt"),
        ("ketwork_test_nets:small@ketwork_test_nets.py", r"in \.safetensors, \.pt or \.pth, but was"),
        ("folder/without", "no folder 'folder/without'"),
        (".", "has no config.json"),
    ],
)
def test_bad_specs_say_what_is_wrong(here, spec, message):
    with pytest.raises(SourceError, match=message) as caught:
        load_model(spec)
    assert str(caught.value).startswith("Argument `model` must ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("ketwork_test_nets:fails", "raised ZeroDivisionError: no luck"),
        ("needs_torchwhatever:x", "raised ModuleNotFoundError: No module named 'torchwhatever'"),
        ("needs_torchwhatever.py:x", "raised ModuleNotFoundError: No module named 'torchwhatever'"),
        ("broken_syntax:x", "raised SyntaxError"),
    ],
)
def test_code_that_fails_is_told_from_a_bad_spec(here, spec, message):
    with pytest.raises(SourceFailed, match=message):
        load_model(spec)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there(here, device):
    with pytest.raises(SourceError, match=f"Argument `device` must be a device .* but was '{device}'"):
        load_model("ketwork_test_nets:small", device=device)


def test_the_recognizer_loads_from_its_file_though_its_package_does_not_import(cnn):
    source, weights = cnn
    loaded = load_model(f"{source}:CNN@{weights}")
    assert loaded.description["parameters"] == 390_410
    assert loaded.model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.slow
def test_a_hugging_face_folder_loads_offline_with_its_tokenizer(minilm, capfd):
    loaded = load_model(str(minilm))
    assert loaded.description["class"] == "transformers.models.bert.modeling_bert.BertModel"
    assert loaded.description["parameters"] == 22_713_216
    assert loaded.tokenizer("hello world")["input_ids"] == [101, 7592, 2088, 102]
    assert loaded.tokenizer.model_max_length == 512
    assert loaded.notes == ()
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def copied(minilm, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(minilm, folder)
    return folder


@pytest.mark.slow
def test_hugging_face_folders_that_do_not_load(copied):
    weights, config = copied / "model.safetensors", copied / "config.json"
    whole, settings = weights.read_bytes(), config.read_text()

    def refused(message):
        with pytest.raises(SourceError, match=message):
            load_model(str(copied))

    weights.write_bytes(whole[:1_000_000])
    refused("truncated or not safetensors")
    weights.unlink()
    refused(r"no file named .*model\.safetensors")
    weights.write_bytes(whole)
    config.write_text("{}")
    refused("model_type")
    config.write_text(settings.replace('"bert"', '"distilbert"'))
    refused("lacks 96 of the 100 tensors of a DistilBertModel: its weights are of another architecture")
    config.write_text(settings.replace("384", "192"))
    refused("of another architecture")


@pytest.mark.slow
def test_a_folder_without_a_vocabulary_has_no_tokenizer_rather_than_one_of_unknown_words(copied):
    for name in ("vocab.txt", "tokenizer.json"):
        (copied / name).unlink()
    assert load_model(str(copied)).tokenizer is None
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (copied / name).unlink()
    assert load_model(str(copied)).tokenizer is None


@pytest.mark.slow
def test_a_decoder_without_a_padding_token_or_a_longest_input_gets_both(tmp_path):
    words = tokenizers.models.WordLevel({"a": 0, "b": 1, "<e>": 2, "<u>": 3}, unk_token="<u>")
    backend = tokenizers.Tokenizer(words)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<u>", eos_token="<e>")
    config = transformers.GPT2Config(
        vocab_size=4, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=2, eos_token_id=2
    )
    transformers.GPT2Model(config).save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).tokenizer is None
    fast.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    data = load_data(_texts(tmp_path, ["a b", "b " * 20]), tokenizer=loaded.tokenizer)
    (batch,) = data
    assert batch["attention_mask"].sum(dim=1).tolist() == [2, 8]
    assert loaded.model(**batch).last_hidden_state.shape == (2, 8, 8)
    whole = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(whole[:100])
    with pytest.raises(
        SourceError, match=r"but the tokenizer of .* does not: (Expecting|EOF while parsing a) value"
    ):
        load_model(str(tmp_path))


def _texts(folder, texts):
    path = folder / "texts.csv"
    path.write_text("\n".join(["text", *texts]))
    return str(path)


@pytest.mark.slow
def test_tensors_that_a_folder_lacks_are_noted(copied):
    state = safetensors.torch.load_file(copied / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith("pooler")}
    safetensors.torch.save_file(kept, copied / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(str(copied))
    assert loaded.notes == (
        "Not in model, so initialised at random: pooler.dense.bias, pooler.dense.weight.",
    )


def test_a_missing_extra_is_named_with_the_command_that_installs_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from ketwork.sources import load_model\n"
        f"load_model({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Run `pip install 'ketwork[hf]'`" in done.stderr


def test_a_folder_is_loaded_with_its_head(tmp_path):
    torch.manual_seed(0)
    settings = {"vocab_size": 30, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1}
    config = transformers.LlamaConfig(**settings, num_attention_heads=2)
    saved = transformers.LlamaForCausalLM(config).eval()
    saved.save_pretrained(tmp_path / "head")
    saved.model.save_pretrained(tmp_path / "none")
    loaded = load_model(str(tmp_path / "head")).model
    assert type(loaded) is transformers.LlamaForCausalLM
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, saved(tokens).logits, rtol=0, atol=0)
    assert type(load_model(str(tmp_path / "none")).model) is transformers.LlamaModel
    told = (tmp_path / "head/config.json").read_text()
    (tmp_path / "head/config.json").write_text(told.replace("LlamaForCausalLM", "BertForMaskedLM"))
    assert type(load_model(str(tmp_path / "head")).model) is transformers.LlamaModel  # of its model type
