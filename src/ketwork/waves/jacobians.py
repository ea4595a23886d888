"""∂ log ψ/∂θ of any module, a row a configuration: all rows at once by `torch.func`, or one backward pass a row.

`vmap` needs a module whose operations all have a batching rule and that does not branch on its input. Recurrences
(`nn.GRU`, `nn.RNN`), data-dependent branches and buffers written in `forward` have none; for these each configuration
gets a backward pass of its own.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

Method = Literal["own", "vmap", "backward"]
Named = list[tuple[str, nn.Parameter]]


def chosen_method(module: nn.Module, named: Named, x: Tensor) -> Method:
    """`"own"` for a module with a `jacobian(x)`, else `"vmap"` if it works on x and agrees, else `"backward"`."""
    if getattr(module, "jacobian", None) is not None:
        return "own"
    rows = by_backward(module, named, x[:2])
    try:
        batched = by_vmap(module, named, x[:2], rows=2)
    except (RuntimeError, NotImplementedError, TypeError):  # what torch.func raises where it has no rule
        return "backward"
    pairs = zip(rows, batched, strict=True)
    close = all(a is None or torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs if b is not None)
    return "vmap" if close else "backward"


def by_vmap(module: nn.Module, named: Named, x: Tensor, *, rows: int) -> tuple[Tensor, Tensor | None]:
    """The derivatives of Re log ψ and, where it is complex, of Im log ψ: (batch, count) each, `rows` rows at a time.

    Complex parameters count as pairs (real, imaginary).
    """
    given = {name: p.detach() for name, p in named}
    split = {name: _as_real(p) for name, p in given.items()}

    def part_of(parameters: dict[str, Tensor], one: Tensor, imaginary: bool) -> Tensor:
        every = {name: _as_given(value, given[name]) for name, value in parameters.items()}
        out = functional_call(module, every, (one[None],))[0]
        return out.imag if imaginary else out.real if out.is_complex() else out

    def rows_of(imaginary: bool) -> Tensor:
        rowwise = vmap(grad(part_of), in_dims=(None, 0, None), chunk_size=rows, randomness="error")
        return torch.cat([g.reshape(len(x), -1) for g in rowwise(split, x, imaginary).values()], 1)

    with torch.no_grad():
        is_complex = module(x[:1]).is_complex()
    return rows_of(False), rows_of(True) if is_complex else None


def by_backward(module: nn.Module, named: Named, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The same, one configuration after the other."""
    parameters = [p for _, p in named]
    real, imaginary = [], []
    with torch.enable_grad():
        for one in x:
            out = module(one[None])[0]
            if out.is_complex():
                real.append(_gradient(out.real, parameters, keep=True))
                imaginary.append(_gradient(out.imag, parameters))
            else:
                real.append(_gradient(out, parameters))
    return torch.stack(real), torch.stack(imaginary) if imaginary else None


def _gradient(out: Tensor, parameters: list[nn.Parameter], keep: bool = False) -> Tensor:
    result = torch.autograd.grad(out, parameters, retain_graph=keep, allow_unused=True)
    return torch.cat(
        [
            _as_real(torch.zeros_like(p) if g is None else g).reshape(-1)
            for g, p in zip(result, parameters, strict=True)
        ]
    ).detach()


def _as_real(p: Tensor) -> Tensor:
    return torch.view_as_real(p.resolve_conj()).clone() if p.is_complex() else p


def _as_given(value: Tensor, like: Tensor) -> Tensor:
    return torch.view_as_complex(value) if like.is_complex() else value
