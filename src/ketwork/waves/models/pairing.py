"""Waves of spins in pairs: a determinant of pair amplitudes, which has signs, beside any positive network."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from ketwork.waves.jacobians import by_vmap
from ketwork.waves.lattices import Lattice
from ketwork.waves.models.network import Network
from ketwork.waves.models.pair_tables import PairTables, beside
from ketwork.waves.models.symmetric import check_permutations
from ketwork.waves.spaces import Space

TRIED = 4
"""Configurations on which images are compared."""


class PairProduct(Network):
    """ψ(s) = e^{g(s)} Σ_R φ(R s) with φ(s) = ± det F[up sites, down sites]: singlet pairs times a positive network g.

    One electron a site, in pairs: Anderson's resonating valence bonds (1987, DOI 10.1126/science.235.4793.1196), as a
    BCS state without doubly occupied sites. Its signs are those of a frustrated magnet to a good part before the first
    step. With a restricted Boltzmann machine as g: Nomura, Darmawan, Yamaji & Imada 2017 (DOI
    10.1103/PhysRevB.96.205152).

    F (sites, sites) is symmetric, so that φ has total spin 0, and invariant under translations by `cell` sites:
    F(i, j) = ± f(r_i − r_j, place of i in its cell). f starts from d-wave pairing with a hopping of 1 between
    neighbours; the boundary is periodic along the first side and antiperiodic along the second, where no pair amplitude
    is infinite. The sign is that of the electrons' order. φ has the signs of a Hamiltonian without sign rule: make it
    with `sign_rule=False`, or the wave with `signs=lattice.sublattice()`.

    Args:
        lattice: a periodic square lattice of even sides.
        factor: g, a real network; none unless given. With an `RBM` or `SymmetricRBM` exchanges run compiled.
        permutations: the R (group, sites) to sum over, such as the lattice's `symmetries()`: the identity unless given.
            Those that give the same |φ| for every f count once: of a square's whole group there remain four, or 32
            with a cell of 2. Time grows with their number.
        cell: the side of the cell by which F may be translated: more parameters, and with `permutations` a better wave.
        pairing: the gap Δ of f at first: Δ_k = 2Δ (cos k_x − cos k_y).
        std: the deviation of f's noise at first, its largest entry being 1: what is symmetric would stay so.
        dtype: of F and of its determinants.

    >>> from ketwork.waves import Wave, j1j2, square
    >>> H = j1j2(square(4), j2=0.5, sign_rule=False)
    >>> Wave(PairProduct(square(4)), H.space)
    Wave(PairProduct on 12,870 configurations of 16 sites, 8 parameters, jacobian: own)
    """

    signed = True

    def __init__(
        self,
        lattice: Lattice,
        factor: Network | None = None,
        permutations: np.ndarray | None = None,
        *,
        cell: int = 1,
        pairing: float = 1.0,
        std: float = 0.02,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        self.sides = _sides(lattice)
        if cell < 1 or any(side % cell for side in self.sides):
            raise ValueError(f"Argument `cell` must divide the sides {self.sides}, but is {cell}.")
        self.factor, self.cell, self.pairing, self.std, self.dtype = factor, cell, pairing, std, dtype
        identity = np.arange(lattice.sites)[None]
        self.permutations = torch.from_numpy(
            np.asarray(identity if permutations is None else permutations, dtype=np.int64)
        )

    def make(self, space: Space, generator: torch.Generator) -> None:
        """Makes f (distances and places in the cell), and what says which pair has which entry."""
        sites = self.sides[0] * self.sides[1]
        if space.levels != 2 or space.conserved != ((tuple(range(sites)), sites // 2),):
            raise ValueError(
                f"PairProduct needs as many up as down spins on its {sites} sites: use `spins({sites}, "
                "magnetization=0)`."
            )
        check_permutations(self.permutations, space)
        kind, sign = _tied(self.sides, self.cell)
        start = _paired(self.sides, self.pairing)[sign != 0] * sign[sign != 0]
        f = np.zeros(kind.max() + 1)
        f[kind[sign != 0]] = start
        self.kind, self.sign = torch.from_numpy(kind), torch.from_numpy(sign).to(self.dtype)
        order = 1 - 2 * (
            torch.arange(sites) % 2
        )  # electrons in the order of sites: an up spin passes those before it
        self.order = order.to(self.dtype)
        self.f = nn.Parameter(torch.randn(len(f), generator=generator, dtype=self.dtype))
        self.images = self._distinct(space.random(TRIED, seed=generator, dtype=self.dtype))
        with torch.no_grad():
            self.f.mul_(self.std).add_(torch.as_tensor(f, dtype=self.dtype))
        self.parity = torch.tensor([_parity(image) for image in self.images.tolist()], dtype=self.dtype)
        if self.factor is not None:
            self.factor.build(space, generator)
            if self.factor(self._given(space.random(1, seed=generator))).is_complex():
                raise ValueError(
                    "Argument `factor` must be a real network, but its log-amplitudes are complex."
                )

    def forward(self, x: Tensor) -> Tensor:
        """log ψ of configurations (batch, sites): complex (batch,), its imaginary part 0 or π."""
        log, sign = self.log_and_sign(x)
        return torch.complex(log, (1 - sign) / 2 * math.pi)

    def log_and_sign(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log |ψ| and the sign of ψ (batch,), both real."""
        log, sign, _ = self._summed(self._chosen(x)[0])
        return (log if self.factor is None else log + self.factor(self._given(x))), sign

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ log |ψ|/∂(f, g) of each configuration (batch, parameters): B = A⁻¹ for each image by its share of Σ φ."""
        chosen, place = self._chosen(x)
        _, _, share = self._summed(chosen)
        slopes = share[..., None, None] * torch.linalg.inv(chosen).transpose(-1, -2)
        own = slopes.new_zeros(len(x), len(self.f))
        for kind, sign, slope in zip(*self._entries(), slopes, strict=True):
            own.scatter_add_(1, kind.flatten()[place], slope.flatten(1) * sign.flatten()[place])
        if self.factor is None:
            return own
        inner = getattr(self.factor, "jacobian", None)
        x = self._given(x)
        named = list(self.factor.named_parameters())
        rows = by_vmap(self.factor, named, x, rows=len(x))[0] if inner is None else inner(x)
        return torch.cat([own, rows.to(self.dtype)], 1)

    def tables(self) -> PairTables | None:
        """What the compiled loops read, at the present parameters; None where the factor has no such form."""
        sites = self.space.sites
        if self.factor is None:  # a machine of one hidden unit that does nothing
            none, ones = np.zeros((sites, 1)), np.ones((sites, 1))
            parts = none, np.zeros(1), none, ones, np.ones((sites, 2))
        elif (own := self.factor.tables()) is not None:
            parts = own.weights, own.bias, own.table, own.scale, own.visible
        else:
            return None
        with torch.no_grad():
            pairs = (self._matrices() * self.order[:, None]).to(torch.float64).contiguous()
        return PairTables(*parts, self.features, pairs.numpy(), self.parity.double().numpy())

    def _given(self, x: Tensor) -> Tensor:
        """Configurations as the factor takes them: real numbers of its precision."""
        return x.to(next(self.factor.parameters()).real.dtype) if self.factor is not None else x

    def _entries(self) -> tuple[Tensor, Tensor]:
        """Which f each entry of F has in each image, and with which sign: (images, sites, sites) both."""
        rows, columns = self.images[:, :, None], self.images[:, None]
        return self.kind[rows, columns], self.sign[rows, columns] * self.order[:, None]

    def _matrices(self) -> Tensor:
        """F of each image, its rows with the sign of the electrons' order (images, sites, sites)."""
        kind, sign = self._entries()
        return self.f[kind] * sign

    def _chosen(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A = F[up sites, down sites] (images, batch, n, n), and which entries of F these are (batch, n²)."""
        order = torch.argsort(self.space.level(x), dim=1, stable=True)  # level 0 is up
        up, down = order.chunk(2, 1)
        place = (up[:, :, None] * x.shape[1] + down[:, None]).flatten(1)
        chosen = self._matrices().flatten(1)[:, place].unflatten(2, (up.shape[1], -1))
        return chosen + torch.from_numpy(beside(up.shape[1])).to(chosen), place

    def _summed(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """log |Σ φ|, its sign, and each image's share of it (images, batch)."""
        sign, size = torch.linalg.slogdet(chosen)
        top = size.detach().amax(0)
        terms = sign * self.parity[:, None] * torch.exp(size - top)
        total = terms.sum(0)
        return top + torch.log(total.abs()), torch.sign(total.detach()), terms / total

    def _distinct(self, x: Tensor) -> Tensor:
        """The first of the permutations that give the same |φ| on configurations x, for a random f."""
        self.images, self.parity = torch.arange(x.shape[1])[None], torch.ones(1, dtype=self.dtype)
        moved = self.space.level(x)[:, self.permutations]  # (batch, group, sites)
        with torch.no_grad():
            logs = self._summed(self._chosen(self.space.value(moved.flatten(0, 1), self.dtype))[0])[0]
        each = logs.unflatten(0, (len(x), -1)).T  # (group, batch)
        same = torch.cdist(each, each, p=torch.inf) < 1e-4
        return self.permutations[torch.unique(same.int().argmax(1))]


def _sides(lattice: Lattice) -> tuple[int, int]:
    extent = (lattice.positions.max(0) + 1).round().astype(int)
    if lattice.name != "square" or len(lattice.period) < 2 or any(side % 2 for side in extent):
        raise ValueError(
            f"PairProduct needs a periodic square lattice of even sides, but got a {lattice.name} of {extent.tolist()}."
        )
    return int(extent[0]), int(extent[1])


def _paired(sides: tuple[int, int], pairing: float) -> np.ndarray:
    """F (sites, sites) of d-wave pairing, its largest entry 1: the Fourier transform of Δ_k/(ξ_k + √(ξ_k² + Δ_k²))."""
    width, height = sides
    kx = 2 * np.pi * np.arange(width)[:, None] / width
    ky = 2 * np.pi * (np.arange(height)[None] + 0.5) / height
    hopping, gap = -2 * (np.cos(kx) + np.cos(ky)), 2 * pairing * (np.cos(kx) - np.cos(ky))
    amplitude = gap / (hopping + np.hypot(hopping, gap))
    x, y = np.divmod(np.arange(width * height), height)
    wave = np.exp(1j * (np.multiply.outer(x, kx) + np.multiply.outer(y, ky))).reshape(width * height, -1)
    f = ((wave * amplitude.ravel()) @ wave.conj().T).real
    return f / np.abs(f).max()


def _tied(sides: tuple[int, int], cell: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of f in each entry of F and its sign, 0 where F = Fᵀ and the antiperiodic side leave none."""
    width, height = sides
    x, y = np.divmod(np.arange(width * height), height)
    dx, dy = x[:, None] - x, y[:, None] - y
    place = (x % cell) * cell + y % cell
    here = (place[:, None] * width + dx % width) * height + dy % height
    there = here.T
    sign = np.where(np.where(there < here, dy > 0, dy < 0), -1, 1)
    sign = np.where((here == there) & (dy != 0), 0, sign)
    numbers = np.unique(np.minimum(here, there)[sign != 0], return_inverse=True)[1]
    kind = np.zeros_like(here)
    kind[sign != 0] = numbers.ravel()
    return kind, sign


def _parity(order: list[int]) -> int:
    """The sign of a permutation."""
    cycles, seen = 0, set[int]()
    for start in order:
        cycles += start not in seen
        while start not in seen:
            seen.add(start)
            start = order[start]
    return 1 - 2 * ((len(order) - cycles) % 2)
