"""Holevo bits: closed forms, brute force, the null, and bounds."""

import functools
import math
import operator

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import ketwork as kw
from ketwork.networks.activations.encoding import unit
from ketwork.networks.measures import holevo as information
from ketwork.networks.measures import holevo_null as chance
from ketwork.networks.measures.decoded import DecodedLabels
from ketwork.networks.moments import LabelledMoments, Rows
from ketwork.networks.moments.class_moments import ClassMoments
from ketwork.networks.study.run import study
from ketwork.quantum import trace_distance


def known(x: Tensor, labels: object, *, seed: int = 0) -> DecodedLabels:
    """What a layer that puts out x knows of the labels."""
    found = kw.study(nn.Identity(), x, labels=labels, seed=torch.Generator().manual_seed(seed))
    knowledge = found["(model)"].labels
    assert knowledge is not None
    return knowledge


def fitted(x: Tensor, knowledge: DecodedLabels) -> Tensor:
    """Which samples are in the fitting part."""
    mask = torch.ones(len(x), dtype=torch.bool)
    mask[knowledge.held_out] = False
    return mask


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("n", [60, 900])
def test_holevo_is_that_of_states_made_by_hand(dtype: torch.dtype, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (n,), generator=generator)
    x = torch.randn(n, 10, dtype=dtype, generator=generator) + 0.7 * torch.eye(10, dtype=dtype)[labels]
    knowledge = known(x, labels.tolist())
    mask = fitted(x, knowledge)
    kets = torch.nn.functional.normalize(x, dim=1)[mask]
    order = [int(label) for label in knowledge.labels]
    states = [kw.Density.from_kets(kets[labels[mask] == c]) for c in order]
    weights = torch.stack([(labels[mask] == c).double().mean() for c in order])
    expected = kw.Ensemble(weights, states)
    assert knowledge.estimates["holevo"].value == pytest.approx(float(kw.holevo(expected)), abs=1e-8)
    assert float(kw.holevo(knowledge.ensemble())) == pytest.approx(float(kw.holevo(expected)), abs=1e-8)
    for label, state in zip(order, states, strict=True):
        assert float(kw.trace_distance(knowledge.state(label), state)) < 1e-8


@pytest.mark.parametrize("k", [2, 5, 8])
def test_full_collapse_gives_all_bits_and_a_centred_simplex_those_of_one_label_less(k: int) -> None:
    labels = torch.arange(k).repeat(200)
    orthogonal = known(torch.eye(16)[labels] * 3, labels)
    counts = orthogonal.moments.fitting().moments.counts
    entropy = float(kw.shannon_entropy(counts / counts.sum()))
    assert orthogonal.estimates["holevo"].value == pytest.approx(entropy, abs=1e-6)
    assert entropy == pytest.approx(math.log2(k), abs=0.02)
    simplex = known((torch.eye(k) - 1 / k)[labels], labels)
    assert simplex.estimates["holevo"].value == pytest.approx(math.log2(k - 1), abs=0.02)
    for name in ("pgm_accuracy", "linear_accuracy", "pgm_auc", "linear_auc"):
        assert orthogonal.estimates[name].value == 1
        assert simplex.estimates[name].value == 1


def test_helstrom_and_holevo_of_two_pure_states() -> None:
    c = 1 / math.sqrt(2)
    kets = torch.tensor([[1.0, 0.0], [c, math.sqrt(1 - c * c)]], dtype=torch.float64)
    labels = ["plus", "tilted"] * 400
    knowledge = known(kets.repeat(400, 1), labels)
    assert knowledge.helstrom("plus", "tilted") == pytest.approx((1 + math.sqrt(1 - c * c)) / 2, abs=1e-8)
    assert knowledge.helstrom("plus", "tilted") == pytest.approx(0.853553, abs=1e-6)
    counts = knowledge.moments.fitting().moments.counts
    assert knowledge.estimates["holevo"].value == pytest.approx(0.600876, abs=2e-3)  # at equal counts
    assert float(counts.min() / counts.max()) > 0.85
    with pytest.raises(KeyError, match="No label 'minus' in the fitting part; it has plus, tilted"):
        knowledge.helstrom("plus", "minus")


def test_random_labels_of_gaussians_give_the_formula() -> None:
    nulls, found = [], []
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(1334, 64, generator=generator)  # about 1,000 of them fit
        knowledge = known(x, torch.arange(1334) % 10, seed=seed)
        nulls.append(knowledge.estimates["holevo_null"].value * math.log(2))
        found.append(knowledge.estimates["holevo"].value * math.log(2))
    assert sum(found) / 8 == pytest.approx(0.288, rel=0.03)
    assert sum(nulls) / 8 == pytest.approx(0.288, rel=0.03)


@pytest.mark.parametrize("shares", [(0.1,) * 10, (0.86, 0.14), (0.6, 0.25, 0.1, 0.04, 0.01)])
def test_null_is_what_random_labels_give_on_anisotropic_data(shares: tuple[float, ...]) -> None:
    """The excess over the null is 0 within its own error, which comes from repeating."""
    excess = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        x = 0.5 + torch.randn(1200, 48, generator=generator) * torch.logspace(0.5, -2, 48)
        labels = torch.multinomial(torch.tensor(shares), 1200, True, generator=generator)
        estimates = known(x, labels, seed=seed).estimates
        excess.append(estimates["holevo"].value - estimates["holevo_null"].value)
    drawn = torch.tensor(excess)
    assert abs(float(drawn.mean())) < 4 * float(drawn.std()) / math.sqrt(10) + 1e-3
    assert float(drawn.std()) < 0.02


def test_null_of_many_kets_follows_the_formula() -> None:
    flat = torch.full((32,), 1 / 32, dtype=torch.float64)
    formula = 32 / (2 * 20_000) * (1 - 1 / 4) / math.log(2)
    assert chance.chance_bits(flat, 80_000, [20_000] * 4) == pytest.approx(formula, rel=5e-3)


@pytest.mark.parametrize(("n", "d", "share"), [(300, 256, 0.5), (300, 64, 0.1), (120, 400, 0.3)])
def test_a_random_share_of_the_kets_loses_the_entropy_that_free_compression_says(
    n: int, d: int, share: float
) -> None:
    """Against the states of random subsets, from fewer kets than dimensions to more."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.arange(1, d + 1) ** -0.3
    x = torch.nn.functional.normalize(x, dim=1)
    whole = kw.Density.from_kets(x)
    count = round(share * n)
    drawn = [
        float(kw.Density.from_kets(x[torch.randperm(n, generator=generator)[:count]]).entropy())
        for _ in range(12)
    ]
    lost = chance.loss(whole.spectrum(), n, count / n)
    assert lost == pytest.approx(float(whole.entropy()) - sum(drawn) / 12, rel=0.03)


@pytest.mark.parametrize(("samples", "rows"), [(300, 4), (100, 8)])
def test_null_counts_samples_where_labels_are_those_of_all_their_positions(samples: int, rows: int) -> None:
    found, null, corrected = [], [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(samples, 1, 16, generator=generator)
        x = x + 0.4 * torch.randn(samples, rows, 16, generator=generator)
        labels = torch.randint(2, (samples, 1), generator=generator).expand(samples, rows)
        reading = kw.Reading(feature_axis=-1)
        known = kw.study(nn.Identity(), x, labels=labels.numpy(), reading=reading, seed=seed)["(model)"]
        found.append(known.holevo.value)
        null.append(known.holevo_null.value)
        corrected.append(known.holevo_corrected)
    assert sum(null) == pytest.approx(sum(found), rel=0.07)
    formula = 16 / (0.75 * samples) / 2 / math.log(2)  # of as many independent kets as samples
    assert 0.6 * formula < sum(null) / 12 < formula
    drawn = torch.tensor([each.value for each in corrected])
    assert abs(float(drawn.mean())) < 4 * float(drawn.std()) / math.sqrt(12)
    errors = torch.tensor([each.stderr for each in corrected])
    assert 0.6 * float(drawn.std()) < float(errors.median()) < 1.6 * float(drawn.std())


def test_the_error_of_holevo_bits_covers_what_the_population_gives() -> None:
    """Labels that a layer knows a little of: the corrected bits are right on average, and their errors their spread."""
    generator = torch.Generator().manual_seed(10**6)

    def data(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        codes = torch.randint(2, (n,), generator=generator)
        return torch.randn(n, 12, generator=generator) + 1.2 * torch.eye(12)[codes], codes

    x, codes = data(200_000, generator)
    truth = information.bits(ClassMoments.from_vectors(unit(x)[0], codes, 2), False)
    plain, corrected = [], []
    for seed in range(30):
        x, codes = data(240, torch.Generator().manual_seed(seed))
        estimates = known(x, codes, seed=seed).estimates
        plain.append(estimates["holevo"])
        corrected.append(estimates["holevo_corrected"])
    drawn = torch.tensor([each.value for each in corrected])
    assert abs(float(drawn.mean()) - truth) < 3 * float(drawn.std()) / math.sqrt(30)
    assert sum(abs(each.value - truth) <= 1.96 * each.stderr for each in corrected) >= 26
    assert all(abs(each.value - truth) <= 1.96 * each.stderr for each in plain)
    bias = sum(each.value for each in plain) / 30 - truth
    assert bias > 3 * float(drawn.std()) / math.sqrt(30)  # which is what is taken off


def test_holevo_never_exceeds_the_entropy_of_the_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    for n, d, k in ((12, 40, 6), (50, 4, 25), (300, 30, 2)):
        labels = torch.randint(k, (n,), generator=generator)
        knowledge = known(torch.randn(n, d, generator=generator), labels)
        counts = knowledge.moments.fitting().moments.counts
        bits = knowledge.estimates["holevo"].value
        assert 0 <= bits <= float(kw.shannon_entropy(counts / counts.sum())) + 1e-9


def test_measurements_never_read_more_bits_than_holevo() -> None:
    labels = torch.randint(4, (600,), generator=torch.Generator().manual_seed(0))
    knowledge = known(
        torch.randn(600, 12, generator=torch.Generator().manual_seed(1)) + torch.eye(12)[labels], labels
    )
    ensemble = knowledge.ensemble()
    read = float(kw.Measurement.pretty_good(ensemble).information(ensemble))
    assert 0 < read <= knowledge.estimates["holevo"].value


def _gaussian(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_random_labels_show_no_more_than_the_null_of_holevo() -> None:
    labels = torch.arange(1000) % 10
    found, null, formula = [], [], []
    for seed in range(10):
        known = study(nn.Identity(), _gaussian(1000, 64, seed=seed), labels=labels)["(model)"].labels
        assert known is not None
        fitted = float(known.moments.fitting().moments.counts.mean())  # kets of a label
        found.append(known.estimates["holevo"].value)
        null.append(known.estimates["holevo_null"].value)
        formula.append(64 / (2 * fitted) * (1 - 1 / 10) / math.log(2))
    assert sum(found) == pytest.approx(sum(null), rel=0.01)
    assert sum(found) == pytest.approx(sum(formula), rel=0.03)  # the formula is the first order in d/n


def _labelled(n: int, d: int, classes: int, seed: int, is_complex: bool) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, classes, (n,), generator=draw)
    kets = torch.randn(n, d, generator=draw, dtype=torch.complex64 if is_complex else torch.float32)
    kets = kets * torch.arange(1, d + 1) ** -0.7 + torch.nn.functional.one_hot(codes, d)
    kets = unit(kets)[0]
    return (torch.cat([kets.real, kets.imag], dim=1) if is_complex else kets), codes


@settings(max_examples=settings.default.max_examples // 4)
@given(
    sizes=st.lists(st.integers(5, 200), min_size=1, max_size=3),
    classes=st.integers(2, 4),
    most=st.sampled_from([1_500, 4_000, 8_000]),
    is_complex=st.booleans(),
)
def test_holevo_bits_of_sketched_classes_lie_between_their_bounds(
    sizes: list[int], classes: int, most: int, is_complex: bool
) -> None:
    parts = [_labelled(n, 24, classes, seed, is_complex) for seed, n in enumerate(sizes)]
    sketch = functools.reduce(
        operator.add, (ClassMoments.from_vectors(kets, codes, classes, most) for kets, codes in parts)
    )
    assume(sketch.sketched)
    kets, codes = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    exact = information.bits(ClassMoments.from_vectors(kets, codes, classes), is_complex)
    low, high = information.bounds(sketch, is_complex)
    assert low - 1e-6 <= exact <= high + 1e-6
    for code in range(classes):  # and each class's own moment is bounded as it says
        own, rows = sketch.rows[sketch.owners == code].double(), kets[codes == code].double()
        left = torch.linalg.eigvalsh(rows.mT @ rows - own.mT @ own)
        assert float(left[0]) > -1e-4
        assert float(left[-1]) <= float(sketch.slack[code]) + 1e-4
        assert float(left.sum()) == pytest.approx(float(sketch.lost[code]), abs=1e-3)
    shares = sketch.lost / sketch.counts.clamp(min=1)
    if bool((sketch.counts[:2] > 0).all()):
        kept, whole = (
            trace_distance(*(information.state_of(moments, code, is_complex) for code in (0, 1)))
            for moments in (sketch, ClassMoments.from_vectors(kets, codes, classes))
        )
        assert (
            abs(float(kept) - float(whole)) <= float(shares[:2].sum()) + 1e-6
        )  # what `helstrom` says of itself


def test_the_error_of_few_samples_is_students() -> None:
    """Two labels that are basis states: a sample's share of χ is −log₂ of its label's frequency."""
    n = 80
    codes = (torch.arange(n) % 4 == 0).long()
    keys = torch.rand(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moments = LabelledMoments.from_rows(Rows(torch.eye(200)[codes], codes, keys, torch.arange(n)))
    found = DecodedLabels.from_moments(moments, ("a", "b")).estimates["holevo_corrected"]
    counts = moments.fitting().moments.counts.double()
    total = float(counts.sum())
    shares = (-(counts / total).log2()).repeat_interleave(counts.long())
    squares = (shares - shares.mean()).square()
    nu = min(2 / (float(squares.square().sum() / squares.sum() ** 2) - 1 / total), total - 1)
    expected = float(shares.std()) / math.sqrt(total) * stats.t.ppf(0.975, nu) / 1.959964
    assert found.stderr == pytest.approx(expected, rel=2e-3)
