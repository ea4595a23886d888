"""Layers in the plane of their two leading eigenstates, against `Ket.bloch` and `Density.bloch`."""

import pytest
import torch
from torch import nn

import ketwork as kw


@pytest.fixture(scope="module")
def data():
    return torch.randn(90, 4, generator=torch.Generator().manual_seed(0))


def planes(record):
    return [layer.plane for layer in record]


def test_bloch_vectors_of_what_they_should_be(data):
    """A layer of two features is a qubit, and its span is everything: the vectors are those of `Ket.bloch`."""
    labels = (data[:, 0] > 0).long()
    record = kw.study(nn.Linear(4, 2), (data, labels))
    (plane,) = planes(record)
    rho = record.layers[0].density
    first, second = rho.spectrum()
    assert plane.weight == pytest.approx(1)
    assert plane.own.tolist() == pytest.approx([0, 0, float(first - second)])
    assert torch.linalg.vector_norm(plane.kets, dim=-1).tolist() == pytest.approx([1] * 64)
    _, states = rho.eigenstates(2)
    known = record.layers[0].labels
    for label in known.labels:
        seen = states.amplitudes.conj() @ known.state(label).matrix() @ states.amplitudes.T
        expected = kw.Density.from_matrix(seen).bloch()
        assert torch.allclose(plane.labels[label], expected, atol=1e-6)


def test_bloch_vectors_of_complex_kets_are_those_of_ket_bloch(data):
    torch.manual_seed(1)
    layer = nn.Linear(4, 2, dtype=torch.complex64)
    record = kw.study(layer, data.to(torch.complex64))
    (plane,) = planes(record)
    _, states = record.layers[0].density.eigenstates(2)
    reservoir = record.layers[0].accumulator.reservoir.kets[:64, 0].to(torch.complex128)
    inside = kw.Ket.normalized(reservoir @ states.amplitudes.mH)
    assert torch.allclose(plane.kets, inside.bloch().double(), atol=1e-6)
    assert float(plane.kets[:, 1].abs().max()) > 0.1


def test_labels_of_wide_layers_are_seen_through_their_factors(data):
    labels = torch.arange(90) % 2
    record = kw.study(nn.Linear(4, 200), (data, labels))
    (plane,) = planes(record)
    _, states = record.layers[0].density.eigenstates(2)
    known = record.layers[0].labels
    assert known.state(1).factored
    seen = states.amplitudes @ known.state(1).matrix() @ states.amplitudes.T
    assert torch.allclose(plane.labels[1], kw.Density.from_matrix(seen / seen.trace()).bloch(), atol=1e-6)
