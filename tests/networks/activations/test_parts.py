"""Parts of transformers by the names of their layers: those that libraries give, and those of no transformer."""

import pytest

from ketwork.networks.activations import LayerInfo, parts_of


def named(*names: str):
    return [
        None if part is None else (part.name, part.block, part.role)
        for part in parts_of([LayerInfo(name, 0, "Linear") for name in names])
    ]


@pytest.mark.parametrize(
    ("attention", "mlp", "block"),
    [
        ("encoder.layer.3.attention.self", "encoder.layer.3.intermediate", "encoder.layer.3"),
        ("transformer.h.3.attn.c_attn", "transformer.h.3.mlp.c_proj:input", "transformer.h.3"),
        ("model.layers.3.self_attn", "model.layers.3.mlp.down_proj", "model.layers.3:input"),
        ("blocks.3.attn.qkv", "blocks.3.mlp.fc1", "blocks.3"),
        ("layers.3.self_attn.out_proj", "layers.3.linear1", "layers.3"),
        ("h.3.self_attention.dense", "h.3.mlp", "h.3.post_attention_layernorm:input"),
    ],
)
def test_the_three_parts_of_a_block(attention, mlp, block):
    parts = named(attention, mlp, block, "embed", "head")
    assert [part[0] for part in parts[:3]] == ["attention", "MLP", "residual stream"]
    assert {part[1] for part in parts[:3]} == {3}
    assert parts[3:] == [None, None]


def test_blocks_are_numbered_and_roles_are_names_inside_them():
    assert named("h.0:input", "h.0.attn", "h.0", "h.11.attn", "h.11") == [
        ("residual stream", 0, "input"),
        ("attention", 0, "attn"),
        ("residual stream", 0, ""),
        ("attention", 11, "attn"),
        ("residual stream", 11, ""),
    ]


def test_lists_without_attention_have_no_parts():
    assert named("features.0", "features.1.conv", "blocks.0.attn", "blocks.0") == [
        None,
        None,
        ("attention", 0, "attn"),
        ("residual stream", 0, ""),
    ]
    assert named("0", "1", "2") == [None, None, None]
