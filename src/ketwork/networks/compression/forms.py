"""What may become of a layer's matrix: one module as it is, or a chain of thinner ones.

A convolution's kernel of a taps is split into those that the first of two convolutions has and those of the second:

| form | modules | parameters, of m outputs, c channels, a taps, rank r |
|---|---|---|
| `dense` | the layer | m c a |
| `outputs` | k×k → r, then 1×1 | r (c a + m) |
| `inputs` | 1×1 → r, then k×k | r (c + m a) |
| `rows` | k×1 → r, then 1×k | r (c k + m k) |
| `columns` | 1×k → r, then k×1 | r (c k + m k) |
| `both` | 1×1 → q, k×k → r, 1×1 (Tucker-2) | q c + r q a + r m |

A linear layer has one tap, and of these the first two forms, of which the second is the same as `outputs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

SPLITS = ("outputs", "inputs", "rows", "columns")


@dataclass(frozen=True)
class Form:
    """A form by name, with its rank r (None: dense) and, of `both`, the inner rank q.

    `bits` is 8 where weights are integers with a scale for each output channel, 0 where they are as the network has
    them.
    """

    name: str = "dense"
    rank: int | None = None
    inner: int | None = None
    bits: int = 0

    @property
    def dense(self) -> bool:
        """Whether the matrix stays one."""
        return self.rank is None

    def with_bits(self, bits: int) -> Form:
        """The same form with weights of that many bits."""
        return replace(self, bits=bits)

    def described(self, kernel: tuple[int, ...]) -> str:
        """The form in words."""
        if self.dense or not kernel:
            return "" if self.dense else "low rank"
        total = "×".join(map(str, kernel))
        one = "×".join("1" for _ in kernel)
        if self.name == "both":
            return f"{one} → {total} → {one}"
        first, second = taps(self.name, kernel)
        return " → ".join("×".join(map(str, part)) for part in (first, second))


DENSE = Form()


def taps(name: str, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The kernels of the first and of the second convolution of a split."""
    one = tuple(1 for _ in kernel)
    if name == "outputs":
        return kernel, one
    if name == "inputs":
        return one, kernel
    along = (kernel[0], *one[1:]), (1, *kernel[1:])
    return along if name == "rows" else (along[1], along[0])


def possible(kernel: tuple[int, ...]) -> tuple[str, ...]:
    """The splits that a convolution with this kernel has; a linear layer's kernel is ()."""
    if prod(kernel) == 1:
        return ("outputs",)
    if sum(size > 1 for size in kernel) == 2 and len(kernel) == 2:
        return SPLITS
    return ("outputs", "inputs")


@dataclass(frozen=True)
class Sizes:
    """A layer's m outputs, c channels, and kernel; its positions along each axis where it reads and where it puts out.

    `calls` is how often a sample comes to it; of a linear layer all its positions. `head_calls` is that of a head which
    has an embedding's weight: both have one tensor of the words, and a matrix of their own besides where that is cut.
    """

    m: int
    c: int
    kernel: tuple[int, ...]
    reads: tuple[int, ...] = ()
    puts: tuple[int, ...] = ()
    calls: float = 1.0
    looks_up: bool = False
    head_calls: float | None = None

    def parameters(self, form: Form, bias: bool) -> int:
        """The parameters of the layer in that form; all but the dense one have a bias."""
        return self.weights(form) + (self.m if bias or not form.dense else 0)

    def outputs(self, form: Form) -> int:
        """The rows of all weights of the form: of each, a scale is kept where its weight has 8 bits."""
        if self.looks_up:
            own = 0 if form.rank is None else self.m + (form.rank if self.head_calls is not None else 0)
            return self.c + own
        return self.m + (form.rank or 0) + (form.inner or 0)

    def weights(self, form: Form) -> int:
        """The weights of the layer in that form."""
        own = 0 if form.rank is None or self.head_calls is None else form.rank * self.m
        return own + sum(count for count, _ in self._parts(form))

    def macs(self, form: Form) -> float:
        """The multiply-adds of a sample."""
        parts = (
            self._parts(form)[1:] if self.looks_up else self._parts(form)
        )  # columns by number are no products
        own = sum(count * places for count, places in parts)
        head = (
            0.0 if self.head_calls is None else self.head_calls * sum(count for count, _ in self._parts(form))
        )
        return own + head

    def _parts(self, form: Form) -> list[tuple[int, float]]:
        """The weights of each module, and the positions at which it computes."""
        area = prod(self.kernel)
        reads, puts = self.calls * prod(self.reads), self.calls * prod(self.puts)
        if form.rank is None:
            return [(self.m * self.c * area, puts)]
        if form.name == "both":
            assert form.inner is not None
            return [
                (form.inner * self.c, reads),
                (form.rank * form.inner * area, puts),
                (form.rank * self.m, puts),
            ]
        first, second = taps(form.name, self.kernel)
        # The second convolution moves along the axes that it has taps on, the first one along all others.
        between = self.calls * prod(
            own if late > 1 or form.name == "inputs" else out
            for own, out, late in zip(self.reads, self.puts, second, strict=True)
        )
        return [(form.rank * self.c * prod(first), between), (self.m * form.rank * prod(second), puts)]
