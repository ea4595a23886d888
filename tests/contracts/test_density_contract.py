"""Every representation of a state against one dense numpy reference: pure, factored, dense, batched, real, complex."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ketwork.quantum import (
    Density,
    Ensemble,
    Ket,
    Measurement,
    State,
    bures_angle,
    bures_distance,
    coherence,
    effective_rank,
    entropy,
    fidelity,
    jensen_shannon,
    mutual_information,
    negativity,
    overlap,
    participation_ratio,
    purity,
    random_density,
    random_ket,
    random_unitary,
    relative_entropy,
    root_fidelity,
    trace_distance,
)

DIMS = (2, 3, 2)
D = 12
Array = NDArray[np.complex128]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Kind:
    """One way to hold a state."""

    name: str
    make: Callable[[torch.dtype, int], State]
    full_rank: bool = False


def ket(dtype: torch.dtype, seed: int) -> State:
    return random_ket(D, dims=DIMS, dtype=dtype, seed=seeded(seed))


def pure(dtype: torch.dtype, seed: int) -> State:
    return random_ket(D, dims=DIMS, dtype=dtype, seed=seeded(seed)).density()


def factored(rank: int, batch: tuple[int, ...] = ()) -> Callable[[torch.dtype, int], State]:
    return lambda dtype, seed: random_density(D, rank, batch, dims=DIMS, dtype=dtype, seed=seeded(seed))


def dense(rank: int, batch: tuple[int, ...] = ()) -> Callable[[torch.dtype, int], State]:
    def make(dtype: torch.dtype, seed: int) -> State:
        return Density.from_matrix(
            factored(rank, batch)(dtype, seed).matrix(),
            DIMS,  # type: ignore[union-attr]
        )

    return make


def strided(dtype: torch.dtype, seed: int) -> State:
    a = factored(4)(dtype, seed).data.mT.contiguous().mT  # type: ignore[union-attr]
    assert not a.is_contiguous()
    return Density.from_factor(a, DIMS)


KINDS = [
    Kind("ket", ket),
    Kind("pure", pure),
    Kind("factored", factored(3)),
    Kind("wide factor", factored(9)),
    Kind("strided", strided),
    Kind("dense low rank", dense(3)),
    Kind("dense full rank", dense(D), full_rank=True),
    Kind("batched factor", factored(3, (2, 2))),
    Kind("batched dense", dense(D, (2, 2)), full_rank=True),
    Kind("batched kets", lambda t, s: random_ket(D, (2, 2), dims=DIMS, dtype=t, seed=seeded(s))),
]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.fixture(params=KINDS, ids=lambda k: k.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(params=DTYPES, ids=lambda t: str(t)[6:])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def tolerance(dtype: torch.dtype) -> float:
    return 1e-10 if dtype in (torch.float64, torch.complex128) else 3e-5


def matrices(state: State) -> Array:
    """(n, d, d) in double precision: the batch flattened."""
    rho = state.density() if isinstance(state, Ket) else state
    return rho.matrix().to(torch.complex128).reshape(-1, state.d, state.d).numpy()


def same(value: torch.Tensor, expected: object, state: State, tol: float) -> None:
    """`value` is the expected one, in the real dtype and the batch shape of the state."""
    assert value.dtype == state.dtype.to_real()
    wanted = np.asarray(expected)
    np.testing.assert_allclose(
        value.double().numpy(), wanted.reshape((*state.batch_shape, *wanted.shape[1:])), atol=tol, rtol=tol
    )


def each(function: Callable[..., object], *stacks: Array) -> NDArray[np.float64]:
    return np.array([function(*ms) for ms in zip(*stacks, strict=True)])


# The reference: dense numpy, by definition.
def np_root(m: Array) -> Array:
    w, v = np.linalg.eigh(m)
    w = np.where(w > 1e-7 * w.max(), w, 0) if w.dtype == np.float32 else np.where(w > 1e-13, w, 0)
    return (v * np.sqrt(w)) @ v.conj().T


def np_entropy(m: Array) -> float:
    w = np.linalg.eigvalsh(m)
    w = w[w > 1e-13]
    return float(-(w * np.log2(w)).sum())


def np_shannon(p: NDArray[np.float64]) -> float:
    p = p[p > 1e-15]
    return float(-(p * np.log2(p)).sum())


def np_root_fidelity(a: Array, b: Array) -> float:
    return float(np.linalg.svd(np_root(a) @ np_root(b), compute_uv=False).sum())


def np_trace_distance(a: Array, b: Array) -> float:
    return float(np.abs(np.linalg.eigvalsh(a - b)).sum() / 2)


def np_relative_entropy(a: Array, b: Array) -> float:
    w, v = np.linalg.eigh(b)
    weights = np.einsum("ij,ik,kj->j", v.conj(), a, v).real
    if weights[w < 1e-6 * w.max()].sum() > 1e-5:
        return np.inf
    keep = w >= 1e-6 * w.max()
    return float(-np_entropy(a) - (weights[keep] * np.log2(w[keep])).sum())


def np_reduced(m: Array, keep: tuple[int, ...]) -> Array:
    rows, columns = "abc", "ABC"
    inner = rows + "".join(columns[i] if i in keep else rows[i] for i in range(3))
    kept = "".join(rows[i] for i in keep)
    out = np.einsum(f"{inner}->{kept}{kept.upper()}", m.reshape(*DIMS, *DIMS))
    n = int(np.prod([DIMS[i] for i in keep]))
    return out.reshape(n, n)


def np_negativity(m: Array, part: int) -> float:
    t = np.swapaxes(m.reshape(*DIMS, *DIMS), part, part + 3).reshape(D, D)
    return float((np.abs(np.linalg.eigvalsh(t)).sum() - 1) / 2)


def test_entropies_and_ranks(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 1), tolerance(dtype)
    m = matrices(state)
    s = each(np_entropy, m)
    p = each(lambda x: np.trace(x @ x).real, m)
    same(entropy(state), s, state, tol)
    same(entropy(state, np.e), s * np.log(2), state, tol)
    same(purity(state), p, state, tol)
    same(effective_rank(state), 2**s, state, 10 * tol)
    same(participation_ratio(state), 1 / p, state, 10 * tol)


def test_spectrum_and_eigenstates(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 2), tolerance(dtype)
    rho = state.density() if isinstance(state, Ket) else state
    m = matrices(state)
    same(rho.spectrum(), each(lambda x: np.linalg.eigvalsh(x)[::-1], m), state, tol)
    assert (rho.spectrum() >= 0).all()
    for k in (1, D):
        values, kets = rho.eigenstates(k)
        assert kets.dims == DIMS
        v = kets.amplitudes.to(torch.complex128).reshape(-1, k, D).numpy()
        w = values.double().reshape(-1, k).numpy()
        np.testing.assert_allclose(np.einsum("nij,nkj->nki", m, v), w[..., None] * v, atol=tol)
        np.testing.assert_allclose(v.conj() @ v.swapaxes(-1, -2), np.eye(k)[None].repeat(len(v), 0), atol=tol)
    np.testing.assert_allclose(np.einsum("nk,nki,nkj->nij", w, v, v.conj()), m, atol=tol)


def test_basis_dependent_measures(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 3), tolerance(dtype)
    m = matrices(state)
    basis = random_unitary(D, dtype=dtype, seed=seeded(0))
    b = basis.to(torch.complex128).numpy()
    p = np.einsum("ia,nij,ja->na", b.conj(), m, b).real
    same(state.probabilities(basis), p, state, tol)
    same(state.probabilities(), np.einsum("nii->ni", m).real, state, tol)
    s = each(np_entropy, m)
    same(coherence(state, basis), each(np_shannon, p) - s, state, tol)
    same(coherence(state), each(lambda x: np_shannon(np.diag(x).real), m) - s, state, tol)
    op = (basis + basis.mH) / 2
    same(state.expect(op), np.einsum("nij,ji->n", m, (b + b.conj().T) / 2).real, state, tol)


@pytest.mark.parametrize("keep", [(0,), (1,), (0, 2), (1, 2), (0, 1, 2)])
def test_reduced(kind: Kind, dtype: torch.dtype, keep: tuple[int, ...]) -> None:
    state, tol = kind.make(dtype, 4), tolerance(dtype)
    part = state.reduced(keep[::-1])
    assert part.dims == tuple(DIMS[i] for i in keep)
    wanted = each(lambda x: np_reduced(x, keep), matrices(state))
    np.testing.assert_allclose(matrices(part), wanted, atol=tol)


def test_correlations(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 5), tolerance(dtype)
    m = matrices(state)

    def information(x: Array, a: tuple[int, ...], b: tuple[int, ...]) -> float:
        both = tuple(sorted(a + b))
        return np_entropy(np_reduced(x, a)) + np_entropy(np_reduced(x, b)) - np_entropy(np_reduced(x, both))

    same(mutual_information(state, 1), each(lambda x: information(x, (0,), (1, 2)), m), state, 5 * tol)
    same(mutual_information(state, [2], [0]), each(lambda x: information(x, (2,), (0,)), m), state, 5 * tol)
    same(negativity(state, [1]), each(lambda x: np_negativity(x, 1), m), state, 5 * tol)


@pytest.mark.parametrize("other", KINDS, ids=lambda k: k.name)
def test_pairs(kind: Kind, other: Kind, dtype: torch.dtype) -> None:
    rho, sigma, tol = kind.make(dtype, 6), other.make(dtype, 7), tolerance(dtype)
    shape = torch.broadcast_shapes(rho.batch_shape, sigma.batch_shape)
    a, b = np.broadcast_arrays(matrices(rho), matrices(sigma))
    whole = rho if rho.batch_shape == shape else sigma
    # A dense float32 state has lost its eigenvalues below 1.2e−7 of the largest, whose roots are 3e−4.
    root_tol = 1e-7 if tol < 1e-6 else 2e-3
    f = each(np_root_fidelity, a, b)
    same(overlap(rho, sigma), each(lambda x, y: np.trace(x @ y).real, a, b), whole, tol)
    same(root_fidelity(rho, sigma), f, whole, root_tol)
    same(fidelity(rho, sigma), f**2, whole, root_tol)
    same(bures_distance(rho, sigma), np.sqrt(2 - 2 * f), whole, root_tol)
    same(bures_angle(rho, sigma), np.arccos(f), whole, root_tol)
    same(trace_distance(rho, sigma), each(np_trace_distance, a, b), whole, tol)
    middle = each(lambda x, y: np_entropy((x + y) / 2) - (np_entropy(x) + np_entropy(y)) / 2, a, b)
    same(jensen_shannon(rho, sigma), middle, whole, tol)
    divergence = each(np_relative_entropy, a, b)
    assert np.isfinite(divergence).all() == other.full_rank
    same(relative_entropy(rho, sigma), divergence, whole, 100 * tol)


def test_equal_states(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 8), tolerance(dtype)
    n = len(matrices(state))
    same(trace_distance(state, state), np.zeros(n), state, tol)
    same(root_fidelity(state, state), np.ones(n), state, 10 * tol)
    same(relative_entropy(state, state), np.zeros(n), state, 20 * tol)
    same(jensen_shannon(state, state), np.zeros(n), state, tol)
    assert (bures_distance(state, state) < (2e-7 if tol < 1e-6 else 3e-2)).all()


def test_composition(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 9), tolerance(dtype)
    rho = state.density() if isinstance(state, Ket) else state
    other = random_density(2, 1, dtype=dtype, seed=seeded(1))
    product = rho.tensor(other)
    assert product.dims == (*DIMS, 2)
    n = other.matrix().to(torch.complex128).numpy()
    np.testing.assert_allclose(matrices(product), each(lambda x: np.kron(x, n), matrices(state)), atol=tol)
    mixed = rho.mix(random_ket(D, dtype=dtype, seed=seeded(2)), 0.25)
    psi = random_ket(D, dtype=dtype, seed=seeded(2)).amplitudes.to(torch.complex128).numpy()
    wanted = 0.75 * matrices(state) + 0.25 * np.outer(psi, psi.conj())
    np.testing.assert_allclose(matrices(mixed), wanted, atol=tol)


def test_effects_on_every_kind(kind: Kind, dtype: torch.dtype) -> None:
    state, tol = kind.make(dtype, 10), tolerance(dtype)
    p = torch.ones(3, dtype=dtype.to_real()) / 3
    few, many = (
        Ensemble(p, random_density(D, r, (3,), dtype=dtype, seed=seeded(3))) for r in (2, 5)
    )  # 6 rows leave a kernel of the average state, 15 overlap
    for measurement in (
        Measurement.projective(
            random_unitary(D, dtype=dtype, seed=seeded(4)), [[0, 5, 7], [1], range(8, 12), [2, 3, 4, 6]]
        ),
        Measurement.pretty_good(few),
        Measurement.pretty_good(many),
    ):
        effects = measurement.effects().to(torch.complex128).numpy()
        np.testing.assert_allclose(effects.sum(0), np.eye(D), atol=10 * tol)
        p = np.einsum("aij,nji->na", effects, matrices(state)).real
        same(measurement.probabilities(state), p, state, 10 * tol)
        for outcome in range(len(measurement)):
            root = np_root(effects[outcome])
            after = each(lambda x, r=root: r @ x @ r / np.trace(r @ x @ r).real, matrices(state))
            post = measurement.collapse(state, outcome)
            assert isinstance(post, Ket) == isinstance(state, Ket)
            np.testing.assert_allclose(matrices(post), after, atol=1e-6 if tol < 1e-6 else 5e-3)


def test_batch_is_its_members(dtype: torch.dtype) -> None:
    for make in (factored(3, (2, 2)), dense(D, (2, 2))):
        state = make(dtype, 11)
        one = state[1, 0]
        assert one.batch_shape == ()
        torch.testing.assert_close(entropy(one), entropy(state)[1, 0])
        assert state[..., 0].batch_shape == (2,)
        assert state[0, :, None].batch_shape == (2, 1)
