"""The page on language models: the blocks on rows, lens, attention, sinks and positions run."""

import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ketwork as kw

PAGE = Path(__file__).parents[3] / "docs" / "language-models.md"
SECTIONS = (
    "The parts of a decoder",
    "Predictions, block by block",
    "Attention patterns",
    "Sinks and massive activations",
    "Which positions are read",
)


def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=8, intermediate_size=12, num_hidden_layers=4, num_attention_heads=2
    )
    tokens = torch.randint(0, 96, (10, 6))
    batch = {"input_ids": tokens, "attention_mask": torch.ones(10, 6, dtype=torch.long)}
    labels = torch.where(torch.arange(6) < 2, -100, tokens)
    names = {
        "kw": kw,
        "model": LlamaForCausalLM(config).eval(),
        "batches": [batch],
        "chats": [batch | {"labels": labels}],
    }
    page = PAGE.read_text(encoding="utf-8")
    for section in SECTIONS:
        text = page[page.index(f"\n## {section}\n") + 1 :]
        text = text[: text.find("\n## ", 1)]
        (code,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
        exec(compile(code, str(PAGE), "exec"), names)
    assert "Two readings" in (tmp_path / "sinks.html").read_text()
