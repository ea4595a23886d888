import networkx
import numpy as np
import pytest

from ketwork import waves

FCC = [[0, 1, 1], [1, 0, 1], [1, 1, 0]]
PYROCHLORE = waves.bravais(FCC, (2, 2, 2), basis=[[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
HEXAGONAL = waves.bravais(  # close-packed: a glide and a screw, no symmorphic group
    [[1, 0, 0], [-0.5, 3**0.5 / 2, 0], [0, 0, (8 / 3) ** 0.5]],
    (3, 3, 2),
    basis=[[0, 0, 0], [0.5, 3**0.5 / 6, (2 / 3) ** 0.5]],
)

# (lattice, sites, neighbours, next-nearest neighbours, translations, symmetries)
KNOWN = [
    (waves.chain(8), 8, 2, 2, 8, 16),
    (waves.square(4), 16, 4, 4, 16, 128),
    (waves.square(6), 36, 4, 4, 36, 288),
    (waves.triangular(4), 16, 6, 6, 16, 192),
    (waves.honeycomb(3), 18, 3, 6, 9, 108),
    (waves.kagome(3), 27, 4, 4, 9, 108),
    (waves.cube(3), 27, 6, 12, 27, 27 * 48),
    (waves.bravais(FCC, (3, 3, 3)), 27, 12, 6, 27, 27 * 48),
    (waves.bravais(FCC, (3, 3, 3), basis=[[0, 0, 0], [0.5, 0.5, 0.5]]), 54, 4, 12, 27, 27 * 48),  # diamond
    (PYROCHLORE, 32, 6, 12, 8, 8 * 48),
    (HEXAGONAL, 36, 12, 6, 18, 18 * 24),
    (waves.bravais(np.eye(4), (3, 3, 3, 3)), 81, 8, 24, 81, 81 * 384),
    (waves.bravais([[1.0]], (8,)), 8, 2, 2, 8, 16),
]


@pytest.mark.parametrize(
    ("lattice", "sites", "near", "next_near", "moves", "group"), KNOWN, ids=lambda v: str(v)[:12]
)
def test_coordination_numbers_and_symmetry_groups(lattice, sites, near, next_near, moves, group) -> None:
    assert lattice.sites == sites
    for shell, degree in ((1, near), (2, next_near)):
        assert (np.bincount(np.array(lattice.bonds(shell)).ravel(), minlength=sites) == degree).all()
    assert len(lattice.translations()) == moves
    assert len(lattice.symmetries()) == group


@pytest.mark.parametrize(
    "lattice", [k[0] for k in KNOWN] + [waves.square(3, 5, periodic=False)], ids=lambda v: v.name
)
def test_symmetries_are_a_group_and_keep_bonds(lattice) -> None:
    group = lattice.symmetries()
    members = {tuple(g) for g in group.tolist()}
    assert group[0].tolist() == list(range(lattice.sites))
    some = group[:: max(1, len(group) // 300)]
    assert all(tuple(a[b].tolist()) in members for a in group[:: max(1, len(group) // 12)] for b in some)
    assert len(members) == len(group)
    for shell in (1, 2):
        bonds = set(lattice.bonds(shell))
        for g in group[:: max(1, len(group) // 300)]:
            assert {(min(g[i], g[j]), max(g[i], g[j])) for i, j in bonds} == bonds


def test_open_chains_lose_a_bond_and_their_translations() -> None:
    open_chain = waves.chain(6, periodic=False)
    assert open_chain.bonds() == [(i, i + 1) for i in range(5)]
    assert len(open_chain.translations()) == 1
    assert len(open_chain.symmetries()) == 2


def test_two_colours_where_there_are_two() -> None:
    assert waves.chain(6).sublattice() == {1, 3, 5}
    assert waves.honeycomb(3).sublattice() is not None
    assert waves.chain(5).sublattice() is None
    assert waves.kagome(2).sublattice() is None


def test_any_networkx_graph() -> None:
    lattice = waves.graph(networkx.petersen_graph())
    assert lattice.sites == 10
    assert len(lattice.bonds()) == 15
    assert lattice.symmetries().tolist() == [list(range(10))]
    with pytest.raises(ValueError, match="has bonds, but no distances"):
        lattice.bonds(2)


def test_a_shell_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="must be at most 1 here"):
        waves.chain(3).bonds(2)


@pytest.mark.parametrize(("made", "sites"), [(waves.chain, 10**12), (waves.square, 32), (waves.kagome, 19)])
def test_lattices_too_large_to_be_looked_at_in_pairs_are_refused(made, sites) -> None:
    with pytest.raises(ValueError, match=r"must have at most 1,000 sites, but would have [\d,]+\."):
        made(sites)
    assert waves.square(31).sites == 961


def test_a_box_of_unequal_sides_and_a_slab_keep_what_maps_their_periods() -> None:
    box = waves.cube(3, 4, 5)  # three mirrors and an inversion: D2h
    assert len(box.symmetries()) == 60 * 8
    slab = waves.bravais(np.eye(3), (3, 3, 2), periodic=(True, True, False))
    assert len(slab.translations()) == 9
    assert len(slab.symmetries()) == 9 * 16  # the square's eight, and the mirror between the layers
    assert len(waves.cube(2, periodic=False).symmetries()) == 48


@pytest.mark.parametrize(("lattice", "group"), [(waves.triangular(3, 4), 24), (waves.kagome(2, 3), 12)])
def test_turns_that_do_not_map_the_periods_on_themselves_are_no_symmetries(lattice, group) -> None:
    """A turn by 60° takes the sites of a 3 × 4 rhombus to all of them, once each, but not their distances."""
    found = lattice.symmetries()
    assert len(found) == group
    for g in found:
        assert np.allclose(lattice.distances[np.ix_(g, g)], lattice.distances)


def test_momenta_of_a_cube_are_a_basis() -> None:
    lattice = waves.cube(2, 3, 4)
    waved = np.exp(1j * (waves.momenta(lattice).numpy() @ lattice.positions.T))  # (momenta, sites)
    assert waved.shape == (24, 24)
    assert np.allclose(waved @ waved.conj().T, 24 * np.eye(24))


def test_sectors_of_a_cube_hold_the_energies_of_its_magnet() -> None:
    operator = waves.heisenberg(waves.cube(2), sign_rule=False)
    found = [s.lowest(operator, 1) for s in waves.momentum_sectors(waves.cube(2))]
    assert min(e[0] for e in found if len(e)) == pytest.approx(waves.exact.ground_energy(operator), abs=1e-9)
    assert waves.exact.ground_energy(operator) == pytest.approx(4 * -4.820089, abs=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([[1, 0], [2, 0]], (2, 2)), "`vectors` must be D independent vectors"),
        (([[1, 0, 0], [0, 1, 0]], (2, 2)), "`vectors` must be D independent vectors"),
        ((np.eye(2), (2,)), "`extent` must have one number a vector, 2, but has 1"),
    ],
)
def test_what_is_no_bravais_lattice_is_refused(given, message) -> None:
    with pytest.raises(ValueError, match=message):
        waves.bravais(*given)


def test_bad_bases_and_periods_are_refused() -> None:
    with pytest.raises(ValueError, match="`periodic` must have one value a vector"):
        waves.bravais(np.eye(2), (2, 2), periodic=(True,))
    with pytest.raises(ValueError, match="`basis` must be places of at least one site"):
        waves.bravais(np.eye(2), (2, 2), basis=[[0, 0, 0]])
    with pytest.raises(ValueError, match="`basis` must be distinct places"):
        waves.bravais(np.eye(2), (2, 2), basis=[[0, 0], [1, 0]])
    bare = waves.Lattice("mine", np.zeros((1, 2)), np.zeros((0, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match="need its primitive vectors"):
        bare.symmetries()
