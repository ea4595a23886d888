"""Any module as a wave: what `vmap` has no rule for gets a backward pass a configuration, with the same numbers."""

import pytest
import torch
from torch import nn

from ketwork import waves
from ketwork.waves import jacobians

SITES = 5
SPACE = waves.spins(SITES)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], phase: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell = kind(1, 6, batch_first=True, dtype=torch.float64)
        self.out = nn.Linear(6, 2 if phase else 1, dtype=torch.float64)

    def forward(self, x):
        out = self.out(self.cell(x[..., None])[0].sum(1))
        return torch.complex(out[:, 0], out[:, 1]) if out.shape[1] == 2 else out[:, 0]


class Branching(nn.Module):
    """A branch on the input's values, in Python."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(SITES, 1, dtype=torch.float64)
        self.down = nn.Linear(SITES, 1, dtype=torch.float64)

    def forward(self, x):
        rows = [self.up(row) if bool(row.sum() > 0) else torch.tanh(self.down(row)) for row in x]
        return torch.cat(rows)


class Counting(nn.Module):
    """A buffer that forward writes to."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(SITES, 1, dtype=torch.float64)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.calls += len(x)
        return torch.tanh(self.net(x)[:, 0])


class Mixed(nn.Module):
    """A parameter that the output does not depend on, a scalar, a frozen one, and complex ones."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(torch.randn(SITES, dtype=torch.complex128))
        self.scale = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)

    def forward(self, x):
        return torch.tanh(x.to(self.w.dtype) @ self.w) * self.scale * self.frozen.sum()


MODULES = {
    "GRU": (lambda: Recurrent(nn.GRU, False), "backward"),
    "GRU with phase": (lambda: Recurrent(nn.GRU, True), "backward"),
    "LSTM": (lambda: Recurrent(nn.LSTM, True), "backward"),
    "RNN": (lambda: Recurrent(nn.RNN, False), "backward"),
    "a branch on the input": (Branching, "backward"),
    "a buffer written": (Counting, "backward"),
    "mixed": (Mixed, "vmap"),
    "dense": (
        lambda: nn.Sequential(nn.Linear(SITES, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double(),
        "vmap",
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_the_jacobian_is_that_of_central_differences_whichever_way_it_is_computed(name) -> None:
    make, method = MODULES[name]
    wave = waves.Wave(make(), SPACE)
    assert wave.method == method
    assert f"jacobian: {method}" in repr(wave)
    x = SPACE.random(6, seed=1, dtype=torch.float64)
    found, start = wave.jacobian(x), wave.vector()
    for k in range(wave.count):
        step = torch.zeros_like(start)
        step[k] = 1e-6
        wave.set_vector(start + step)
        up = wave.log_amplitude(x)
        wave.set_vector(start - step)
        torch.testing.assert_close(found[:, k], (up - wave.log_amplitude(x)) / 2e-6, atol=1e-7, rtol=1e-5)
        wave.set_vector(start)
    if method == "vmap":
        one = jacobians.by_backward(wave.module, wave.named, x)
        all_ = jacobians.by_vmap(wave.module, wave.named, x, rows=2)
        torch.testing.assert_close(one, all_)


@pytest.mark.parametrize("name", ["GRU", "GRU with phase", "a branch on the input"])
def test_they_learn(name) -> None:
    H = waves.ising(waves.chain(SITES), 1.0)
    run = waves.ground_state(H, waves.Wave(MODULES[name][0](), SPACE), steps=40, n_samples=None)
    within = 0.2 if name == "a branch on the input" else 2e-3
    assert float(run.energy) == pytest.approx(waves.exact.ground_energy(H), rel=within)
