"""Moments by label of one batch, where all of its samples are there: what tests of them have in common."""

from torch import Tensor

from ketwork.networks.moments import BatchKeys, Labelled, Positions
from ketwork.networks.moments.labelled_moments import LabelledMoments


def labelled(
    x: Tensor, labels: Tensor, keys: Tensor, start: int = 0, positions: bool = False
) -> LabelledMoments:
    """Those of activations (n, t, d), of which all positions exist."""
    given = Labelled(labels, start, positions)
    found = LabelledMoments.from_batch(x, x.flatten(0, 1), Positions.of(x), BatchKeys(keys), given)
    assert found is not None
    return found[0]
