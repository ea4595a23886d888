"""To QuTiP and back: an optional extra."""

from types import ModuleType
from typing import Any

import torch

from ketwork.quantum.states import Density, Ket, State


def to_qutip(state: State) -> Any:
    """Returns the `qutip.Qobj` of one state, with the same subsystems: a ket, or an operator.

    Needs `pip install ketwork[qutip]`.
    """
    if state.batch_shape:
        raise ValueError(
            f"Argument `state` must be one state, but has batch shape {tuple(state.batch_shape)}. "
            "Convert its members one by one."
        )
    dims = list(state.dims)
    qutip = _qutip()
    if isinstance(state, Ket):
        return qutip.Qobj(state.amplitudes.detach().cpu().numpy(), dims=[dims, [1] * len(dims)])
    return qutip.Qobj(state.matrix().detach().cpu().numpy(), dims=[dims, dims])


def from_qutip(obj: Any) -> State:
    """Returns the `Ket` or `Density`, complex128, of a `qutip.Qobj` ket, bra or density operator."""
    if not isinstance(obj, _qutip().Qobj) or not (obj.isket or obj.isbra or obj.isoper):
        raise TypeError(
            f"Argument `obj` must be a QuTiP ket, bra or density operator, but is {type(obj).__name__}."
        )
    ket = obj.dag() if obj.isbra else obj
    values = torch.from_numpy(ket.full().astype("complex128"))
    dims = ket.dims[0]
    return Ket(values[:, 0], dims) if ket.isket else Density.from_matrix(values, dims)


def _qutip() -> ModuleType:
    try:
        import qutip
    except ImportError as error:
        raise ImportError("QuTiP is not installed. Use `pip install ketwork[qutip]`.") from error
    module: ModuleType = qutip
    return module
