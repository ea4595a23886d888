import sys

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

import ketwork as kw

matplotlib.use("Agg")
from matplotlib import pyplot


@pytest.fixture(scope="module")
def record():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    return kw.study(net, torch.randn(200, 6), compare=True)


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


def test_a_study_is_drawn_with_its_values_and_errors(record):
    ax = kw.plot_study(record, "entropy")
    line, _, (bars,) = ax.containers[0]
    table = record.table()
    assert np.allclose(line.get_ydata(), table["entropy"])
    ends = np.array([segment[:, 1] for segment in bars.get_segments()])
    assert np.allclose(ends[:, 1] - ends[:, 0], 2 * table["entropy_stderr"])
    assert [text.get_text() for text in ax.get_xticklabels()] == table["layer"].tolist()
    assert ax.get_ylabel() == "entropy (bit)"
    exact = kw.plot_study(record, "dead")  # has no error
    assert np.allclose(exact.containers[0][0].get_ydata(), table["dead"])


def test_a_spectrum_is_drawn_into_given_axes(record):
    _, ax = pyplot.subplots()
    assert kw.plot_spectrum(record, ax) is ax
    assert [line.get_label() for line in ax.lines] == [layer.name for layer in record]
    values = record["2"].density.spectrum()
    assert np.allclose(ax.lines[-1].get_ydata(), values)
    left = kw.plot_spectrum(record["2"], discarded=True).lines[0]
    assert np.allclose(left.get_ydata(), 1 - values.cumsum(0)[:-1])
    assert list(left.get_xdata()) == [1, 2]


def test_a_comparison_is_drawn(record):
    ax = kw.plot_comparison(record.compare(), "bures")
    assert np.allclose(ax.images[0].get_array(), record.compare().bures)


def test_what_is_wrong_is_said(record, monkeypatch):
    with pytest.raises(ValueError, match=r"Argument `quantity` must be one of entropy, .*but is 'energy'"):
        kw.plot_study(record, "energy")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'ketwork\[plot\]'"):
        kw.plot_study(record)
