import io
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from ketwork.demo import digits
from ketwork.networks.activations import Reading
from ketwork.networks.comparison import compare
from ketwork.networks.study import study
from ketwork.quantum import Estimate
from ketwork.report import as_json, render, render_comparison, render_plan
from ketwork.report.words import duration, plus_minus


@pytest.fixture(scope="module")
def demo():
    return study(digits.model(), digits.held_out())


def drawn(record, width, explain=False, **options):
    stream = io.StringIO()
    render(record, Console(file=stream, width=width, **options), explain)
    return stream.getvalue()


def rows(text, record):
    """The table's lines by layer."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words and words[0] in {layer.name for layer in record} and len(words) > 3:
            found[words[0]] = line
    return found


@pytest.mark.parametrize("width", [40, 60, 80, 100, 140, 200])
def test_every_width_shows_whole_numbers(demo, width):
    text = drawn(demo, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    table = demo.table().set_index("layer")
    found = rows(text, demo)
    assert list(found) == list(table.index)
    for layer, line in found.items():
        numbers = re.findall(r"(\d+\.\d+) ± *(\d+\.\d+)", line)
        assert line.count("±") == len(numbers)
        value, error = map(float, numbers[0])
        assert value == pytest.approx(table.loc[layer, "entropy"], abs=6e-4)
        assert error == pytest.approx(table.loc[layer, "entropy_stderr"], abs=1.01e-3)


@pytest.mark.parametrize("width", [40, 60, 80, 140])
def test_a_comparison_at_every_width(width):
    other = digits.architecture().eval()
    found = compare(digits.model(), digits.held_out(), other)
    stream = io.StringIO()
    render_comparison(found, Console(file=stream, width=width))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    table = text[text.index("layer  ") :]
    best = found.best_match()["match"]
    for layer in found.cka.index:
        line = next(line for line in table.splitlines() if line.startswith(f"{layer} ")).split()
        assert abs(float(line[1]) - found.cka.loc[layer, layer]) < 6e-3
        if width == 140:
            assert line[-1] == best[layer]
    flat = " ".join(text.split())
    same = {name: found.cka.loc[name, name] for name in found.cka.index}
    least = min(same, key=same.get)
    said = str(Estimate(same[least], found.stderr("cka").loc[least, least]))
    assert f"{least} differs most (debiased CKA {said})" in flat
    assert flat.startswith("Comparison of Sequential (A) with Sequential (B)")


def test_what_a_comparison_of_equal_models_and_of_neighbours_says():
    def told(found):
        stream = io.StringIO()
        render_comparison(found, Console(file=stream, width=140))
        return stream.getvalue()

    assert "All 8 layers of the same name are alike" in told(
        compare(digits.model(), digits.held_out(), digits.model())
    )
    itself = compare(digits.model(), digits.held_out())
    near = {names: itself.cka.loc[names] for names in itertools.pairwise(itself.cka.index)}
    first, second = max(near, key=near.get)
    said = f"{near[first, second]:.3f} ± {max(itself.stderr('cka').loc[first, second], 0.001):.3f}"
    assert f"{second} repeats the layer before it, {first}, most closely (debiased CKA {said})" in told(
        itself
    )
    constant = compare(nn.Identity(), torch.ones(20, 3))
    assert "No pair of layers has a value." in told(constant)


def test_labels_come_before_what_describes_the_state_alone(demo):
    assert "linear" in drawn(demo, 80).partition("540 samples")[0]


def test_what_80_columns_and_what_140_columns_hold():
    demo = study(digits.model(), digits.held_out(), labels=False)
    narrow, wide, widest = (drawn(demo, width).partition("540 samples")[0] for width in (80, 140, 250))
    for header in ("d", "vectors", "entropy", "eff. rank", "top weight", "dead"):
        assert header in narrow
    assert "entangl." not in narrow
    for header in ("of log₂ d", "part. ratio", "dead", "entangl."):
        assert header in wide
    for header in ("kind", "collapse", "norm", "of one vector"):
        assert header in widest
    assert "A wider terminal shows" in drawn(demo, 80)
    assert "A wider terminal shows" not in drawn(demo, 250)


def test_what_layers_know_of_labels_is_shown_where_it_was_measured(demo):
    for name, header in (("holevo", "Holevo"), ("linear_balanced", "linear"), ("pgm_balanced", "pgm")):
        assert header in drawn(demo, 160).partition("540 samples")[0]
        line = rows(drawn(demo, 300), demo)["readout"]
        value = demo["readout"].estimates[name].value
        assert any(abs(float(word) - value) < 0.006 for word in re.findall(r"\d\.\d+", line))
    unlabelled = study(digits.model(), digits.held_out(), labels=False)
    assert "Holevo" not in drawn(unlabelled, 300)


def test_the_values_of_one_row(demo):
    line = rows(drawn(demo, 250), demo)["relu3"]
    row = demo.table().set_index("layer").loc["relu3"]
    assert line.split()[1:4] == ["ReLU", "48", "540"]
    for name in (
        "entropy",
        "effective_rank",
        "participation_ratio",
        "coherence",
        "ket_coherence",
        "top_weight",
    ):
        assert f"{row[name]:.3f} ± " in line
    assert f"{row['dead']:.1%}" in line
    assert line.count("–") == 2  # no positions: neither entanglement nor rank collapse


def test_the_footer_says_what_the_numbers_are(demo):
    text = " ".join(drawn(demo, 80, explain=True).split())
    assert (
        "540 samples, up to 34,560 vectors (kets) a layer; every vector has weight 1 (normalize=state), not centred."
        in text
    )
    assert "Skipped: flatten (Flatten only passes on or reshapes)" in text
    meaning = " ".join(demo.definitions["entropy"].split())
    assert meaning in text
    assert meaning not in " ".join(drawn(demo, 80).split())


def test_few_samples_a_dimension_in_use_are_marked():
    torch.manual_seed(0)
    record = study(nn.Sequential(nn.Linear(30, 30), nn.Linear(30, 2)), torch.randn(40, 30), layers=["0", "1"])
    text = drawn(record, 100)
    found = rows(text, record)
    assert "40!" in found["0"]
    assert "40!" not in found["1"]
    assert "! Fewer than 4 independent samples per dimension in use in 0:" in text


def test_calls_zeros_and_drops_are_shown_where_there_are_any():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.ReLU()

        def forward(self, x):
            return self.step(self.step(x) - 1)

    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(1))
    x[5] = torch.nan
    record = study(Twice(), x, layers="step", reading=Reading(skip_bad=True))
    text = drawn(record, 250)
    lines = [line for line in text.splitlines() if line.startswith("step")]
    assert [line.split()[1] for line in lines] == ["0", "1"]
    table = record.table()
    for line, zero in zip(lines, table["zero"], strict=True):
        assert f"{zero:.1%}" in line
    assert "dropped" in text
    assert "Samples skipped for NaN or infinite values: 1 at step" in text
    pooled = study(Twice(), x, layers="step", reading=Reading(skip_bad=True, calls="pooled"))
    assert re.search(r"^step +all ", drawn(pooled, 140), re.MULTILINE)


def test_layers_without_a_state_and_studies_without_layers():
    record = study(nn.ReLU(), -torch.ones(30, 4))
    assert "–" in drawn(record, 80)
    empty = replace(record, layers=())
    assert "No layer was reached" in drawn(empty, 80)


def test_long_names_are_folded_at_their_dots():
    net = nn.Sequential()
    inner = net
    for _ in range(8):
        inner.add_module("container", nn.Sequential())
        inner = inner.container
    inner.add_module("linear", nn.Linear(3, 2))
    name = ".".join(["container"] * 8 + ["linear"])
    record = study(net, torch.randn(50, 3), layers=name)
    text = drawn(record, 60)
    assert max(map(len, text.splitlines())) <= 60
    first = "".join(line.split()[0] for line in text.splitlines() if line.startswith(("container", "linear")))
    assert first == name


def test_markup_in_names_is_printed_as_it_is():
    record = study(nn.Linear(3, 2), torch.randn(50, 3))
    (layer,) = record.layers
    info = replace(layer.info, name="[red]x")
    layer = replace(layer, accumulator=replace(layer.accumulator, info=info))
    named = replace(record, layers=(layer,), more_notes=("see [bold]",))
    text = drawn(named, 120)
    assert "[red]x" in text
    assert "! see [bold]" in text


def test_colour_only_where_the_console_has_it(demo):
    assert "\x1b" not in drawn(demo, 80)
    assert "\x1b[" in drawn(demo, 80, force_terminal=True, color_system="truecolor")


def test_plus_minus_covers_the_error():
    rng = np.random.default_rng(0)
    values = rng.normal(size=50) * 10.0 ** rng.integers(-3, 4, size=50)
    errors = np.abs(values) * 10.0 ** rng.uniform(-4, -0.5, size=50)
    for value, error in zip(values, errors, strict=True):
        (cell,) = plus_minus([Estimate(value, error)])
        shown_value, shown_error = map(float, cell.split(" ± "))
        assert abs(shown_value - value) <= 0.51 * max(error, 1e-3)
        assert shown_error >= 0.74 * error
        assert shown_error <= max(1.5 * error, 1e-3)


def test_plus_minus_of_what_has_no_error():
    assert plus_minus([Estimate(float("nan")), Estimate(2.0, 0.5)]) == ["–", "2.0 ± 0.5"]
    assert plus_minus([Estimate(1.0, 0.0)]) == ["1.000 ± 0.000"]
    assert plus_minus([Estimate(123456.7, 2000.0), Estimate(5.0, 900.0)]) == ["123457 ± 2000", "5 ±  900"]


def test_json_has_none_for_what_does_not_exist(demo):
    told = as_json(demo)
    by_layer = {row["layer"]: row for row in told["table"]}
    assert by_layer["hidden"]["entanglement"] is None
    assert by_layer["conv1"]["entanglement"] == demo["conv1"].entanglement.value


def test_sketched_layers_stand_as_intervals_and_the_plan_is_a_table():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 8))
    record = study(network, torch.randn(900, 64), memory="2MB")
    wide = record["1"]
    low, high = wide.entropy.bounds
    text = drawn(record, 200, explain=True)
    assert f"{low:.3f} … {high:.3f} ± " in text
    assert f"{wide.sketch}: {wide.sketch_error:.1e}" in text
    assert " ".join(record.definitions["bounds"].split()[:6]) in text
    assert "exact" in next(line for line in text.splitlines() if line.startswith("2 "))
    buffer = io.StringIO()
    render_plan(record.plan, Console(file=buffer, width=120))
    assert f"0, 1 300 sketch of rank {wide.sketch}" in " ".join(buffer.getvalue().split())
    assert "of 2.0 MB" in buffer.getvalue()
    assert f"end of study ≈ {duration(record.plan.end_seconds)} (by operations" in buffer.getvalue()
    plan = as_json(record)["plan"]
    assert plan["memory"] == record.plan.memory == 2_000_000
    assert [(share["layer"], share["d"], share["rank"]) for share in plan["shares"]] == [
        (share.layer, share.d, share.rank) for share in record.plan.shares
    ]


def test_what_is_only_known_between_bounds_is_rounded_only_where_that_hides_nothing():
    assert plus_minus([Estimate(1.5, 0.01, (1.4998, 1.5002))]) == ["1.500 ± 0.010"]
    assert plus_minus([Estimate(1.5, 0.3, (1.0, 2.0)), Estimate(3.0, 0.3)]) == [
        "1.0 … 2.0 ± 0.3",
        "3.0 ± 0.3",
    ]
