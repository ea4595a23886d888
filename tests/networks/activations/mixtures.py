"""Small mixtures of experts of transformers with random weights."""

from typing import Any

import torch
from torch import nn
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, MixtralConfig, MixtralForCausalLM

_COMMON = {"vocab_size": 96, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 4}


def mixtral(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = MixtralConfig(
        **_COMMON,
        num_hidden_layers=2,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
        **more,
    )
    return MixtralForCausalLM(config).eval()


def deepseek(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = DeepseekV3Config(
        **_COMMON,
        num_hidden_layers=2,
        num_key_value_heads=4,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        kv_lora_rank=8,
        q_lora_rank=8,
        qk_rope_head_dim=4,
        qk_nope_head_dim=4,
        v_head_dim=6,
        **more,
    )
    model = DeepseekV3ForCausalLM(config).eval()
    with torch.no_grad():  # it is made with routers of zeros
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model
