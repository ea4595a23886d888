"""The contract of results: each prints in a few lines, shows itself in a notebook, and saves, loads, reports and
plots by the same calls."""

import html.parser
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
import pytest
import torch
from torch import nn

import ketwork as kw

mpl.use("Agg")
from matplotlib import pyplot

Presented = Any
X = torch.randn(80, 5, generator=torch.Generator().manual_seed(0))
LONG = torch.randn(400, 5, generator=torch.Generator().manual_seed(1))


class Named(nn.Module):
    """A network whose name and layers' names would be tags if they were not escaped."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.add_module("<b>one", nn.Linear(5, 4))
        self.add_module("two&amp;", nn.Linear(4, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = module(x)
        return x


Named.__name__ = "<i>Named"


@dataclass(frozen=True)
class Kind:
    """A kind of result: one of it, its class, and all of its numbers as a frame."""

    name: str
    make: Callable[[], Presented]
    cls: type
    numbers: Callable[[Presented], pd.DataFrame]


def layer_numbers(layer: kw.Layer) -> pd.DataFrame:
    return pd.DataFrame(
        {name: [e.value, e.stderr, *(e.bounds or ())] for name, e in layer.estimates.items()},
    )


def watched() -> kw.MonitorRun:
    network = Named()
    with tempfile.TemporaryDirectory() as folder:
        with kw.Monitor(network, (X, torch.arange(80) % 2), every=1, path=folder) as monitor:
            for step in range(3):
                monitor(step)
                with torch.no_grad():
                    for parameter in network.parameters():
                        parameter.mul_(1.1)
        return kw.MonitorRun.load(folder)


KINDS = [
    Kind("Layer", lambda: kw.study(Named(), (X, torch.arange(80) % 2))[0], kw.Layer, layer_numbers),
    Kind(
        "Study",
        lambda: kw.study(Named(), (X, torch.arange(80) % 2), compare=True),
        kw.Study,
        lambda s: s.table(),
    ),
    Kind("Comparison", lambda: kw.compare(Named(), X), kw.Comparison, lambda c: c.table()),
    Kind(
        "Comparison of two",
        lambda: kw.compare(Named(), X, nn.Linear(5, 6)),
        kw.Comparison,
        lambda c: c.table(),
    ),
    Kind(
        "Detector",
        lambda: kw.study(Named(), (LONG, torch.arange(400) % 2)).detector(),
        kw.Detector,
        lambda d: d.table(),
    ),
    Kind("MonitorRun", lambda: watched(), kw.MonitorRun, lambda r: r.long()),
    Kind("CollapseCurve", lambda: kw.collapse_curve(Named(), X), kw.CollapseCurve, lambda c: c.table()),
]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name, scope="module")
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def result(kind: Kind) -> Presented:
    return kind.make()


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    pyplot.close("all")


class Tags(html.parser.HTMLParser):
    """The tags and the words of a piece of HTML; a tag that is not closed, or closed twice, is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in ("br", "meta", "input", "wbr", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_it_is_of_its_class(kind: Kind, result: Presented) -> None:
    assert type(result) is kind.cls


def test_it_prints_in_a_few_lines(kind: Kind, result: Presented) -> None:
    text = repr(result)
    assert str(result) == text
    assert kind.cls.__name__.lower() in text.lower().replace(" ", "")
    assert 1 <= len(text.splitlines()) <= 10
    assert "tensor(" not in text
    assert "object at 0x" not in text


def test_it_shows_itself_in_a_notebook(result: Presented) -> None:
    shown = Tags(result._repr_html_())
    assert not shown.seen & {"b", "i", "script", "img"}
    assert "<b>one" in shown.words
    assert len(shown.words) < 5000


def test_it_comes_back_from_its_file(kind: Kind, result: Presented, tmp_path: Path) -> None:
    path = tmp_path / "result.safetensors"
    assert result.save(path) is None
    again = kind.cls.load(path)  # type: ignore[attr-defined]
    assert type(again) is kind.cls
    assert repr(again) == repr(result)
    assert again._repr_html_() == result._repr_html_()
    pd.testing.assert_frame_equal(kind.numbers(again), kind.numbers(result), check_exact=True)
    kind.cls.load(str(path)).save(str(tmp_path / "again.safetensors"))  # type: ignore[attr-defined]
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_file_of_another_kind_is_refused(kind: Kind, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    other = KINDS[0] if kind.cls is not kw.Layer else KINDS[1]
    other.make().save(path)
    with pytest.raises(
        ValueError, match=r"Argument `path` must be a saved .* is a safetensors file of something else"
    ):
        kind.cls.load(path)  # type: ignore[attr-defined]
    with pytest.raises(FileNotFoundError, match="there is no file"):
        kind.cls.load(tmp_path / "none.safetensors")  # type: ignore[attr-defined]


def test_its_page_is_one_file_that_needs_no_network(result: Presented, tmp_path: Path) -> None:
    path = result.report(tmp_path / "page.html")
    assert path == tmp_path / "page.html"
    text = path.read_text()
    assert text.startswith("<!doctype html>")
    body = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href)=["'](?!#)[^"']*""", body)
    assert "&lt;b&gt;one" in re.sub(r"<wbr>", "", body)
    assert "<b>one" not in body
    assert result.report(str(tmp_path / "again.html")).read_text() == text
    with pytest.raises(OSError, match="Argument `path` must name a file in a folder that exists"):
        result.report(tmp_path / "no" / "page.html")


def test_it_is_drawn_into_new_axes_or_given_ones(result: Presented) -> None:
    axes = result.plot()
    assert axes.figure is not None
    assert axes.has_data() or axes.images
    _, given = pyplot.subplots()
    assert result.plot(given) is given
    assert result.plot(ax=given) is given


def test_it_is_frozen(result: Presented) -> None:
    with pytest.raises(AttributeError):
        result.anything = 1


def test_it_can_be_an_entry_of_a_set(result: Presented) -> None:
    assert len({result, result}) == 1
    assert result == result  # by identity, since tensors have no truth value


def test_what_presents_nothing_says_so(tmp_path: Path) -> None:
    from ketwork.records import Presented as Base

    class Nothing(Base):
        pass

    with pytest.raises(NotImplementedError, match="There is no page of a Nothing"):
        Nothing().report(tmp_path / "x.html")
    with pytest.raises(NotImplementedError, match="There is no plot of a Nothing"):
        Nothing().plot()

    class Inherited(kw.Study):
        pass

    study = kw.study(nn.Linear(5, 4), X)
    inherited = Inherited(study.gathered, study.layers, study.settings)
    assert inherited.plot().has_data()
