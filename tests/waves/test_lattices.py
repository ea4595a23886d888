import networkx
import numpy as np
import pytest

from ketwork import waves

# (lattice, sites, neighbours, next-nearest neighbours, translations, symmetries)
KNOWN = [
    (waves.chain(8), 8, 2, 2, 8, 16),
    (waves.square(4), 16, 4, 4, 16, 128),
    (waves.square(6), 36, 4, 4, 36, 288),
    (waves.triangular(4), 16, 6, 6, 16, 192),
    (waves.honeycomb(3), 18, 3, 6, 9, 108),
    (waves.kagome(3), 27, 4, 4, 9, 108),
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
    assert all(tuple(a[b]) in members for a in group[:: max(1, len(group) // 12)] for b in group)
    for shell in (1, 2):
        bonds = set(lattice.bonds(shell))
        for g in group:
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
