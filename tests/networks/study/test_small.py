"""Small files: every number and picture of a study, and of each layer's state the spectrum and the leading states."""

from pathlib import Path

import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.moments import MissingStatesError
from ketwork.networks.study import small
from ketwork.networks.study.result import Study
from ketwork.report.page import _details
from ketwork.report.page_tables import layer_table
from ketwork.report.views import layer_views

X = torch.randn(120, 6, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(120) % 3


def net(d: int = 40) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, d), nn.Tanh(), nn.Linear(d, d))


STUDIES = {
    "labels": lambda: kw.study(net(), (X, Y)),
    "values": lambda: kw.study(net(), (X, torch.randn(120, generator=torch.Generator().manual_seed(1)))),
    "centred activations": lambda: kw.study(net(), (X, Y), normalize="ensemble", center=True),
    "rows": lambda: kw.study(net(300), X[:10, 0]),
    "complex": lambda: kw.study(nn.Linear(16, 9, dtype=torch.complex64), (X.to(torch.complex64), Y)),
    "sketch": lambda: kw.study(nn.Identity(), X[:, 0].repeat(1, 4), memory=100_000),
    "a layer without a state": lambda: kw.study(nn.Sequential(nn.ReLU(), nn.Linear(16, 9)), (-X.abs(), Y)),
}


@pytest.fixture(scope="module", params=STUDIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Study]:
    """A study, and what a file with its 5 leading states says of it."""
    study = STUDIES[request.param]()
    if request.param == "sketch":
        assert any(layer.sketch for layer in study)
    path = tmp_path_factory.mktemp("small") / "study"
    assert study.save(path, states=5) == 5
    return study, Study.load(path)


def test_every_number_is_the_same(both: tuple[Study, Study]) -> None:
    whole, kept = both
    assert kept.table().equals(whole.table())
    assert kept.long().equals(whole.long())
    assert kept.warnings == whole.warnings
    assert str(kept) == str(whole)
    assert (whole.states, kept.states) == (None, 5)
    for a, b in zip(whole, kept, strict=True):
        assert (a.few_samples, a.sketch, a.sketch_error) == (b.few_samples, b.sketch, b.sketch_error)
        if a.labels is not None:
            assert b.labels is not None
            assert repr(b.labels) == repr(a.labels)
            assert b.labels.counts == a.labels.counts
            assert torch.equal(b.labels.held_out, a.labels.held_out)
            assert {k: v.tolist() for k, v in b.labels.confusion.items()} == {
                k: v.tolist() for k, v in a.labels.confusion.items()
            }


def test_the_page_is_the_same(both: tuple[Study, Study]) -> None:
    rows, others = (list(layer_views(study)) for study in both)
    assert [_details(row) for row in others] == [_details(row) for row in rows]
    task = both[0].settings["task"]
    assert str(layer_table(others, task)) == str(layer_table(rows, task))


def test_leading_states_and_spectra_are_those_of_the_state(both: tuple[Study, Study]) -> None:
    whole, kept = both
    for a, b in zip(whole, kept, strict=True):
        if not a.leading.held:
            assert not b.leading.held
            continue
        k = min(5, a.leading.held)
        assert torch.equal(b.leading.values, a.leading.values)
        states, found = a.density.eigenstates(k)[1].amplitudes, b.eigenstates(k).amplitudes
        overlaps = (found.conj() * states).sum(dim=1).abs()
        assert torch.allclose(overlaps, torch.ones(k, dtype=torch.float64), atol=1e-6)


def test_a_small_file_is_saved_again_as_it_is(both: tuple[Study, Study], tmp_path: Path) -> None:
    _, kept = both
    assert kept.save(tmp_path / "again") == 5
    assert kept.save(tmp_path / "fewer", states=2) == 2
    again = Study.load(tmp_path / "again")
    again.save(tmp_path / "once more")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "once more").read_bytes()
    assert Study.load(tmp_path / "fewer").long().equals(kept.long())
    for states in ("full", 6):
        with pytest.raises(
            ValueError, match="Argument `states` must be at most 5, since the study was read from"
        ):
            kept.save(tmp_path / "more", states=states)


def _loaded(study: Study, path: Path, states: int | str | None) -> Study:
    study.save(path, states=states)
    return Study.load(path)


def test_what_needs_more_says_so_and_what_to_do(tmp_path: Path) -> None:
    study = kw.study(net(), (X, Y))
    kept = _loaded(study, tmp_path / "s", 5)
    layer = kept[0]
    assert layer.labels is not None
    everything = {
        "adding it up": lambda: kept + study,
        "a detector": kept.detector,
        "this": lambda: layer.density,
        "the states of labels": lambda: layer.labels.state(1),
    }
    for what, use in everything.items():
        with pytest.raises(MissingStatesError) as raised:
            use()
        assert str(raised.value) == (
            f"This study was saved with 5 leading states of each layer, but {what} needs all of what was gathered. "
            'Save the study with `save(path, states="full")` (--states full), and load that.'
        )
    with pytest.raises(
        MissingStatesError, match=r"5 leading states of each layer, but 6 are needed\. Save the s"
    ):
        layer.eigenstates(6)
    with pytest.raises(MissingStatesError, match="not those of the centred state"):
        layer.eigenstates(2, center=True)
    with pytest.raises(MissingStatesError, match="but 40 are needed"):
        kw.collapse_curve(net(), X, study=kept)


def test_measures_that_a_small_file_lacks_are_missing_and_said_to_be(tmp_path: Path) -> None:
    study = kw.study(net(), X)
    without = [layer.estimates.pop("stable_rank") for layer in study]
    kept = _loaded(study, tmp_path / "small", 5)
    assert kept.table()["stable_rank"].isna().all()
    assert kept.warnings[0].startswith("The file lacks stable rank (–), and what that is computed from.")
    whole = _loaded(study, tmp_path / "full", "full")
    assert whole.table()["stable_rank"].tolist() == without
    assert not any("The file lacks" in warning for warning in whole.warnings)


def test_networks_collapse_onto_the_states_of_a_small_file(tmp_path: Path) -> None:
    study = kw.study(net(), X)
    kept = _loaded(study, tmp_path / "s", 5)
    outputs = []
    for record in (study, kept):
        network = net()
        with torch.no_grad(), kw.collapse(network, {"1": 4}, study=record):
            outputs.append(network(X))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    curves = [kw.collapse_curve(net(), X, study=record, ranks=[2, 5]).table() for record in (study, kept)]
    assert torch.allclose(
        *(torch.tensor(c[["weight", "value"]].to_numpy(dtype=float)) for c in curves),
        atol=1e-6,
        equal_nan=True,
    )


def test_full_files_add_up(tmp_path: Path) -> None:
    parts = [kw.study(net(), (X[:60], Y[:60])), kw.study(net(), (X[60:], Y[60:]))]
    loaded = [_loaded(part, tmp_path / str(i), "full") for i, part in enumerate(parts)]
    assert (loaded[0] + loaded[1]).long().equals((parts[0] + parts[1]).long())


def test_large_studies_are_saved_small_unless_they_are_to_be_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = kw.study(net(200), (X, Y), compare=True)
    assert study.save(tmp_path / "full") is None
    full = (tmp_path / "full").stat().st_size
    monkeypatch.setattr(small, "MOST_BYTES", full // 2)
    with pytest.warns(
        UserWarning, match="saved with the 64 leading states of each layer, since all that was gathered"
    ):
        assert study.save(tmp_path / "small") == 64
    assert study.save(tmp_path / "whole", states="full") is None
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "full").read_bytes()
    assert Study.load(tmp_path / "small").compare().cka.equals(study.compare().cka)
    # 64 states in float32; spectrum, mean and diagonal in float64; 64 Bloch vectors, and what does not grow with d.
    each = 4 * 64 * 200 + 3 * 8 * 200 + 8 * 3 * 64
    assert (tmp_path / "small").stat().st_size < 3 * (each + 20_000)
    # SmolLM2-135M: 152 rows of 576 features and 49,152 logits.
    smollm = 152 * (4 * 64 * 576 + 3 * 8 * 576 + 20_000) + 49_152 * (4 * 64 + 3 * 8) + 20_000
    assert smollm < 50_000_000


@pytest.mark.parametrize("states", [0, -1, True, 2.5, "all", [3]])
def test_what_is_no_number_of_states_is_refused(states: object, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="Argument `states` must be a number of leading states ≥ 1, 'full' for all"
    ):
        kw.study(nn.Linear(16, 3), X).save(tmp_path / "s", states=states)  # type: ignore[arg-type]
    assert not (tmp_path / "s").exists()


def test_a_damaged_small_file_is_refused(tmp_path: Path) -> None:
    from ketwork.records import read_parts, write_parts

    study = kw.study(net(), X)
    study.save(tmp_path / "s", states=3)
    tensors, header = read_parts(tmp_path / "s", "study", 2)
    about = {name: value for name, value in header.items() if name not in ("kind", "schema")}
    place = "gathered.layers.0.moment.leading"
    for name, broken, words in (
        (f"{place}.values", tensors[f"{place}.values"].flip(0), "the largest be first"),
        (f"{place}.states", tensors[f"{place}.states"][:, :7], "must have as many columns"),
        (f"{place}.states", torch.eye(41, 40)[:, :40].repeat(2, 1), "cannot have 82 leading ones"),
    ):
        write_parts(tmp_path / "broken", "study", 2, tensors | {name: broken.contiguous()}, about)
        with pytest.raises(ValueError, match=words):
            Study.load(tmp_path / "broken")
