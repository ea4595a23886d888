"""Studies within a memory budget: what is planned, that the numbers' intervals hold, and that memory keeps to it."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ketwork.networks.measures.deletion import Deletion
from ketwork.networks.runtime.memory import Plan, Width, parse_bytes, plan_memory
from ketwork.networks.study.layer import Layer
from ketwork.networks.study.result import Study
from ketwork.networks.study.run import study
from ketwork.records.record import pack, unpack

D = 600
BOUNDED = (
    "entropy", "effective_rank", "participation_ratio", "top_weight", "rank_kept", "coherence", "coherent_share",
)  # fmt: skip


class Wide(nn.Module):
    """A layer of 600 features whose spectrum falls slowly, and a narrow one; each sample has several positions."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        real = torch.float64 if not dtype.is_complex else torch.complex128
        turn = torch.linalg.qr(torch.randn(D, D, generator=draw, dtype=real)).Q
        scale = torch.arange(1, D + 1, dtype=torch.float64) ** -0.8
        self.wide = nn.Linear(D, D, bias=False, dtype=dtype)
        self.narrow = nn.Linear(D, 12, dtype=dtype)
        with torch.no_grad():
            self.wide.weight.copy_(turn * scale.to(turn))

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(self.wide(x))


def _data(dtype: torch.dtype = torch.float32, n: int = 900, classes: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(0, classes, (n,), generator=draw)
    x = torch.randn(n, D, generator=draw, dtype=torch.complex64 if dtype.is_complex else torch.float32)
    x = x + 3 * torch.nn.functional.one_hot(labels, D)
    return x.to(dtype), labels


def _holds(layer: Layer, exact: Layer) -> list[str]:
    """Asserts that every interval of a layer holds the exact number, and returns the names of those that have one."""
    found = []
    for name, estimate in layer.estimates.items():
        if estimate.bounds is None:
            continue
        low, high = estimate.bounds
        value = exact.estimates[name].plain
        if name == "participation_ratio":  # from pairs of different samples
            value = min(max(1 / Deletion(exact.state()).purity[1], 1.0), exact.d)
        rounding = 2e-6 * max(abs(value), 1)  # of the exact study's float32 products
        assert low - rounding <= value <= high + rounding, (name, estimate, value)
        assert low <= estimate.value <= high
        found.append(name)
    return found


def _error(layer: Layer, exact: Layer) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of ρ less what the sketch keeps of it."""
    whole = exact.accumulator.moment.matrix() / exact.accumulator.moment.weight
    kept = layer.accumulator.moment.matrix() / layer.accumulator.moment.weight
    values = torch.linalg.eigvalsh(whole - kept)
    return float(values[0]), float(values[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("center", [False, True])
def test_every_interval_holds_the_exact_number(dtype: torch.dtype, center: bool) -> None:
    network, data = Wide(dtype), _data(dtype)
    memory, enough = ("43MB", "62MB") if dtype.is_complex else ("40MB", "42MB")
    exact = study(network, data, center=center, memory=enough)  # which keeps as few samples
    small = study(network, data, center=center, memory=memory)
    assert exact.plan is not None
    assert not exact.plan.sketched
    assert small.plan is not None
    assert small.plan.sketched == ["wide"]
    assert small.plan.total <= small.plan.memory == parse_bytes(memory)
    wide, narrow = small.layers
    assert (wide.sketch, narrow.sketch) == (small.plan.shares[0].rank, None)
    assert {*BOUNDED} <= {*_holds(wide, exact["wide"])}  # those of later families hold too
    assert not any(estimate.bounds for estimate in narrow.estimates.values())
    least, most = _error(wide, exact["wide"])
    assert least > -1e-7
    assert most < wide.accumulator.moment.slack / wide.accumulator.moment.weight + 1e-7
    if not center:
        assert most > 0.3 * wide.sketch_error  # the bound says little more than it must
    low, high = wide.entropy.bounds or (0, 0)
    assert 1e-3 < high - low < 4
    for name in ("dead", "zero", "norm"):  # what a sketch does not touch
        assert wide.estimates[name].value == exact["wide"].estimates[name].value


def test_what_is_exact_is_the_same_to_the_last_bit() -> None:
    network, data = Wide(), _data()
    plain, planned = study(network, data), study(network, data, memory="400MB")
    assert planned.plan is not None
    assert not planned.plan.sketched
    assert planned.table().equals(plain.table())
    assert "sketch" not in planned.table()


def test_the_first_batch_decides_and_is_counted_once() -> None:
    calls = []
    network, (x, _) = Wide(), _data()

    def forward(model: nn.Module, batch: Tensor) -> Any:
        calls.append(len(batch))
        return model(batch)

    told: list[Plan] = []
    record = study(network, x, forward=forward, memory="20MB", on_plan=told.append)
    assert calls[:3] == [64, 64, 64]
    assert sum(calls) == 64 + record.samples == 64 + 900
    assert told == [record.plan]


@pytest.mark.parametrize(
    ("memory", "form", "words"),
    [
        ("60MB", "exact", "it is kept exactly."),
        ("2MB", "sketch", "it is kept as a sketch of rank 32."),
        ("30kB", "sketch", "it is kept as a sketch of rank 8, 0.5 MB beyond the budget."),
    ],
)
def test_a_layer_that_comes_later_gets_what_is_left(memory: str, form: str, words: str) -> None:
    class Late(Wide):
        def forward(self, x: Tensor) -> Tensor:
            return self.narrow(x) if len(x) == 64 else self.narrow(self.wide(x))

    x, _ = _data()
    small = study(Late(), x, memory=memory)
    assert small.plan is not None
    early, late = small.plan.shares
    assert (early.layer, early.late, late.layer, late.late) == ("narrow", False, "wide", True)
    assert late.form == form
    (note,) = small.notes
    assert "wide was first reached in batch 14 (counted from 0), after the plan" in note
    assert note.endswith(words)
    assert (small.plan.total > small.plan.memory) == ("beyond" in words)
    assert small["wide"].N == 900 - 14 * 64
    assert small.plan.table()["late"].tolist() == [False, True]


def test_tables_have_columns_for_bounds() -> None:
    small = study(Wide(), _data(), memory="40MB")
    table = small.table()
    wide = table.iloc[0]
    assert table["sketch"].isna().tolist() == [False, True]
    assert wide["sketch_error"] == small["wide"].sketch_error
    for name in BOUNDED:
        assert (wide[f"{name}_low"], wide[f"{name}_high"]) == small["wide"].estimates[name].bounds
        assert math.isnan(table[f"{name}_low"].iloc[1])
    long = small.long().set_index(["layer", "quantity"])
    assert (long.loc[("wide", "entropy"), "low"], long.loc[("wide", "entropy"), "high"]) == small[
        "wide"
    ].entropy.bounds
    assert long.loc[("narrow", "entropy"), ["low", "high"]].isna().all()
    assert all(f"{name}_low".removesuffix("_low") in small.definitions for name in BOUNDED)
    assert {"sketch", "sketch_error", "bounds"} <= small.definitions.keys()
    assert " … " in repr(small)


def test_the_plan_and_the_bounds_come_back_from_a_file(tmp_path: Path) -> None:
    record = study(Wide(), _data(), memory="40MB", compare=False)
    record.save(tmp_path / "small.study")
    back = Study.load(tmp_path / "small.study")
    assert back.plan == record.plan
    assert back.table().equals(record.table())
    assert back["wide"].sketch_error == record["wide"].sketch_error
    assert repr(back) == repr(record)


def test_layers_are_compared_within_the_budget() -> None:
    network, data = Wide(), _data(n=2500)
    small = study(network, data, memory="60MB", compare=True, labels=False)
    assert small.plan is not None
    assert small.plan.pairs == 15_000_000
    exact = study(network, data, compare=True, labels=False).compare()
    found = small.compare()
    error = found.errors["cka"].loc["wide", "narrow"] if "cka" in found.errors else 0.0
    assert abs(found.cka.loc["wide", "narrow"] - exact.cka.loc["wide", "narrow"]) <= 4 * error + 1e-6


@pytest.mark.parametrize(
    ("memory", "error", "words"),
    [
        (0, ValueError, "positive number of bytes"),
        (-5, ValueError, "positive"),
        ("0GB", ValueError, "positive"),
        ("", ValueError, "but is ''"),
        ("2 gigs", ValueError, "but is '2 gigs'"),
        ("iB", ValueError, "but is 'iB'"),
        ("1e9", ValueError, "but is '1e9'"),
        ("nan", ValueError, "but is 'nan'"),
        ("٣GB", ValueError, "but is"),
        (2.5, TypeError, "but is 2.5"),
        (True, TypeError, "but is True"),
    ],
)
def test_what_is_no_budget_is_refused(memory: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match="Argument `memory` must be .*" + words):
        study(Wide(), _data(n=10), memory=memory)


@pytest.mark.parametrize("compare", [False, True])
@pytest.mark.parametrize("labels", [None, False])
def test_a_budget_too_small_says_what_it_takes(labels: Any, compare: bool) -> None:
    def run(memory: str) -> Study:
        return study(Wide(), _data(n=200), memory=memory, labels=labels, compare=compare)

    with pytest.raises(
        ValueError, match=r"at least [\d.]+ MB for these 2 layers, but is 10,000 bytes\. Give more"
    ) as refused:
        run("10kB")
    least = float(str(refused.value).split("at least ")[1].split(" MB")[0])
    assert run(f"{least}MB").plan is not None
    with pytest.raises(ValueError, match="must be at least"):
        run(f"{least - (1 if least >= 10 else 0.01):.2f}MB")


@pytest.mark.parametrize("memory", [30_000_000, 100_000_000, 1_000_000_000, 10_000_000_000])
@pytest.mark.parametrize("classes", [None, 20])
def test_plans_keep_to_the_budget_and_sketch_the_widest_first(memory: int, classes: int | None) -> None:
    sizes = (64, 512, 512, 4096, 2048, 64)
    widths = {(str(i), 0): Width(str(i), 0, d, False, 4, True) for i, d in enumerate(sizes)}
    try:
        found = plan_memory(widths, memory, classes=classes)
    except ValueError:
        assert memory <= (100_000_000 if classes else 30_000_000)
        return
    assert found.total <= memory
    exact = [share.d for share in found.shares if share.rank is None]
    sketched = [share.d for share in found.shares if share.rank is not None]
    assert max(exact, default=0) <= min(sketched, default=10**9)
    assert (not sketched) == (memory >= (1_000_000_000 if classes is None else 10_000_000_000))
    table = found.table()
    assert table["d"].tolist() == list(sizes)
    assert (
        int(table[["moment", "reservoir", "labels"]].to_numpy().sum()) + found.work + found.pairs
        == found.total
    )
    header, tensors = pack(found)
    assert unpack(Plan, json.loads(json.dumps(header)), tensors) == found


MEASURED = """
import json, sys, threading, time
import torch
from torch import nn
import ketwork as kw

d, inner, classes, batch = 16384, 2048, 20, 64
signs = torch.randint(0, 2, (d,), generator=torch.Generator().manual_seed(9)) * 2.0 - 1

def small(i):
    draw = torch.Generator().manual_seed(i)
    labels = torch.randint(0, classes, (batch,), generator=draw)
    z = torch.randn(batch, inner, generator=draw) * torch.arange(1, inner + 1) ** -0.6
    z[torch.arange(batch), labels] += 1.0
    return z, labels

def spread(z):  # an isometry: each of 2,048 coordinates on 8 of the 16,384 neurons
    return z.repeat_interleave(d // inner, dim=1) * signs * (inner / d) ** 0.5

class Data:
    def __iter__(self):
        for i in range(batches):
            z, labels = small(i)
            yield spread(z), labels

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

batches = int(sys.argv[1])
kw.study(nn.Linear(4, 4), (torch.randn(99, 4), torch.arange(99) % 3), memory="1GB")  # loads what is loaded once
network = nn.Sequential(nn.Identity())
list(Data())[:1]
before, peak, over = resident(), [0], threading.Event()

def watch():
    while not over.wait(0.01):
        peak[0] = max(peak[0], resident())

watcher = threading.Thread(target=watch)
watcher.start()
record = kw.study(network, Data(), memory="1GB")
over.set()
watcher.join()

layer = record.layers[0]
moment = layer.accumulator.moment
whole = torch.zeros(inner, inner, dtype=torch.float64)
for i in range(batches):
    z = small(i)[0].double()
    z = z / z.norm(dim=1, keepdim=True)
    whole += z.mT @ z
kept = (moment.sketch.rows * signs).unflatten(1, (inner, d // inner)).sum(dim=2) * (inner / d) ** 0.5
left = torch.linalg.eigvalsh((whole - kept.mT @ kept) / moment.weight)
p = torch.linalg.eigvalsh(whole / moment.weight).clamp(min=1e-300)
print(json.dumps({
    "peak": peak[0] - before, "total": record.plan.total, "rank": layer.sketch, "slack": layer.sketch_error,
    "least": float(left[0]), "most": float(left[-1]), "d": layer.d, "N": layer.N,
    "rows": len(moment.sketch.rows), "labels": len(layer.labels.labels),
    "discarded": layer.labels.discarded, "waiting": layer.labels.moments.limits.waiting,
    "entropy": float(-(p * p.log2()).sum()), "entropy_bounds": layer.entropy.bounds,
    "purity": float(p.square().sum()), "top": float(p[-1]), "top_bounds": layer.top_weight.bounds,
    "holevo": layer.holevo.bounds, "auc": layer.linear_auc.value,
}))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_layer_of_16384_features_and_20_labels_within_a_gigabyte(tmp_path: Path) -> None:
    """Resident memory at its peak, over what it was before, in a process of its own; and the sketch's true error."""
    script = tmp_path / "wide.py"
    script.write_text(MEASURED)
    done = subprocess.run([sys.executable, str(script), "30"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["d"], found["labels"]) == (16384, 20)
    assert found["N"] > 2 * found["rank"]  # so the sketch has been full
    assert found["discarded"] > 0  # and the classes' too
    assert found["peak"] < 1e9
    assert found["peak"] < 1.1 * found["total"]
    assert found["least"] > -1e-7
    assert 0.3 * found["slack"] < found["most"] < found["slack"]
    for name in ("entropy", "top"):
        low, high = found[f"{name}_bounds"]
        assert low <= found[name] <= high
    assert found["auc"] > 0.9


def test_a_plan_prints_in_one_line() -> None:
    widths = {(f"layer{index}", 0): Width(f"layer{index}", 0, 500, False, 8, False) for index in range(3)}
    plan = plan_memory(widths, 5_000_000)
    assert repr(plan) == f"Plan(3 layers, {len(plan.sketched)} sketched: {plan.total:,} of 5,000,000 bytes)"
    assert 1 <= len(plan.sketched) <= 3
