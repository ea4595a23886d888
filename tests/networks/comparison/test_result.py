"""The result: frames, table, matches, plot, file."""

import importlib.util
import math
import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw
from ketwork.networks.comparison.result import SCHEMA
from ketwork.records import storage
from ketwork.records.record import pack


@pytest.fixture
def found(chain: nn.Module) -> kw.Comparison:
    return kw.compare(chain, torch.randn(200, 6, generator=torch.Generator().manual_seed(0)))


@pytest.fixture
def crossed(chain: nn.Module) -> kw.Comparison:
    torch.manual_seed(2)
    data = torch.randn(200, 6)
    return kw.compare(chain, data, nn.Sequential(nn.Linear(6, 5), nn.Sigmoid()))


def test_frames_have_the_layers_names(crossed: kw.Comparison) -> None:
    for name in crossed.measures:
        frame = crossed.frame(name)
        assert list(frame.index) == ["0", "1", "2", "3"]
        assert list(frame.columns) == ["0", "1"]
    assert set(crossed.definitions) == set(crossed.measures)


def test_distances_are_angles(found: kw.Comparison) -> None:
    np.testing.assert_allclose(np.cos(found.cka_distance), found.cka.clip(-1, 1), atol=1e-12)
    np.testing.assert_allclose(np.cos(found.bures_distance), found.bures.clip(-1, 1), atol=1e-12)
    angles = found.bures_distance.to_numpy()  # an angle between states obeys the triangle inequality
    assert (angles[:, None, :] <= angles[:, :, None] + angles[None, :, :] + 1e-9).all()


def test_r2_says_which_explains_which(found: kw.Comparison) -> None:
    # Layer 2 is a linear map of layer 1, from 9 features to 4: not the other way round.
    assert found.r2.loc["1", "2"] == pytest.approx(1, abs=1e-5)
    assert found.r2.loc["2", "1"] < 0.99
    np.testing.assert_array_equal(found.r2_reverse, found.r2.T)


def test_table_has_a_row_a_pair(found: kw.Comparison, crossed: kw.Comparison) -> None:
    table = found.table()
    assert len(table) == 6
    row = table[(table.layer == "0") & (table.other == "2")].iloc[0]
    assert (row.d, row.d_other, row.N, row.n_per_d) == (9, 4, 200, 200 / 9)
    for name in found.measures:
        assert row[name] == found.frame(name).loc["0", "2"]
    assert len(crossed.table()) == 8


def test_best_match_is_never_itself(found: kw.Comparison, crossed: kw.Comparison) -> None:
    best = found.best_match()
    assert (best.index != best["match"]).all()
    for name, row in best.iterrows():
        assert row["cka"] == found.cka.loc[name].drop(name).max()
    far = found.best_match("bures_distance")
    near = found.best_match("bures")
    pd.testing.assert_series_equal(far["match"], near["match"])
    pair = crossed.best_match()
    for name, row in pair.iterrows():
        assert row["mutual"] == (crossed.cka[row["match"]].idxmax() == name)
    with pytest.raises(ValueError, match="`measure` must be one of cka,"):
        found.best_match("cca")


def test_a_notebook_shows_the_best_matches(found: kw.Comparison) -> None:
    cells = re.findall(r"<td>(.*?)</td>", found._repr_html_())
    best = found.best_match().reset_index()
    width = len(cells) // len(best)
    assert cells[::width] == best["layer"].tolist()
    assert cells[1::width] == best["match"].tolist()
    assert [float(cell) for cell in cells[2::width]] == pytest.approx(best["cka"].tolist(), abs=6e-4)
    evil = replace(found, settings=found.settings | {"model": "<b>"})
    assert "<b>" not in evil._repr_html_()
    assert "Comparison of &lt;b&gt; with itself" in evil._repr_html_()


def test_repr_reads_well(found: kw.Comparison, crossed: kw.Comparison) -> None:
    assert "Comparison of Sequential with itself: 4 × 4 layers, N = 200 samples" in repr(found)
    assert "with Sequential: 4 × 2 layers" in repr(crossed)
    assert "bures_null" in repr(found)


def test_plot(found: kw.Comparison) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = found.plot()
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, found.cka)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1", "2", "3"]
    _, mine = pyplot.subplots()
    assert found.plot(ax=mine, measure="bures_distance") is mine
    assert mine.images[0].get_clim() == (0, math.pi / 2)
    pyplot.close("all")


def test_plot_without_matplotlib_names_the_extra(
    found: kw.Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert importlib.util.find_spec("matplotlib")
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'ketwork\[plot\]'"):
        found.plot()


def test_a_file_gives_it_back(crossed: kw.Comparison, tmp_path: Path) -> None:
    path = tmp_path / "comparison.safetensors"
    crossed.save(path)
    again = kw.Comparison.load(path)
    assert repr(again) == repr(crossed)
    assert again.settings == crossed.settings
    pd.testing.assert_frame_equal(again.table(), crossed.table())
    assert (again.rows, again.columns, again.skipped) == (crossed.rows, crossed.columns, crossed.skipped)


def test_an_interrupted_comparison_keeps_its_error_in_words(chain: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(kw.ComparisonError) as raised:
        kw.compare(chain, [torch.randn(10, 6), torch.randn(10, 5)])
    raised.value.partial.save(tmp_path / "part")
    again = kw.Comparison.load(tmp_path / "part")
    assert not again.complete
    assert str(again.error).startswith("RuntimeError: ")


def test_files_that_are_something_else(found: kw.Comparison, chain: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    with pytest.raises(FileNotFoundError):
        kw.Comparison.load(path)
    found.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        kw.Comparison.load(path)
    kw.study(chain, torch.randn(20, 6)).save(path)
    with pytest.raises(ValueError, match="something else"):
        kw.Comparison.load(path)
    header, tensors = pack(found)
    storage.write_parts(path, "comparison", 99, tensors, header)
    with pytest.raises(ValueError, match="newer ketwork"):
        kw.Comparison.load(path)
    del header["columns"]
    storage.write_parts(path, "comparison", SCHEMA, tensors, header)
    with pytest.raises(ValueError, match=r"lacks a part of one .*`columns`"):
        kw.Comparison.load(path)
