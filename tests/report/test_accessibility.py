"""Every kind of page by axe-core: the WCAG 2.2 rules, A and AA, and good practice, light and dark, on two widths."""

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from torch import nn

import ketwork as kw
from ketwork.demo import digits

RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
OUTSIDE = {"exclude": [[".chart svg"]]}
"""Pictures have a name and a table; their many letters take axe a minute."""


def transformer(folder):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    labels = torch.arange(60) % 2
    study = kw.study(net, (torch.randn(60, 5, 8), labels), layers="all", compare=True)
    return study.report(folder / "page.html", beside=study)


def comparison(folder):
    return kw.compare(digits.model(), digits.held_out(), digits.architecture().eval()).report(
        folder / "page.html"
    )


def curve(folder):
    curve = kw.collapse_curve(digits.model(), digits.held_out(), layers=["hidden", "conv2"], ranks=[4, 16])
    return curve.report(folder / "page.html")


def compressed(folder):
    return kw.compress(digits.model(), digits.held_out(), keep=0.3).report(folder / "page.html")


def monitor(folder):
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 5))
    monitor = kw.Monitor(net, torch.randn(64, 6), every=10, path=folder / "run", action=lambda alarm: None)
    for step in (0, 10, 20):
        if step == 20:
            nn.init.zeros_(net[0].weight)
            nn.init.constant_(net[0].bias, -1.0)
        monitor(step)
    monitor.close()
    assert monitor.run.alarms
    return monitor.run.report(folder / "page.html", monitor.run)


def detection(folder):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(400, 4)
    detector = kw.study(net, (x, torch.arange(400) % 2)).detector()
    scores = detector.score(net, x[:60] - 2, layers=True)
    return detector.report(folder / "page.html", scores=scores)


@pytest.fixture(scope="module", params=[transformer, comparison, curve, compressed, monitor, detection])
def path(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing(path, open_page, scheme, width):
    page = open_page(
        path, width, scheme, bypass_csp=True
    )  # for axe alone, which is no script of the page's own
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page, OUTSIDE, RULES)
    assert found.generate_snapshot() == "", found.generate_report()
