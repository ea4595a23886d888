"""Spectral functions alone: values, derivatives in every block of the spectrum, and Born draws at their edges."""

import pytest
import torch
from torch import Tensor

from ketwork.quantum import Density, random_density, random_unitary, root_fidelity
from ketwork.quantum._born import draw
from ketwork.quantum._pairs import joint_frame
from ketwork.quantum._spectra import EPS, inverse_sqrt, nuclear_norm, psd_log, psd_sqrt, right_svd, shannon

SPECTRA = {
    "spread": [1e-6, 0.02, 0.3, 0.7],
    "close": [0.2, 0.2 + 1e-9, 0.25, 0.35],
    "equal": [0.25, 0.25, 0.25, 0.25],
}


def at(w: list[float], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    u = random_unitary(4, dtype=dtype, seed=torch.Generator().manual_seed(0))
    return (u * torch.tensor(w, dtype=torch.float64)) @ u.mH, u


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", SPECTRA)
def test_divided_differences(name: str, dtype: torch.dtype) -> None:
    """The derivative of f along E in the eigenbasis is E ∘ f[wᵢ, wⱼ]."""
    w = SPECTRA[name]
    h, u = at(w, dtype)
    e = torch.randn(4, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))
    e = e + e.mH
    x = torch.tensor(w, dtype=torch.float64)
    gap = x[:, None] - x[None, :]
    log = torch.where(gap.abs() < 1e-8, 1 / x, (x[:, None] / x).log() / gap)
    sqrt = 1 / (x[:, None].sqrt() + x.sqrt())
    for f, divided in ((lambda m: psd_sqrt(m, EPS), sqrt), (lambda m: psd_log(m, EPS)[0], log)):
        leaf = h.clone().requires_grad_()
        (f(leaf) * e.conj()).sum().real.backward()
        assert leaf.grad is not None
        torch.testing.assert_close(leaf.grad, u @ (divided * (u.mH @ e @ u)) @ u.mH, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_values_and_support(dtype: torch.dtype) -> None:
    h, u = at([0.0, 1e-17, 0.4, 0.6], dtype)
    root, (log, support), inverse = psd_sqrt(h, 4 * EPS), psd_log(h, 4 * EPS), inverse_sqrt(h, 4 * EPS)
    projector = u[:, 2:] @ u[:, 2:].mH
    torch.testing.assert_close(support, projector)
    torch.testing.assert_close(root @ root, h)
    torch.testing.assert_close(inverse @ h @ inverse, projector)
    assert (torch.matrix_exp(log) @ projector - h).abs().max() < 1e-14


def test_zero_probabilities_have_no_gradient() -> None:
    p = torch.tensor([0.0, 0.5, 0.5], dtype=torch.float64, requires_grad=True)
    shannon(p, 1.0).backward()
    assert p.grad is not None
    assert p.grad[0] == 0
    assert p.grad[1:].tolist() == pytest.approx([-1 + 0.6931471805599453] * 2)


def test_nuclear_norm_of_a_rank_one_matrix_moves_along_its_polar_factor() -> None:
    u = random_unitary(3, dtype=torch.float64, seed=torch.Generator().manual_seed(2))
    x = torch.outer(u[0], u[1]).requires_grad_()
    value = nuclear_norm(x)
    value.backward()
    assert value.item() == pytest.approx(1)
    torch.testing.assert_close(x.grad, torch.outer(u[0], u[1]))


def test_draws_skip_what_cannot_happen(monkeypatch: pytest.MonkeyPatch) -> None:
    p = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]) / 2
    outcomes = draw(p, 10_000, torch.Generator().manual_seed(3))
    assert set(outcomes.tolist()) == {1, 3}
    assert draw(torch.ones(3, 1), None, None).tolist() == [0, 0, 0]
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size, dtype=torch.float64))
    assert draw(p, None, None).item() == 1


def test_factors_meet_in_their_joint_span() -> None:
    g = torch.Generator().manual_seed(4)
    rho, sigma = random_density(50, 2, seed=g), random_density(50, 3, seed=g)
    x, y, q = joint_frame(rho, sigma)
    assert q is not None
    assert (x.shape, y.shape, q.shape) == ((5, 5), (5, 5), (50, 5))
    torch.testing.assert_close(q @ x @ q.mH, rho.matrix())
    torch.testing.assert_close(q @ y @ q.mH, sigma.matrix())


def test_roots_of_rounded_entries_are_left_out() -> None:
    """Dense float32 states of rank 16 in d = 128: eigenvalues of rounding noise have roots that add up."""
    g = torch.Generator().manual_seed(5)
    rho, sigma = (random_density(128, 16, (20,), dtype=torch.float32, seed=g) for _ in range(2))
    dense = [Density.from_matrix(s.matrix()) for s in (rho, sigma)]
    assert (root_fidelity(*dense) - root_fidelity(rho, sigma)).abs().max() < 3e-7


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_random_unitaries_are_haar(dtype: torch.dtype) -> None:
    """E |Tr U|² = 1 and E Tr U = 0; an uncorrected QR has a diagonal of one sign and fails both."""
    g = torch.Generator().manual_seed(6)
    traces = torch.stack([torch.trace(random_unitary(3, dtype=dtype, seed=g)) for _ in range(2000)])
    assert traces.mean().abs() < 4 / 2000**0.5
    assert traces.abs().square().mean().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 40), (2, 5, 11), (5, 5), (9, 4), (1, 3)])
@pytest.mark.parametrize("small", [1.0, 1e-7])
def test_right_svd_is_the_one_of_lapack(dtype: torch.dtype, shape: tuple[int, ...], small: float) -> None:
    x = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[..., -1:, :] *= small
    s, vh = right_svd(x)
    torch.testing.assert_close(s, torch.linalg.svdvals(x), rtol=1e-9, atol=0)
    r = s.shape[-1]
    torch.testing.assert_close(vh @ vh.mH, torch.eye(r, dtype=dtype).expand(*shape[:-2], r, r))
    torch.testing.assert_close((vh.mH * s.square()[..., None, :].to(dtype)) @ vh, x.mH @ x)
