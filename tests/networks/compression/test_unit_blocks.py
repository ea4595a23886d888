"""Units of blocks that repeat: expected from one, tried in all, and found one by one where a block is another."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ketwork.networks.activations import Batch
from ketwork.networks.compression.layers import weight_layers
from ketwork.networks.compression.unit_discovery import feeds
from ketwork.networks.compression.unit_feeds import Feed


class Block(nn.Module):
    """A residual block; `mixing` makes one unit of all that is inside."""

    def __init__(self, mixing: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.norm, self.mixing = (
            nn.Linear(8, 12),
            nn.Linear(12, 8),
            nn.LayerNorm(8),
            mixing,
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.up(self.norm(x)).relu()
        return x + self.down(inner.softmax(-1) if self.mixing else inner)


def blocks(mixing: int | None = None, count: int = 6) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), *(Block(i == mixing) for i in range(count)), nn.Linear(8, 3))


class Named(nn.Module):
    """Blocks with numbers in their names, which are alike all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.block1, self.block2, self.block3, self.head = Block(), Block(), Block(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block3(self.block2(self.block1(x))))


def llama() -> nn.Module:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=30,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=5,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=4,
        )
    )


def described(of: list[Feed]) -> list[dict[str, list[list[int]]]]:
    return [
        {path: rows.tolist() for path, rows in [*feed.sources.items(), *feed.readers.items()]} for feed in of
    ]


def found(net: nn.Module, x: Tensor, repeat: bool) -> tuple[list[Feed], dict[str, str], list[int]]:
    """Also how many samples each call ran."""
    ran = []

    def call(model: nn.Module, batch: Batch) -> tuple[Tensor, ...]:
        ran.append(batch.size)
        out = model(batch.content)
        return ((out if isinstance(out, Tensor) else out.logits).flatten(0, -2),)

    layers, _ = weight_layers(net)
    return *feeds(net.eval(), layers, call, Batch(x, None, (), len(x)), repeat), ran


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "residual": (blocks, torch.randn(10, 8)),
    "the first is another": (lambda: blocks(0), torch.randn(10, 8)),
    "one is another": (lambda: blocks(3), torch.randn(10, 8)),
    "the last is another": (lambda: blocks(5), torch.randn(10, 8)),
    "numbers in names": (Named, torch.randn(10, 8)),
    "Llama": (llama, torch.randint(0, 30, (10, 5))),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_units_are_those_found_one_by_one(name: str) -> None:
    build, x = NETWORKS[name]
    of, why, _ = found(build(), x, repeat=True)
    wanted, reasons, _ = found(build(), x, repeat=False)
    assert described(of) == described(wanted)
    assert len(wanted) >= 3
    assert why.keys() == reasons.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_no_more_samples_run_at_once_than_a_batch_has(name: str) -> None:
    build, x = NETWORKS[name]
    of, why, ran = found(build(), x[:1], repeat=True)
    assert set(ran) == {1}
    wanted, reasons, _ = found(build(), x, repeat=True)
    assert described(of) == described(wanted)
    assert why == reasons


def test_it_takes_fewer_runs() -> None:
    x = torch.randint(0, 30, (10, 5))
    assert sum(found(llama(), x, repeat=True)[2]) < 0.5 * sum(found(llama(), x, repeat=False)[2])
