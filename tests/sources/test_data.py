import json
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ketwork.sources import SourceError, SourceFailed, from_arrays, load_data

FACTORIES = """
import numpy as np, torch
from torch.utils.data import TensorDataset, DataLoader

def batches(): return [torch.ones(2, 3), torch.zeros(1, 3)]
def once():
    yield torch.ones(2, 3), torch.tensor([0, 1])
    yield torch.zeros(1, 3), torch.tensor([1])
def pair(): return torch.arange(6.).reshape(3, 2), torch.tensor([4, 5, 6])
def array(): return np.arange(6.).reshape(3, 2)
def dataset(): return TensorDataset(torch.arange(6.).reshape(3, 2), torch.tensor([4, 5, 6]))
def loader(): return DataLoader(dataset(), batch_size=2)
def empty(): return []
def number(): return 3
def fails(): raise RuntimeError("no disk")
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def tokenizer(texts, padding, truncation, return_tensors):
    """A stand-in with the contract of a transformers tokenizer: one token a character."""
    assert (padding, truncation, return_tensors) == (True, True, "pt")
    longest = max(map(len, texts))
    ids = torch.tensor([[ord(c) for c in text.ljust(longest, "\0")] for text in texts])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def refused(message, spec, **options):
    with pytest.raises(SourceError, match=message) as caught:
        load_data(spec, **options)
    return str(caught.value)


# arrays


def test_npz_gives_pairs_again_and_again():
    x, y = np.arange(15.0).reshape(5, 3), np.array([0, 1, 0, 1, 2])
    np.savez("d.npz", x=x, y=y)
    data = load_data("d.npz", batch_size=2)
    for _ in range(2):
        batches = list(data)
        assert [tuple(a.shape) for a, _ in batches] == [(2, 3), (2, 3), (1, 3)]
        assert torch.equal(torch.cat([a for a, _ in batches]), torch.tensor(x, dtype=torch.float32))
        assert torch.cat([b for _, b in batches]).tolist() == y.tolist()
    assert (data.samples, data.labelled, data.label_names) == (5, True, None)
    assert json.loads(json.dumps(data.description)) == {
        "kind": "arrays",
        "shape": [3],
        "input": "x",
        "label": "y",
        "spec": "d.npz",
        "samples": 5,
        "label_names": None,
    }


def test_npz_arrays_by_name_limit_and_dtype():
    np.savez("d.npz", pixels=np.ones((5, 2)), kind=np.array(["b", "a", "b", "a", "c"]), other=np.zeros(3))
    data = load_data("d.npz", input="pixels", label="kind", samples=4, batch_size=3, dtype=torch.float64)
    (x, y), (x2, y2) = list(data)
    assert x.dtype == torch.float64
    assert len(x) + len(x2) == 4
    assert sorted(y.tolist() + y2.tolist()) in ([0, 0, 1, 2], [0, 1, 1, 2])  # one of each, and one more
    assert data.label_names == ("a", "b", "c")
    assert data.taken == "4 of 5 samples, 1 to 2 of each of 3 labels"
    message = refused("Argument `input` must name an array of d.npz", "d.npz", input="pixel")
    assert "no 'pixel'. Nearest first: pixels" in message
    refused("no 'king'. Nearest first: kind", "d.npz", input="pixels", label="king")
    refused("none is named 'x'. It holds: pixels, kind, other", "d.npz")
    refused("'other' has 3 values for 5 samples", "d.npz", input="pixels", label="other")


def test_npy_is_read_batch_by_batch_and_never_written():
    np.save("d.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    data = load_data("d.npy", batch_size=4)
    first = next(iter(data))
    first.zero_()
    assert next(iter(data)).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert isinstance(data.batches.features, np.memmap)
    assert data.labelled is False


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.ones((2, 2), np.int32), torch.int64),
        (np.ones((2, 2), np.uint16), torch.int64),
        (np.ones((2, 2), bool), torch.float32),
        (np.ones((2, 2), ">f8"), torch.float32),
        (np.ones((2, 2), np.complex128), torch.complex64),
    ],
)
def test_number_types(values, dtype):
    np.save("d.npy", values)
    (batch,) = load_data("d.npy")
    assert batch.dtype == dtype
    assert torch.equal(batch, torch.ones(2, 2, dtype=dtype))


def test_npy_and_npz_that_cannot_be_used(here):
    np.save("objects.npy", np.array([{}, {}]), allow_pickle=True)
    refused("holds Python objects", "objects.npy")
    np.savez("objects.npz", x=np.array([{}, {}]))
    refused("holds Python objects", "objects.npz")
    np.savez("whole.npz", x=np.ones((50, 50)))
    for name, content in {
        "empty.npy": b"",
        "text.npy": b"hello",
        "cut.npz": (here / "whole.npz").read_bytes()[:900],
    }.items():
        with open(name, "wb") as file:
            file.write(content)
        refused(f"{name}", name)
    np.save("flat.npy", np.ones(4))
    refused(r"samples along its first axis .* shape \(4,\)", "flat.npy")
    np.save("none.npy", np.ones((0, 4)))
    refused(r"at least one sample, but none.npy has shape \(0, 4\)", "none.npy")
    np.save("words.npy", np.array([["a", "b"]]))
    refused("must name numbers, but words.npy is of dtype <U1", "words.npy")
    np.save("fine.npy", np.ones((2, 4)))
    refused("`text` applies to tables only", "fine.npy", text="a")
    refused("`label` applies to tables and .npz", "fine.npy", label="a")
    refused("`image_size` applies to a folder of images", "fine.npy", image_size=3)
    refused("`samples` must be at least 1, but was 0", "fine.npy", samples=0)
    refused("`batch_size` must be at least 1, but was -2", "fine.npy", batch_size=-2)


def test_spec_that_is_nothing():
    refused("there is no file nothing.csv", "nothing.csv")
    refused("there is no file nothing.npz", "nothing.npz")
    refused("but was 'some.xlsx', and there is no such file", "some.xlsx")
    open("a.md", "w").close()
    assert refused("but was 'a.md'", "a.md").endswith("but was 'a.md'.")


def test_labels_with_gaps_or_of_no_kind():
    x = np.ones((3, 2))
    with pytest.raises(SourceError, match=r"'labels' is missing in 1 of 3 rows \(first: row 1"):
        from_arrays(x, np.array([0.0, np.nan, 1.0]))
    with pytest.raises(SourceError, match="of dtype complex128"):
        from_arrays(x, np.ones(3, complex))
    with pytest.raises(SourceError, match="one value for 3 samples"):
        from_arrays(x, np.array(4))


def test_label_types():
    x = np.ones((3, 2))

    def labels(values):
        ((_, y),) = from_arrays(x, np.array(values))
        return y

    assert labels([True, False, True]).tolist() == [1, 0, 1]
    assert labels([[5], [6], [7]]).tolist() == [5, 6, 7]
    assert labels([0.5, 1.5, 2.0]).tolist() == [0.5, 1.5, 2.0]
    assert labels([b"x", b"w", b"x"]).tolist() == [1, 0, 1]
    assert labels([[1, 2], [3, 4], [5, 6]]).shape == (3, 2)


# tables


FRAME = pd.DataFrame(
    {
        "a": [1.0, 2.0, 3.0],
        "b": [4, 5, 6],
        "text": ["hi", "None", "longer"],
        "kind": ["spam", "ham", "spam"],
    }
)


def written(frame, kind, name="t"):
    path = f"{name}.{kind}"
    if kind.startswith("csv"):
        frame.to_csv(path, index=False)
    elif kind.startswith("jsonl"):
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return path


KINDS = ["csv", "csv.gz", "jsonl", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_numbers(kind):
    path = written(FRAME, kind)
    data = load_data(path, label="kind", batch_size=2)
    (x, y), (x2, y2) = data
    assert torch.cat([x, x2]).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert x.dtype == torch.float32
    assert y.tolist() + y2.tolist() == [1, 0, 1]
    assert data.label_names == ("ham", "spam")
    assert data.description["input"] == ["a", "b"]
    drawn = load_data(path, input=["b"], samples=2)
    (x,) = drawn
    assert x.tolist() in ([[4], [5]], [[4], [6]], [[5], [6]])
    assert (drawn.samples, drawn.taken) == (2, "2 of 3 samples, drawn at random")
    (x,) = load_data(path, input="[ab]", samples=1)
    assert x.tolist() in ([[1, 4]], [[2, 5]], [[3, 6]])


@pytest.mark.parametrize("kind", KINDS)
def test_texts_go_through_the_tokenizer_padded_batch_by_batch(kind):
    data = load_data(written(FRAME, kind), label="kind", tokenizer=tokenizer, batch_size=2)
    first, second = data
    assert first["input_ids"].shape == (2, 4)
    assert first["attention_mask"].sum(dim=1).tolist() == [2, 4]  # "None" is a text, not a gap
    assert second["input_ids"].shape == (1, 6)
    assert first["labels"].tolist() + second["labels"].tolist() == [1, 0, 1]
    assert data.samples == 3
    (batch,) = load_data(written(FRAME, kind), text="kind", tokenizer=tokenizer, samples=2)
    assert set(batch) == {"input_ids", "attention_mask"}
    assert batch["attention_mask"].sum(dim=1).tolist() in ([4, 3], [4, 4], [3, 4])


def test_texts_that_look_like_numbers_stay_texts():
    with open("t.csv", "w") as file:
        file.write("text,label\n0012,0\n7,1\n")
    (batch,) = load_data("t.csv", tokenizer=tokenizer)
    assert batch["attention_mask"].sum(dim=1).tolist() == [4, 1]
    assert batch["labels"].tolist() == [0, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_columns_that_are_not_there(kind):
    path = written(FRAME, kind)
    assert "there is no 'kid'. Nearest first: kind" in refused("`label` must", path, label="kid")
    assert "there is no 'txt'. Nearest first: text" in refused("`text` must", path, text="txt")
    assert "there is no 'z*'." in refused("`input` must", path, input=["a", "z*"])
    refused("must go with a model that has a tokenizer", path, text="text")
    refused("must not both be given", path, text="text", input="a", tokenizer=tokenizer)
    message = refused("must name columns of numbers", path, input=["a", "kind"])
    assert "'kind' of" in message
    assert "holds 'spam' in row 0" in message


@pytest.mark.parametrize("kind", KINDS)
def test_gaps(kind):
    frame = FRAME.astype({"b": "float64"})
    frame.loc[1, ["b", "text", "kind"]] = [np.nan, None, None]
    path = written(frame, kind)
    refused(r"'b' of t\..* is missing or not finite in 1 of 3 rows \(first: row 1\)", path)
    (x,) = load_data(path, skip_bad=True)
    assert torch.isnan(x).tolist() == [[False, False], [False, True], [False, False]]
    refused(r"'text' is empty in 1 of 3 rows", path, tokenizer=tokenizer)
    data = load_data(path, tokenizer=tokenizer, skip_bad=True)
    assert data.samples == 2
    assert data.notes == (f"Skipped, as column 'text' is empty: 1 of 3 rows of {path} (first: row 1).",)
    refused(r"`label` must name labels without gaps, but 'kind' is missing", path, input="a", label="kind")


def test_a_saved_index_is_not_a_feature():
    FRAME.to_csv("t.csv")
    data = load_data("t.csv")
    assert data.description["input"] == ["a", "b"]


def test_the_column_label_is_the_label_by_default_not_a_feature():
    FRAME.rename(columns={"b": "label"}).to_csv("t.csv", index=False)
    ((x, y),) = load_data("t.csv")
    assert x.tolist() == [[1], [2], [3]]
    assert y.tolist() == [4, 5, 6]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_of_lists_is_an_array(kind):
    frame = pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [0, 1]})
    ((x, y),) = load_data(written(frame, kind), input="x", label="y")
    assert x.tolist() == [[1, 2], [3, 4]]
    assert y.tolist() == [0, 1]
    ragged = pd.DataFrame({"x": [[1.0, 2.0], [3.0]]})
    refused("all of one length", written(ragged, kind), input="x")
    digits = pd.DataFrame({"x": ["1", "2"], "y": [[0.5], [0.5]]})
    refused("holds '1' in row 0", written(digits, kind), input="x")
    nested = pd.DataFrame({"x": [[1.0, 2.0], [3.0, 4.0]], "y": [5, 6]})
    (x,) = load_data(written(nested, kind), input=["x", "y"])
    assert x.tolist() == [[1, 2, 5], [3, 4, 6]]


def test_tables_that_cannot_be_used():
    for name, content, message in [
        ("empty.csv", b"", "is empty"),
        ("head.csv", b"a,b\n", "has no rows"),
        ("latin.csv", "text\nné\n".encode("latin-1"), "in UTF-8"),
        ("uneven.csv", b"a,b\n1,2\n1,2,3,4\n", "Expected 2 fields in line 3, saw 4"),
        ("shifted.csv", b"a,b\n1,2,3\n4,5,6\n", "rows have more cells than the header"),
        ("list.jsonl", b'{"a": 1}\n[3]\n', "line 2 is no object"),
        ("cut.jsonl", b'{"a": 1}\n{"a": ', "complete table"),
        ("cut.csv.gz", b"\x1f\x8b\x08\x00", "complete table"),
        ("cut.parquet", b"PAR1xxxx", "truncated or not one"),
        ("texts.csv", b"text,kind\nhello,a\n", "has only: text, kind"),
        ("numbers.jsonl", b'{"text": 3}\n', "'text' holds 3"),
    ]:
        with open(name, "wb") as file:
            file.write(content)
        refused(
            message,
            name,
            text="text" if name in ("latin.csv", "numbers.jsonl") else None,
            tokenizer=(tokenizer if name in ("latin.csv", "numbers.jsonl") else None),
        )


# draws


def test_as_many_of_each_label_are_drawn_wherever_they_stand():
    """A table that is sorted by its label: its first rows would be of one label alone."""
    y = np.repeat([0, 1, 2], [60, 30, 4])
    np.savez("d.npz", x=np.arange(94.0)[:, None], y=y)
    pd.DataFrame({"x": np.arange(94.0), "y": y}).to_csv("d.csv", index=False)
    for spec, options in (("d.npz", {}), ("d.csv", {"label": "y"})):
        data = load_data(spec, samples=24, **options)
        ((x, labels),) = data
        assert torch.bincount(labels).tolist() == [10, 10, 4]
        assert x[:, 0].tolist() == sorted(x[:, 0].tolist())  # in their order
        assert torch.equal(labels, torch.tensor(y)[x[:, 0].long()])
        assert data.taken == "24 of 94 samples, 4 to 10 of each of 3 labels"
        assert data.settings == {"taken": data.taken}
        again, other = (load_data(spec, samples=24, seed=seed, **options) for seed in (0, 1))
        assert torch.equal(next(iter(again))[0], x)
        assert not torch.equal(next(iter(other))[0], x)
        everything = load_data(spec, samples=94, **options)
        assert (everything.samples, everything.taken, everything.settings) == (94, None, {})


def test_a_draw_without_labels_is_uniform():
    """Each of 10 samples is among the 3 drawn in 3 of 10 seeds: χ² of 400 draws, 9 degrees of freedom."""
    np.save("d.npy", np.arange(10.0)[:, None])
    counts = sum(
        torch.bincount(next(iter(load_data("d.npy", samples=3, seed=seed)))[:, 0].long(), minlength=10)
        for seed in range(400)
    )
    assert int(counts.sum()) == 1200
    # Without replacement the counts spread less: Σ(n − 120)²/120 is χ² times 7/9.
    assert float((counts - 120).square().sum() / 120) * 9 / 7 < 27.9  # the 0.1 % point


def test_labels_that_are_numbers_or_too_many_are_no_classes():
    x = np.arange(20.0)[:, None]
    assert from_arrays(x, np.linspace(0, 1, 20)).drawn(5, 0).taken == "5 of 20 samples, drawn at random"
    assert from_arrays(x, np.arange(20)).drawn(5, 0).taken == "5 of 20 samples, drawn at random"
    assert from_arrays(x, np.zeros(20, int)).drawn(5, 0).taken == "5 of 20 samples, drawn at random"


# images


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_a_folder_of_images(here):
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    picture(here / "pets/dog/1.png", grey)
    picture(here / "pets/cat/1.png", grey[::-1].copy())
    picture(here / "pets/cat/inner/2.png", grey)
    (here / "pets/cat/notes.txt").write_text("no picture")
    data = load_data("pets")
    ((x, y),) = data
    assert x.shape == (3, 1, 2, 3)
    assert torch.equal(x[2, 0], torch.tensor(grey / np.float32(255), dtype=torch.float32))
    assert torch.equal(x[0, 0], x[2, 0].flip(0))
    assert y.tolist() == [0, 0, 1]
    assert data.label_names == ("cat", "dog")
    assert data.samples == 3


def test_one_colour_image_makes_all_rgb(here):
    picture(here / "p/a/1.png", np.full((2, 2), 51, np.uint8))
    picture(here / "p/b/1.png", np.dstack([np.full((2, 2), v, np.uint8) for v in (255, 0, 102)]))
    ((x, _),) = load_data("p", dtype=torch.float64)
    assert x.shape == (2, 3, 2, 2)
    assert x.dtype == torch.float64
    assert torch.allclose(x[:, :, 0, 0], torch.tensor([[0.2, 0.2, 0.2], [1, 0, 0.4]], dtype=torch.float64))


def test_sixteen_bit_images_keep_their_range(here):
    picture(here / "p/a/1.png", np.array([[0, 65535], [32768, 13107]], np.uint16))
    ((x, _),) = load_data("p")
    expected = torch.tensor([[0, 1], [32768 / 65535, 0.2]])
    assert torch.allclose(x[0, 0], expected, atol=1e-6)
    picture(here / "p/a/2.png", np.zeros((2, 2, 3), np.uint8))
    ((x, _),) = load_data("p")
    assert torch.allclose(x[0], expected.expand(3, 2, 2), atol=1e-6)
    Image.fromarray(np.zeros((2, 2), np.float32)).save(here / "p/a/3.tiff")
    refused("has floating ones", "p")


def test_sizes_that_differ_must_be_asked_for(here):
    picture(here / "p/a/1.png", np.full((4, 6), 255, np.uint8))
    picture(here / "p/a/2.png", np.full((8, 6), 255, np.uint8))
    assert "4x6, 8x6" in refused("Argument `image_size` must be given", "p")
    ((x, _),) = load_data("p", image_size=5)
    assert torch.equal(x, torch.ones(2, 1, 5, 5))
    ((x, _),) = load_data("p", image_size=(2, 3))
    assert x.shape == (2, 1, 2, 3)
    refused("`image_size` must be at least 1 by 1", "p", image_size=(0, 3))
    refused("`label` applies to tables and arrays", "p", label="x")


def test_an_image_that_ends_early_is_named_when_it_is_read(here):
    picture(here / "p/a/1.png", np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8))
    whole = (here / "p/a/1.png").read_bytes()
    (here / "p/a/1.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceFailed, match=r"p/a/1\.png does not decode"):
        list(load_data("p"))


def test_a_limited_number_of_images_is_spread_over_the_classes(here):
    for kind in "abc":
        for number in range(4):
            picture(here / f"p/{kind}/{number}.png", np.full((1, 1), 20 * number, np.uint8))
    data = load_data("p", samples=6)
    ((x, y),) = data
    assert y.tolist() == [0, 0, 1, 1, 2, 2]
    drawn = (x[:, 0, 0, 0] * 255).round().view(3, 2)
    assert set(drawn.flatten().tolist()) <= {0.0, 20.0, 40.0, 60.0}
    assert bool((drawn[:, 0] < drawn[:, 1]).all())  # two of each class, in their order
    assert (data.samples, data.taken) == (6, "6 of 12 samples, 2 of each of 3 labels")


def test_folders_that_cannot_be_used(here):
    (here / "p/a").mkdir(parents=True)
    refused("1 subfolders and no image", "p")
    (here / "p/a/1.png").write_bytes(b"not a picture")
    refused(r"1\.png is not one", "p")


# factories


@pytest.fixture
def factories(here):
    (here / "ketwork_test_batches.py").write_text(FACTORIES)
    yield "ketwork_test_batches"
    sys.modules.pop("ketwork_test_batches", None)


def test_factories(factories):
    data = load_data(f"{factories}:batches")
    assert [len(batch) for batch in data] == [2, 1]
    assert (data.samples, data.labelled) == (None, None)
    data = load_data(f"{factories}.py:once")
    for _ in range(2):
        assert [y.tolist() for _, y in data] == [[0, 1], [1]]
    for name in ("pair", "dataset", "loader"):
        data = load_data(f"{factories}:{name}", batch_size=2)
        assert [y.tolist() for _, y in data] == [[4, 5], [6]]
        assert torch.cat([x for x, _ in data]).tolist() == [[0, 1], [2, 3], [4, 5]]
        assert data.samples == 3
    (x,) = load_data(f"{factories}:array", samples=1)
    assert x.tolist() in ([[0, 1]], [[2, 3]], [[4, 5]])
    drawn = load_data(f"{factories}:dataset", samples=2)
    assert (drawn.samples, drawn.taken) == (2, "2 of 3 samples, drawn at random")
    ((_, y),) = drawn
    assert y.tolist() in ([4, 5], [4, 6], [5, 6])
    stream = load_data(f"{factories}:batches", samples=2)
    assert (stream.samples, stream.taken, stream.limit(2)) == (None, None, 2)  # whoever reads it stops


def test_factories_that_give_no_batches(factories):
    refused("returned no batches", f"{factories}:empty")
    refused("returned int. Return an iterable", f"{factories}:number")
    refused("must not have a weights file", f"{factories}:pair@w.pt")
    refused("`text` applies to files only", f"{factories}:pair", text="t")
    with pytest.raises(SourceFailed, match="raised RuntimeError: no disk"):
        load_data(f"{factories}:fails")


# real inputs


def test_messages_of_sms_spam(sms):
    data = load_data(str(sms), text="text", label="spam", tokenizer=tokenizer, batch_size=1000)
    assert data.samples == 4837
    assert sum(int(batch["labels"].sum()) for batch in data) == 638
    assert data.notes == ()
