"""A study of generation has the numbers of a plain pass over prompts and answers, of the positions asked for."""

import copy
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

import ketwork as kw

from .language import DATA, llama, unchanged

PROMPTS = torch.randint(4, 96, (6, 5), generator=torch.Generator().manual_seed(5))
LEFT = torch.ones(6, 5, dtype=torch.long).index_put((torch.arange(2), torch.tensor([0, 0])), torch.tensor(0))
BATCH = {"input_ids": PROMPTS, "attention_mask": LEFT}
NEW = 6
LABELS = torch.arange(6) % 2


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=32, n_embd=24, n_layer=2, n_head=4)).eval()


def _answers(model: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        return model.generate(**BATCH, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options)


def _plain(
    model: nn.Module,
    tokens: Tensor,
    positions: str,
    ends: int | None = None,
    of_study: str = "all",
    **more: Any,
) -> kw.Study:
    """The study of one plain pass over prompts and answers without their last token."""
    read = tokens[:, :-1]
    attended = torch.cat([LEFT, torch.ones(6, read.shape[1] - 5, dtype=torch.long)], dim=1)
    counted = attended.bool()
    if ends is not None:
        counted[:, 5:] &= ~(read[:, 5:] == ends).cummax(dim=1).values
    if positions == "answer":
        counted[:, :5] = False
    if positions == "prompt":
        counted[:, 5:] = False
    places = (attended.cumsum(dim=1) - 1).clamp(min=0)
    # The prompts come first: from them and the seed samples are drawn.
    batch = {
        "prompts": PROMPTS,
        "input_ids": read,
        "attention_mask": attended,
        "position_ids": places,
        "counted": counted,
    }

    def forward(model: nn.Module, batch: dict[str, Tensor]) -> Any:
        return model(**{name: value for name, value in batch.items() if name not in ("counted", "prompts")})

    return kw.study(model, [batch], mask="counted", positions=of_study, forward=forward, **more)


def _assert_close(record: kw.Study, expected: kw.Study) -> None:
    assert [layer.name for layer in record] == [layer.name for layer in expected]
    for mine, other in zip(record, expected, strict=True):
        assert (mine.N, mine.kets, mine.accumulator.zeros) == (other.N, other.kets, other.accumulator.zeros)
        torch.testing.assert_close(mine.density.matrix(), other.density.matrix(), rtol=0, atol=1e-6)
        for name in ("entropy", "participation_ratio", "coherence", "norm", "entanglement", "holevo"):
            value, right = mine.estimates.get(name), other.estimates.get(name)
            assert (value is None) == (right is None)
            if value is not None and right is not None:
                assert value.value == pytest.approx(right.value, rel=1e-4, abs=1e-5, nan_ok=True), name
                assert value.stderr == pytest.approx(right.stderr, rel=1e-3, abs=1e-5, nan_ok=True), name


@pytest.mark.parametrize("positions", ["all", "prompt", "answer"])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_plain_pass_over_prompts_and_answers_gives_the_same_numbers(make: Any, positions: str) -> None:
    model = make()
    model.generation_config.eos_token_id = None
    forward = kw.generate(NEW)
    record = unchanged(
        model, lambda: kw.study(model, [BATCH], forward=forward, labels=LABELS, positions=positions)
    )
    _assert_close(record, _plain(model, _answers(model), positions, labels=LABELS))
    assert record.settings["calls"] == "pooled"
    assert record.settings["generate"] == {"max_new_tokens": NEW}
    assert record.settings["positions"] == (None if positions == "all" else positions)
    counts = {"all": 28 + 30, "prompt": 28, "answer": 30}
    assert {layer.kets for layer in record} == {counts[positions]}
    assert {layer.N for layer in record} == {6}
    assert {"lm_head", "model.layers.1"} <= {layer.name for layer in record} or make is gpt2


def test_other_positions_are_chosen_among_those_of_prompt_and_answer() -> None:
    model = llama()
    model.generation_config.eos_token_id = None
    record = kw.study(model, [BATCH], forward=kw.generate(NEW), positions="last")
    _assert_close(record, _plain(model, _answers(model), "all", of_study="last"))
    assert {layer.kets for layer in record} == {6}


@pytest.mark.parametrize("positions", ["all", "answer"])
def test_nothing_counts_after_an_end(positions: str) -> None:
    model = llama()
    model.generation_config.eos_token_id = None
    free = _answers(model)
    ends = int(free[0, 7])  # the third token of the first answer
    tokens = _answers(model, eos_token_id=ends)
    lengths = [(row == ends).nonzero()[0].item() if (row == ends).any() else NEW - 1 for row in tokens[:, 5:]]
    assert len(set(lengths)) > 1
    record = kw.study(model, [BATCH], forward=kw.generate(NEW, eos_token_id=ends), positions=positions)
    assert {layer.kets for layer in record} == {sum(lengths) + (28 if positions == "all" else 0)}
    _assert_close(record, _plain(model, tokens, positions, ends))
    model.generation_config.eos_token_id = [ends, 3]
    again = kw.study(model, [BATCH], forward=kw.generate(NEW), positions=positions)
    endless = kw.study(model, [BATCH], forward=kw.generate(NEW, eos_token_id=[]), positions="answer")
    assert {layer.kets for layer in endless} == {30}
    assert [layer.entropy.value for layer in again] == [layer.entropy.value for layer in record]


def test_batches_padding_and_masks_change_nothing() -> None:
    model = llama()
    model.generation_config.eos_token_id = None
    record = kw.study(model, [BATCH], forward=kw.generate(NEW))
    order = LEFT.argsort(dim=1, descending=True, stable=True)
    right = {"input_ids": PROMPTS.gather(1, order), "attention_mask": LEFT.gather(1, order)}
    parts = [{name: value[places] for name, value in right.items()} for places in (slice(0, 2), slice(2, 6))]
    _assert_close(kw.study(model, parts, forward=kw.generate(NEW)), record)
    whole = kw.study(model, PROMPTS[2:], forward=kw.generate(NEW), batch_size=3)
    alone = kw.study(model, [{name: value[2:] for name, value in BATCH.items()}], forward=kw.generate(NEW))
    _assert_close(whole, alone)
    last = torch.zeros(6, 5, dtype=torch.bool)
    last[:, -1] = True
    marked = kw.study(model, [BATCH], forward=kw.generate(NEW), positions="prompt", mask=last)
    assert {layer.kets for layer in marked} == {6}


def test_what_is_drawn_comes_from_the_seed() -> None:
    model = llama()
    forward = kw.generate(NEW, do_sample=True, temperature=2.0, top_k=0)
    before = torch.random.get_rng_state()

    def entropies(seed: int) -> list[float]:
        return [layer.entropy.plain for layer in kw.study(model, [BATCH], forward=forward, seed=seed)]

    assert entropies(1) == entropies(1)
    assert entropies(1) != entropies(2)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_studies_of_other_positions_do_not_add_up() -> None:
    model = llama()
    answers = kw.study(model, [BATCH], forward=kw.generate(NEW), positions="answer", layers="blocks")
    prompts = kw.study(model, [BATCH], forward=kw.generate(NEW), positions="prompt", layers="blocks")
    with pytest.raises(ValueError, match="made alike, but `positions` is"):
        answers + prompts
    assert (answers + answers)[0].kets == 2 * answers[0].kets


@pytest.mark.parametrize("offload", [accelerate.cpu_offload, accelerate.disk_offload])
def test_offloaded_networks_answer_too(offload: Any, tmp_path: Any) -> None:
    model = llama()
    expected = kw.study(model, [BATCH], forward=kw.generate(NEW), layers="blocks")
    folder = {"offload_dir": str(tmp_path)} if offload is accelerate.disk_offload else {}
    placed = offload(copy.deepcopy(model), execution_device=torch.device("cpu"), **folder)
    record = kw.study(placed, [BATCH], forward=kw.generate(NEW), layers="blocks")
    assert [layer.entropy.value for layer in record] == [layer.entropy.value for layer in expected]


def test_memory_and_checkpoints(tmp_path: Any) -> None:
    model = llama()
    model.generation_config.eos_token_id = None
    batches = [{name: value[i : i + 2] for name, value in BATCH.items()} for i in (0, 2, 4)]
    expected = kw.study(model, batches, forward=kw.generate(NEW), layers="blocks")
    planned = kw.study(model, batches, forward=kw.generate(NEW), layers="blocks", memory="1GB")
    _assert_close(planned, expected)

    def stop(samples: int) -> None:
        if samples == 4:
            raise KeyboardInterrupt

    saving = {"checkpoint": kw.Checkpoint(tmp_path, every=1)}
    with pytest.raises(kw.StudyInterrupted):
        kw.study(model, batches, forward=kw.generate(NEW), layers="blocks", progress=stop, **saving)
    again: dict[str, Any] = {"checkpoint": kw.Checkpoint(tmp_path, every=1, resume=True)}
    with pytest.raises(kw.CheckpointError, match="`forward` was"):
        kw.study(model, batches, forward=kw.generate(NEW - 1), layers="blocks", **again)
    record = kw.study(model, batches, forward=kw.generate(NEW), layers="blocks", **again)
    assert [layer.entropy.value for layer in record] == [layer.entropy.value for layer in expected]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="`max_new_tokens` must be at least 1, but is 0"):
        kw.generate(0)
    with pytest.raises(ValueError, match="`lens` and `attention` read plain passes"):
        kw.study(llama(), PROMPTS, forward=kw.generate(4), lens=True)
    with pytest.raises(ValueError, match="`num_beams` cannot be given"):
        kw.generate(4, num_beams=3)
    with pytest.raises(TypeError, match="Linear has none"):
        kw.study(nn.Linear(3, 3), torch.ones(4, 3), forward=kw.generate(4))
    t5 = T5ForConditionalGeneration(
        T5Config(vocab_size=30, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(TypeError, match="T5ForConditionalGeneration is an encoder-decoder"):
        kw.study(t5, [BATCH], forward=kw.generate(4))
    with pytest.raises(TypeError, match="batches of prompts"):
        kw.study(llama(), torch.ones(4, 3), forward=kw.generate(4))
    with pytest.raises(TypeError, match="which `study` alone takes"):
        kw.compare(llama(), DATA, forward=kw.generate(4))
