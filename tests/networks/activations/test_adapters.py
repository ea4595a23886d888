"""Networks with adapters of peft are read as the network that these were put into."""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

import ketwork as kw

from .language import DATA, llama, numbers, unchanged

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

TARGETS = ["q_proj", "v_proj", "down_proj"]


def adapted(base: LlamaForCausalLM, **more: object) -> peft.PeftModel:
    torch.manual_seed(3)
    model = peft.get_peft_model(
        base, peft.LoraConfig(r=3, target_modules=TARGETS, init_lora_weights=False, lora_dropout=0.3, **more)
    )
    return model.eval()


def test_rows_have_the_names_of_the_base() -> None:
    base = llama()
    plain = kw.study(base, DATA)
    model = adapted(copy.deepcopy(base))
    record = unchanged(model, lambda: kw.study(model, DATA))
    assert [layer.name for layer in record] == [layer.name for layer in plain]
    assert record.settings["model"] == "LlamaForCausalLM"
    assert numbers(record) != numbers(plain)
    assert [layer.name for layer in kw.study(model, DATA, layers="blocks")] == [
        "model.layers.0",
        "model.layers.1",
    ]
    expected = model.merge_and_unload()
    for name, e in kw.study(expected, DATA)["model.layers.1"].estimates.items():
        assert record["model.layers.1"].estimates[name].value == pytest.approx(
            e.value, rel=1e-4, abs=1e-5, nan_ok=True
        )


def test_the_base_is_compared_with_by_switching_the_adapters_off() -> None:
    base = llama()
    apart = copy.deepcopy(base)
    model = adapted(base)
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.requires_grad_(False)
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    layers = ["model.layers.*", "lm_head"]
    switched = unchanged(model, lambda: kw.compare(model, DATA, base, layers="model.layers.?"))
    copied = kw.compare(model, DATA, apart, layers="model.layers.?")
    torch.testing.assert_close(
        torch.tensor(switched.cka.to_numpy()), torch.tensor(copied.cka.to_numpy()), rtol=0, atol=0
    )
    assert switched.cka.to_numpy().diagonal().max() < 0.999
    back = kw.compare(base, DATA, model, layers="model.layers.?")
    torch.testing.assert_close(
        torch.tensor(back.cka.to_numpy()), torch.tensor(copied.cka.to_numpy().T.copy()), rtol=1e-9, atol=1e-12
    )
    assert [parameter.requires_grad for parameter in model.parameters()] == wanted
    same = kw.compare(model, DATA, model, layers=layers[:1])
    assert same.cka.to_numpy().diagonal() == pytest.approx(1, abs=1e-6)


def test_adapters_that_are_merged_cannot_be_switched_off() -> None:
    base = llama()
    model = adapted(base)
    model.merge_adapter()
    with pytest.raises(ValueError, match=r"merged into its weights\. Call `unmerge_adapter"):
        kw.compare(model, DATA, base)


def test_learnt_prompts_belong_to_the_network() -> None:
    model = peft.get_peft_model(
        llama(), peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    ).eval()
    record = unchanged(model, lambda: kw.study(model, DATA, layers="*layers.1"))
    assert record[0].N == 12
    assert isinstance(model.base_model, nn.Module)
