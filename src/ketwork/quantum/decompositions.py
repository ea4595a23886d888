"""The polar decomposition W = U P: the unitary part of a matrix, and how far the matrix is from a multiple of one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ketwork.quantum import _checks as check
from ketwork.quantum._checks import ArrayLike
from ketwork.quantum._spectra import wide


@dataclass(frozen=True, eq=False)
class Polar:
    """W (*batch, m, n) = U P with P = √(W†W) ≥ 0; U has orthonormal columns (m ≥ n) or rows (m < n).

    Args:
        unitary: U, the closest such matrix to W/c in Frobenius norm.
        positive: P (*batch, n, n).
        scale: c, the mean of the k = min(m, n) singular values: the multiple of U closest to W.
        distance: ‖W − cU‖/‖W‖ = √(1 − (Σs)²/(k Σs²)), 0 for a multiple of a unitary (of an isometry), below √(1 − 1/k).
    """

    unitary: Tensor
    positive: Tensor
    scale: Tensor
    distance: Tensor


def polar(w: ArrayLike) -> Polar:
    """Returns the polar decomposition of a matrix (*batch, m, n), and its distance from a multiple of a unitary.

    By the singular values W = A s B†: U = A B†, P = B s B† (Higham 1986, DOI 10.1137/0907079, has the properties).
    Cost: O(m n min(m, n)). Where W has no full rank, U is one of many; a zero matrix has distance NaN.

    >>> turn = torch.tensor([[0.0, -2.0], [2.0, 0.0]])
    >>> found = polar(turn)
    >>> found.unitary, found.scale, found.distance
    (tensor([[ 0., -1.],
            [ 1.,  0.]]), tensor(2.), tensor(0.))
    >>> polar(torch.tensor([[1.0, 0.0], [0.0, 0.0]])).distance
    tensor(0.7071)
    """
    matrix = check.floating(w, "w")
    check.axes(matrix, "w", "(*batch, m, n)", 2)
    left, s, right = torch.linalg.svd(wide(matrix), full_matrices=False)
    scale, squares = s.mean(-1), s.square().sum(-1)
    # 1 − (Σs)²/(k Σs²) is the variance of s over the mean of its squares: so it is never below 0
    distance = ((s - scale[..., None]).square().sum(-1) / squares).sqrt()
    real = torch.empty(0, dtype=matrix.dtype).abs().dtype
    return Polar(
        (left @ right).to(matrix.dtype),
        (right.mH * s[..., None, :] @ right).to(matrix.dtype),
        scale.to(real),
        distance.to(real),
    )
