"""What keys decide is the same for every layer and for every batch that a sample comes in."""

import torch

from ketwork.networks.moments.batch_keys import BatchKeys

CPU = torch.device("cpu")


def test_the_smallest_keys_below_a_bound_in_their_order() -> None:
    keys = BatchKeys(torch.tensor([0.7, 0.1, 0.9, 0.4, 0.2], dtype=torch.float64))
    assert keys.first(3, float("inf")).tolist() == [1, 4, 3]
    assert keys.first(9, 0.4).tolist() == [1, 4]
    assert keys.first(3, float("inf")) is keys.first(3, float("inf"))  # found once for all layers
    assert keys.on(CPU, keys.first(3, float("inf"))) is keys.first(3, float("inf"))
    assert torch.equal(keys.on(CPU), keys.values)


def test_a_samples_places_are_put_in_the_same_order_in_any_batch() -> None:
    values = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    every = BatchKeys(values).orders(None, 9, CPU)
    assert every.shape == (6, 9)
    assert len(every.unique()) == 54
    keys = BatchKeys(values.flip(0)[:4])
    assert torch.equal(
        keys.orders(keys.first(4, 1.0), 9, CPU), every.flip(0)[:4][values.flip(0)[:4].argsort()]
    )
