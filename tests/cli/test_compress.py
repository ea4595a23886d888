"""`ketwork compress`: the numbers of `kw.compress`, a file that loads, a table that fits, and bad input."""

import json

import pytest
import torch
from rich.cells import cell_len

import ketwork as kw
from ketwork.demo import digits
from ketwork.sources import load_data

NETS = "ketwork_cli_nets"
WIDE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))

def data():
    x = torch.randn(200, 20, generator=torch.Generator().manual_seed(1))
    return x, torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(2))

def unlabelled():
    return data()[0]
"""


@pytest.fixture
def wide(here):
    (here / "wide.py").write_text(WIDE)
    return "compress", "wide.py:build", "--data", "wide.py:data"


def test_json_of_the_demonstration_is_what_kw_compress_gives(run, here) -> None:
    done = run("compress", "--keep", 0.3, "--samples", 300, "--json", "--out", "record.json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    source = load_data("ketwork.demo.digits:training").drawn(300, 0)
    assert told["settings"]["taken"] == source.taken == "300 of 1,257 samples, 30 of each of 10 labels"
    expected = kw.compress(digits.model(), source.batches, keep=0.3)
    table = expected.table().astype(object)
    assert told["table"] == table.where(table.notna(), None).to_dict("records")
    assert (told["kl"], told["chosen"], told["passes"]) == (expected.kl, expected.chosen, expected.passes)
    assert told["after"]["parameters"] == expected.after.parameters
    assert [one["kl"] for one in told["candidates"]] == [one.kl for one in expected.candidates]
    assert told["warnings"] == list(expected.warnings)
    assert told["settings"]["command"].startswith("ketwork compress --keep 0.3")
    assert told["settings"]["source"]["data"]["spec"] == "ketwork.demo.digits:training"
    assert json.loads((here / "record.json").read_text()) == told


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_table_fits_and_names_every_layer_and_candidate(run, wide, width: int) -> None:
    arguments = (*wide, "--layers", "0", "--layers", "2", "--keep", 0.8)
    done = run(*arguments, env={"COLUMNS": str(width)})
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(cell_len, lines)) <= width
    told = json.loads(run(*arguments, "--json").stdout)
    words = " ".join(done.stdout.split())
    for row in told["table"][:2]:
        (line,) = (line for line in lines if line.startswith(f"{row['layer']} "))
        assert f"{row['parameters']:,}" in line.split()
        assert (str(row["rank"]) if row["rank"] else "–") in line.split()
    assert "Unchanged: 4 (not among `layers`)" in words
    for tried in told["candidates"]:
        assert f"{tried['kl']:.3g}" in words
    assert words.count("chosen") == 1
    assert f"{told['passes']:.1f} forward passes" in words
    assert f"{told['before']['parameters']:,}" in words


def test_the_file_loads_into_the_original(run, wide, here) -> None:
    done = run(*wide, "--keep", 0.7, "--out", "small.safetensors", "--seed", 3)
    assert done.exit_code == 0, done.stderr
    assert "Network saved to small.safetensors" in done.stderr
    names: dict = {}
    exec(WIDE, names)
    small = kw.load_compressed(str(here / "small.safetensors"), names["build"]())
    expected = kw.compress(names["build"](), names["data"](), keep=0.7, seed=3)
    x = names["unlabelled"]()
    torch.testing.assert_close(small(x), expected.model(x), atol=0, rtol=0)


def test_bounds_in_place_of_a_share(run, wide) -> None:
    kl = json.loads(run(*wide, "--max-kl", 0.001, "--json").stdout)
    assert kl["kl"] <= 0.001
    drop = json.loads(run(*wide, "--max-drop", 0.2, "--json").stdout)
    assert drop["after"]["parameters"] < drop["before"]["parameters"]
    half = json.loads(run(*wide, "--keep", 0.6, "--budget", "multiply-adds", "--json").stdout)
    assert half["after"]["multiply_adds"] <= 0.6 * half["before"]["multiply_adds"]
    assert half["settings"]["cost"] == "macs"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("compress", "wide.py:build"), 2, "--data"),
        (("compress", "--data", "wide.py:data"), 2, "MODEL"),
        (("--keep", "0.5", "--max-kl", "1"), 2, "--keep and --max-kl exclude each other"),
        (("--keep", "2"), 2, "'--keep'"),
        (("--keep", "0.01"), 2, "--keep must be at least 0."),
        (("--budget", "flops"), 2, "flops"),
        (("--layers", "nine"), 2, "nine"),
        (("--output", "logits"), 2, "--output must name a floating tensor"),
        (("--out", "no/such/small.safetensors"), 2, "--out must name a file"),
        (("--out", "no/such/record.json"), 2, "--out must name a file"),
        (
            ("compress", "wide.py:build", "--data", "wide.py:unlabelled", "--max-drop", "0.1"),
            2,
            "integer labels",
        ),
        (("compress", f"{NETS}:small", "--data", f"{NETS}:bad"), 1, "NaN or infinite"),
        (("compress", f"{NETS}:small", "--data", f"{NETS}:nothing"), 1, "at least one sample"),
    ],
)
def test_wrong_usage(run, wide, here, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = run(*(arguments if arguments[0] == "compress" else (*wide, *arguments)))
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.startswith("ketwork: ") or "Usage" in done.stderr
    assert done.stdout == ""
    assert not list(here.glob("*.safetensors"))


def test_the_page_has_the_command_where_it_is_wanted(wide, page_of) -> None:
    command = " ".join(["ketwork", *wide, "--keep", "0.5"])
    page = page_of(*wide, "--keep", "0.5")
    assert "of the parameters" in page
    assert command not in page
    assert command in page_of(*wide, "--keep", "0.5", "--with-command")
