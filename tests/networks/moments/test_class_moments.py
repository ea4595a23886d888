"""Many labels of wide layers: bounded memory, what is lost is known, and the numbers say on which side they err."""

import math
import resource
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.measures import holevo as information
from ketwork.networks.measures.decoded import DecodedLabels
from ketwork.networks.measures.readouts import LINEAR, PRETTY_GOOD, read_out
from ketwork.networks.moments import class_moments as classes_module
from ketwork.networks.moments.class_moments import MOST_BYTES, ClassMoments
from ketwork.networks.moments.labelled_moments import CHECK_MOST, HELD_MOST, LabelledMoments
from ketwork.records.record import pack

from ..labelling import labelled


def _data(n: int, d: int, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.arange(n) % k
    x = torch.randn(k, d, generator=generator)[codes] + torch.randn(n, d, generator=generator)
    return torch.nn.functional.normalize(x, dim=1), codes


def _truncated(monkeypatch: pytest.MonkeyPatch, x: Tensor, codes: Tensor, k: int, rank: int) -> ClassMoments:
    """The moments where there is room for so many rows of each class only."""
    monkeypatch.setattr(classes_module, "MOST_BYTES", 2 * rank * k * x.shape[1] * x.element_size())
    found: ClassMoments | None = None
    for start in range(0, len(x), 100):
        new = ClassMoments.from_vectors(x[start : start + 100], codes[start : start + 100], k)
        found = new if found is None else found + new
    assert found is not None
    monkeypatch.undo()
    return found


def test_what_is_lost_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = _data(1200, 30, 6)
    exact, cut = ClassMoments.from_vectors(x, codes, 6), _truncated(monkeypatch, x, codes, 6, 5)
    assert exact.discarded == 0
    assert cut.total is not None
    assert int(torch.bincount(cut.owners).max()) <= 10
    assert torch.equal(cut.counts, exact.counts)
    assert cut.sums.numpy() == pytest.approx(exact.sums.numpy(), abs=1e-4)
    kept = torch.zeros(6, dtype=torch.float64).index_add(0, cut.owners, cut.rows.double().square().sum(dim=1))
    assert (kept + cut.lost).numpy() == pytest.approx(cut.counts.numpy(), rel=1e-5)  # kets have weight 1
    assert cut.discarded == pytest.approx(float(cut.lost.sum() / 1200))
    # What a class keeps is a part of what it had: the difference has no negative eigenvalue.
    for code in range(6):
        factor, _ = cut.own(code)
        mine = x[codes == code].double()
        assert float(torch.linalg.eigvalsh(mine.T @ mine - factor.T @ factor).min()) > -1e-3
    assert float(cut.rest.trace()) == pytest.approx(1, abs=1e-5)


def test_linear_readout_is_exact_where_classes_are_equally_large(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = _data(1200, 30, 6)
    exact, cut = ClassMoments.from_vectors(x, codes, 6), _truncated(monkeypatch, x, codes, 6, 5)
    for a, b in zip(cut.balanced(), exact.balanced(), strict=True):
        assert a.numpy() == pytest.approx(b.numpy(), abs=1e-7)
    # Else what was lost is shared out: the trace stays exact.
    few = codes.clone()
    few[:400] = 0
    exact, cut = ClassMoments.from_vectors(x, few, 6), _truncated(monkeypatch, x, few, 6, 5)
    theirs, ours = exact.balanced()[1], cut.balanced()[1]
    assert float(ours.trace()) == pytest.approx(float(theirs.trace()), rel=1e-5)
    assert float(torch.linalg.matrix_norm(ours - theirs) / torch.linalg.matrix_norm(theirs)) < 0.1


def test_outcomes_stay_probabilities_and_bits_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = _data(1200, 30, 6)
    exact, cut = ClassMoments.from_vectors(x, codes, 6), _truncated(monkeypatch, x, codes, 6, 5)
    read = cut.read(x.double()).mean(dim=1)  # the classes' mean is that of all, since they are equally large
    assert read.numpy() == pytest.approx(exact.read(x.double()).mean(dim=1).numpy(), abs=1e-6)
    bits = information.bits(exact, False)
    assert 0 < information.bits(cut, False) < bits
    more = _truncated(monkeypatch, x, codes, 6, 14)
    assert information.bits(cut, False) < information.bits(more, False) < bits
    whole = _truncated(monkeypatch, x[:60], codes[:60], 6, 15)  # room for all
    assert whole.discarded == 0
    assert information.bits(whole, False) == pytest.approx(
        information.bits(ClassMoments.from_vectors(x[:60], codes[:60], 6), False)
    )


def test_readouts_of_truncated_moments_read_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    n, d, k = 3000, 60, 30
    x, codes = _data(n, d, k)
    x = torch.nn.functional.normalize(
        x + torch.randn(x.shape, generator=torch.Generator().manual_seed(2)) / 8, dim=1
    )
    keys = torch.rand(n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)

    def scored() -> dict[str, float]:
        found: LabelledMoments | None = None
        for start in range(0, n, 500):
            part = slice(start, start + 500)
            new = labelled(x[part, None], codes[part], keys[part], start)
            if found is None:
                found = new
            else:
                found += new
        assert found is not None
        known = DecodedLabels.from_moments(found, tuple(range(k)))
        lost = {"discarded": known.discarded}
        return lost | {name: estimate.value for name, estimate in known.estimates.items()}

    exact = scored()
    monkeypatch.setattr(classes_module, "MOST_BYTES", 2 * 8 * k * d * 4)
    cut = scored()
    assert exact["discarded"] == 0
    assert cut["discarded"] > 0.1
    assert exact["linear_balanced"] > 0.9
    assert cut["linear_balanced"] == pytest.approx(exact["linear_balanced"], abs=0.01)
    assert cut["pgm_balanced"] == pytest.approx(exact["pgm_balanced"], abs=0.02)
    assert cut["holevo"] < exact["holevo"]


def test_matrices_that_outgrow_their_room_become_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sorted by label: the first labels fill matrices, until there are too many of them."""
    x, codes = _data(4000, 16, 40)
    order = codes.argsort(stable=True)
    x, codes = x[order], codes[order]
    monkeypatch.setattr(classes_module, "MOST_BYTES", 20 * 16 * 16 * 8)
    found: ClassMoments | None = None
    forms = []
    for start in range(0, 4000, 250):
        new = ClassMoments.from_vectors(
            x[start : start + 250], codes[start : start + 250], 1 + int(codes[start + 249])
        )
        found = new if found is None else found + new
        forms.append(
            "factors" if found.total is not None else "matrices" if found.dense is not None else "kets"
        )
    assert found is not None
    assert list(dict.fromkeys(forms)) == ["matrices", "factors"]
    assert found.total.numpy() == pytest.approx((x.double().T @ x.double()).numpy(), rel=1e-4, abs=1e-4)
    mine = x[codes == 3]
    assert found.means[3].numpy() == pytest.approx(mine.mean(dim=0).numpy(), abs=1e-6)
    assert float(found.own(3)[0].square().sum() + found.lost[3]) == pytest.approx(100, rel=1e-4)


def test_a_thousand_labels_of_2048_features_stay_in_memory() -> None:
    k, d, n, batch = 1000, 2048, 12_288, 512
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(k, d, generator=generator) / 2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: LabelledMoments | None = None
    for start in range(0, n, batch):
        codes = torch.randint(k, (batch,), generator=generator)
        x = centres[codes] + torch.randn(batch, d, generator=generator)
        keys = torch.rand(batch, generator=generator, dtype=torch.float64)
        new = labelled(x[:, None], codes, keys, start)
        if found is None:
            found = new
        else:
            found += new
    assert found is not None
    held = sum(tensor.nbytes for tensor in pack(found)[1].values())
    # Factors, the sum over all labels, the labels' sums, and the kets that are kept.
    assert held < MOST_BYTES + 8 * d * d + 8 * k * d + 4 * d * (HELD_MOST + CHECK_MOST) + (1 << 20)
    fitting = found.fitting(k)
    assert fitting.moments.discarded > 0.2
    readouts = read_out(found, fitting)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert peak < 800 << 20  # a matrix a label would take 33 GB
    for kind in (LINEAR, PRETTY_GOOD):
        scores = readouts[kind].scores(found.held.kets)
        assert float((scores.argmax(dim=1) == found.held.targets).double().mean()) > 0.9


def test_a_study_says_what_was_kept_in_common(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(classes_module, "MOST_BYTES", 2 * 3 * 50 * 20 * 4)
    x, codes = _data(2000, 20, 50)
    record = kw.study(nn.Identity(), x, labels=codes)
    told = [
        warning for warning in record.warnings if "too many for a state of each label at (model)" in warning
    ]
    assert len(told) == 1
    known = record["(model)"].labels
    assert known is not None
    assert f"up to {known.discarded:.0%} of the weight" in told[0]
    assert math.isfinite(known.estimates["holevo"].value)
    record.save(tmp_path / "study.safetensors")
    loaded = kw.Study.load(tmp_path / "study.safetensors")
    assert loaded.warnings == record.warnings
    again = DecodedLabels.from_moments(loaded["(model)"].labels.moments, known.names).estimates
    # Sums of float32 products depend in their last digits on where in memory the rows lie.
    for name, estimate in known.estimates.items():
        assert again[name].value == pytest.approx(estimate.value, rel=1e-8, nan_ok=True), name
    assert known.state(7).purity() > 1 / 6


def test_of_very_wide_kets_no_matrix_of_their_width_is_made() -> None:
    """The exact sum over classes of 16,400 features would take 2 GB, of a large vocabulary's 49,152 logits 19 GB."""
    kets = torch.randn(1100, 16_400, generator=torch.Generator().manual_seed(0))
    kets /= kets.norm(dim=1, keepdim=True)
    moments = ClassMoments.from_vectors(kets, torch.arange(1100) % 2, 2)

    assert moments.total is None
    assert moments.dense is None
    assert moments.rows.nbytes <= MOST_BYTES
    assert 0 < moments.discarded < 1
    kept = moments.rows.double().square().sum() + moments.lost.sum()
    assert float(kept) == pytest.approx(1100, rel=1e-5)  # each ket weighs 1
