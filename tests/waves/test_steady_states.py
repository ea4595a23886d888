"""Steady states against closed forms, the null space of the dense superoperator, and QuTiP."""

import numpy as np
import pytest
import scipy.linalg

from ketwork import waves
from ketwork.quantum import Density

ONE = waves.qubits(1)


def down(space: waves.Space, site: int, rate: float = 1.0) -> waves.PauliSum:
    """√rate |0⟩⟨1| on a site."""
    return waves.PauliSum(space, {f"X{site}": 0.5 * rate**0.5, f"Y{site}": 0.5j * rate**0.5})


def chain(sites: int) -> tuple[waves.Operator, list[waves.Operator]]:
    operator = waves.ising(waves.chain(sites), 0.7)
    return operator, [down(operator.space, k, 0.3 + 0.2 * k) for k in range(sites)]


def dense(operator: waves.Operator, jumps: list[waves.Operator]) -> np.ndarray:
    h = operator.to_sparse().toarray()
    one = np.eye(len(h))
    result = -1j * (np.kron(h, one) - np.kron(one, h.T))
    for jump in jumps:
        j = jump.to_sparse().toarray()
        lost = j.conj().T @ j
        result += np.kron(j, j.conj()) - (np.kron(lost, one) + np.kron(one, lost.T)) / 2
    return result


@pytest.mark.parametrize(("drive", "rate"), [(1.0, 0.5), (0.1, 3.0), (20.0, 1.0)])
def test_a_driven_atom_has_the_population_of_the_optical_bloch_equations(drive, rate) -> None:
    rho = waves.steady_state(waves.PauliSum(ONE, {"X0": drive / 2}), [down(ONE, 0, rate)])
    assert float(rho.matrix()[1, 1].real) == pytest.approx(drive**2 / (rate**2 + 2 * drive**2), abs=1e-12)
    assert abs(complex(rho.matrix()[0, 1])) == pytest.approx(
        drive * rate / (rate**2 + 2 * drive**2), abs=1e-12
    )


def test_a_dark_state_and_a_bath_of_a_given_temperature() -> None:
    still = waves.PauliSum(ONE, {"Z0": 1.0})
    assert float(waves.steady_state(still, [down(ONE, 0)]).matrix()[0, 0].real) == pytest.approx(1, abs=1e-12)
    up = down(ONE, 0, 0.25).adjoint()
    rho = waves.steady_state(still, [down(ONE, 0), up])  # rates 1 and ¼: populations 4 to 1
    assert np.allclose(rho.matrix().numpy(), np.diag([0.8, 0.2]), atol=1e-12)


def test_a_chain_has_the_null_vector_of_its_superoperator() -> None:
    operator, jumps = chain(3)
    null = scipy.linalg.null_space(dense(operator, jumps), rcond=1e-10)
    assert null.shape[1] == 1
    exact = null.reshape(8, 8) / null.reshape(8, 8).trace()
    rho = waves.steady_state(operator, jumps)
    assert isinstance(rho, Density)
    assert rho.dims == (2, 2, 2)
    assert np.abs(rho.matrix().numpy() - exact).max() < 1e-12


def test_it_is_that_of_qutip() -> None:
    qutip = pytest.importorskip("qutip")
    operator, jumps = chain(4)

    def theirs(o: waves.Operator) -> object:
        return qutip.Qobj(o.to_sparse().toarray(), dims=[[2] * 4] * 2)

    expected = qutip.steadystate(theirs(operator), [theirs(j) for j in jumps]).full()
    rho = waves.steady_state(operator, jumps)
    assert np.abs(rho.matrix().numpy() - expected).max() < 1e-10
    reduced = qutip.Qobj(expected, dims=[[2] * 4] * 2).ptrace([1, 2]).full()
    assert np.abs(rho.reduced([1, 2]).matrix().numpy() - reduced).max() < 1e-10


def test_dephasing_within_a_sector_mixes_it() -> None:
    operator = waves.xxz(waves.chain(4), 0.5, magnetization=0)
    jumps = [waves.PauliSum(operator.space, {f"Z{k}": 1.0}) for k in range(4)]
    rho = waves.steady_state(operator, jumps)
    assert rho.dims == (6,)
    assert np.allclose(rho.matrix().numpy(), np.eye(6) / 6, atol=1e-12)


def test_several_steady_states_are_refused() -> None:
    operator = waves.xxz(waves.chain(4), 0.5, magnetization=None)
    conserving = [waves.PauliSum(operator.space, {f"Z{k}": 1.0}) for k in range(4)]
    for jumps in (conserving, [], [0.0 * conserving[0]]):
        with pytest.raises(ValueError, match="must lead to one steady state"):
            waves.steady_state(operator, jumps)


def test_bad_input() -> None:
    operator, jumps = chain(2)
    with pytest.raises(ValueError, match="`operator` must be Hermitian"):
        waves.steady_state(jumps[0], jumps)
    with pytest.raises(ValueError, match="`jumps` must be operators on the space"):
        waves.steady_state(operator, [down(ONE, 0)])
    with pytest.raises(ValueError, match="must be on at most 256 configurations, but is on 512"):
        waves.steady_state(*chain(9))
