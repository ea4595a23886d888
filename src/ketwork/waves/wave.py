"""A wave: a network that gives the logarithm of the amplitude of every configuration of a space."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ketwork.quantum import Ket
from ketwork.waves.models.network import Network
from ketwork.waves.models.tables import Tables
from ketwork.waves.spaces import ENUMERABLE, Space


class Wave:
    """Ψ = Σᵢ cᵢ|i⟩ with log cᵢ = module(i), not normalised.

    `module` is any `nn.Module` from configurations (batch, sites) to log-amplitudes (batch,), real or
    complex; a real one gives positive amplitudes. It is trained in place. ketwork's own networks are built
    here for the space, their parameters drawn from `generator` (seed 0 by default). `chunk` bounds how many
    configurations are evaluated at once.

    The module is tried on a few configurations first: its output must have one finite entry for each, not
    all the same, the same when asked again, and the same whatever else is in the batch. All runs on the CPU.

    >>> from ketwork.waves import RBM, spins
    >>> wave = Wave(RBM(alpha=1), spins(4))
    >>> wave.count, wave.log_amplitude(wave.space.states()).shape
    (24, torch.Size([16]))
    """

    def __init__(
        self, module: nn.Module, space: Space, *, generator: torch.Generator | None = None, chunk: int = 2**14
    ) -> None:
        generator = generator or torch.Generator().manual_seed(0)
        if isinstance(module, Network):
            module.build(space, generator)
        self.module, self.space, self.chunk = module, space, chunk
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        if not self.names:
            raise ValueError("Argument `module` must have parameters to train, but has none.")
        first = self._parameters()[0]
        self.dtype = torch.empty(0, dtype=first.dtype).abs().dtype  # what configurations are given as: real
        self.complex = self._try_out(generator).is_complex()
        self.holomorphic = bool(getattr(module, "holomorphic", False)) and all(
            p.is_complex() for p in self._parameters()
        )

    def log_amplitude(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites), in chunks and without gradients: (batch,)."""
        with torch.no_grad():
            x = x.to(self.dtype)
            parts = [self.module(part) for part in x.split(self.chunk)]
            return torch.cat(parts) if len(parts) > 1 else parts[0]

    def amplitudes(self) -> Tensor:
        """The normalised amplitudes on `space.states()` (size,), in double precision; small spaces only."""
        log = self.log_amplitude(self.space.states(self.dtype))
        log = log.to(torch.complex128 if log.is_complex() else torch.float64)
        psi = torch.exp(log - log.real.max())
        return psi / psi.norm()

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
        double = [1 if self.holomorphic or not p.is_complex() else 2 for p in self._parameters()]
        return sum(p.numel() * times for p, times in zip(self._parameters(), double, strict=True))

    def tables(self) -> Tables | None:
        """What compiled flips read, at the present parameters, where the network has them."""
        return self.module.tables() if isinstance(self.module, Network) else None

    def vector(self) -> Tensor:
        """All trained parameters in one row (count,); complex ones as pairs of reals unless holomorphic."""
        return torch.cat([self._flat(p.detach()) for p in self._parameters()])

    def set_vector(self, vector: Tensor) -> None:
        """Puts back what `vector` gave."""
        start = 0
        with torch.no_grad():
            for p in self._parameters():
                width = len(self._flat(p))
                part = vector[start : start + width]
                if p.is_complex() and not self.holomorphic:
                    part = torch.view_as_complex(part.reshape(-1, 2))
                p.copy_(part.reshape(p.shape))
                start += width

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log ψ/∂θ of each configuration (batch, count): complex where log ψ is.

        The module's own `jacobian(x)` where it has one; otherwise `torch.func`, in chunks of rows.
        """
        x = x.to(self.dtype)
        own: Callable[[Tensor], Tensor] | None = getattr(self.module, "jacobian", None)
        if own is not None:
            with torch.no_grad():
                parts = [own(part) for part in x.split(self.chunk)]
                return torch.cat(parts) if len(parts) > 1 else parts[0]
        rows = max(1, min(len(x), self.chunk * 64 // max(1, self.count)))
        given = {name: p.detach() for name, p in self.module.named_parameters() if name in set(self.names)}
        split = {name: self._as_real(p) for name, p in given.items()}

        def part_of(parameters: dict[str, Tensor], one: Tensor, imaginary: bool) -> Tensor:
            whole = {name: self._as_given(value, given[name]) for name, value in parameters.items()}
            out = functional_call(self.module, whole, (one[None],))[0]
            return out.imag if imaginary else out.real if out.is_complex() else out

        def jacobian_of(imaginary: bool) -> Tensor:
            rowwise = vmap(grad(part_of), in_dims=(None, 0, None), chunk_size=rows, randomness="error")
            return torch.cat([g.flatten(1) for g in rowwise(split, x, imaginary).values()], 1)

        if not self.complex:
            return jacobian_of(False)
        both = torch.complex(jacobian_of(False), jacobian_of(True))
        # ∂f/∂z = ∂f/∂Re z for a holomorphic f: every other column says it all.
        return both.unflatten(1, (-1, 2))[..., 0] if self.holomorphic else both

    def _parameters(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    def _flat(self, p: Tensor) -> Tensor:
        return p.reshape(-1) if self.holomorphic or not p.is_complex() else torch.view_as_real(p).reshape(-1)

    @staticmethod
    def _as_real(p: Tensor) -> Tensor:
        return torch.view_as_real(p).clone() if p.is_complex() else p

    @staticmethod
    def _as_given(value: Tensor, like: Tensor) -> Tensor:
        return torch.view_as_complex(value) if like.is_complex() else value

    def _try_out(self, generator: torch.Generator) -> Tensor:
        x = self.space.random(64, generator=generator, dtype=self.dtype)
        try:
            out = self.log_amplitude(x)
        except RuntimeError as error:
            raise ValueError(
                f"Argument `module` must take configurations (batch, {self.space.sites}) of {self.dtype}, "
                f"but raised: {error}"
            ) from error
        if not isinstance(out, Tensor) or out.shape != (len(x),):
            shape = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"Argument `module` must give one log-amplitude a configuration, shape (64,) for 64 of them, "
                f"but gave {shape}. Sum or squeeze its last axis."
            )
        if not (out.is_floating_point() or out.is_complex()):
            raise ValueError(f"Argument `module` must give real or complex floats, but gave {out.dtype}.")
        if not torch.isfinite(torch.view_as_real(out) if out.is_complex() else out).all():
            raise ValueError("Argument `module` must give finite log-amplitudes, but gave NaN or Inf.")
        if not torch.equal(out, self.log_amplitude(x)):
            raise ValueError(
                "Argument `module` must give the same output when asked again, but does not. "
                "Use `.eval()`, or take dropout out."
            )
        if not torch.allclose(self.log_amplitude(x[:3]), out[:3], rtol=1e-3, atol=1e-4):
            raise ValueError(
                "Argument `module` must judge each configuration by itself, but its output changes with the others "
                "in the batch. Use `.eval()`, or take batch normalisation out."
            )
        if self.space.size > 1 and bool((out == out[0]).all()) and len(torch.unique(x, dim=0)) > 1:
            raise ValueError(
                "Argument `module` must tell configurations apart, but gives all the same amplitude. "
                "Its gradient is then zero or symmetric; start its parameters at random."
            )
        return out
