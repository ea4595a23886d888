"""Loads a compressed network. Needs torch and safetensors alone: copy this file where ketwork is not installed.

A file can run no code: it names its new layers, which are made only if they are of the kinds below and no larger than
the file's own tensors; modules of the network that is given may get other sizes.
"""

import copy
import functools
import hashlib
import json
import math
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

KEY = "ketwork.compressed"
OLD_KEY = "replaced"  # of version 0.1, whose files have no digest
exporting = getattr(
    torch.compiler, "is_exporting", torch.compiler.is_compiling
)  # the former from PyTorch 2.7 on
SCALE = ".8bit_scale"  # the tensor beside one of 8 bits: a factor for each output channel
UNSET = ("n_inner", "intermediate_size")  # what configurations of transformers may leave to be computed
COUNTS = [
    "in_features",
    "out_features",
    "in_channels",
    "out_channels",
    "groups",
    "num_features",
    "num_parameters",
    "num_channels",
    "num_groups",
]


class Recurrence(nn.Module):
    """Layers of an LSTM or GRU of unlike sizes, each a recurrent network of torch.nn, some behind a linear layer.

    `sizes` has [inputs, rank of the linear layer or None, units, size of the projected state or None] for each layer
    and direction. Called as `nn.LSTM` and `nn.GRU` are; last states are lists where layers have unlike numbers of
    units.
    Exported, a layer whose state is projected runs step by step, for sequences of one length, since ONNX has no such.
    """

    def __init__(self, kind: str, sizes: list, directions: int, batch_first: bool, dropout: float) -> None:
        super().__init__()
        self.arguments = {
            "kind": kind,
            "sizes": sizes,
            "directions": directions,
            "batch_first": batch_first,
            "dropout": dropout,
        }
        kinds = {"LSTM": nn.LSTM, "GRU": nn.GRU}
        self.kind, self.directions, self.batch_first = kind, directions, batch_first
        self.before = nn.ModuleList(
            nn.Identity() if rank is None else nn.Linear(wide, rank, bias=False) for wide, rank, *_ in sizes
        )
        self.cells = nn.ModuleList(
            kinds[kind](
                wide if rank is None else rank,
                units,
                batch_first=True,
                **({"proj_size": state} if state else {}),
            )
            for wide, rank, units, state in sizes
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Any, hx: Any = None) -> Any:
        """Output and last states."""
        packed = x if isinstance(x, PackedSequence) else None
        if packed is not None:
            x, lengths = pad_packed_sequence(packed, batch_first=True)
        elif not self.batch_first and x.ndim == 3:
            x = x.transpose(0, 1)
        ends = []
        for i in range(0, len(self.cells), self.directions):
            outs = []
            for j in range(i, i + self.directions):
                given = self.before[j](x)
                if j > i:
                    given = _reversed(given, lengths) if packed is not None else given.flip(-2)
                state = None if hx is None else _part(hx, j)
                if packed is not None:
                    given = pack_padded_sequence(given, lengths, batch_first=True, enforce_sorted=False)
                run = self.cells[j]
                if run.proj_size and exporting():
                    out, end = _stepped(run, given, state)
                else:
                    out, end = run(given, state)
                if packed is not None:
                    out, _ = pad_packed_sequence(out, batch_first=True)
                if j > i:
                    out = _reversed(out, lengths) if packed is not None else out.flip(-2)
                outs.append(out)
                ends.append(end)
            x = torch.cat(outs, -1)
            if i + self.directions < len(self.cells):
                x = self.dropout(x)
        if packed is not None:
            x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        elif not self.batch_first and x.ndim == 3:
            x = x.transpose(0, 1)
        if self.kind == "LSTM":
            return x, tuple(_joined([end[k] for end in ends]) for k in range(2))
        return x, _joined(ends)


def _stepped(cell: Any, x: torch.Tensor, state: Any) -> tuple:
    """What an LSTM with a projected state gives."""
    h, c = (
        (x.new_zeros(x.shape[0], cell.proj_size), x.new_zeros(x.shape[0], cell.hidden_size))
        if state is None
        else (part[0] for part in state)
    )
    gates = nn.functional.linear(x, cell.weight_ih_l0, cell.bias_ih_l0 + cell.bias_hh_l0)
    out = []
    for given in gates.unbind(1):
        i, f, g, o = (given + h @ cell.weight_hh_l0.T).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = (o.sigmoid() * c.tanh()) @ cell.weight_hr_l0.T
        out.append(h)
    return torch.stack(out, 1), (h[None], c[None])


class Attention(nn.Module):
    """`nn.MultiheadAttention` with a linear layer for each of queries, keys and values, and as many heads as these
    have.

    Called as the original is; `heads` are those that it had.
    """

    def __init__(
        self, width: int, heads: int, kdim: int, vdim: int, bias: bool, batch_first: bool, dropout: float
    ) -> None:
        super().__init__()
        self.head_width, self.batch_first, self.dropout = width // heads, batch_first, dropout
        self.in_proj_bias, self._qkv_same_embed_dim = None, False  # what encoders of torch.nn ask for
        self.q_proj = nn.Linear(width, width, bias=bias)
        self.k_proj = nn.Linear(kdim, width, bias=bias)
        self.v_proj = nn.Linear(vdim, width, bias=bias)
        self.out_proj = nn.Linear(width, width, bias=bias)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> Any:
        """Output and, where they are needed, the weights."""
        alone = query.ndim == 2
        if alone:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for layer, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        mask = None
        if attn_mask is not None:
            mask = _added(attn_mask, q)
            mask = mask.reshape(-1, q.shape[1], *mask.shape[-2:]) if mask.ndim == 3 else mask
        if key_padding_mask is not None:
            padding = _added(key_padding_mask, q)[:, None, None]
            mask = padding if mask is None else mask + padding
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_width)
            weights = (scores if mask is None else scores + mask).softmax(-1)
            out = nn.functional.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            out = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        out = self.out_proj(out.transpose(1, 2).flatten(2))
        if alone:
            return out[0], None if weights is None else weights[0]
        return out if self.batch_first else out.transpose(0, 1), weights


def _added(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A mask as numbers that are added to scores."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)


def _part(hx: Any, j: int) -> Any:
    return tuple(part[j : j + 1] for part in hx) if isinstance(hx, tuple) else hx[j : j + 1]


def _joined(states: list) -> Any:
    """The last states in one tensor, or a list where their sizes differ."""
    if len({state.shape[-1] for state in states}) == 1:
        return torch.cat(states)
    return [state[0] for state in states]


def _reversed(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Each sequence the other way round; what is beyond its length stays."""
    t = torch.arange(x.shape[1])[None]
    place = torch.where(t < lengths[:, None], lengths[:, None] - 1 - t, t).to(x.device)
    return x.gather(1, place[..., None].expand_as(x))


KINDS = {
    kind.__name__: kind
    for kind in (nn.Identity, nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d, Recurrence, Attention)
}


def load_compressed(path: str, network: nn.Module) -> nn.Module:
    """The compressed network in `path`, in the place of a `network` of the original's architecture.

    Raises:
        ValueError: the file is none of a compressed network, is damaged, or belongs to another architecture; do not use
            `network` then, part of it may have been replaced.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if KEY in metadata:
            about = json.loads(metadata[KEY])
            if about.pop("digest") != digest(tensors, about):
                raise ValueError("what it holds is not what was written")
            replaced = about["replaced"]
        else:
            about, replaced = {}, json.loads(metadata[OLD_KEY])
        most = sum(tensor.numel() for tensor in tensors.values())
        weight = next(unfused(network).parameters())
        for name, parts in replaced.items():
            parent, _, last = name.rpartition(".")
            old = network.get_submodule(name)  # only what is there is replaced
            same = isinstance(parts, str)  # the same module under another name
            new = network.get_submodule(parts) if same else _made(parts, old, most, weight)
            if name == "":  # parameters of the network itself
                network._parameters, network._buffers = new._parameters, new._buffers
            else:
                setattr(network.get_submodule(parent), last, new.train(network.training))
        for name, other in about.get("tied", {}).items():
            _tie(network, name, other)
        _fill(network, tensors)
        if replaced and callable(getattr(network, "save_pretrained", None)):
            configured(network, about.get("record", {}).get("settings", {}).get("config", {}))
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _refused(path, network, error) from error
    except safetensors.SafetensorError as error:
        raise _refused(path, network, error) from error
    return network


def configured(network: nn.Module, changes: dict) -> None:
    """Sets sizes and biases in the configuration of a network of transformers; where none can tell of it, it refuses to
    be saved with one, since transformers would load something else, and not say so."""
    for name, value in changes.items():
        old = getattr(network.config, name)
        known = type(old) is type(value) or (old is None and name in UNSET and type(value) is int)
        if type(value) not in (int, bool) or not known:
            raise ValueError(f"{name!r} is no size, and no choice")
        setattr(network.config, name, value)
    save = functools.partial(_saved_as_configured, network) if changes else _not_saved
    setattr(network, "save_pretrained", save)  # noqa: B010


def transposed(network: nn.Module, like: nn.Module) -> set:
    """The weights of linear layers that are `Conv1D` of transformers, with weights transposed, in the other network."""
    kinds = {path: type(module).__name__ for path, module in like.named_modules()}
    return {
        f"{path}.weight"
        for path, module in network.named_modules()
        if isinstance(module, nn.Linear) and kinds.get(path) == "Conv1D"
    }


def _saved_as_configured(network: Any, folder: Any, *arguments: Any, **options: Any) -> Any:
    """`save_pretrained` with weights as a network of the same configuration has them: transposed where it has them so,
    and with zeros for the biases that it has besides."""
    state = dict(options.pop("state_dict", None) or network.state_dict())
    like = next(network.parameters())
    with torch.device("meta"):
        same = type(network)(copy.deepcopy(network.config))
    for name in transposed(network, same):
        state[name] = state[name].T.contiguous()
    for name, tensor in same.state_dict().items():
        if name not in state:
            state[name] = torch.zeros(tensor.shape, dtype=like.dtype, device=like.device)
    return type(network).save_pretrained(network, folder, *arguments, state_dict=state, **options)


def _not_saved(*_: Any, **__: Any) -> None:
    raise ValueError(
        "A configuration of transformers cannot tell of this network: its layers have two factors, or sizes of their "
        "own. Use `save` of what `compress` returned, and `load_compressed`."
    )


def digest(tensors: dict, about: dict) -> str:
    """SHA-256 of the tensors, their names and shapes, and what is said about them."""
    result = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        result.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        result.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def unfused(network: nn.Module) -> nn.Module:
    """The network, with encoders of torch.nn set not to fuse layers into one kernel, which reads their weights."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
    return network


def _fill(network: nn.Module, tensors: dict) -> None:
    """Puts the numbers into the network, those of 8 bits times their scales."""
    total = {name: tensor for name, tensor in tensors.items() if not name.endswith(SCALE)}
    for name in tensors.keys() - total.keys():
        integers, scale = total[name.removesuffix(SCALE)], tensors[name]
        total[name.removesuffix(SCALE)] = integers.float() * scale.reshape(-1, *[1] * (integers.ndim - 1))
    state = network.state_dict(keep_vars=True)
    shared: dict = {}
    for name, tensor in state.items():
        shared.setdefault(id(tensor), []).append(name)
    missing, unexpected = network.load_state_dict(total, strict=False)
    known = {other for names in shared.values() if any(name in total for name in names) for other in names}
    missing = [name for name in missing if name not in known]
    if missing or unexpected:
        raise ValueError(f"it lacks {missing[:3]} and has {unexpected[:3]} besides")


def _tie(network: nn.Module, name: str, other: str) -> None:
    """Gives a module the parameter of another, of the same shape."""
    parent, _, last = name.rpartition(".")
    shared = network.get_parameter(other)
    if network.get_parameter(name).shape != shared.shape:
        raise ValueError(f"{name!r} and {other!r} have different shapes")
    network.get_submodule(parent)._parameters[last] = shared


def _made(parts: list, old: nn.Module, most: int, like: torch.Tensor) -> nn.Module:
    """The layers without their numbers; `most` is how many the file has (with those of `old` none may have more),
    `like` of which kind the network's are."""
    modules = []
    most += sum(parameter.numel() for parameter in old.parameters())
    for kind, *arguments in parts:
        if kind == "resized":
            shapes, counts = arguments
            modules.append(_resized(old, shapes, counts, most, like))
            continue
        with torch.device("meta"):  # takes no memory yet
            module = KINDS[kind](**arguments[0])
        declared = sum(parameter.numel() for parameter in module.parameters())
        if declared > most:
            raise ValueError(f"it declares layers of {declared} numbers, and holds {most}")
        modules.append(module.to(like.dtype).to_empty(device=like.device))
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def _resized(old: nn.Module, shapes: dict, counts: dict, most: int, like: torch.Tensor) -> nn.Module:
    """The network's own module with tensors of these shapes and with these counts."""
    new = copy.copy(old)
    new._parameters, new._buffers = dict(old._parameters), dict(old._buffers)
    new._modules = dict(old._modules)
    for name, shape in shapes.items():
        where: dict = new._buffers if name in old._buffers else new._parameters
        if name not in where:
            raise ValueError(f"{type(old).__name__} has no {name!r}")
        if shape is not None and math.prod(shape) > most:
            raise ValueError(f"it declares a tensor of {math.prod(shape)} numbers, and holds {most}")
        tensor = None if shape is None else torch.empty(shape, dtype=like.dtype, device=like.device)
        where[name] = tensor if tensor is None or where is new._buffers else nn.Parameter(tensor)
    for name, value in counts.items():
        if name not in COUNTS or type(value) is not int:
            raise ValueError(f"{name!r} is no count")
        setattr(new, name, value)
    return new


def _refused(path: str, network: nn.Module, error: Exception) -> ValueError:
    return ValueError(
        f"Argument `path` must be a compressed {type(network).__name__}, but {str(path)!r} is damaged, something else "
        f"or of another architecture ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})."
    )
