"""Scores of one layer are those of the textbook, computed from the same vectors."""

import numpy as np
import pytest
import torch
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations import Activation, LayerInfo
from ketwork.networks.detection.references import LayerReference
from ketwork.networks.detection.shrinkage import about_zero
from ketwork.networks.detection.spaces import Distances, Eigenspace
from ketwork.networks.detection.stacks import Centres, States

from .conftest import drawn


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True)


def fitted_on(study: kw.Study, place: int, x: Tensor) -> np.ndarray:
    """Which samples the class moments are of."""
    held = study[place].accumulator.labelled.held.samples
    inside = np.ones(len(x), dtype=bool)
    inside[held.numpy()] = False
    return inside


def shrunk(rows: np.ndarray) -> np.ndarray:
    """The precision of vectors that are centred already, by scikit-learn."""
    return LedoitWolf(assume_centered=True).fit(rows).precision_


@pytest.mark.parametrize("layer", ["0", "1", "2"])
def test_distances_are_those_of_scikit_learn_on_the_same_kets(
    layer: str, three: nn.Sequential, labelled: kw.Study
) -> None:
    (x, y), (new, _) = drawn(6000, 1), drawn(200, 2)
    part = three[: int(layer) + 1]
    with torch.no_grad():
        kets, fresh = unit(part(x)).numpy(), unit(part(new)).numpy()
    inside = fitted_on(labelled, int(layer), x)
    assert 4500 < inside.sum() < 5000
    kets, y = kets[inside], y.numpy()[inside]
    means = np.stack([kets[y == k].mean(0) for k in range(3)])
    classes = shrunk(kets - means[y])
    distances = np.stack([np.einsum("nd,de,ne->n", fresh - m, classes, fresh - m) for m in means])
    about = fresh - kets.mean(0)
    spread = means - kets.mean(0)
    between = np.einsum("k,kd,ke->de", np.bincount(y) / len(y), spread, spread)
    overall = np.linalg.inv(np.linalg.inv(classes) + between)
    common = np.einsum("nd,de,ne->n", about, overall, about)

    frame = labelled.detector("mahalanobis", layers=layer).score(three, new)
    np.testing.assert_allclose(frame["score"], distances.min(0), rtol=1e-6)
    names = labelled.gathered.labels.names
    assert frame["nearest_class"].tolist() == distances.argmin(0).tolist()
    assert set(frame["nearest_class"]) == set(names) == {0, 1, 2}
    frame = labelled.detector("relative", layers=layer).score(three, new)
    np.testing.assert_allclose(frame["score"], distances.min(0) - common, rtol=1e-6, atol=1e-6)


def test_without_shrinkage_they_are_those_of_the_empirical_covariance() -> None:
    rows = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2
    kets = unit(rows)
    reference = EmpiricalCovariance().fit(kets.numpy())
    mean = kets.mean(0, keepdim=True)
    matrix = (kets - mean).T @ (kets - mean) / 300
    distances = Distances.from_covariance(mean, torch.zeros(1, dtype=torch.int64), matrix, 0.0, kets)
    (found,) = Centres.from_distances([distances]).squared(kets[None])
    np.testing.assert_allclose(found[:, 0].numpy(), reference.mahalanobis(kets.numpy()), rtol=1e-9)
    assert float(found.mean()) == pytest.approx(5, rel=1e-12)  # tr C⁻¹C


def test_typicality_and_residual_are_born_probabilities(three: nn.Sequential, labelled: kw.Study) -> None:
    (x, _), (new, _) = drawn(6000, 1), drawn(100, 3)
    with torch.no_grad():
        kets, fresh = unit(three(x)), unit(three(new))
    kets = kets[torch.from_numpy(fitted_on(labelled, 2, x))]
    rho = kets.T @ kets / len(kets)
    detector = labelled.detector("typicality", layers="2")
    space = detector.references[0].state
    mixed = (1 - space.shrinkage) * rho + space.shrinkage * torch.eye(5, dtype=torch.float64) / 5
    leading = torch.linalg.eigh(rho).eigenvectors[:, -space.rank :]
    inside = (fresh @ leading).square().sum(1)
    born = ((fresh @ mixed) * fresh).sum(1)
    expected = -born.log2() - inside.log2()
    np.testing.assert_allclose(detector.score(three, new)["score"], expected, rtol=1e-8)
    residual = labelled.detector("residual", layers="2").score(three, new)["score"]
    np.testing.assert_allclose(residual, (1 - inside).sqrt(), atol=1e-7)
    assert 1 <= space.rank < 5


def test_complex_kets_have_the_populations_of_their_state() -> None:
    generator = torch.Generator().manual_seed(0)
    kets = unit(torch.randn(50, 4, dtype=torch.complex128, generator=generator))
    rho = torch.einsum("ni,nj->ij", kets, kets.conj()) / 50  # Σ |ψ⟩⟨ψ|
    space = Eigenspace.from_state(about_zero(rho, 50), kets)
    (populations,) = States.from_spaces([space]).populations(kets[None])
    torch.testing.assert_close(populations.sum(1), torch.ones(50, dtype=torch.float64))
    born = torch.einsum("ni,ij,nj->n", kets.conj(), rho, kets).real
    torch.testing.assert_close(populations @ space.values, born)
    torch.testing.assert_close(populations.mean(0), space.values)


def test_the_worst_position_counts_and_padding_does_not() -> None:
    rho = torch.diag(torch.tensor([0.7, 0.2, 0.06, 0.04], dtype=torch.float64))
    space = Eigenspace(rho.diagonal(), torch.eye(4, dtype=torch.float64), 2, 0.0)
    reference = LayerReference(LayerInfo("a", 0, "X", positions=True), 4, 10, space, every=space)
    e = torch.eye(4, dtype=torch.float64)
    values = torch.stack([torch.stack([e[0], e[1], e[2]]), torch.stack([3 * e[0], e[0] + e[1], 0 * e[0]])])
    present = torch.tensor([[True, True, False], [True, True, True]])
    activation = Activation(reference.info, values, present)
    found = reference.worst(activation, ("residual", "typicality"))
    # The third position of the first sample is padding, that of the second has no direction.
    torch.testing.assert_close(found["residual"], torch.zeros(2, dtype=torch.float64), atol=1e-7, rtol=0)
    expected = -torch.tensor([0.2, 0.45], dtype=torch.float64).log2()
    torch.testing.assert_close(found["typicality"], expected)
    activation = Activation(reference.info, values, None)
    found = reference.worst(activation, ("residual",))
    torch.testing.assert_close(
        found["residual"], torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-7, rtol=0
    )
