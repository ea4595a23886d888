"""Tables in other forms: tab-separated, JSON, a text a line."""

import gzip
import json

import pytest
import torch

from ketwork.sources import SourceError, load_data


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tokenizer(texts, padding, truncation, return_tensors):
    longest = max(map(len, texts))
    ids = torch.tensor([[ord(c) for c in text.ljust(longest, "\0")] for text in texts])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def words(batch) -> list[str]:
    return ["".join(map(chr, row)).rstrip("\0") for row in batch["input_ids"].tolist()]


def test_tabs_separate(here):
    (here / "t.tsv").write_text("text\tlabel\na, b\t1\nc\t0\n")
    (batch,) = load_data("t.tsv", text="text", tokenizer=tokenizer)
    assert (words(batch), batch["labels"].tolist()) == (["a, b", "c"], [1, 0])


def test_a_text_a_line(here):
    (here / "t.txt").write_text("first\n\n second, it is\r\nNA\n", encoding="utf-8", newline="")
    for name in ("t.txt", "t.txt.gz"):
        (here / "t.txt.gz").write_bytes(gzip.compress((here / "t.txt").read_bytes()))
        (batch,) = load_data(name, tokenizer=tokenizer)
        assert words(batch) == ["first", " second, it is", "NA"]


def test_a_word_among_numbers_is_named(here):
    (here / "t.csv").write_text("a,b,kind\n" + "1,2,x\n" * 10 + "3,?,y\n")
    with pytest.raises(SourceError, match=r"'b' of t\.csv holds '\?' in row 10 among numbers"):
        load_data("t.csv")
    (batch,) = load_data("t.csv", input="a")
    assert batch.tolist() == [[1]] * 10 + [[3]]
    (here / "t.csv").write_text("a,ticket\n1,A5\n2,17\n3,18\n")  # names that look like numbers in part
    (batch,) = load_data("t.csv")
    assert batch.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    "content",
    [[{"x": 1.5, "label": 0}, {"x": 2.5, "label": 1}], {"x": [1.5, 2.5], "label": [0, 1]}],
    ids=["rows", "columns"],
)
def test_json(here, content):
    (here / "t.json").write_text(json.dumps(content))
    ((x, labels),) = load_data("t.json")
    assert (x.tolist(), labels.tolist()) == ([[1.5], [2.5]], [0, 1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", '"text"', "no list of objects, and no object with a list for each column"),
        ("t.json", '{"x": 1}', "no list of objects"),
        ("t.json", "[1, 2", "must name a complete table"),
        ("t.json", "[]", "at least one sample"),
        ("t.txt", "\n\n", "at least one sample"),
        ("t.tsv", "", "is empty"),
    ],
)
def test_files_that_are_none(here, name, content, message):
    (here / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        load_data(name, tokenizer=tokenizer if name == "t.txt" else None)
