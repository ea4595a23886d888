"""Studies of parts of the data add up to the study of all of it, straight from the pass or from files."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.reading import Reading
from ketwork.networks.study.accumulator import StudyAccumulator
from ketwork.records.record import pack, unpack

WORDS = ("ham", "spam", "news", "rare")


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20, dtype=dtype), nn.Tanh(), nn.Dropout(), nn.Linear(20, 9, dtype=dtype), nn.ReLU()
    )


def data(n: int, seed: int = 1) -> tuple[Tensor, list[str]]:
    """Samples with a word each; the fourth word is in the last fifth only, and the order of sight differs by part."""
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 3, (n,), generator=draw)
    codes[-n // 5 :: 3] = 3
    x = torch.randn(n, 6, generator=draw, dtype=torch.float64) + 2 * torch.eye(6, dtype=torch.float64)[codes]
    return x, [WORDS[code] for code in codes]


def parts(x: Tensor, words: list[str], *cuts: int, **options: Any) -> list[kw.Study]:
    places = list(zip((0, *cuts), (*cuts, len(x)), strict=True))
    return [kw.study(network(x.dtype), x[a:b], labels=words[a:b], **options) for a, b in places]


def reloaded(found: kw.Study, folder: Path) -> kw.Study:
    found.save(folder / "part")
    return kw.Study.load(folder / "part")


@pytest.mark.parametrize("normalize", ["state", "ensemble"])
@pytest.mark.parametrize("center", [False, True])
def test_the_sum_is_the_study_of_the_joined_data(normalize: str, center: bool, tmp_path: Path) -> None:
    x, words = data(600)
    options = {"normalize": normalize, "center": center, "compare": True}
    whole = kw.study(network(), x, labels=words, **options)
    a, b, c = parts(x, words, 150, 155, **options)  # the second is smaller than its layers are wide
    before = a.table(), c.table()
    files = (reloaded(a, tmp_path) + reloaded(b, tmp_path)) + reloaded(c, tmp_path)
    for found in (sum([a, b, c]), a + (b + c), reloaded(files, tmp_path)):
        assert isinstance(found, kw.Study)
        assert (found.samples, found.skipped, found.complete) == (600, whole.skipped, True)
        for one, other in zip(found, whole, strict=True):
            assert (one.name, one.kets, one.N, one.aliases) == (
                other.name,
                other.kets,
                other.N,
                other.aliases,
            )
            mine, theirs = one.accumulator.moment, other.accumulator.moment
            for left, right in ((mine.matrix(), theirs.matrix()), (mine.first, theirs.first)):
                torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)
            for name in ("entropy", "effective_rank", "coherence", "top_weight", "dead", "zero", "norm"):
                assert getattr(one, name).plain == pytest.approx(getattr(other, name).plain, rel=1e-10), name
            assert len(one.accumulator.reservoir.keys) == 128
        for name, matrix in whole.compare().matrices.items():
            # The correction comes from kept samples, which are others in a part of its own.
            off = 1e-3 if name == "bures_corrected" else 1e-9
            torch.testing.assert_close(
                found.compare().matrices[name], matrix, rtol=0, atol=off, equal_nan=True
            )
    assert a.table().equals(before[0])  # what was added is as it was
    assert c.table().equals(before[1])


def test_labels_are_matched_by_name_and_no_sample_is_both_fitted_and_held_out() -> None:
    x, words = data(900)
    backwards = words[450:][::-1]
    second = x[450:].flip(0)  # its words are seen in another order
    a, b = (
        kw.study(network(), part, labels=of) for part, of in ((x[:450], words[:450]), (second, backwards))
    )
    found = a + b
    whole = kw.study(network(), torch.cat([x[:450], second]), labels=words[:450] + backwards)
    joined = words[:450] + backwards
    for one, other in zip(found, whole, strict=True):
        known, expected = one.labels, other.labels
        assert known is not None
        assert expected is not None
        assert known.names == expected.names
        held = known.held_out.tolist()
        assert (
            len(held)
            == len(set(held))
            == sum(len(k.held_out) for k in (a[one.name].labels, b[one.name].labels))
        )
        assert min(held) < 450 < max(held)
        if one.accumulator.zeros:
            continue  # a vector of zeros is no ket, and no label counts it
        left = [word for i, word in enumerate(joined) if i not in set(held)]
        assert known.counts == tuple(left.count(name) for name in known.names)
        targets = known.moments.held.targets.tolist()
        assert [known.names[code] for code in targets] == [
            joined[i] for i in known.moments.held.samples.tolist()
        ]
        # Another fair split of the same data: 225 and 225 held out, accuracies near 0.9 with standard errors of 0.02.
        for name in ("linear_balanced", "pgm_balanced", "holevo"):
            assert known.estimates[name].value == pytest.approx(expected.estimates[name].value, abs=0.1), name


def test_each_sample_of_the_joined_data_has_the_same_chance_to_stay() -> None:
    """300 and 100 samples: 96 of the first and 32 of the second stay, by chance 96 ± 4.1."""
    stays = torch.zeros(400)
    values = torch.arange(1.0, 401).reshape(400, 1)
    for seed in range(60):
        one, other = (
            kw.study(nn.Identity(), part, seed=torch.Generator().manual_seed(seed))
            for part in (values[:300], values[300:])
        )
        found = (one + other)["(model)"].accumulator.reservoir
        stays[found.norms[:, 0].long() - 1] += 1
    expected = 60 * 128 / 400
    assert float(((stays - expected) ** 2).sum()) / (expected * (1 - 128 / 400)) == pytest.approx(
        400, rel=0.25
    )
    assert float(stays[:300].sum()) / 60 == pytest.approx(96, abs=4 * 4.04 / 60**0.5)


def test_sketches_add_up_within_the_sum_of_their_bounds() -> None:
    x = torch.randn(2000, 300, generator=torch.Generator().manual_seed(2))
    x *= 0.97 ** torch.arange(300)
    exact = kw.study(nn.Identity(), x)
    a, b = (kw.study(nn.Identity(), part, memory="3MB") for part in x.split(1000))
    found = a + b
    moment, truth = found["(model)"].accumulator.moment, exact["(model)"].accumulator.moment.matrix()
    assert moment.sketch is not None
    assert moment.n == 2000
    difference = torch.linalg.eigvalsh(truth - moment.matrix())
    assert float(difference[0]) > -1e-3
    assert float(difference[-1]) <= moment.slack * (1 + 1e-6)
    assert moment.slack <= float(truth.trace()) / (moment.sketch.rank + 1)
    for name in ("entropy", "top_weight"):
        low, high = found["(model)"].estimates[name].bounds
        assert low - 1e-6 <= exact["(model)"].estimates[name].plain <= high + 1e-6, name


class Branches(nn.Module):
    """A layer that only runs where the first number is positive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = nn.Linear(3, 4).double(), nn.Linear(4, 2).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.always(x)
        if float(x[0, 0]) > 0:
            self.sometimes(y)
        return y


def test_a_layer_that_only_some_data_reach() -> None:
    x = torch.ones(40, 3, dtype=torch.float64)
    signs = [torch.cat([x[:20], -x[:1]]), -x]
    one, other = (kw.study(Branches(), part, layers="all", batch_size=100) for part in signs)
    assert [layer.name for layer in other] == ["always"]
    assert other.skipped["sometimes"] == "it never ran in the forward pass"
    for found in (one + other, other + one):
        assert {layer.name: layer.N for layer in found} == {"always": 61, "sometimes": 21}
        assert "sometimes" not in found.skipped


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"normalize": "ensemble"}, "`normalize` is 'state' and 'ensemble'"),
        ({"center": True}, "`center` is False and True"),
        ({"reading": Reading(calls="pooled")}, "`calls` is 'separate' and 'pooled'"),
        ({"layers": ["0"]}, "different layers: '1' is in one part only; '3' is in one part only"),
        ({"model": nn.Sequential(nn.Linear(6, 8).double(), *network()[1:3], nn.Linear(8, 9).double(), nn.ReLU())},
         "Layer '0' has 20 features in one part and 8 in another"),
        ({"labels": torch.rand(40)}, "must be of one kind, but holds both classes and values"),
        ({"model": nn.Linear(6, 3).double()}, "`model` is 'Sequential' and 'Linear'"),
    ],
)  # fmt: skip
def test_studies_that_do_not_fit_say_what_differs(other: dict[str, Any], words: str) -> None:
    x, names = data(40)
    first = kw.study(network(), x, labels=names)
    options = {"labels": names} | other
    second = kw.study(options.pop("model", network()), x + 1, **options)
    with pytest.raises(ValueError, match=words):
        first + second


def test_what_only_one_part_has_is_told() -> None:
    x, names = data(60)
    with_labels = kw.study(network(), x[:30], labels=names[:30], compare=True)
    without = kw.study(network(), x[30:], labels=False)
    found = with_labels + without
    assert all(layer.labels is None for layer in found)
    assert found.comparison is None
    assert {note.split(":")[0].split(",")[0] for note in found.notes} == {
        "Only a part of the data has labels",
        "Only a part of the data kept what comparing layers takes",
    }
    twice = with_labels + with_labels
    assert any("drew the same random keys" in note for note in twice.notes)
    assert twice.samples == 60
    with pytest.raises(kw.StudyError) as raised:
        kw.study(network(), [x[30:40], torch.ones(3, 2, dtype=torch.float64)], labels=False)
    joined = without + raised.value.partial
    assert not joined.complete
    assert "cannot be multiplied" in str(joined.error)
    with pytest.raises(TypeError):
        with_labels + 1


def test_complex_positions_and_regressions_add_up() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(200, 5, 6, generator=draw, dtype=torch.complex128)
    y = torch.randn(200, 2, generator=draw)
    model = nn.Linear(6, 4, dtype=torch.complex128)
    mask = torch.rand(200, 5, generator=draw) > 0.3
    whole = kw.study(model, x, labels=y, mask=mask)
    first, second = (kw.study(model, x[i], labels=y[i], mask=mask[i]) for i in (slice(80), slice(80, 200)))
    found = first + second
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one.accumulator.moment.matrix(), other.accumulator.moment.matrix())
        assert one.entanglement.value == pytest.approx(other.entanglement.value, abs=0.05)
        assert one.labels is not None
        assert "linear_r2" in one.labels.estimates


def test_the_state_of_a_pass_survives_the_way_between_processes() -> None:
    x, words = data(100)
    header, tensors = pack(parts(x, words, compare=True)[0].gathered)
    again, others = pack(unpack(StudyAccumulator, header, dict(tensors)))
    assert again == header
    assert others.keys() == tensors.keys()
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
