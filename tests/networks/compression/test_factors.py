"""The factors of one layer are the optimum: closed forms, other ways to compute them, and a descent from elsewhere.

And the refit of one layer to what the original puts out: its normal equations, and a ridge that data held out chose.
"""

import pytest
import torch
from torch import Tensor

from ketwork.networks.compression.covariance import Scatter
from ketwork.networks.compression.factors import Factors, Metric, Pair, from_inputs, from_outputs, refit

N, M, K, R = 4000, 6, 9, 3


def problem(seed: int = 0, m: int = M, k: int = K) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, b, correlated inputs with a mean, and a G with all eigenvalues."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    x = normal(N, k) @ normal(k, k) + 3 * normal(k)
    g = normal(m, m)
    return normal(m, k), normal(m), x, g @ g.T


def error(weight: Tensor, bias: Tensor, x: Tensor, cut: tuple[Tensor, Tensor, Tensor], half: Tensor) -> float:
    """E ‖H (y − y′)‖² as measured."""
    first, second, new = cut
    change = x @ weight.T + bias - (x @ first.T @ second.T + new)
    return float((change @ half).square().sum(dim=1).mean())


def both(weight: Tensor, bias: Tensor, x: Tensor, metric: Metric) -> dict[str, Factors]:
    y = x @ weight.T + bias
    return {
        "inputs": from_inputs(weight, bias, Scatter.of(x), metric),
        "outputs": from_outputs(weight, bias, Scatter.of(y), metric),
    }


@pytest.mark.parametrize(("m", "k"), [(6, 9), (9, 6), (1, 4)])
def test_by_inputs_by_outputs_and_by_the_svd_of_w_root_c_are_one(m: int, k: int) -> None:
    weight, bias, x, _ = problem(m=m, k=k)
    rank = min(m, k, R)
    covariance = torch.cov(x.T, correction=0)
    values, vectors = torch.linalg.eigh(covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    u, s, _ = torch.linalg.svd(weight @ root)
    expected = u[:, :rank] @ u[:, :rank].T @ weight
    for factors in both(weight, bias, x, Metric.none(weight)).values():
        first, second, _ = factors.cut(rank)
        torch.testing.assert_close(second @ first, expected, atol=1e-9, rtol=1e-9)
        size = min(m, k)
        torch.testing.assert_close(factors.weights[:size], s[:size].square(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_discarded_weight_is_the_measured_error(weighted: bool) -> None:
    weight, bias, x, fisher = problem()
    metric = Metric.of(fisher) if weighted else Metric.none(weight)
    half = metric.times(torch.eye(M, dtype=torch.float64))
    for factors in both(weight, bias, x, metric).values():
        for rank in (0, 1, R, M):
            measured = error(weight, bias, x, factors.cut(rank), half)
            assert measured == pytest.approx(factors.tail(rank), rel=1e-8, abs=1e-7)
        assert factors.share(0) == 1
        assert factors.share(M) == pytest.approx(0, abs=1e-9)


def test_the_mean_output_is_kept() -> None:
    weight, bias, x, fisher = problem()
    for factors in both(weight, bias, x, Metric.of(fisher)).values():
        first, second, new = factors.cut(R)
        torch.testing.assert_close((x @ first.T @ second.T + new).mean(0), (x @ weight.T + bias).mean(0))
        expected = bias + (weight - second @ first) @ x.mean(0)  # b′ = b + (W − W′) μ
        torch.testing.assert_close(new, expected)


def test_no_descent_finds_better_two_sided_factors() -> None:
    weight, bias, x, fisher = problem()
    metric = Metric.of(fisher)
    centred = x - x.mean(0)
    covariance = centred.T @ centred / N
    best = from_inputs(weight, bias, Scatter.of(x), metric).tail(R)
    found = []
    for seed in range(2):
        draw = torch.Generator().manual_seed(seed)
        parts = [torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((M, R), (R, K))]
        parts = [part.requires_grad_() for part in parts]
        optimiser = torch.optim.LBFGS(
            parts, max_iter=600, line_search_fn="strong_wolfe", tolerance_change=1e-14
        )

        def loss(parts: list[Tensor] = parts) -> Tensor:
            off = metric.times(weight - parts[0] @ parts[1])
            return (off @ covariance * off).sum()

        def step(optimiser: torch.optim.Optimizer = optimiser, loss=loss) -> float:
            optimiser.zero_grad()
            value = loss()
            value.backward()
            return value.item()

        optimiser.step(step)
        found.append(loss().item())
    assert min(found) == pytest.approx(best, rel=1e-3)
    assert min(found) >= best * (1 - 1e-9)


def test_a_metric_is_g_with_a_small_ridge() -> None:
    fisher = problem()[3]
    dense, diagonal = Metric.of(fisher), Metric.of(fisher.diagonal())
    ridge = 1e-3 * fisher.diagonal().mean()
    eye = torch.eye(M, dtype=torch.float64)
    torch.testing.assert_close(dense.times(dense.times(eye)), fisher + ridge * eye)
    torch.testing.assert_close(dense.times(eye), dense.times(eye).T)
    torch.testing.assert_close(diagonal.times(diagonal.times(eye)), torch.diag(fisher.diagonal() + ridge))
    for metric in (dense, diagonal):
        torch.testing.assert_close(metric.over(metric.times(fisher)), fisher)


def test_dead_neurons_constant_pixels_and_dependent_inputs_are_no_special_case() -> None:
    weight, bias, x, fisher = problem()
    x[:, 4:] = x[:, :2] @ torch.ones(2, K - 4, dtype=torch.float64)  # rank 4
    x[:, 0] = 7.0  # a constant pixel
    weight[2] = 0  # a dead neuron
    fisher[1] = fisher[:, 1] = 0  # an output on which nothing depends
    for metric in (Metric.none(weight), Metric.of(fisher)):
        for factors in both(weight, bias, x, metric).values():
            assert all(bool(torch.isfinite(part).all()) for part in factors.cut(M))
            half = metric.times(torch.eye(M, dtype=torch.float64))
            assert error(weight, bias, x, factors.cut(4), half) == pytest.approx(0, abs=1e-9)


def test_constant_inputs_leave_the_mean_alone() -> None:
    weight, bias, _, _ = problem()
    x = torch.full((50, K), 2.0, dtype=torch.float64)
    factors = from_inputs(weight, bias, Scatter.of(x), Metric.none(weight))
    assert (factors.tail(0), factors.share(0)) == (0, 0)
    first, second, new = factors.cut(1)
    torch.testing.assert_close(x[0] @ first.T @ second.T + new, weight @ x[0] + bias)


OUT, IN = 5, 8  # of the layer that is refitted


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(weight: Tensor, x: Tensor, other: Tensor) -> Pair:
    y = x @ weight.T
    return Pair(Scatter.of(other), Scatter.of(y, other).covariance(), y.mean(0))


def drifted(n: int, noise: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W, b, the original's inputs, and those of the smaller network: turned, shifted, noisy."""
    weight, bias, x = normal(OUT, IN, seed=0), normal(OUT, seed=1), normal(n, IN, seed=2)
    turn = torch.eye(IN, dtype=torch.float64) + 0.3 * normal(IN, IN, seed=3)
    return weight, bias, x, x @ turn.T + 2 + noise * normal(n, IN, seed=4)


def test_the_ridge_solution_satisfies_its_normal_equations() -> None:
    weight, bias, x, other = drifted(3000, 0.3)
    total = pair(weight, x, other)
    found = refit(weight, bias, total, pair(weight, x[:2000], other[:2000]), pair(weight, x[2000:], other[2000:]),
                  Metric.none(weight))  # fmt: skip
    d = torch.cov(other.T, correction=0)
    c = torch.cov(torch.cat([x @ weight.T, other], 1).T, correction=0)[:OUT, OUT:]
    # The gradient of E ‖W x − V x̃‖² + δ ‖V − W‖² over V, halved.
    gradient = found.dense @ d - c + found.ridge * (found.dense - weight)
    assert float(gradient.norm()) < 1e-9 * float(c.norm())
    off = (x @ weight.T + bias) - (other @ found.dense.T + found.bias)
    torch.testing.assert_close(off.mean(0), torch.zeros(OUT, dtype=torch.float64), atol=1e-9, rtol=0)


def test_with_much_data_a_turned_input_is_turned_back() -> None:
    weight, bias, x, other = drifted(3000, 0.0)
    part, rest = pair(weight, x[::2], other[::2]), pair(weight, x[1::2], other[1::2])
    found = refit(weight, bias, pair(weight, x, other), part, rest, Metric.none(weight))
    assert found.ridge < 1e-5 * float(torch.linalg.eigvalsh(torch.cov(other.T))[-1])
    torch.testing.assert_close(other @ found.dense.T + found.bias, x @ weight.T + bias, atol=1e-4, rtol=1e-4)


def test_with_little_data_the_ridge_is_the_one_that_does_best_on_the_rest() -> None:
    weight, bias, x, other = drifted(40, 1.0)
    part, rest = pair(weight, x[:30], other[:30]), pair(weight, x[30:], other[30:])
    found = refit(weight, bias, pair(weight, x, other), part, rest, Metric.none(weight))
    largest = float(torch.linalg.eigvalsh(torch.cov(other[:30].T, correction=0))[-1])

    def judged(ridge: float) -> float:
        d, c = part.inputs.covariance(), part.cross
        damped = d + ridge * torch.eye(IN, dtype=torch.float64)
        dense = weight + torch.linalg.solve(damped, c - weight @ d, left=False)
        y, z = x[30:] @ weight.T, other[30:] @ dense.T
        return float(((y - y.mean(0)) - (z - z.mean(0))).square().sum(1).mean())

    ridges = [10.0**power * largest for power in range(-7, 1)]
    assert found.ridge == pytest.approx(min(ridges, key=judged))
    assert judged(found.ridge) < judged(ridges[0])


def test_where_no_correction_helps_the_weight_stays() -> None:
    weight, bias, x, _ = drifted(60, 0.0)
    total = pair(weight, x, x)
    found = refit(weight, bias, total, total, total, Metric.none(weight))
    torch.testing.assert_close(found.dense, weight, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found.bias, bias, atol=1e-12, rtol=1e-12)
    constant = pair(weight, x, torch.ones_like(x))
    assert refit(weight, bias, constant, constant, constant, Metric.none(weight)).ridge == torch.inf


def test_its_target_is_the_mean_of_the_originals_output() -> None:
    weight, bias, x, other = drifted(3000, 0.3)
    total = pair(weight, x, other)
    found = refit(weight, bias, total, total, total, Metric.none(weight))
    torch.testing.assert_close(found.target, (x @ weight.T + bias).mean(0))
