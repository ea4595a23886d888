"""What can be decoded of labels comes back from files."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures.decoded import DecodedLabels


def data(n: int, d: int = 12, k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (n, d), labels and keys."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(k, (n,), generator=generator)
    x = torch.randn(n, d, generator=generator) + 0.6 * torch.eye(d)[labels]
    return x, labels, torch.rand(n, generator=generator, dtype=torch.float64)


def same(a: DecodedLabels, b: DecodedLabels) -> None:
    for name, estimate in a.estimates.items():
        assert estimate.value == pytest.approx(b.estimates[name].value, abs=1e-6, nan_ok=True), name
    assert a.strengths == b.strengths
    assert {kind: t.tolist() for kind, t in a.confusion.items()} == {
        k: t.tolist() for k, t in b.confusion.items()
    }


def test_save_and_load_bring_back_what_was_known(tmp_path: Path) -> None:
    x, labels, _ = data(800)
    names = ["sun", "rain", "wind"]
    for given in ([names[i] for i in labels], labels % 2 == 0, x[:, 0] + 0.1 * x[:, 1]):
        record = kw.study(nn.Linear(12, 7), x, labels=given)
        record.save(tmp_path / "study.safetensors")
        loaded = kw.Study.load(tmp_path / "study.safetensors")
        mine, theirs = record.layers[0].labels, loaded.layers[0].labels
        assert mine is not None
        assert theirs is not None
        same(mine, theirs)
        assert theirs.names == mine.names
        assert theirs.labels == mine.labels
        assert theirs.held_out.tolist() == mine.held_out.tolist()
        assert loaded.table().equals(record.table())
        assert loaded.warnings == record.warnings
        if mine.names:
            assert theirs.helstrom(*mine.names[:2]) == mine.helstrom(*mine.names[:2])
            assert DecodedLabels.from_moments(theirs.moments, theirs.names).estimates == mine.estimates
