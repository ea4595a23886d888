"""`ketwork show`: what was saved, printed again as it was, and files that are not that."""

import json

from ketwork.networks.study import Study

NETS = "ketwork_cli_nets"
SMALL = (f"{NETS}:small", "--data", f"{NETS}:batches")


def test_a_saved_study_is_shown_again(here, run):
    first = run("study", *SMALL, "--out", "s.safetensors")
    assert first.exit_code == 0
    assert first.stderr == "Saved to s.safetensors\n"
    again = run("show", "s.safetensors")
    assert again.exit_code == 0
    assert again.stdout == first.stdout
    told = json.loads(run("show", "s.safetensors", "--json").stdout)
    anew = json.loads(run("study", *SMALL, "--json").stdout)
    assert told["settings"].pop("command") == f"ketwork study {' '.join(SMALL)} --out s.safetensors"
    assert anew["settings"].pop("command") == f"ketwork study {' '.join(SMALL)} --json"
    assert told == anew
    table = Study.load("s.safetensors").table()
    assert [row["entropy"] for row in told["table"]] == table["entropy"].tolist()


def test_a_study_file_that_is_not_one(here, run):
    assert "no file 'none.safetensors'" in run("show", "none.safetensors").stderr
    run("study", *SMALL, "--out", "s.safetensors")
    whole = (here / "s.safetensors").read_bytes()
    (here / "cut.safetensors").write_bytes(whole[:-50])
    newer = whole.replace(b'\\"schema\\": 2', b'\\"schema\\": 9')
    assert newer != whole
    (here / "newer.safetensors").write_bytes(newer)
    for name, message in (
        ("cut.safetensors", "not a complete safetensors file"),
        ("newer.safetensors", "newer ketwork"),
    ):
        done = run("show", name)
        assert done.exit_code == 2
        assert message in done.stderr
        assert done.stderr.startswith("ketwork: ")
        assert done.stderr.count("\n") == 1
