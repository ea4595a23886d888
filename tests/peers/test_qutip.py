"""Parity with QuTiP on random states, for every measure that both have. Its conventions are named beside each."""

import math
from collections.abc import Callable

import pytest
import torch

from ketwork.quantum import (
    Density,
    Ket,
    Measurement,
    State,
    bures_angle,
    bures_distance,
    entropy,
    fidelity,
    from_qutip,
    mutual_information,
    negativity,
    overlap,
    purity,
    random_density,
    random_ket,
    relative_entropy,
    root_fidelity,
    to_qutip,
    trace_distance,
)

qutip = pytest.importorskip("qutip")
DIMS = (2, 3)
MAKE: dict[str, Callable[[torch.dtype, torch.Generator], State]] = {
    "ket": lambda t, g: random_ket(6, dims=DIMS, dtype=t, seed=g),
    "factored": lambda t, g: random_density(6, 2, dims=DIMS, dtype=t, seed=g),
    "dense": lambda t, g: random_density(6, 6, dims=DIMS, dtype=t, seed=g),
}


@pytest.fixture(params=[torch.float64, torch.complex128], ids=["real", "complex"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MAKE)
def test_one_state(name: str, seed: int, dtype: torch.dtype) -> None:
    state = MAKE[name](dtype, torch.Generator().manual_seed(seed))
    obj = to_qutip(state)
    rho = qutip.ket2dm(obj) if obj.isket else obj
    assert obj.dims[0] == [2, 3]
    assert entropy(state, math.e).item() == pytest.approx(qutip.entropy_vn(rho), abs=1e-10)  # nats by default
    assert entropy(state).item() == pytest.approx(qutip.entropy_vn(rho, base=2), abs=1e-10)
    assert purity(state).item() == pytest.approx(rho.purity(), abs=1e-12)
    # QuTiP takes the root of X†X, which leaves 1e−8.
    assert negativity(state, [1]).item() == pytest.approx(qutip.negativity(rho, 1), abs=1e-7)
    information = qutip.entropy_mutual(rho, 0, 1, base=2)
    assert mutual_information(state, 1).item() == pytest.approx(information, abs=1e-10)
    for i in (0, 1):
        part = state.reduced([i])
        torch.testing.assert_close(part.matrix().to(torch.complex128), torch.from_numpy(obj.ptrace(i).full()))
    op = qutip.rand_herm(6, seed=seed)
    op.dims = rho.dims
    assert state.expect(torch.from_numpy(op.full())).item() == pytest.approx(qutip.expect(op, obj), abs=1e-12)
    if isinstance(state, Ket):
        s = qutip.entropy_vn(obj.ptrace(0), base=2)
        assert state.entanglement_entropy(1).item() == pytest.approx(s, abs=1e-10)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("b", MAKE)
@pytest.mark.parametrize("a", MAKE)
def test_two_states(a: str, b: str, seed: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(seed)
    rho, sigma = MAKE[a](dtype, g), MAKE[b](dtype, g)
    x, y = to_qutip(rho), to_qutip(sigma)
    # QuTiP takes square roots of d×d products, which leaves 1e−8 in low-rank states.
    root = qutip.fidelity(x, y)  # the root, for kets and density operators alike
    assert root_fidelity(rho, sigma).item() == pytest.approx(root, abs=1e-7)
    assert fidelity(rho, sigma).item() == pytest.approx(root**2, abs=1e-7)
    assert bures_angle(rho, sigma).item() == pytest.approx(qutip.bures_angle(x, y), abs=1e-7)
    assert bures_distance(rho, sigma).item() == pytest.approx(qutip.bures_dist(x, y), abs=1e-7)
    assert trace_distance(rho, sigma).item() == pytest.approx(qutip.tracedist(x, y), abs=1e-7)
    x, y = (qutip.ket2dm(o) if o.isket else o for o in (x, y))
    assert overlap(rho, sigma).item() == pytest.approx((x * y).tr().real, abs=1e-12)
    divergence = qutip.entropy_relative(x, y)  # nats by default
    assert relative_entropy(rho, sigma, math.e).item() == pytest.approx(divergence, abs=1e-9)
    assert math.isinf(divergence) == (b != "dense")
    hs = ((x - y) * (x - y)).tr().real  # QuTiP's hilbert_dist squared
    ours = purity(rho) + purity(sigma) - 2 * overlap(rho, sigma)
    assert ours.item() == pytest.approx(hs, abs=1e-12)


def test_amplitude_and_tensor_order() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = random_ket(6, dims=DIMS, seed=g), random_ket(6, dims=DIMS, seed=g)
    assert a.overlap(b).item() == pytest.approx(to_qutip(a).overlap(to_qutip(b)))
    both = qutip.tensor(to_qutip(a), to_qutip(b))
    assert (to_qutip(a.tensor(b)) - both).norm() < 1e-12


def test_bloch_vectors() -> None:
    ket = random_ket(2, seed=torch.Generator().manual_seed(1))
    paulis = (qutip.sigmax(), qutip.sigmay(), qutip.sigmaz())
    assert ket.bloch().tolist() == pytest.approx([qutip.expect(p, to_qutip(ket)) for p in paulis])


@pytest.mark.parametrize("name", MAKE)
def test_collapse_is_qutips(name: str) -> None:
    state = MAKE[name](torch.complex128, torch.Generator().manual_seed(2))
    measurement = Measurement.projective(torch.eye(6, dtype=torch.complex128), [[0, 1, 5], [2, 3, 4]])
    projectors = [qutip.Qobj(e.numpy(), dims=[[2, 3], [2, 3]]) for e in measurement.effects()]
    collapsed, p = qutip.measurement.measurement_statistics_povm(to_qutip(state), projectors)
    assert measurement.probabilities(state).tolist() == pytest.approx(p, abs=1e-12)
    for k in (0, 1):
        assert (to_qutip(measurement.collapse(state, k)) - collapsed[k]).norm() < 1e-10


@pytest.mark.parametrize("name", MAKE)
def test_round_trip(name: str) -> None:
    state = MAKE[name](torch.complex128, torch.Generator().manual_seed(3))
    back = from_qutip(to_qutip(state))
    assert type(back) is type(state)
    assert back.dims == DIMS
    assert trace_distance(state, back).item() == pytest.approx(0, abs=1e-12)
    if isinstance(state, Ket):
        bra = from_qutip(to_qutip(state).dag())
        assert isinstance(bra, Ket)
        torch.testing.assert_close(bra.amplitudes, state.amplitudes)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="must be one state, but has batch shape"):
        to_qutip(random_ket(2, (3,)))
    with pytest.raises(TypeError, match="must be a QuTiP ket, bra or density operator, but is int"):
        from_qutip(3)
    with pytest.raises(ValueError, match="trace 1, but has trace 2"):
        from_qutip(qutip.qeye(2))


def test_absent_qutip_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "qutip", None)
    with pytest.raises(ImportError, match=r"pip install ketwork\[qutip\]"):
        to_qutip(Density.maximally_mixed(2))
