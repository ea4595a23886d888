"""The functions behind `ketwork ground`."""

import io
import xml.etree.ElementTree

import pytest
import torch
from rich.console import Console

from ketwork import waves
from ketwork.cli.ground_run import ground, problem_of
from ketwork.waves.problems import FERMION_MODELS, MODELS, Problem, network, problem

RING = waves.Wave(waves.RBM(), waves.spins(4))


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_problems_by_name_know_their_exact_energies() -> None:
    assert problem("ising", sites=20).exact() == pytest.approx(-25.4909896864, abs=1e-9)
    assert problem("ising", sites=40).exact() == pytest.approx(waves.exact.ising_chain_energy(40))
    assert problem("heisenberg", sites=4, lattice="square").exact() == pytest.approx(-44.9139328, abs=1e-6)
    assert problem("j1j2", sites=4, lattice="square", j2=0.5).exact() == pytest.approx(-33.8316934, abs=1e-6)
    assert problem("molecule").exact() == pytest.approx(-1.13727017, abs=1e-7)
    assert problem("heisenberg", sites=6, lattice="square").exact() is None
    assert problem("heisenberg", sites=5).exact() == pytest.approx(  # an odd ring: magnetization 1
        waves.exact.ground_energy(waves.heisenberg(waves.chain(5), magnetization=1))
    )
    assert problem("ising", sites=5, periodic=False, field=0.3).exact() is not None


@pytest.mark.parametrize("name", MODELS)
def test_every_model_by_name_fits_a_problem_with_signs_and_one_without(name) -> None:
    for of in (problem("ising", sites=6), problem("j1j2", sites=6)):
        wave = waves.Wave(network(name, of), of.operator.space)
        assert wave.complex or not of.signs


def of_free_fermions(of: Problem, interaction: float) -> float:
    """⟨H⟩ of the Slater determinant of the hopping's orbitals by Wick's theorem, with ρ = Σ φφᵀ of each kind."""
    densities = [orbitals @ orbitals.T for orbitals in of.orbitals]
    bonds = of.lattice.bonds()
    hops = sum(-2 * rho[i, j] for rho in densities for i, j in bonds)
    if len(densities) == 2:
        return hops + interaction * (densities[0].diagonal() * densities[1].diagonal()).sum()
    (rho,) = densities
    return hops + interaction * sum(rho[i, i] * rho[j, j] - rho[i, j] ** 2 for i, j in bonds)


@pytest.mark.parametrize("name", FERMION_MODELS)
@pytest.mark.parametrize("system", ["molecule", "fermi-hubbard", "t-v"])
def test_determinants_start_from_fermions_without_interaction(name, system) -> None:
    of = problem(system, sites=6, interaction=3.0)
    module = network(name, of)
    module.std = 0.0
    wave = waves.Wave(module, of.operator.space)
    assert of.suits == "backflow"
    expected = (
        waves.molecule("H 0 0 0; H 0 0 0.7414").hartree_fock
        if system == "molecule"
        else of_free_fermions(of, 3.0)
    )
    energy = waves.expect(of.operator, wave, waves.FullSum().sample(wave, 1))
    assert float(energy) == pytest.approx(expected, abs=1e-7)


def test_a_run_prints_what_it_does_and_writes_its_files(tmp_path) -> None:
    of, out = problem("ising", sites=8), console()
    save, plot = tmp_path / "run.safetensors", tmp_path / "run.svg"
    run = ground(of, network("rbm", of), steps=40, n_samples=256, save=save, plot=plot, console=out)
    text = said(out)
    assert "Ising, field 1, periodic chain of 8 sites: 256 configurations; RBM, 80 parameters" in text
    gap = float(run.energy) + 10.251662
    assert f"E = {run.energy}  exact -10.251662 ({-gap:.2g} below, {-gap / 10.251662:.1e} of it)" in text
    assert "not the ground state yet" not in text
    assert "left" not in text  # no live line in a pipe
    assert save.exists()
    picture = xml.etree.ElementTree.parse(plot).getroot()
    assert picture.tag.endswith("svg")
    again = ground(of, network("rbm", of), steps=40, n_samples=256, resume=save, console=console())
    assert [s.energy for s in again.history] == [s.energy for s in run.history]


def test_a_run_that_ends_too_early_says_that_it_does() -> None:
    of, out = problem("ising", sites=30), console()  # whose exact energy is known by free fermions alone
    run = ground(of, network("rbm", of), steps=10, n_samples=256, console=out)
    errors = (float(run.energy) - of.exact()) / run.energy.stderr
    assert errors > 10
    assert f"its energy is {errors:.0f} standard errors above the exact one" in " ".join(said(out).split())
    small = problem("ising", sites=8)
    run = ground(small, network("rbm", small), steps=3, n_samples=256, console=console())
    assert "not the ground state yet" in run.notes[-1]


def test_the_live_line_on_a_terminal() -> None:
    of, out = problem("ising", sites=6), console(terminal=True)
    ground(of, network("rbm", of), steps=5, n_samples=64, console=out)
    assert "step 5/5  E = " in said(out)
    assert "0:00 left" in said(out)
    assert "V-score" in said(out)


def test_a_users_factory_gives_an_operator_or_a_pair() -> None:
    operator, module = waves.ising(waves.chain(4), 1.0), waves.RBM()
    assert problem_of(operator)[0].operator is operator
    assert problem_of((operator, module)) == (Problem(repr(operator), operator), module)
    with pytest.raises(ValueError, match=r"must return a `waves.Operator`.*but returned int"):
        problem_of(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: problem("hubbard"), "must be one of ising, heisenberg"),
        (lambda: problem("ising", lattice="ring"), "must be one of chain, square"),
        (lambda: network("gpt", problem("ising")), "must be one of rbm, symmetric"),
        (lambda: network("vision", problem("molecule")), "needs a lattice"),
        (lambda: waves.Run(waves.Expectation(0.0), RING, ()).plot(), "at least one step"),
    ],
)
def test_bad_names(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_complex_where_there_are_signs() -> None:
    of = problem("j1j2", sites=6)
    assert waves.Wave(network("rbm", of), of.operator.space).vector().dtype == torch.complex64
