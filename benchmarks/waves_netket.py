"""One case of `benchmarks/waves.py` run by NetKet, in its own environment: `python waves_netket.py CASE SEED STEPS`.

Prints one line of JSON: median milliseconds a step, seconds from process start to the first step, relative
error of the final state, peak memory.
"""

import time

BEGAN = time.time()

import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402

import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import netket as nk  # noqa: E402
import numpy as np  # noqa: E402
from netket.models import RBM  # noqa: E402


class Attention(nn.Module):
    """Factored attention by relative position, on a 2 × 2 grid of patches."""

    dim: int
    heads: int
    offsets: np.ndarray

    @nn.compact
    def __call__(self, x):
        """Patches mixed."""
        weight = self.param(
            "weight", nn.initializers.xavier_uniform(), (self.heads, self.offsets.max() + 1), float
        )
        value = nn.Dense(self.dim, param_dtype=float)(x)
        value = value.reshape(*value.shape[:-1], self.heads, -1)
        mixed = jnp.einsum("hpq,bqhd->bphd", weight[:, self.offsets], value)
        return nn.Dense(self.dim, param_dtype=float)(mixed.reshape(*mixed.shape[:-2], -1))


class Vision(nn.Module):
    """The network of `ketwork.waves.VisionTransformer`, layer for layer."""

    dim: int
    heads: int
    depth: int

    @nn.compact
    def __call__(self, x):
        """log ψ."""
        x = jnp.atleast_2d(x)
        grid = x.reshape(-1, 2, 2, 2, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 4, 4)
        h = nn.Dense(self.dim, param_dtype=float)(grid)
        where = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
        apart = (where[None] - where[:, None]) % 2
        offsets = apart[..., 0] * 2 + apart[..., 1]
        for _ in range(self.depth):
            h = h + Attention(self.dim, self.heads, offsets)(nn.LayerNorm(param_dtype=float)(h))
            up = nn.gelu(nn.Dense(2 * self.dim, param_dtype=float)(nn.LayerNorm(param_dtype=float)(h)))
            h = h + nn.Dense(self.dim, param_dtype=float)(up)
        z = nn.LayerNorm(param_dtype=float)(h.sum(1) / 2)
        modulus, phase = (nn.Dense(self.dim, param_dtype=float)(z) for _ in range(2))
        return jnp.sum(nk.nn.activation.log_cosh(modulus + 1j * phase), -1)


def main() -> None:
    case, seed, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    local, full, rate, shift = False, False, 0.05, 0.01
    if case in ("ising20", "ising14"):
        graph = nk.graph.Chain(int(case[-2:]))
        hilbert = nk.hilbert.Spin(0.5, graph.n_nodes)
        operator = nk.operator.IsingJax(hilbert, graph, h=1.0, J=-1.0)
        exact = -2 / np.sin(np.pi / 2 / graph.n_nodes)
        model, local, full = RBM(alpha=1, param_dtype=float), True, case == "ising14"
    elif case == "heisenberg22":
        graph = nk.graph.Chain(22)
        hilbert = nk.hilbert.Spin(0.5, 22, total_sz=0)
        operator = nk.operator.Heisenberg(hilbert, graph).to_jax_operator()
        exact, model = -39.1475226071, RBM(alpha=2, param_dtype=float)
        rate = 0.01  # at 0.05 it diverges in most seeds, silently, and a state of NaN is quick to sample
    elif case in ("vision", "j1j2"):
        graph = nk.graph.Grid([4, 4], max_neighbor_order=2)
        hilbert = nk.hilbert.Spin(0.5, 16, total_sz=0)
        operator = nk.operator.Heisenberg(
            hilbert, graph, J=[1.0, 0.5], sign_rule=[True, False]
        ).to_jax_operator()
        exact = -33.8316934
        model = Vision(36, 4, 1) if case == "vision" else RBM(alpha=2, param_dtype=complex)
    else:
        raise SystemExit(f"no case {case}")
    if full:
        state = nk.vqs.FullSumState(hilbert, model, seed=seed)
    else:
        sampler = (
            nk.sampler.MetropolisLocal(hilbert)
            if local
            else nk.sampler.MetropolisExchange(hilbert, graph=graph)
        )
        state = nk.vqs.MCState(sampler, model, n_samples=1008, seed=seed, sampler_seed=seed)
    if case == "vision":
        driver = nk.driver.VMC_SR(operator, nk.optimizer.Sgd(rate), diag_shift=shift, variational_state=state)
    else:
        driver = nk.driver.VMC(
            operator,
            nk.optimizer.Sgd(rate),
            variational_state=state,
            preconditioner=nk.optimizer.SR(diag_shift=shift),
        )
    driver.run(1, out=None, show_progress=False)
    first, times, cpu = time.time() - BEGAN, [], time.process_time()
    for _ in range(steps - 1):
        began = time.perf_counter()
        driver.run(1, out=None, show_progress=False)
        jax.block_until_ready(state.parameters)
        times.append(time.perf_counter() - began)
    cpu = (time.process_time() - cpu) / max(1, steps - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not full:
        state.n_samples = 64 * 1008
        state.chunk_size = 4096
    energy = float(state.expect(operator).mean.real)
    found = {
        "ms": 1e3 * float(np.median(times)) if times else float("nan"),
        "cpu_ms": 1e3 * cpu,
        "first": first,
        "error": abs(energy - exact) / abs(exact),
        "mb": peak,
        "parameters": state.n_parameters,
    }
    print(json.dumps(found))


main()
