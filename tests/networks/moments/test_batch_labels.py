"""Which rows have labels: of samples, or of the positions that exist."""

import torch

from ketwork.networks.moments.batch_keys import BatchKeys
from ketwork.networks.moments.batch_labels import Labelled
from ketwork.networks.moments.positions import Positions

KEYS = BatchKeys(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
VALUES = torch.zeros(3, 2, 4)


def test_samples_without_a_label_have_no_row() -> None:
    rows = Labelled(torch.tensor([2, -1, 0]), 10, False).rows(KEYS, Positions.of(VALUES))
    assert rows.which is not None
    assert (rows.which.tolist(), rows.targets.tolist(), rows.samples.tolist()) == ([0, 2], [2, 0], [10, 12])
    assert rows.keys.tolist() == [0.1, 0.3]
    for targets in (torch.tensor([2, 1, 0]), -torch.ones(3, 2)):  # all of them, and numbers
        assert Labelled(targets, 0, False).rows(KEYS, Positions.of(VALUES)).which is None


def test_positions_have_rows_where_they_exist() -> None:
    present = torch.tensor([[True, False], [True, True], [False, True]])
    labels = Labelled(torch.tensor([[0, 1], [-1, 2], [3, 4]]), 5, True)
    positions = Positions.of(VALUES, present)
    rows = labels.rows(KEYS, positions)
    assert rows.which is not None
    assert (rows.which.tolist(), rows.targets.tolist(), rows.samples.tolist()) == (
        [0, 3, 5],
        [0, 2, 4],
        [5, 6, 7],
    )
    assert labels.rows(KEYS, positions) is rows
    every = labels.rows(KEYS, Positions.of(VALUES)).which
    assert every is not None
    assert every.tolist() == [0, 1, 3, 4, 5]
