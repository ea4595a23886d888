"""The contract of questions: what every measurement of activations keeps to, in every mode that it takes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ketwork.networks.collapse.projections import (
    MODES,
    Directions,
    General,
    Neurons,
    Positions,
    Projective,
    Question,
    Region,
)
from ketwork.quantum import Ket, Measurement, random_unitary

N, T, D = 5, 4, 6
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unitary(dtype: torch.dtype) -> Tensor:
    return random_unitary(D, dtype=dtype, seed=1)


def rows(k: int, dtype: torch.dtype) -> Tensor:
    """One direction for each of k outcomes (k, 1, d)."""
    return unitary(dtype)[:k, None]


def blocks(dtype: torch.dtype) -> Tensor:
    """Outcomes of two, one and no more directions (2, 2, d): the second is padded with a zero row."""
    u = unitary(dtype)
    return torch.stack([u[:2], torch.stack([u[2], torch.zeros_like(u[2])])])


@dataclass(frozen=True)
class Kind:
    """A kind of question for a dtype of activations, and how many outcomes it names."""

    name: str
    make: Callable[[torch.dtype], Question]
    outcomes: int


PROJECTIVE = [
    Kind("three directions", lambda t: Directions(rows(3, t)), 3),
    Kind("a basis", lambda t: Directions(rows(D, t)), D),
    Kind("subspaces", lambda t: Directions(blocks(t)), 2),
    Kind("one subspace of two", lambda t: Directions(blocks(t), only=0), 2),
    Kind("real directions", lambda t: Directions(rows(2, torch.float64)), 2),
    Kind("neurons", lambda t: Neurons((4, 0)), 2),
    Kind("all neurons", lambda t: Neurons(tuple(range(D))), D),
    Kind("positions", lambda t: Region(Positions([2, 0])), 2),
    Kind("all positions", lambda t: Region(Positions(slice(None))), T),
    Kind("a mask of positions", lambda t: Region(Positions(torch.tensor([True, False, False, True]))), 2),
]


def trine(dtype: torch.dtype) -> Question:
    """Three effects 2/3 |t⟩⟨t| in the first two dimensions, none a projector; the rest is shared out."""
    angles = torch.tensor([0.0, 2, 4], dtype=torch.float64) * math.pi / 3
    kets = torch.zeros(3, 1, D, dtype=torch.float64)
    kets[:, 0, 0], kets[:, 0, 1] = angles.cos(), angles.sin()
    return General(Measurement((2 / 3) ** 0.5 * kets, shares_rest=True))


GENERAL = [Kind("trine", trine, 3)]
projective = pytest.mark.parametrize("kind", PROJECTIVE, ids=lambda kind: kind.name)
every = pytest.mark.parametrize("kind", [*PROJECTIVE, *GENERAL], ids=lambda kind: kind.name)
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def activations(dtype: torch.dtype, seed: int = 3) -> Tensor:
    return torch.randn(N, T, D, dtype=dtype, generator=seeded(seed))


def over(question: Question) -> tuple[int, ...]:
    return question.over if isinstance(question, Projective) else (-1,)


def norms(values: Tensor, question: Question) -> Tensor:
    return torch.linalg.vector_norm(values, dim=over(question))


def hot(question: Projective, values: Tensor, k: int, outcomes: int) -> Tensor:
    """Pₖ of the values."""
    return question.combine(values, torch.eye(outcomes + 1, dtype=values.dtype)[k])


def modes(question: Question) -> tuple[str, ...]:
    return MODES if isinstance(question, Projective) else ("sample",)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# Projectors
@projective
@dtypes
def test_outcomes_are_orthogonal_projectors_that_add_up_to_everything(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    m = kind.outcomes
    parts = [hot(question, values, k, m) for k in range(m + 1)]
    close(sum(parts, torch.zeros_like(values)), values)
    for k, part in enumerate(parts):
        close(hot(question, part, k, m), part)
        for other in range(k):
            close(hot(question, part, other, m), torch.zeros_like(values))
    # Hermitian: ⟨b|P a⟩ = ⟨P b|a⟩
    b = activations(dtype, 4)
    for k in range(m + 1):
        close((b.conj() * parts[k]).sum(), (hot(question, b, k, m).conj() * values).sum())


@projective
@dtypes
def test_parts_are_the_squared_lengths_of_the_projections(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    parts = question.parts(values)
    assert not parts.is_complex()
    for k in range(kind.outcomes):
        close(parts[..., k], norms(hot(question, values, k, kind.outcomes), question).square())
    total = norms(values, question).square()
    rest = norms(hot(question, values, kind.outcomes, kind.outcomes), question).square()
    close(parts.sum(-1) + rest, total)
    assert question.complete(values) is bool(torch.allclose(rest, torch.zeros_like(rest), atol=1e-8))


@projective
@dtypes
def test_combining_is_linear_in_the_weights(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    one, two = torch.randn(2, kind.outcomes + 1, dtype=dtype, generator=seeded(5))
    close(
        question.combine(values, one + 2 * two),
        question.combine(values, one) + 2 * question.combine(values, two),
    )
    each = torch.randn(*values.shape[: 3 - len(question.over)], kind.outcomes + 1, dtype=dtype)
    combined = question.combine(values, each)  # with weights of its own for each ket
    close(combined[1], question.combine(values[1:2], each[1:2])[0])


# Modes
@every
@dtypes
def test_norms_dtypes_and_shapes_are_kept(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    for mode in modes(question):
        after, outcome = question.collapse(values, mode, seeded())
        if after is None:
            assert mode == "project"
            continue
        assert (after.shape, after.dtype) == (values.shape, dtype)
        left = norms(after, question) > 0
        if mode != "remove":  # which may leave nothing
            assert bool(left.all())
        close(norms(after, question)[left], norms(values, question)[left])
        assert (outcome is None) is (mode != "sample")


@every
def test_the_values_given_are_not_written_to(kind: Kind) -> None:
    question, values = kind.make(torch.float64), activations(torch.float64)
    before = values.clone()
    for mode in modes(question):
        question.collapse(values, mode, seeded())
    assert torch.equal(values, before)


@projective
@dtypes
def test_projecting_and_removing_are_the_two_parts_at_the_norm_of_the_whole(
    kind: Kind, dtype: torch.dtype
) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    chosen = question.chosen(values)
    assert chosen.shape == (kind.outcomes,)
    weights = torch.cat([chosen, chosen.new_zeros(1)]).to(dtype)
    inside = question.combine(values, weights)
    kept, left = (question.collapse(values, mode, seeded())[0] for mode in ("project", "remove"))
    shape = (..., *(None,) * len(question.over))
    share = [(norms(x, question) / norms(values, question))[shape] for x in (inside, values - inside)]
    if kept is None:
        assert bool(chosen.all())
        assert question.complete(values)
        close(inside, values)
        kept = values
    close(kept * share[0], inside)
    assert left is not None
    close(left * share[1], values - inside)
    close((kept.conj() * left).sum(over(question)), torch.zeros_like(norms(values, question)).to(dtype))


@every
@dtypes
def test_nothing_becomes_nothing(kind: Kind, dtype: torch.dtype) -> None:
    """A vector of zeros among others has no direction, and no outcome of it means anything."""
    question, values = kind.make(dtype), activations(dtype)
    values[1] = 0
    for mode in modes(question):
        after, _ = question.collapse(values, mode, seeded())
        assert after is None or torch.equal(after[1], values[1])


@projective
@dtypes
def test_what_lies_outside_is_projected_to_nothing(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    weights = torch.cat([~question.chosen(values), torch.ones(1, dtype=torch.bool)]).to(dtype)
    outside = question.combine(question.combine(values, weights), weights)  # twice, as rounding has it
    after, _ = question.collapse(outside, "project", seeded())
    assert after is None or torch.equal(after, torch.zeros_like(values))


@projective
@dtypes
def test_dephasing_keeps_every_part_and_draws_by_the_generator(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    after, _ = question.collapse(values, "dephase", seeded(1))
    assert after is not None
    close(question.parts(after), question.parts(values))
    again, other = (question.collapse(values, "dephase", seeded(seed))[0] for seed in (1, 2))
    assert torch.equal(again, after)
    assert not torch.equal(other, after)


# Drawing
@every
@dtypes
def test_a_drawn_outcome_is_one_of_those_named_or_the_rest(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    after, outcome = question.collapse(values, "sample", seeded(1))
    assert after is not None
    assert outcome is not None
    assert outcome.dtype == torch.int64
    assert outcome.shape == values.shape[: 3 - len(over(question))]
    rest = isinstance(question, Projective) and not question.complete(values)
    assert 0 <= int(outcome.min()) <= int(outcome.max()) < kind.outcomes + rest
    again, drawn = question.collapse(values, "sample", seeded(1))
    assert torch.equal(again, after)
    assert torch.equal(drawn, outcome)


@projective
@dtypes
def test_a_drawn_ket_is_its_outcomes_projection_and_gives_it_again(kind: Kind, dtype: torch.dtype) -> None:
    question, values = kind.make(dtype), activations(dtype)
    assert isinstance(question, Projective)
    after, outcome = question.collapse(values, "sample", seeded(1))
    weights = torch.nn.functional.one_hot(outcome, kind.outcomes + 1).to(dtype)
    projected = question.combine(values, weights)
    shape = (..., *(None,) * len(question.over))
    close(after, projected * (norms(values, question) / norms(projected, question))[shape])
    repeated, same = question.collapse(after, "sample", seeded(2))
    assert torch.equal(same, outcome)
    close(repeated, after)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_outcomes_follow_borns_rule(kind: Kind, dtype: torch.dtype) -> None:
    """χ² of 20,000 draws from one sample, in standard deviations of what it has for so many outcomes."""
    question, shots = kind.make(dtype), 20_000
    one = activations(dtype)[:1]
    values = one.expand(shots, T, D)
    _, outcome = question.collapse(values, "sample", seeded(7))
    assert outcome is not None
    drawn = outcome if outcome.ndim == 1 else outcome[:, 0]
    if isinstance(question, Projective):
        parts = question.parts(one)[0]
        born = parts if parts.ndim == 1 else parts[0]
        total = norms(one, question).square().flatten()[0]
        born = torch.cat([born, (total - born.sum())[None]]) / total
    else:
        assert isinstance(question, General)
        born = question.measurement.probabilities(Ket.normalized(one[0, 0].to(torch.complex128)))
    expected = shots * born.double()
    counts = torch.bincount(drawn, minlength=len(born)).double()
    possible = expected > 1e-6
    assert float(counts[~possible].sum()) == 0
    chi2 = float(((counts - expected)[possible].square() / expected[possible]).sum())
    freedom = max(int(possible.sum()) - 1, 1)
    assert chi2 < freedom + 5 * math.sqrt(2 * freedom)


# What does not fit
@every
def test_activations_of_another_size_are_refused(kind: Kind) -> None:
    question = kind.make(torch.float64)
    question.check(activations(torch.float64), True)
    few = torch.ones(N, 1, 1, dtype=torch.float64)
    if isinstance(question, Region) and kind.name == "all positions":
        with pytest.raises(ValueError, match="it has no positions"):
            question.check(few, False)
        return
    if isinstance(question, Neurons) and kind.outcomes == 1:
        return
    with pytest.raises(ValueError, match=r"it has|its neurons|its positions"):
        question.check(few, True)


@pytest.mark.parametrize("kind", [k for k in PROJECTIVE if "direction" in k.name][:1], ids=lambda k: k.name)
def test_real_activations_need_real_directions(kind: Kind) -> None:
    with pytest.raises(ValueError, match="its activations are real, but the directions are complex"):
        kind.make(torch.complex128).check(activations(torch.float64), True)


# Gradients
@projective
@pytest.mark.parametrize("mode", ["project", "remove", "dephase"])
def test_gradients_flow(kind: Kind, mode: str) -> None:
    question = kind.make(torch.float64)
    values = activations(torch.float64)[:2].requires_grad_()

    def run(x: Tensor) -> Tensor:
        after, _ = question.collapse(x, mode, seeded(1))
        return x if after is None else after

    if mode == "remove" and not bool(norms(run(values), question).all()):
        run(values).sum().backward()
        assert values.grad is not None
        assert bool(values.grad.isfinite().all())
        return
    assert torch.autograd.gradcheck(run, (values,))
