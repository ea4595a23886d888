"""What each expert of a mixture is given: the right vectors, of the right samples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw

from .language import DATA, MASK, unchanged

pytest.importorskip("transformers", "5.0", reason="Experts of older versions are modules of their own.")

from .mixtures import deepseek, mixtral

PATHS = {mixtral: "model.layers.1.mlp.experts", deepseek: "model.layers.1.mlp.experts"}
NUMBER = {mixtral: 4, deepseek: 8}


def _routes(model: nn.Module, path: str) -> tuple[Tensor, Tensor]:
    """What a plain hook sees: the tokens (12, 7, d) and the experts that each goes to (12, 7, k)."""
    tokens, experts = [], []

    def note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        tokens.append(inputs[0].detach().unflatten(0, (-1, 7)).clone())
        experts.append(inputs[1].unflatten(0, (-1, 7)).clone())

    handle = model.get_submodule(path).register_forward_pre_hook(note)
    with torch.no_grad():
        for batch in DATA:
            model(**batch)
    handle.remove()
    return torch.cat(tokens), torch.cat(experts)


@pytest.mark.parametrize("implementation", ["eager", "batched_mm", "grouped_mm"])
@pytest.mark.parametrize("make", [mixtral, deepseek])
def test_each_expert_has_the_vectors_that_it_is_given(
    make: Callable[..., nn.Module], implementation: str
) -> None:
    model = make(experts_implementation=implementation)
    record = unchanged(model, lambda: kw.study(model, DATA, layers="experts"))
    path, number = PATHS[make], NUMBER[make]
    tokens, experts = _routes(model, path)
    rows = [layer for layer in record if layer.name.startswith(path)]
    assert [row.name for row in rows] == [f"{path}:expert[{i}]" for i in range(number)]
    for i, row in enumerate(rows):
        mine = (experts == i).any(dim=-1) & MASK.bool()
        assert (row.N, row.kets) == (12, int(mine.sum()))
        kets = torch.nn.functional.normalize(tokens[mine].double(), dim=-1)
        if len(kets):
            torch.testing.assert_close(row.density.matrix(), kets.T @ kets / len(kets), rtol=0, atol=1e-6)
        counts = mine.sum(dim=1)
        assert row.accumulator.reservoir.counts.sort().values.tolist() == counts.sort().values.tolist()
    table = record.experts().query("layer == @path")
    assert table["vectors"].sum() == int(MASK.sum()) * 2
    assert table["expert"].tolist() == [*range(number)]


def test_labels_of_samples_are_read_from_the_experts_that_their_tokens_go_to() -> None:
    """Tokens bear their sample's label in plain sight: were they another sample's, nothing could be read."""
    model = mixtral()
    labels = torch.arange(256) % 2
    tokens = torch.randint(0, 48, (256, 8), generator=torch.Generator().manual_seed(1)) + 48 * labels[:, None]
    with torch.no_grad():
        model.model.embed_tokens.weight[48:] += 0.02  # plainly, and yet each expert gets tokens of both
    record = kw.study(
        model, {"input_ids": tokens}, layers="*.0.mlp.experts:expert", labels=labels, batch_size=32
    )
    assert len(record) == 4
    for row in record:
        assert row.labels is not None
        assert row.labels.estimates["linear_balanced"].value > 0.95


def test_rows_while_a_network_generates() -> None:
    model: Any = mixtral()
    model.generation_config.eos_token_id = None
    prompts = torch.randint(4, 96, (5, 6), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        tokens = model.generate(prompts, max_new_tokens=4, do_sample=False, pad_token_id=0)
    layers = ["*.mlp.experts:expert", "*.mlp.experts", "*.mlp.gate"]
    record = kw.study(model, prompts, layers=layers, forward=kw.generate(4))
    expected = kw.study(model, tokens[:, :-1], layers=layers)
    assert [layer.name for layer in record] == [layer.name for layer in expected]
    for mine, other in zip(record, expected, strict=True):
        assert mine.kets == other.kets
        torch.testing.assert_close(mine.density.matrix(), other.density.matrix(), rtol=0, atol=1e-5)
    ends = int(tokens[0, 7])
    ended = kw.study(
        model, prompts, layers=layers, forward=kw.generate(4, eos_token_id=ends), positions="answer"
    )
    with torch.no_grad():
        tokens = model.generate(prompts, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=ends)
    alive = ~(tokens[:, 6:-1] == ends).cummax(dim=1).values
    assert ended["model.layers.1.mlp.experts"].kets == int(alive.sum())
    assert ended.loads()["vectors"].tolist() == [2 * int(alive.sum())] * 2


def test_one_expert_and_names_that_are_none() -> None:
    model = mixtral()
    record = kw.study(
        model, DATA, layers=["model.layers.0.mlp.experts:expert[2]", "model.layers.0.mlp.experts:input"]
    )
    assert [layer.name for layer in record] == [
        "model.layers.0.mlp.experts:expert[2]",
        "model.layers.0.mlp.experts:input",
    ]
    assert [layer.kind for layer in record] == ["MixtralExperts expert", "MixtralExperts input"]
    for layers, words in (
        ("*.mlp.experts:expert[4]", r"by a number below 4, but names \[4\]"),
        ("*.mlp.experts:expert.first", "by a number below 4"),
        ("*.mlp.gate:expert", "must name modules with experts before `:expert`"),
    ):
        with pytest.raises(kw.SelectorError, match=words):
            kw.study(model, DATA, layers=layers)
    with pytest.raises(kw.SelectorError, match="'experts', but this network has no module that is called"):
        kw.study(nn.Linear(3, 3), torch.ones(4, 3), layers="experts")


class _Rows(nn.Module):
    """Experts that get their tokens alone, in an order of their own: nothing says whose these are."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(6, 4) for _ in range(2))
        self.out = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        to, y = (flat[:, 0] > 0).long(), flat.new_zeros(len(flat), 4)
        for i, expert in enumerate(self.experts):
            where = (to == i).nonzero()[:, 0]
            y = y.index_add(0, where, expert(flat[where]))
        return self.out(y.view(*x.shape[:2], 4))


def test_tokens_of_unknown_samples_have_no_row() -> None:
    x = torch.randn(40, 5, 6, generator=torch.Generator().manual_seed(0))
    record = kw.study(_Rows(), x, batch_size=8)
    assert "experts.0" not in record
    assert "no fixed number of rows" in record.skipped["experts.0"]
    assert record["out"].kets == 200
