"""The count sketch keeps inner products, without bias and within its bound."""

import torch

from ketwork.networks.moments.projection import Projection


def test_a_sketch_keeps_inner_products_on_average() -> None:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    grams = torch.stack([(s := Projection.draw(40, 16, seed)(x)) @ s.T for seed in range(0, 400000, 100)])
    error = grams.std(dim=0) / len(grams) ** 0.5
    assert ((grams.mean(dim=0) - x @ x.T).abs() < 4.5 * error + 1e-9).all()
    bound = (2 / 16) ** 0.5 * torch.outer(x.norm(dim=1), x.norm(dim=1))
    assert (grams.std(dim=0) < bound * 1.1).all()
