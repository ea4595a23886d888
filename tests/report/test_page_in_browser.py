"""The page as a reader meets it: read, sorted, filtered, clicked, by mouse and by keyboard, light and dark."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from torch import nn

from ketwork.demo import digits
from ketwork.networks.comparison import compare
from ketwork.networks.study import study
from ketwork.quantum import Estimate


@pytest.fixture(scope="module")
def record():
    return study(digits.model(), digits.held_out(), compare=True)


@pytest.fixture(scope="module")
def path(record, tmp_path_factory):
    return record.report(tmp_path_factory.mktemp("page") / "study.html")


def column(page, title):
    """The cells below a header, as they are read, and the header."""
    heads = page.locator("#table thead th")
    place = page.locator("#table thead .sort").all_text_contents().index(title)
    cells = page.locator(f"#table tbody tr:visible > :nth-child({place + 1})").all_text_contents()
    return [cell.strip() for cell in cells], heads.nth(place)


def number(cell):
    return float(cell.split("±")[0].replace(",", ""))


def test_the_table_holds_the_record(record, path, open_page):
    page = open_page(path)
    table = record.table()
    assert column(page, "layer")[0] == table["layer"].tolist()
    for title, name, scale in (
        ("entropy", "entropy", 1),
        ("eff. rank", "effective_rank", 1),
        ("coherence", "coherence", 1),
        ("dead", "dead", 100),
        ("Holevo", "holevo", 1),
        ("linear", "linear_balanced", 100),
        ("vectors", "kets", 1),
    ):
        cells, _ = column(page, title)
        for cell, value in zip(cells, table[name], strict=True):
            places = len(cell.split("±")[0].strip().partition(".")[2])
            assert number(cell) == pytest.approx(scale * value, abs=0.51 * 10**-places)
    ranks = [number(cell) for cell in column(page, "99 % rank")[0]]
    for layer, rank in zip(record, ranks, strict=True):
        kept = layer.density.spectrum().cumsum(0)
        assert kept[int(rank) - 1] >= 0.99 > (kept[int(rank) - 2] if rank > 1 else 0)


def test_sorting_by_mouse_and_by_keyboard(record, path, open_page):
    page = open_page(path)
    _, head = column(page, "eff. rank")
    head.locator(".sort").click()
    values = [number(cell) for cell in column(page, "eff. rank")[0]]
    assert values == sorted(values, reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    assert page.locator("#table th[aria-sort=descending], #table th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Enter")  # the button that was clicked has the focus
    values = [number(cell) for cell in column(page, "eff. rank")[0]]
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    column(page, "entangl.")[1].locator(".sort").click()
    cells, _ = column(page, "entangl.")
    assert cells[-3:] == ["–"] * 3  # what has no value stays below, whichever way
    column(page, "entangl.")[1].locator(".sort").click()
    assert column(page, "entangl.")[0][-3:] == ["–"] * 3
    column(page, "layer")[1].locator(".sort").click()
    assert column(page, "layer")[0] == sorted(layer.name for layer in record)


def test_filtering(path, open_page):
    page = open_page(path)
    page.get_by_label("Filter").fill("RELU")
    assert column(page, "layer")[0] == ["relu1", "relu2", "relu3"]
    assert page.locator("#count").inner_text() == "3 of 8"
    page.get_by_label("Filter").fill("linear")
    assert column(page, "layer")[0] == ["hidden", "readout"]
    page.get_by_label("Filter").fill("nothing like it")
    assert column(page, "layer")[0] == []
    page.get_by_label("Filter").fill("")
    assert page.locator("#count").inner_text() == "8 of 8"


def test_a_layer_opens_with_its_numbers_and_pictures(record, path, open_page):
    page = open_page(path)
    page.locator("#table").get_by_role("button", name="relu3", exact=True).click()
    dialog = page.get_by_role("dialog", name="relu3")
    assert dialog.is_visible()
    layer = record["relu3"]
    shown = dict(text.split("\n")[:2] for text in dialog.locator("#numbers summary").all_inner_texts())
    assert number(shown["entropy"]) == pytest.approx(layer.entropy.value, abs=6e-4)
    assert number(shown["mean norm"]) == pytest.approx(layer.norm.value, abs=layer.norm.stderr)
    assert shown["dead neurons"] == f"{100 * layer.dead.value:.1f} %"
    entropy = dialog.locator("#numbers details").first
    entropy.locator("summary").click()
    assert record.definitions["entropy"] in entropy.inner_text()
    dialog.locator("#spectrum svg").wait_for()
    # The confusion matrix: every count of the record is written in its cell.
    counts = layer.labels.confusion["linear"]
    dialog.locator("#confusion svg text", has_text=str(int(counts.max()))).first.wait_for()
    written = dialog.locator("#confusion .role-mark.mark-text text").all_text_contents()
    assert sorted(map(int, written)) == sorted(int(count) for count in counts.flatten() if count > 0)
    dialog.get_by_role("button", name="pretty good measurement").click()
    counts = layer.labels.confusion["pretty good"]
    page.wait_for_function(
        "n => document.querySelectorAll('#confusion .role-mark.mark-text text').length === n",
        arg=int((counts > 0).sum()),
    )
    # The Bloch picture says how much of the state it shows.
    weight = float(layer.density.spectrum()[:2].sum())
    assert f"holds {weight:.1%} of the layer's variance" in dialog.locator("#ball-caption").inner_text()
    dialog.get_by_role("button", name="Next layer").click()
    assert page.get_by_role("dialog", name="readout").is_visible()
    assert dialog.count() == 0
    assert page.get_by_role("button", name="Next layer").is_disabled()
    page.keyboard.press("Escape")
    assert page.locator("dialog").is_hidden()


def test_dead_neurons_are_listed_by_number(record, path, open_page):
    page = open_page(path)
    page.locator("#table button.layer", has_text="relu3").first.click()
    dead = (record["relu3"].density.matrix().diagonal() == 0).nonzero()[:, 0].tolist()
    assert record["relu3"].dead_neurons == tuple(dead)
    listed = f"Dead neurons, counted from 0: {', '.join(map(str, dead))}."
    assert page.locator("#layer-summary").inner_text().endswith(listed)


def test_with_the_keyboard_alone(path, open_page):
    page = open_page(path)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "theme"
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#table tbody .layer')"):
            break
    opener = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert page.get_by_role("dialog", name=opener).is_visible()
    page.keyboard.press("ArrowRight")
    assert page.locator("#layer-place").inner_text() == "2 of 8"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent") == opener  # the focus is back where it was
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_every_term_has_its_definition_one_click_away(record, path, open_page):
    page = open_page(path)
    page.locator(".answer").get_by_role("button", name="effective rank", exact=True).click()
    shown = page.locator("#def-effective_rank")
    assert shown.is_visible()
    assert record.definitions["effective_rank"] in shown.inner_text()
    page.keyboard.press("Escape")
    assert shown.is_hidden()
    targets = page.locator("[popovertarget]").evaluate_all(
        "all => all.map(b => b.getAttribute('popovertarget'))"
    )
    assert all(page.locator(f"[id='{target}']").count() == 1 for target in targets)


def test_the_answers_are_those_of_the_record(record, path, open_page):
    page = open_page(path)
    said = page.locator(".answers").inner_text()
    most = max(record, key=lambda layer: layer.effective_rank.value)
    assert f"{most.name} uses the most: effective rank {most.effective_rank.value:.3f}" in said
    widest = max(record, key=lambda layer: layer.effective_rank.value / layer.d)
    share = 100 * widest.effective_rank.value / widest.d
    assert f"{widest.name} uses the largest share of its own: {share:.1f} ±" in said
    alike = [
        ("conv1", "relu1"),
        ("relu1", "conv2"),
        ("conv2", "relu2"),
        ("hidden", "relu3"),
        ("relu3", "readout"),
    ]
    falls = {
        after: record[after].effective_rank.value / record[before].effective_rank.value
        for before, after in alike
    }
    assert f"have the same positions, it drops most at {min(falls, key=falls.get)}: from" in said
    best = max(record, key=lambda layer: layer.linear_balanced.value)
    assert f"at {best.name}: {100 * best.linear_balanced.value:.1f} ± " in said
    dead = max(record, key=lambda layer: layer.dead.value)
    assert f"most at {dead.name}: {round(dead.dead.value * dead.d)} of {dead.d}" in said
    cka = record.compare().cka
    names = list(cka.index)
    near = {after: cka.loc[before, after] for before, after in alike}
    closest = max(near, key=near.get)
    assert f"{closest} repeats {names[names.index(closest) - 1]} most closely" in said
    assert f"(1: the same up to rotation and scale, 0: unrelated) {near[closest]:.3f}" in said
    assert (
        f"{sum(value >= 0.95 for value in near.values())} of 5 pairs of layers that follow each other" in said
    )
    held = record["hidden"].labels.held_counts
    counts = ", ".join(f"{label}: {held[label]}" for label in sorted(held))
    assert f"Scores are of {sum(held.values())} held-out samples ({counts})" in said
    coherent = min(record, key=lambda c: c.coherence.value / (c.coherence.value + c.entropy.value))
    assert f"{coherent.name} is aligned most: it has {coherent.coherence.value:.3f}" in said


def test_hovering_and_clicking_a_point(record, path, open_page):
    page = open_page(path)
    chart = page.locator("[data-chart=dimensions]")
    chart.scroll_into_view_if_needed()
    point = chart.locator(".mark-symbol.role-mark path").first
    point.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "conv1" in tip.inner_text()
    assert f"{record['conv1'].effective_rank.value:.3f} ± " in tip.inner_text()
    point.click()
    assert page.get_by_role("dialog", name="conv1").is_visible()


def test_nothing_that_axe_finds_is_wrong_for_those_who_do_not_see_or_point(path, open_page):
    """Names, roles, contrast, size of targets: the WCAG 2.2 rules (A and AA) and good practice, of axe-core."""
    page = open_page(path, bypass_csp=True)  # for axe alone, which is no script of the page's own
    outside = {
        "exclude": [[".chart svg"]]
    }  # pictures have a name and a table; their many letters take axe a minute
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
    assert Axe().run(page, outside, rules).generate_snapshot() == ""
    page.locator("#table").get_by_role("button", name="conv1").click()
    page.locator("#confusion svg").wait_for()
    assert Axe().run(page, outside, rules).generate_snapshot() == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_counts_in_the_darkest_cells_can_be_read(path, open_page, scheme):
    page = open_page(path, scheme=scheme)
    page.locator("#table").get_by_role("button", name="conv1").click()
    page.locator("#confusion svg").wait_for()
    colours = page.evaluate("""() => {
        const style = getComputedStyle(document.body.appendChild(document.createElement("i")));
        return ["first", "ink", "paper"].map((name) => {
            document.body.lastChild.style.color = `var(--${name})`;
            return style.color.match(/[0-9]+/g).map(Number);
        });
    }""")
    deepest = page.locator("#confusion .mark-rect path").evaluate_all(
        "all => Math.max(...all.map(cell => Number(cell.getAttribute('fill-opacity'))))"
    )
    first, ink, paper = ([channel / 255 for channel in colour] for colour in colours)
    cell = [deepest * a + (1 - deepest) * b for a, b in zip(first, paper, strict=True)]
    bright, dark = sorted((luminance(ink), luminance(cell)), reverse=True)
    assert deepest > 0.3
    assert (bright + 0.05) / (dark + 0.05) >= 4.5


def luminance(colour):
    """Relative luminance as WCAG defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_a_long_table_keeps_its_head_and_long_names_their_place(tmp_path, open_page):
    torch.manual_seed(0)
    net = nn.Sequential()
    for i in range(60):
        net.add_module("a_name_that_is_long_and_goes_on_" * 2 * (i == 0) + f"x{i}", nn.Linear(4, 4))
    page = open_page(study(net, torch.randn(60, 4), layers="all").report(tmp_path / "x.html"), 800)
    page.locator(".columns summary").click()
    page.get_by_role("button", name="all", exact=True).click()
    page.locator(".columns summary").click()
    scroll = page.locator(".scroll")
    scroll.evaluate("node => node.scrollTo(300, node.scrollHeight)")
    box, head = (
        scroll.bounding_box(),
        page.locator("#table thead").get_by_text("layer", exact=True).bounding_box(),
    )
    assert box["height"] < 900
    assert box["y"] <= head["y"] < box["y"] + 30
    assert box["x"] <= head["x"] < box["x"] + 30  # the names stay at the side
    name = page.locator("#table tbody .layer").first
    assert name.bounding_box()["width"] < 320
    assert name.locator("..").get_attribute("title") == name.text_content()
    back = name.locator(".back")
    assert back.inner_text() == name.text_content()[-10:]  # names differ at their ends
    assert name.locator(".front").evaluate("node => node.scrollWidth > node.clientWidth")
    assert back.evaluate("node => node.scrollWidth <= node.clientWidth")


def test_as_many_columns_as_fit_until_others_are_chosen(path, open_page):
    page = open_page(path, 390)
    scroll = page.locator(".scroll")
    assert scroll.evaluate("node => node.scrollWidth <= node.clientWidth")
    heads = page.locator("#table thead th:visible .sort").all_inner_texts()
    assert heads[:3] == ["layer", "d", "entropy"]
    assert "kind" not in heads
    page.locator(".columns summary").click()
    box = page.locator("#columns").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert page.get_by_role("checkbox", name="dead", exact=True).bounding_box()["width"] < 20
    page.get_by_role("checkbox", name="dead", exact=True).check()
    assert "dead" in page.locator("#table thead th:visible .sort").all_inner_texts()
    page.get_by_role("button", name="all", exact=True).click()
    assert (
        page.locator("#table thead th:visible").count() == page.locator("#table thead th").count() - 1
    )  # but "#"
    page.get_by_role("button", name="what fits").click()
    assert page.locator("#table thead th:visible .sort").all_inner_texts() == heads


def test_the_table_as_csv_has_the_rows_and_columns_that_are_visible(record, path, open_page):
    page = open_page(path)
    page.get_by_label("Filter").fill("relu")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as CSV").click()
    assert download.value.suggested_filename.endswith("layers.csv")
    table = pd.read_csv(download.value.path())
    assert table["layer"].tolist() == ["relu1", "relu2", "relu3"]
    assert table["entropy (bits)"].tolist() == pytest.approx(
        [record[name].entropy.value for name in table["layer"]]
    )
    errors = [record[name].entropy.stderr for name in table["layer"]]
    assert table["entropy (bits) ±"].tolist() == pytest.approx(errors, abs=6e-4)


def test_a_picture_as_png_has_its_title_and_the_colours_of_the_page(path, open_page):
    page = open_page(path, scheme="dark")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG: Effective rank by depth").click()
    assert download.value.suggested_filename.endswith("Effective-rank-by-depth.png")
    picture = Image.open(download.value.path()).convert("RGB")
    assert picture.width > 800
    assert picture.getpixel((1, 1)) == (20, 23, 26)
    title = picture.crop((0, 0, picture.width, 40))
    assert max(sum(colour) for _, colour in title.getcolors(10**6)) > 600  # light letters on it


def test_commands_are_copied(path, open_page):
    page = open_page(path)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    command = page.locator(".command").first
    command.get_by_role("button", name="Copy").click()
    command.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command.locator("code").inner_text()


def test_on_paper_it_is_light_and_without_buttons(path, open_page):
    page = open_page(path, scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    for button in ("#theme", ".save", ".copy", ".tools"):
        assert page.locator(button).first.is_hidden()
    assert page.locator(".actions").is_visible()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screens_of_two_widths_light_and_dark(path, open_page, width, scheme, tmp_path):
    page = open_page(path, width, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    dark = "rgb(20, 23, 26)"
    assert (page.evaluate(paper) == dark) is (scheme == "dark")
    page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    toggle = page.locator("#theme")
    assert toggle.get_attribute("aria-pressed") == str(scheme == "dark").lower()
    toggle.click()
    assert (page.evaluate(paper) == dark) is (scheme == "light")
    assert toggle.get_attribute("aria-pressed") == str(scheme == "light").lower()
    page.locator("#table").get_by_role("button", name="conv1").click()
    page.locator("#ball svg").wait_for()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= width
    page.screenshot(path=tmp_path / f"{width}-{scheme}-layer.png")
    assert (tmp_path / f"{width}-{scheme}.png").stat().st_size > 30_000


def test_every_layer_is_named_on_a_phone(record, path, open_page):
    texts = open_page(path, 390).locator("[data-chart=dimensions] svg text").all()
    visible = {text.text_content() for text in texts if text.get_attribute("opacity") != "0"}
    assert {layer.name for layer in record} <= visible


def test_the_measures_of_a_comparison(tmp_path, open_page):
    other = digits.architecture().eval()
    found = compare(digits.model(), digits.held_out(), other)
    page = open_page(found.report(tmp_path / "c.html"))
    same = {name: found.cka.loc[name, name] for name in found.cka.index}
    least = min(same, key=same.get)
    said = str(Estimate(same[least], found.stderr("cka").loc[least, least]))
    assert f"{least} differs most: debiased CKA {said}" in page.locator(".answers").inner_text()
    page.get_by_label("Measure").select_option("bures")
    page.get_by_role("button", name="what is this?").click()
    assert found.definitions["bures"] in page.locator("#def-bures").inner_text()
    cells, _ = column(page, "debiased CKA")
    shown = [float(cell.partition(" ± ")[0]) for cell in cells]
    names = found.changes().index
    assert shown == pytest.approx([same[name] for name in names], abs=6e-4)
    errors = [found.stderr("cka").loc[name, name] for name in names]
    assert [float(cell.partition(" ± ")[2]) for cell in cells] == pytest.approx(errors, abs=1.1e-3)
    best = found.best_match()["match"]
    assert column(page, "best match")[0] == [best[name] for name in names]


EVIL = "</script><script>window.bad = 1</script><img src=x onerror='window.bad = 1'>&amp;\"'{{ 7 * 7 }}"


def renamed(layer, **names):
    """The layer with another name, or of another kind."""
    return replace(layer, accumulator=replace(layer.accumulator, info=replace(layer.info, **names)))


def test_names_are_names_and_never_code(tmp_path, open_page):
    torch.manual_seed(0)
    inner = study(
        nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(60, 4), layers=["0", "1"], compare=True
    )
    named = replace(
        inner,
        layers=tuple(renamed(layer, name=EVIL + layer.name, kind=EVIL) for layer in inner.layers),
        skipped={EVIL: EVIL},
        more_notes=(EVIL,),
        settings=inner.settings | {"model": EVIL, "command": EVIL, "source": {"data": {"spec": EVIL}}},
    )
    compared = replace(
        inner.compare(), rows=tuple(replace(layer, name=EVIL) for layer in inner.compare().rows)
    )
    page = open_page(named.report(tmp_path / "evil.html", compared, with_command=True))
    assert page.locator("h1").inner_text() == EVIL
    page.locator("#table .layer").first.click()
    assert page.locator("#layer-name").inner_text() == EVIL + "0"
    page.keyboard.press("Escape")
    page.locator("[data-chart=dimensions] .mark-symbol.role-mark path").first.hover()
    page.locator("#vg-tooltip-element").wait_for(state="visible")
    assert page.evaluate("window.bad") is None
    assert page.locator("img").count() == 0
    assert page.locator("footer code").inner_text() == EVIL
    assert EVIL in page.locator(".actions").inner_text()


def test_the_table_is_there_without_scripts(record, path, open_page):
    page = open_page(path, java_script_enabled=False)
    assert column(page, "layer")[0] == [layer.name for layer in record]
    assert "uses the most" in page.locator(".answers").inner_text()


def test_numbers_that_do_not_exist(tmp_path, open_page):
    class Dies(nn.Module):
        def __init__(self):
            super().__init__()
            self.live, self.dead, self.one = nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1)

        def forward(self, x):
            return self.one(self.dead(-self.live(x).abs() - 1))

    torch.manual_seed(0)
    record = study(Dies(), torch.randn(40, 4), layers=["live", "dead", "one"])
    assert math.isnan(record["dead"].entropy.value)
    page = open_page(record.report(tmp_path / "dead.html"))
    cells, _ = column(page, "entropy")
    assert cells[1] == "–"
    page.locator("#table .layer").nth(1).click()
    assert page.locator("#layer-spectrum").is_hidden()
    assert page.locator("#layer-ball").is_hidden()
    assert page.locator("#layer-confusion").is_hidden()
    page.keyboard.press("Escape")
    assert "uses the most: effective rank" in page.locator(".answers").inner_text()
    assert "6 of 6" in page.locator(".answers").inner_text()
    data = page.locator("#data").text_content()
    assert "NaN" not in data
    assert json.loads(data)["details"][1]["ranks"] == []
