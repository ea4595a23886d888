"""LSTMs and GRUs taken apart, so that their matrices are layers like others, and put together again.

For its survey and its fits a recurrent network of torch.nn runs step by step, its input and recurrent matrices as
linear layers whose rows are sorted by units: the gates of a unit are one block. In the end each is a recurrent network
of torch.nn again: smaller where units were removed, behind a linear layer where the input matrix was truncated. The
recurrent matrix stays one, since the kernels of torch.nn take it whole; but an LSTM's state may be truncated for all
that read it, itself at its next step among them, which is what torch.nn calls a projection.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ketwork.networks.compression.loader import Recurrence
from ketwork.networks.compression.surgery import replace

GATES = {"LSTM": 4, "GRU": 3}


class RecurrentMatrix(nn.Linear):
    """The matrix from a step's state to the next one's gates: it is called once a step, and stays one."""


class Cell(nn.Module):
    """One layer in one direction: `inputs` and `recurrent` give the gates of each unit side by side."""

    def __init__(self, kind: str, inputs: nn.Linear, recurrent: RecurrentMatrix) -> None:
        super().__init__()
        self.kind, self.inputs = kind, inputs
        self.recurrent: Any = recurrent
        self.project: nn.Module = nn.Identity()  # a linear layer where the state is truncated

    @property
    def units(self) -> int:
        """How many there are."""
        return self.recurrent.out_features // GATES[self.kind]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of its state, and of an LSTM's cells."""
        return (self.recurrent.in_features, self.units)[: 2 if self.kind == "LSTM" else 1]

    def forward(self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, Any]:
        """The states (N, T, h) of a sequence (N, T, k), and the last one; sequences end after their lengths."""
        gates = self.inputs(x).unflatten(-1, (-1, GATES[self.kind]))  # (N, T, h, gates)
        out = []
        for t in range(x.shape[1]):
            new = self.step(gates[:, t], state)
            if lengths is not None:
                within = (lengths > t)[:, None]
                new = tuple(torch.where(within, a, b) for a, b in zip(new, state, strict=True))
            state = new
            out.append(state[0])
        return torch.stack(out, 1), state

    def step(self, given: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The next state; `given` (N, h, gates) is what the input adds to the gates."""
        own = self.recurrent(state[0]).unflatten(-1, (-1, GATES[self.kind]))
        if self.kind == "LSTM":
            i, f, g, o = (given + own).unbind(-1)
            c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
            return self.project(o.sigmoid() * c.tanh()), c
        r, z = (given + own)[..., :2].sigmoid().unbind(-1)
        n = (given[..., 2] + r * own[..., 2]).tanh()
        return ((1 - z) * n + z * state[0],)


class Unrolled(nn.Module):
    """An LSTM or GRU of torch.nn that computes step by step; `cells` are its layers, directions side by side."""

    def __init__(self, original: nn.RNNBase) -> None:
        super().__init__()
        self.kind, self.directions = original.mode, 2 if original.bidirectional else 1
        self.batch_first, self.dropout = original.batch_first, original.dropout
        self.bias = original.bias
        self.cells: Any = nn.ModuleList(
            _cell(original, layer, direction)
            for layer in range(original.num_layers)
            for direction in range(self.directions)
        )
        self.eval()

    def forward(self, x: Any, hx: Any = None) -> tuple[Any, Any]:
        """As the original: output and last states; these are lists where layers have unlike numbers of units."""
        lengths, packed = None, x
        if isinstance(packed, PackedSequence):
            x, lengths = pad_packed_sequence(packed, batch_first=True)
            if hx is not None and packed.sorted_indices is not None:
                raise TypeError("Packed sequences with a state of their own are not taken apart.")
        elif not self.batch_first and x.ndim == 3:
            x = x.transpose(0, 1)
        alone = x.ndim == 2
        if alone:
            x = x.unsqueeze(0)
        states = [self._state(hx, i, x, alone) for i in range(len(self.cells))]
        last = []
        for i in range(0, len(self.cells), self.directions):
            outs = []
            for d in range(self.directions):
                given = _reversed(x, lengths) if d else x
                out, state = self.cells[i + d](given, states[i + d], lengths)
                outs.append(_reversed(out, lengths) if d else out)
                last.append(state)
            x = torch.cat(outs, -1)
        ends = tuple(
            stacked([state[j][0] if alone else state[j] for state in last]) for j in range(len(last[0]))
        )
        out = x[0] if alone else x
        if lengths is not None:
            out = out * (torch.arange(out.shape[1]) < lengths[:, None])[..., None]
            out = pack_padded_sequence(out, lengths.cpu(), batch_first=True, enforce_sorted=False)
        elif not self.batch_first and not alone:
            out = out.transpose(0, 1)
        return out, ends if self.kind == "LSTM" else ends[0]

    def _state(self, hx: Any, i: int, x: Tensor, alone: bool) -> tuple[Tensor, ...]:
        if hx is None:
            return tuple(x.new_zeros(len(x), size) for size in self.cells[i].sizes)
        given = hx if self.kind == "LSTM" else (hx,)
        return tuple(part[i].unsqueeze(0) if alone else part[i] for part in given)


def stacked(parts: list[Tensor]) -> Any:
    """One tensor, or a list where the parts have unlike sizes."""
    return torch.stack(parts) if len({part.shape for part in parts}) == 1 else parts


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence the other way round; what is beyond its length stays."""
    if lengths is None:
        return x.flip(1)
    t = torch.arange(x.shape[1])[None]
    place = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t)
    return x.gather(1, place[..., None].expand_as(x))


def _cell(original: Any, layer: int, direction: int) -> Cell:
    tail = f"l{layer}{'_reverse' if direction else ''}"
    gates = GATES[original.mode]
    parts = []
    for name, kind in (("ih", nn.Linear), ("hh", RecurrentMatrix)):
        weight = original._parameters[f"weight_{name}_{tail}"].detach()
        bias = original._parameters[f"bias_{name}_{tail}"].detach() if original.bias else None
        out, wide = weight.shape
        linear = kind(wide, out, bias=bias is not None, device="meta")
        by_unit = torch.arange(out).reshape(gates, -1).T.reshape(-1)
        linear.weight = nn.Parameter(weight[by_unit], requires_grad=False)
        if bias is not None:
            linear.bias = nn.Parameter(bias[by_unit], requires_grad=False)
        parts.append(linear)
    return Cell(original.mode, parts[0], parts[1])  # type: ignore[arg-type]


def unrolled(model: nn.Module) -> dict[str, nn.Module]:
    """Takes the recurrent networks of a model apart, in place; the originals by path."""
    result = {
        path: module
        for path, module in model.named_modules()
        if type(module) in (nn.LSTM, nn.GRU)
        and not getattr(module, "proj_size", 0)
        and path
        and not module._forward_hooks
        and not module._forward_pre_hooks
    }
    replace(model, {path: Unrolled(module) for path, module in result.items()})
    return result


def rolled(model: nn.Module, originals: dict[str, nn.Module], changed: set[str]) -> None:
    """Puts them together again, in place: those that are not `changed` are the originals."""
    for path, original in originals.items():
        if path in changed:
            replace(model, {path: _together(model.get_submodule(path))})
        else:
            replace(model, {path: original})


def _together(apart: Any) -> nn.Module:
    sizes = []
    tensors: list[dict[str, Any]] = []
    for cell in apart.cells:
        inputs, recurrent = cell.inputs, cell.recurrent
        before = inputs[0] if isinstance(inputs, nn.Sequential) else None
        last = inputs[-1] if isinstance(inputs, nn.Sequential) else inputs
        rank = None if before is None else before.out_features
        wide = last.in_features if before is None else before.in_features
        state = cell.project.out_features if isinstance(cell.project, nn.Linear) else None
        sizes.append([wide, rank, cell.units, state])
        own = _by_gate(last, GATES[apart.kind])
        theirs = _by_gate(recurrent, GATES[apart.kind])
        part: dict[str, Any] = {
            "weight_ih_l0": own[0],
            "weight_hh_l0": theirs[0],
            "bias_ih_l0": own[1],
            "bias_hh_l0": theirs[1],
        }
        if before is not None:
            part["before"] = before.weight
        if state is not None:
            part["weight_hr_l0"] = cell.project.weight
        tensors.append(part)
    new: Any = Recurrence(apart.kind, sizes, apart.directions, apart.batch_first, apart.dropout)
    with torch.no_grad():
        for cell, before, part in zip(new.cells, new.before, tensors, strict=True):
            if isinstance(before, nn.Linear):
                before.weight.copy_(part.pop("before"))
            for name, tensor in part.items():
                cell._parameters[name].copy_(tensor)
    return new.to(tensors[0]["weight_hh_l0"].dtype).requires_grad_(False).eval()


def _by_gate(linear: Any, gates: int) -> tuple[Tensor, Tensor]:
    """The matrix and the bias with rows sorted by gates, as torch.nn has them."""
    order = torch.arange(linear.out_features).reshape(-1, gates).T.reshape(-1)
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    return linear.weight[order], bias[order]
