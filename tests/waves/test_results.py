"""How a run shows itself: in a line, a notebook, a picture, a page, a bar."""

import xml.etree.ElementTree

import pytest

from ketwork import waves

ISING = waves.ising(waves.chain(6), 1.0)


@pytest.fixture(scope="module")
def run() -> waves.Run:
    return waves.ground_state(ISING, waves.Wave(waves.RBM(), ISING.space), steps=12, n_samples=None)


def test_a_run_is_told_in_one_line(run) -> None:
    assert repr(run).startswith("<Run E = -7.")
    assert "\n" not in repr(run)
    assert f"exact {waves.exact.ising_chain_energy(6):.8g}" in str(run)
    assert "after 12 steps" in str(run)


def test_energies_are_numbers(run) -> None:
    assert run.energy < -7
    assert f"{run.energy:.2f}" == f"{run.energy.value:.2f}"
    assert float(run.energy / 6) == pytest.approx(run.energy.value / 6)
    assert (run.energy / 6).stderr == pytest.approx(run.energy.stderr / 6)


def test_a_notebook_shows_a_table(run) -> None:
    table = xml.etree.ElementTree.fromstring(run._repr_html_())
    cells = {row[0].text: row[1].text for row in table}
    assert cells["energy"] == str(run.energy)
    assert cells["steps"].startswith("12 in ")


def test_a_plot_has_the_energies_and_the_exact_value(run) -> None:
    ax = run.plot(title="six spins")
    curve, exact = ax.lines
    assert list(curve.get_ydata()) == [step.energy.value for step in run.history]
    assert set(exact.get_ydata()) == {run.exact}
    assert ax.get_title() == "six spins"


def test_a_page_has_the_numbers_and_needs_no_network(run, tmp_path) -> None:
    page = run.report(tmp_path / "run.html").read_text()
    assert "-7." in page
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


def test_a_bar_and_a_function_follow_the_steps(capsys) -> None:
    seen: list[int] = []
    wave = waves.Wave(waves.RBM(), ISING.space)
    waves.ground_state(ISING, wave, steps=4, n_samples=64, progress=lambda step: seen.append(step.index))
    assert seen == [0, 1, 2, 3]
    waves.ground_state(ISING, wave, steps=4, n_samples=64, progress=True, on_step=[lambda s: None] * 2)
    assert "4/4" in capsys.readouterr().err
