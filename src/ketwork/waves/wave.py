"""A wave: a network that gives the logarithm of the amplitude of every configuration of a space."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from ketwork._compat import renamed
from ketwork.quantum import Ket, generator_from
from ketwork.waves import jacobians, wave_files
from ketwork.waves.models.network import Network
from ketwork.waves.models.tables import Tables
from ketwork.waves.spaces import ENUMERABLE, Space
from ketwork.waves.trial import tried

_KEY = "ketwork.wave"

KEPT = 2**16
"""Spaces up to this size have their configurations kept as a network reads them."""

HELD = 2**20
"""The most log-derivatives that `torch.func` computes at once."""


class Wave:
    """Ψ = Σᵢ cᵢ|i⟩ with log cᵢ = module(i), not normalised.

    `module` is any `nn.Module` from configurations (batch, sites) to log-amplitudes (batch,), real or
    complex; a real one gives positive amplitudes. It is trained in place. ketwork's own networks are built
    here for the space, their parameters drawn by `seed`.

    Args:
        module: the network. It is tried on a few configurations: its output must have one entry for each, finite (or
            −∞, an amplitude of 0), not all the same, the same when evaluated again and whatever else is in the batch.
        space: the configurations.
        seed: what ketwork's own networks draw their parameters by.
        signs: sites of a sign rule: the amplitude is multiplied by (−1)^(sum of the levels there). `waves.sign_rule(H)`
            gives those of a ground state that is positive but for them; `()` states that none is wanted.
        device: where the module and its configurations are; the module's own place unless given.
        chunk: the most configurations that are evaluated at once.

    The Jacobian is the module's own (`jacobian(x)`), or by `torch.func.vmap`, or where that has no rule for an
    operation (recurrences, branches on the input) by one backward pass a configuration: `wave.method` and the repr
    say which.

    >>> from ketwork.waves import RBM, spins
    >>> wave = Wave(RBM(alpha=1), spins(4))
    >>> wave
    Wave(RBM on 16 configurations of 4 sites, 24 parameters, jacobian: own)
    >>> wave.log_amplitude(wave.space.states()).shape
    torch.Size([16])
    """

    @renamed(generator="seed")
    def __init__(
        self,
        module: nn.Module,
        space: Space,
        *,
        seed: int | torch.Generator = 0,
        signs: Iterable[int] | None = None,
        device: torch.device | str | None = None,
        chunk: int = 2**14,
    ) -> None:
        generator = generator_from(seed)
        if isinstance(module, Network):
            module.build(space, generator)
        self.module, self.space, self.chunk = module.to(device) if device else module, space, chunk
        self.signs = None if signs is None else _checked_sites(signs, space)
        self.named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        if not self.named:
            raise ValueError("Argument `module` must have parameters to train, but has none.")
        first = self.named[0][1]
        self.device = first.device
        self.dtype = torch.empty(0, dtype=first.dtype).abs().dtype  # what configurations are given as: real
        x = space.random(64, seed=generator, dtype=self.dtype).to(self.device)
        self.signed = bool(getattr(module, "signed", False))
        out = tried(self._evaluate, space, x)
        self.complex = out.is_complex() and not self.signed
        self.method = jacobians.chosen_method(module, self.named, x[torch.isfinite(out.real)])
        self.holomorphic = bool(getattr(module, "holomorphic", False)) and all(
            p.is_complex() for _, p in self.named
        )
        self._listed: Tensor | None = None
        self._kept: tuple[list[Tensor], Tensor] | None = None

    def log_amplitude(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites), in chunks and without gradients: (batch,)."""
        log, sign = self.log_and_sign(x)
        if sign is None:
            return log
        turn = (1 - sign) / 2 * torch.pi
        return torch.complex(log.real, log.imag + turn) if log.is_complex() else torch.complex(log, turn)

    def log_and_sign(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Log-amplitudes (batch,), and beside them the sign ±1 where there is a sign rule or the module has signs.

        A module with `signed = True` gives complex log-amplitudes whose imaginary part is 0 or π, and has a method
        `log_and_sign(x)` that gives both as real numbers, which is faster.
        """
        x = x.to(self.device, self.dtype)
        if self.signed:
            with torch.no_grad():
                parts = [self.module.log_and_sign(part) for part in x.split(self.chunk)]  # type: ignore[operator]
            log, sign = (torch.cat(both) for both in zip(*parts, strict=True))
            return log, sign * self.sign(x).to(sign.dtype) if self.signs else sign
        log = self._evaluate(x)
        return log, self.sign(x).to(self.device, log.real.dtype) if self.signs else None

    def sign(self, x: Tensor) -> Tensor:
        """(−1)^(sum of the levels on the sign rule's sites) of configurations (batch, sites)."""
        return 1 - 2 * (self.space.level(x)[:, list(self.signs or ())].sum(1) % 2)

    def amplitudes(self) -> Tensor:
        """The normalised amplitudes on `space.states()` (size,), in double precision; small spaces only.

        They are kept until a parameter or buffer changes.
        """
        now = [*self.module.parameters(), *self.module.buffers()]
        if self._kept is None or not all(map(torch.equal, self._kept[0], now)):
            log, sign = self.log_and_sign(self._states())
            log = log.to("cpu", torch.complex128 if log.is_complex() else torch.float64)
            psi = torch.exp(log - log.real.max())
            psi = psi if sign is None else psi * sign.cpu()
            self._kept = [p.detach().clone() for p in now], psi / psi.norm()
        return self._kept[1]

    def ket(self) -> Ket:
        """The state as a `Ket` on the full tensor product, a subsystem a site; zero outside conserved sums.

        Its amplitudes are in the order of Kronecker products, site 0 slowest. For at most 2²² dimensions.
        """
        space = self.space
        if space.levels**space.sites > ENUMERABLE:
            raise ValueError(
                f"A ket holds at most {ENUMERABLE} amplitudes, but this space needs {space.levels**space.sites}. "
                "Sample instead: `waves.renyi2`, `waves.expect`, `waves.fidelity`."
            )
        psi = self.amplitudes()
        full = torch.zeros(space.levels**space.sites, dtype=psi.dtype)
        full[space.keys] = psi
        return Ket.normalized(full, space.shape)

    @property
    def count(self) -> int:
        """The length of an update: a complex parameter counts once if the wave is holomorphic, else twice."""
        double = [1 if self.holomorphic or not p.is_complex() else 2 for _, p in self.named]
        return sum(p.numel() * times for (_, p), times in zip(self.named, double, strict=True))

    def tables(self) -> Tables | None:
        """What compiled flips read, at the present parameters, where the network has them."""
        on_cpu = isinstance(self.module, Network) and self.device.type == "cpu"
        return self.module.tables() if on_cpu else None  # type: ignore[operator]

    def vector(self) -> Tensor:
        """All trained parameters in one row (count,); complex ones as pairs of reals unless holomorphic."""
        return torch.cat([self._flat(p.detach()) for _, p in self.named])

    def set_vector(self, vector: Tensor) -> None:
        """Puts back what `vector` gave."""
        start = 0
        with torch.no_grad():
            for _, p in self.named:
                width = len(self._flat(p))
                part = vector[start : start + width].to(self.device)
                if p.is_complex() and not self.holomorphic:
                    part = torch.view_as_complex(part.reshape(-1, 2))
                p.copy_(part.reshape(p.shape))
                start += width

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂θ of each configuration (batch, count): complex where log ψ is, by `method`, in chunks of rows."""
        x = x.to(self.device, self.dtype)
        own: Callable[[Tensor], Tensor] | None = getattr(self.module, "jacobian", None)
        if own is not None:
            with torch.no_grad():
                parts = [own(part) for part in x.split(self.chunk)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
        if self.method != "backward":
            rows = max(1, min(len(x), HELD // max(1, self.count)))
            real, imaginary = jacobians.by_vmap(self.module, self.named, x, rows=rows)
        else:
            real, imaginary = jacobians.by_backward(self.module, self.named, x)
        if imaginary is None or self.signed:
            return real
        both = torch.complex(real, imaginary)
        # ∂f/∂z = ∂f/∂Re z for a holomorphic f: every other column says it all.
        return both.unflatten(1, (-1, 2))[..., 0] if self.holomorphic else both

    def save(self, path: str | Path) -> Path:
        """Writes the wave to a file (safetensors), in one step, and returns the path."""
        tensors, about = wave_files.pack_wave(self)
        return wave_files.write(path, _KEY, tensors, {"wave": about})

    @classmethod
    def load(cls, path: str | Path, module: nn.Module | None = None) -> "Wave":
        """The wave that `save` wrote. A module of the user's own is given anew, with any parameters.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is something else or damaged, or the module is not that of the file.
        """
        tensors, about = wave_files.read(path, _KEY, "wave")
        return wave_files.unpack_wave(cls, path, tensors, about.get("wave"), module)

    def __repr__(self) -> str:
        size = f"{self.space.size:,}" if self.space.size < 1e12 else f"{self.space.size:.2g}"
        rule = f", sign rule on {len(self.signs)} sites" if self.signs else ""
        return (
            f"Wave({type(self.module).__name__} on {size} configurations of {self.space.sites} sites, "
            f"{self.count:,} parameters, jacobian: {self.method}{rule})"
        )

    def _states(self) -> Tensor:
        """`space.states()`, kept where they are few: every step of a full sum evaluates them."""
        if self.space.size > KEPT:
            return self.space.states(self.dtype)
        if self._listed is None:
            self._listed = self.space.states(self.dtype)
        return self._listed

    def _evaluate(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self.module(part) for part in x.split(self.chunk)]
            return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _flat(self, p: Tensor) -> Tensor:
        return p.reshape(-1) if self.holomorphic or not p.is_complex() else torch.view_as_real(p).reshape(-1)


def _checked_sites(signs: Iterable[int], space: Space) -> tuple[int, ...]:
    sites = tuple(sorted(int(site) for site in signs))
    if len(set(sites)) != len(sites) or not all(0 <= site < space.sites for site in sites):
        raise ValueError(
            f"Argument `signs` must be distinct sites among 0 … {space.sites - 1}, but is {sites}."
        )
    return sites
