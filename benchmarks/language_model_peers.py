"""Other ways to make a Llama-type language model smaller without training, from their papers.

Each takes a model, calibration tokens (windows, length) and the share of the blocks' parameters to keep, and gives
another model. All cut every block to the same share, block by block, each block's inputs being those that the blocks
before it, already cut, put out. `check` asserts a property that each paper states.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

LINEAR = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
BATCH = 4  # windows at a time
Moments = dict[str, tuple[Tensor, Tensor]]  # Σ x xᵀ and Σ |x| over positions, by linear layer


def block_by_block(model: Any, tokens: Tensor, cut: Callable[[Any, Moments], None]) -> None:
    """Calls `cut(block, moments)` for each block in turn, with the moments of its layers' inputs."""
    states: list[tuple[Tensor, dict[str, Any]]] = []

    def keep(module: nn.Module, given: tuple[Tensor], options: dict[str, Any]) -> None:
        states.append((given[0], options))
        raise StopIteration

    handle = model.model.layers[0].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        for part in tokens.split(BATCH):
            with contextlib.suppress(StopIteration):
                model(part, use_cache=False)
        handle.remove()
        for block in model.model.layers:
            cut(block, moments_of(block, states))
            states = [(block(x, **options), options) for x, options in states]


def moments_of(block: Any, states: list[tuple[Tensor, dict[str, Any]]]) -> Moments:
    """The moments of the inputs of a block's linear layers."""
    found: Moments = {}

    def note(name: str, module: nn.Module, given: tuple[Tensor]) -> None:
        x = given[0].flatten(0, -2).double()
        second, first = found.get(name, (0, 0))
        found[name] = second + x.T @ x, first + x.abs().sum(0)

    handles = [block.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in LINEAR]
    for x, options in states:
        block(x, **options)
    for handle in handles:
        handle.remove()
    return found


def factored(block: Any, name: str, first: Tensor, second: Tensor) -> None:
    """Puts two layers in the place of one: first (r, k), then second (m, r)."""
    parent, _, last = name.rpartition(".")
    layers = [nn.Linear(w.shape[1], w.shape[0], bias=False) for w in (first, second)]
    for layer, weight in zip(layers, (first, second), strict=True):
        layer.weight.data = weight.float()
    setattr(block.get_submodule(parent), last, nn.Sequential(*layers))


def by_svd(model: Any, tokens: Tensor, keep: float, scale: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """W S truncated, times S⁻¹, every layer to the rank that keeps the share; `scale` makes S of the moments."""
    small = copy.deepcopy(model)

    def cut(block: Any, moments: Moments) -> None:
        for name in LINEAR:
            weight = block.get_submodule(name).weight.detach().double()
            m, k = weight.shape
            rank = int(keep * m * k / (m + k))
            s = scale(*moments[name])
            u, values, v = torch.linalg.svd(weight @ s, full_matrices=False)
            root = values[:rank].sqrt()
            factored(block, name, torch.linalg.solve(s.T, (root[:, None] * v[:rank]).T).T, u[:, :rank] * root)

    block_by_block(small, tokens, cut)
    return small


def svd_llm(model: Any, tokens: Tensor, keep: float) -> Any:
    """SVD-LLM (Wang et al. 2024, arXiv 2403.07378): S the Cholesky factor of Σ x xᵀ (whitening), in sequence."""

    def whitening(second: Tensor, first: Tensor) -> Tensor:
        eye = torch.eye(len(second), dtype=second.dtype)
        return torch.linalg.cholesky(second + 1e-6 * second.diagonal().mean() * eye)

    return by_svd(model, tokens, keep, whitening)


def asvd(model: Any, tokens: Tensor, keep: float) -> Any:
    """ASVD (Yuan et al. 2023, arXiv 2312.05821): S = diag(mean |x|)^½, without its search of ranks."""
    n = tokens.numel()
    return by_svd(model, tokens, keep, lambda second, first: torch.diag((first / n).clamp(min=1e-9).sqrt()))


def units_kept(model: Any, keep: float) -> int:
    """The inner units of each feed-forward part with which a block keeps the share."""
    block = model.model.layers[0]
    whole = sum(p.numel() for p in block.parameters())
    unit = 3 * model.config.hidden_size
    return int(model.config.intermediate_size - (1 - keep) * whole / unit)


def without_units(block: Any, kept: Tensor) -> None:
    """The feed-forward part with these inner units alone."""
    for name in ("gate_proj", "up_proj"):
        layer = getattr(block.mlp, name)
        layer.weight.data, layer.out_features = layer.weight.data[kept], len(kept)
    down = block.mlp.down_proj
    down.weight.data, down.in_features = down.weight.data[:, kept], len(kept)


def by_units(model: Any, tokens: Tensor, keep: float, score: Callable[[Any, Moments], Tensor]) -> Any:
    """The units of feed-forward parts with the highest scores stay, as many in each block; nothing is refitted."""
    small = copy.deepcopy(model)
    count = units_kept(model, keep)
    block_by_block(
        small,
        tokens,
        lambda block, moments: without_units(block, score(block, moments).topk(count).indices.sort().values),
    )
    return small


def magnitude(model: Any, tokens: Tensor, keep: float) -> Any:
    """Units by the norm of all their weights."""

    def score(block: Any, moments: Moments) -> Tensor:
        mlp = block.mlp
        rows = mlp.gate_proj.weight.square().sum(1) + mlp.up_proj.weight.square().sum(1)
        return rows + mlp.down_proj.weight.square().sum(0)

    return by_units(model, tokens, keep, score)


def wanda(model: Any, tokens: Tensor, keep: float) -> Any:
    """Units by Wanda's score Σ |w| ‖x‖ of the weights that read them (Sun et al. 2023, arXiv 2306.11695)."""

    def score(block: Any, moments: Moments) -> Tensor:
        norms = moments["mlp.down_proj"][0].diagonal().sqrt()
        return block.mlp.down_proj.weight.abs().sum(0).double() * norms

    return by_units(model, tokens, keep, score)


def sliced(model: Any, tokens: Tensor, keep: float) -> Any:
    """After SliceGPT (Ashkboos et al. 2024, arXiv 2401.15024): the stream in its leading directions, the rest cut off.

    One rotation serves all blocks (the paper has one a block, with a matrix between them). RMSNorm does not change
    under rotations once its weights are in the layers that read it.
    """
    net = copy.deepcopy(model)
    d, total = model.config.hidden_size, 0

    def gather(block: Any, moments: Moments) -> None:
        nonlocal total
        for name in ("self_attn.q_proj", "mlp.gate_proj"):
            total = total + moments[name][0] / moments[name][0].trace()

    for norm, readers in norms_of(net):
        for reader in readers:
            reader.weight = nn.Parameter(reader.weight * norm.weight)
        norm.weight.data.fill_(1)
    block_by_block(net, tokens, gather)
    assert isinstance(total, Tensor)
    width = int(keep * d)
    basis = torch.linalg.eigh(total)[1].flip(-1)[:, :width].float()
    config = copy.deepcopy(model.config)
    config.hidden_size, config.tie_word_embeddings = width, False
    small: Any = LlamaForCausalLM(config).eval()
    state = {name: tensor.detach() for name, tensor in net.state_dict().items()}
    for name, tensor in state.items():
        if "norm" in name:
            state[name] = torch.full((width,), math.sqrt(d / width))
        elif "o_proj" in name or "down_proj" in name:
            state[name] = basis.T @ tensor
        elif tensor.ndim == 2:
            state[name] = tensor @ basis
    small.load_state_dict(state)
    return small


def norms_of(net: Any) -> list[tuple[Any, list[Any]]]:
    """Each normalisation with the layers that read it."""
    net.lm_head.weight = nn.Parameter(net.lm_head.weight.detach().clone())  # no longer the embedding's
    found = [(net.model.norm, [net.lm_head])]
    for block in net.model.layers:
        attention, mlp = block.self_attn, block.mlp
        found.append((block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj]))
        found.append((block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj]))
    return found


PEERS = {"SVD-LLM": svd_llm, "ASVD": asvd, "slicing": sliced, "Wanda": wanda, "magnitude": magnitude}


def check(model: Any, tokens: Tensor) -> None:
    """Asserts what the papers state: see the comments."""

    def logits(net: Any) -> Tensor:
        with torch.no_grad():
            return net(tokens[:2], use_cache=False).logits

    def near(a: Tensor, b: Tensor) -> None:
        assert float((a - b).norm() / b.norm()) < 1e-3

    # SVD-LLM: in whitened coordinates the squared loss of truncation is the sum of the squared values cut off.
    gathered: list[tuple[Tensor, Tensor]] = []
    block_by_block(
        copy.deepcopy(model),
        tokens,
        lambda block, moments: gathered.append(
            (block.mlp.up_proj.weight.detach().double(), moments["mlp.up_proj"][0])
        ),
    )
    weight, second = gathered[0]
    s = torch.linalg.cholesky(second + 1e-9 * second.diagonal().mean() * torch.eye(len(second)))
    u, values, v = torch.linalg.svd(weight @ s, full_matrices=False)
    rank = len(values) // 2
    change = torch.linalg.solve(s.T, ((u[:, rank:] * values[rank:]) @ v[rank:]).T).T
    loss = float((change @ second * change).sum())
    assert math.isclose(loss, float(values[rank:].square().sum()), rel_tol=1e-4)
    # ASVD: at full rank scaling and its inverse cancel.
    m, k = weight.shape
    near(logits(asvd(model, tokens, 1.0 * (m + k) / min(m, k) + 1)), logits(model))
    # SliceGPT: a rotation that nothing is cut off changes no output.
    near(logits(sliced(model, tokens, 1.0)), logits(model))
    # Units: none is removed at the whole share; one whose weights are 0 goes first by either score, at no loss.
    dead = copy.deepcopy(model)
    for block in dead.model.layers:
        for part in (block.mlp.gate_proj.weight, block.mlp.up_proj.weight, block.mlp.down_proj.weight.T):
            part.data[1] = 0
    whole = sum(p.numel() for p in dead.model.layers[0].parameters())
    for method in (wanda, magnitude):
        near(logits(method(model, tokens, 1.0)), logits(model))
        near(logits(method(dead, tokens, 1 - 3 * model.config.hidden_size / whole)), logits(dead))
