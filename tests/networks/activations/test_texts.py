"""Texts with a tokenizer in place of data: the numbers of tokens that were made beforehand."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw

TEXTS = [
    word * (1 + i % 5)
    for i, word in enumerate(
        ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    )
] * 4


class Tokenizer:
    """One token a character."""

    pad_token = "\0"

    def __call__(self, texts, padding, truncation, return_tensors):
        assert (padding, truncation, return_tensors) == (True, True, "pt")
        longest = max(map(len, texts))
        ids = torch.tensor([[ord(c) for c in text.ljust(longest, "\0")] for text in texts])
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(256, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, input_ids, attention_mask):
        weights = attention_mask[..., None].float()
        return self.head((self.embedding(input_ids) * weights).sum(1) / weights.sum(1))


def batches(size: int, labels=None):
    made = []
    for i in range(0, len(TEXTS), size):
        batch = Tokenizer()(TEXTS[i : i + size], True, True, "pt")
        made.append(batch if labels is None else batch | {"labels": torch.tensor(labels[i : i + size])})
    return made


def test_a_study_of_texts_is_that_of_their_tokens() -> None:
    labels = [i % 2 for i in range(len(TEXTS))]
    network = Reader().eval()
    for data in ((TEXTS, labels), (pd.Series(TEXTS), torch.tensor(labels))):
        record = kw.study(network, data, tokenizer=Tokenizer(), batch_size=16)
        expected = kw.study(network, batches(16, labels))
        pd.testing.assert_frame_equal(record.table(), expected.table(), check_exact=True)
        assert record["embedding"].kets == sum(map(len, TEXTS))


def test_some_of_the_texts_are_drawn_by_their_labels() -> None:
    labels = ["a" if i % 4 else "b" for i in range(len(TEXTS))]
    record = kw.study(Reader(), (TEXTS, labels), tokenizer=Tokenizer(), max_samples=12)
    assert record.settings["taken"] == "12 of 40 samples, 6 of each of 2 labels"
    assert record.samples == 12
    assert (
        kw.study(Reader(), TEXTS, tokenizer=Tokenizer(), max_samples=12).settings["taken"]
        == "12 of 40 samples, drawn at random"
    )


def test_other_functions_take_texts() -> None:
    network, tokenizer = Reader().eval(), Tokenizer()
    both = kw.compare(network, TEXTS, Reader(), tokenizer=tokenizer, other_tokenizer=Tokenizer())
    assert both.cka.to_numpy().diagonal() == pytest.approx(1)
    tokens = kw.compare(network, batches(64), layers="embedding", other=Reader())
    texts = kw.compare(network, TEXTS, layers="embedding", other=Reader(), tokenizer=tokenizer)
    assert tokens.cka.equals(texts.cka)
    curve = kw.collapse_curve(network, TEXTS, layers=["embedding"], ranks=[4], tokenizer=tokenizer)
    assert curve.samples == len(TEXTS)
    small = kw.compress(network, TEXTS, keep=1.0, tokenizer=tokenizer)
    assert small.settings["samples"] == len(TEXTS)


def test_detectors_and_monitors_take_texts(tmp_path) -> None:
    labels = [i % 2 for i in range(len(TEXTS))] * 6
    network, tokenizer = Reader().eval(), Tokenizer()
    study = kw.study(network, (TEXTS * 6, labels), tokenizer=tokenizer)
    detector = study.detector("residual")
    scores = detector.score(network, TEXTS, tokenizer=tokenizer, batch_size=16)
    pd.testing.assert_frame_equal(scores, detector.score(network, batches(16)))
    given = [
        study.detector("residual", model=network, calibration=data, **how)
        for data, how in ((TEXTS, {"tokenizer": tokenizer, "batch_size": 16}), (batches(16), {}))
    ]
    assert given[0].calibration_scores.equal(given[1].calibration_scores)

    looks = []
    pair = TEXTS, labels[: len(TEXTS)]
    for i, (data, how) in enumerate(((pair, {"tokenizer": tokenizer}), (batches(256, pair[1]), {}))):
        with kw.Monitor(network, data, held_out=data, path=tmp_path / str(i), **how) as monitor:
            looks.append(monitor(0))
    assert looks[0].value("head", "effective_rank").value == looks[1].value("head", "effective_rank").value


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (torch.zeros(3, 2), TypeError, "must be a list of texts, or a pair of it and labels"),
        ([1, 2], TypeError, "but has int"),
        ([], ValueError, "at least one text"),
        ((["a", "b"], [1]), ValueError, "one label a text, but has 1 for 2 texts"),
    ],
)
def test_data_that_are_no_texts(data, error, words) -> None:
    with pytest.raises(error, match=words):
        kw.study(Reader(), data, tokenizer=Tokenizer())


def test_a_frame_of_numbers_is_an_array_of_its_columns() -> None:
    frame = pd.DataFrame(torch.randn(60, 4).numpy(), columns=list("abcd"))
    labels = pd.Series(["x", "y", "z"] * 20)
    network = nn.Linear(4, 3).eval()
    arrays = kw.study(network, (frame.to_numpy(), labels))
    pd.testing.assert_frame_equal(kw.study(network, (frame, labels)).table(), arrays.table())
    alone = kw.study(network, frame, max_samples=20)
    assert alone.settings["taken"] == "20 of 60 samples, drawn at random"
    with pytest.raises(TypeError, match=r"DataFrame of numbers alone, but has the columns kind\. Choose"):
        kw.study(network, frame.assign(kind=labels))


def test_a_tokenizer_that_cannot_pad() -> None:
    tokenizer = Tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"`tokenizer\.pad_token = tokenizer\.eos_token`"):
        kw.study(Reader(), TEXTS, tokenizer=tokenizer)


@pytest.mark.slow
def test_a_sentence_transformer_reads_texts(minilm: Path, sms: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModel.from_pretrained(minilm).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    table = pd.read_csv(sms).iloc[:48]
    record = kw.study(
        model, (table["text"], table["spam"]), tokenizer=tokenizer, layers="blocks", batch_size=16
    )
    counts = tokenizer(table["text"].tolist(), truncation=True)["input_ids"]
    assert record["encoder.layer.0"].kets == sum(map(len, counts))
    assert record["encoder.layer.0"].labels is not None
