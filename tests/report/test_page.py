"""The page's text: what it says of small, unlabelled, partial and odd records, and what is refused."""

import base64
import hashlib
import json
import re
import sys
from collections import OrderedDict
from dataclasses import replace

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.report.views import layer_views
from ketwork.report.words import plus_minus

TWO = nn.Sequential(nn.Linear(4, 6), nn.ReLU())


@pytest.fixture(scope="module")
def data():
    return torch.randn(90, 4, generator=torch.Generator().manual_seed(0))


def text_of(path):
    """The page without its scripts, tags and doubled spaces."""
    body = re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(), flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body.replace("<wbr>", "")))


def renamed(layer, **names):
    """The layer with another name, or of another kind."""
    accumulator = replace(layer.accumulator, info=replace(layer.info, **names))
    return replace(layer, accumulator=accumulator)


def test_without_labels(tmp_path, data):
    text = text_of(kw.study(TWO, data).report(tmp_path / "x.html"))
    assert "The data came without labels" in text
    assert "Not measured here" in text
    assert "bits that tell the labels apart" not in text


def test_one_layer_and_no_layer(tmp_path, data):
    record = kw.study(TWO, data, layers="0")
    text = text_of(record.report(tmp_path / "one.html"))
    assert "90 samples, 1 layer." in text
    assert "follow each other" not in text
    assert "Over all layers" not in text
    empty = text_of(replace(record, layers=()).report(tmp_path / "none.html"))
    assert "No layer was reached by the data." in empty


def test_the_bits_of_unequal_labels_are_their_entropy(tmp_path, data):
    labels = (torch.arange(90) % 10 == 0).long()
    record = kw.study(TWO, (data, labels), layers="0")
    counts = torch.tensor(record["0"].labels.counts, dtype=torch.float64)
    bits = float(kw.shannon_entropy(counts / counts.sum()))
    assert bits < 0.6
    text = text_of(record.report(tmp_path / "x.html"))
    assert f"Of the {bits:.2f} bits that tell the labels apart" in text


def test_layers_that_are_numbered_read_as_layers(tmp_path, data):
    text = text_of(kw.study(TWO, data, compare=True).report(tmp_path / "x.html"))
    assert re.search(r"as if it used each alike. Layer [01] uses the most: effective rank", text)
    assert "Layer 1 repeats layer 0 most closely" in text
    one = text_of(kw.study(TWO, data, layers="0").report(tmp_path / "one.html"))
    assert "Layer 0 has effective rank" in one
    assert "selection bias" not in one


def test_layers_that_cannot_be_compared_are_named(tmp_path, data):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones_like(x)

    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), Constant())
    record = kw.study(net, data, compare=True, layers="all")
    text = text_of(record.report(tmp_path / "x.html"))
    assert f"Not compared: 2 ({record.compare().skipped['2']})." in text


def test_two_models_of_one_name_are_told_apart(tmp_path, data):
    changed = kw.compare(TWO, data, nn.Sequential(nn.Linear(4, 6), nn.ReLU())).report(tmp_path / "c.html")
    assert "Rows are layers of Sequential (A), columns of Sequential (B)." in text_of(changed)
    same = kw.compare(TWO, data, TWO).report(tmp_path / "s.html")
    assert "All 2 layers of the same name are alike: debiased CKA 1.000." in text_of(same)


def test_numbers_as_labels(tmp_path, data):
    target = data @ torch.tensor([1.0, -1.0, 0.5, 0.0])
    record = kw.study(TWO, (data, target), layers="0")
    text = text_of(record.report(tmp_path / "x.html"))
    assert f"The linear probe explains {record['0'].linear_r2.value:.2f}" in text


def test_many_labels_show_the_commonest_errors(data):
    labels = torch.arange(90) % 40
    record = kw.study(TWO, (data, labels), layers="0")
    (view,) = layer_views(record)
    counts = record["0"].labels.confusion["linear"]
    wrong = counts.clone().fill_diagonal_(0)
    worst = view.confusion["worst"]["linear"]
    assert len(worst) == min(20, int((wrong > 0).sum()))
    assert worst[0]["count"] == int(wrong.max())
    assert [row["count"] for row in worst] == sorted((row["count"] for row in worst), reverse=True)


def test_the_end_of_an_incomplete_pass_is_said(tmp_path, data):
    def breaks():
        yield data[:40]
        raise OSError("disk gone")

    with pytest.raises(kw.StudyError, match="disk gone") as failure:
        kw.study(TWO, breaks())
    record = failure.value.partial
    assert not record.complete
    text = text_of(record.report(tmp_path / "x.html"))
    assert "Incomplete. The pass ended early" in text
    assert "disk gone" in text


def test_warnings_and_skipped_modules_are_said(tmp_path, data):
    bad = data.clone()
    bad[3, 0] = torch.nan
    record = kw.study(nn.Sequential(nn.Linear(4, 40), nn.Flatten()), bad, reading=kw.Reading(skip_bad=True))
    text = text_of(record.report(tmp_path / "x.html"))
    for warning in record.warnings:
        assert warning in text
    assert "1 module skipped" in text
    assert record.skipped["1"] in text


def test_the_same_record_gives_the_same_page(tmp_path, data):
    record = kw.study(TWO, (data, torch.arange(90) % 3), compare=True)
    record.save(tmp_path / "s.safetensors")
    first = record.report(tmp_path / "a.html").read_bytes()
    assert kw.Study.load(tmp_path / "s.safetensors").report(tmp_path / "b.html").read_bytes() == first
    assert b'http-equiv="Content-Security-Policy" content="default-src \'none\'' in first


@pytest.mark.parametrize("where", ["missing/x.html", "."])
def test_paths_that_cannot_be_written(tmp_path, data, where):
    record = kw.study(TWO, data)
    with pytest.raises(OSError, match="Argument `path` must name a file in a folder that exists"):
        record.report(tmp_path / where)


def test_a_comparison_of_two_models_is_no_part_of_a_study(tmp_path, data):
    with pytest.raises(ValueError, match="Argument `comparison` must be of one model with itself"):
        kw.study(TWO, data).report(tmp_path / "x.html", kw.compare(TWO, data, nn.Linear(4, 3)))


@pytest.mark.parametrize("missing", ["vl_convert", "altair"])
def test_what_to_install_is_said(tmp_path, data, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "ketwork.report.charts", raising=False)
    monkeypatch.delattr("ketwork.report.charts", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'ketwork\[report\]'"):
        kw.study(TWO, data).report(tmp_path / "x.html")


def test_100_layers_stay_below_3_megabytes(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(100)))
    labels = torch.arange(300) % 10
    record = kw.study(net, (torch.randn(300, 16), labels), layers="all", compare=True)
    path = record.report(tmp_path / "x.html")
    assert len(record) == 100
    assert path.stat().st_size < 3_000_000


def test_500_layers(tmp_path, data):
    record = kw.study(TWO, (data, torch.arange(90) % 3))
    layers = tuple(renamed(record.layers[i % 2], name=f"block.{i}") for i in range(500))
    path = replace(record, layers=layers).report(tmp_path / "x.html")
    text = path.read_text()
    assert "90 samples, 500 layers." in text_of(path)
    assert len(re.findall(r'<tr id="row-\d+"', text)) == 500
    assert path.stat().st_size < 5_000_000


def test_the_notebook_table(data):
    shown = kw.study(TWO, data)
    html = replace(shown, more_notes=("a <b>",))._repr_html_()
    assert "<table" in html
    entropy = shown["0"].entropy
    assert "<th>entropy (bits)</th>" in html
    assert f"<td>{kw.Estimate(entropy.value, entropy.stderr)}</td>" in html  # the unit is in the head
    assert "a &lt;b&gt;" in html
    assert "<b>" not in html


@pytest.mark.slow
def test_a_sentence_transformer(tmp_path, minilm, sms):
    from ketwork.sources import load_data, load_model

    loaded = load_model(str(minilm))
    texts = load_data(str(sms), text="text", label="spam", tokenizer=loaded.tokenizer, samples=160)
    record = kw.study(loaded.model, texts.batches, layers="blocks", compare=True)
    path = record.report(tmp_path / "minilm.html")
    text = text_of(path)
    assert str(minilm.parent) not in path.read_text()
    best = max(record, key=lambda layer: layer.linear_balanced.value)
    assert f"at {best.name}: {100 * best.linear_balanced.value:.1f} ± " in text
    assert path.stat().st_size < 1_500_000


def test_a_sketched_layer_stands_as_intervals_with_their_definition_and_the_plan(tmp_path):
    network = nn.Sequential(nn.Linear(64, 300), nn.ReLU())
    x = torch.randn(900, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    record = kw.study(network, x, memory="2MB", compare=True)
    path = record.report(tmp_path / "x.html")
    text, source = text_of(path), path.read_text()
    wide = record["1"]
    rows = list(layer_views(record))
    between = plus_minus([row["entropy"] for row in rows])[1]
    assert float(between.split()[0]) == pytest.approx(wide.entropy.low, abs=0.01)
    assert " … " in between
    assert between in text
    assert f"{wide.sketch}: {wide.sketch_error:.1e}" in text
    assert 'popovertarget="def-bounds"' in source
    assert record.definitions["bounds"] in text
    assert record.definitions["sketch_error"] in text
    assert f"Plan of the memory: {record.plan.total / 1e6:.1f} MB of 2.0 MB" in text
    assert f"sketch of rank {wide.sketch}" in text
    row, exact = rows[1], list(layer_views(kw.study(network, x)))[1]
    for name in ("rank_kept", "coherent_share"):
        assert row[name].low <= exact[name].value <= row[name].high
        assert row[name].low < row[name].high
    assert row.words("rank_kept") == f"{row['rank_kept'].low:.0f} … {row['rank_kept'].high:.0f}"


TURNED = "conv\u202e1.\u2067gnp"


def test_characters_that_turn_text_are_spelled_out(tmp_path):
    """A name with U+202E would read backwards, and could pass for another."""
    torch.manual_seed(0)
    network = nn.Sequential()
    network.add_module("a\u202eb", nn.Linear(4, 32))
    network.add_module("relu", nn.ReLU())
    network.add_module("c\u2066d", nn.Linear(32, 3))
    labels = [f"{'left' if i % 2 else 'right'}\u202e" for i in range(60)]
    study = kw.study(network, torch.randn(60, 4), labels=labels, compare=True)
    study = study.described((f"{TURNED} was loaded",), command=TURNED, source={"data": {"spec": TURNED}})
    study.save(tmp_path / "study")
    curve = kw.collapse_curve(network, torch.randn(60, 4), ranks=[1])
    small = kw.compress(network, torch.randn(60, 4), keep=0.9)
    for record in (study, study.compare(), curve, small, kw.Study.load(tmp_path / "study")):
        text = record.report(tmp_path / "page.html").read_text()
        assert not {*text} & {*map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))}
        assert not re.search(r"(?<!\\)\\u20(2[a-e]|6[6-9])", text.partition('type="application/json"')[2])
        assert re.search(r"a(<wbr>)?\[U\+202E\]b", text)
    text = study.report(tmp_path / "page.html").read_text()
    assert "conv[U+202E]1.[U+2067]gnp was loaded" in text
    assert "right[U+202E]" in text
    assert text.count('<script type="module">') == 2
    for script in re.findall(r'<script type="module">(.*?)</script>', text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text  # which the page's policy allows


def test_sinks_are_said_and_readings_with_and_without_them_stand_side_by_side(tmp_path):
    x = torch.randn(60, 9, 4, generator=torch.Generator().manual_seed(0))
    x[:, 0] = 1000 * x[0, 0]
    net = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5))
    every, without = (kw.study(net, x, normalize="ensemble", positions=each) for each in ("all", "no-sinks"))
    alone = text_of(every.report(tmp_path / "alone.html"))
    said = re.search(
        r"Sinks Layer ([01]) has the heaviest of 2 layers with sinks: they hold (\S+ ± \S+) %", alone
    )
    assert said is not None
    assert said[2] == f"{100 * every[said[1]].sink_weight.value:.3f} ± 0.001"  # never ± 0.0
    assert 'Their places in samples, and how often: 0 (60). positions="no-sinks" reads the layers' in alone
    both = text_of(every.report(tmp_path / "both.html", beside=without))
    assert "effective rank dimensions, all positions effective rank dimensions, without sinks" in both
    for name in ("0", "1"):
        a, b = every[name].effective_rank, without[name].effective_rank
        assert re.search(rf"{name}{a:.3f} ± \S+?{b:.2f} ± ", both)
    assert every["1"].effective_rank < 2 < without["1"].effective_rank
    plain = text_of(without.report(tmp_path / "plain.html"))
    assert "Sinks" not in plain
    assert "positionsno-sinks" in plain  # among the settings
    with pytest.raises(ValueError, match="`beside` must be a study of layers with the same names"):
        every.report(tmp_path / "x.html", beside=kw.study(nn.Identity(), x))


def test_no_path_and_no_command_unless_they_are_wanted(tmp_path, data):
    secret = "/home/ann/secret/net.py:Net"
    source = {"model": {"spec": secret}, "data": {"spec": "/home/ann/x.npz"}}
    record = kw.study(TWO, (data + 3, torch.arange(90) % 3)).described(
        (f"{secret} was loaded from '/home/ann/weights/best.pt'.",),
        command=f"ketwork study {secret}",
        source=source,
    )
    record = replace(record, skipped={"a": "/home/ann/b.py says so"}, error="/home/ann/c.npz ended")
    curve = kw.collapse_curve(TWO, data, ranks=[1, 2]).described(command=f"ketwork {secret}", source=source)
    for each in (record, curve):
        assert "/home/" not in each.report(tmp_path / "x.html").read_text()
        page = each.report(tmp_path / "x.html", with_command=True).read_text()
        assert f"<code>{each.settings['command']}</code>" in page
        assert "<dd>/<wbr>home/" in page
    text = text_of(record.report(tmp_path / "x.html"))
    assert "…/net.py:Net was loaded from '…/best.pt'." in text.replace("&#39;", "'")
    assert "ketwork study MODEL --data DATA --center --out centered.html" in text


def test_scores_that_are_tied_are_said_to_be(tmp_path):
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(4, 4))
    nn.init.eye_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    record = kw.study(net, (x, (x[:, 0] > 0).long()), layers="all")
    text = text_of(record.report(tmp_path / "x.html"))
    assert len(record) > 1
    assert re.search(
        rf"balanced accuracy, tied with {len(record) - 1} other layers? within two standard errors", text
    )


def test_a_score_of_100_per_cent_has_an_error(tmp_path):
    x = torch.cat([torch.eye(2)[:1].repeat(60, 1), torch.eye(2)[1:].repeat(60, 1)])
    x += 0.01 * torch.randn(120, 2, generator=torch.Generator().manual_seed(0))
    record = kw.study(nn.Identity(), (x, torch.arange(120) // 60), layers="all")
    assert record[0].linear_balanced.value == 1
    text = text_of(record.report(tmp_path / "x.html"))
    said = re.search(r"100\.0 ± (\d+\.\d) %", text)
    assert float(said[1]) > 1
    assert not re.search(r"± 0(\.0+)?(?![\d.])", text)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(6, 6)
        self.mlp = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))

    def forward(self, x):
        x = x + self.attention(x)
        return x + self.mlp(x)


def test_a_transformer_has_a_picture_for_each_part_of_its_blocks(tmp_path, data):
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(embed=nn.Linear(4, 6), layers=nn.Sequential(*(Block() for _ in range(4))))
    )
    names = [f"layers.{i}{part}" for i in range(4) for part in (".attention", ".mlp.0", ".mlp.2", "")]
    record = kw.study(net, (data, torch.arange(90) % 2), layers=["embed", *names], compare=True)
    path = record.report(tmp_path / "x.html")
    page = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])
    assert {name for name in page["charts"] if name.startswith("dimensions")} == {
        f"dimensions-{i}" for i in range(3)
    }
    shares = {(x["part"], x["block"], x["role"]): x["rank_share"] for x in page["layers"] if "part" in x}
    assert len(shares) == 16
    for i in range(4):
        layer = record[f"layers.{i}.mlp.0"]
        assert shares["MLP", i, "mlp.0"] == pytest.approx(layer.effective_rank.value / 12, rel=1e-5)
    text = text_of(path)
    assert "of 12 pairs of layers that follow each other" in text  # four roles, from each block to the next
    assert re.search(r"Residual stream.*Attention.*MLP", text)


def test_two_studies_are_drawn_over_each_other(tmp_path, data):
    one, other = kw.study(TWO, data), kw.study(TWO, 3 * data.abs())
    path = one.report(tmp_path / "x.html", beside=other)
    page = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])
    for layer in page["layers"]:
        assert layer["effective_rank"] == pytest.approx(one[layer["label"]].effective_rank.value, rel=1e-5)
        assert layer["beside_effective_rank"] == pytest.approx(
            other[layer["label"]].effective_rank.value, rel=1e-5
        )
    assert "effective rank, the other study" in json.dumps(page["charts"]["dimensions"])


def test_a_bloch_ball_is_there_where_its_plane_holds_half_of_the_variance(tmp_path):
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    for data, there in ((x, False), (x * torch.tensor([9.0, 9, 1, 1, 1, 1, 1, 1]), True)):
        record = kw.study(nn.Identity(), data, layers="all")
        assert (record[0].plane.weight >= 0.5) is there
        path = record.report(tmp_path / "x.html")
        page = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.DOTALL)[1])
        assert ("ball" in page["details"][0]) is there
