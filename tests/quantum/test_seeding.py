"""Randomness by argument: an integer or a generator, the same everywhere, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ketwork.quantum import Ket, Measurement, random_density, random_ket, random_unitary

UNIFORM = Ket.normalized(torch.ones(50))
DRAWS: dict[str, Callable[..., Any]] = {
    "random_ket": lambda **seed: random_ket(5, (3,), **seed).amplitudes,
    "random_density": lambda **seed: random_density(5, 2, (3,), **seed).data,
    "random_unitary": lambda **seed: random_unitary(5, **seed),
    "Ket.measure": lambda **seed: UNIFORM.measure(40, **seed),
    "Density.measure": lambda **seed: UNIFORM.density().measure(40, **seed),
    "Measurement.measure": lambda **seed: Measurement.projective(torch.eye(50)).measure(
        Ket(UNIFORM.amplitudes.expand(40, 50)), **seed
    )[0],
}
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)


@every_draw
def test_an_integer_is_a_generator_with_that_seed(draw: Callable[..., Any]) -> None:
    assert torch.equal(draw(seed=3), draw(seed=torch.Generator().manual_seed(3)))
    assert not torch.equal(draw(seed=3), draw(seed=4))


@every_draw
def test_a_generator_moves_on(draw: Callable[..., Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    first, second = draw(seed=generator), draw(seed=generator)
    assert not torch.equal(first, second)


@every_draw
def test_without_a_seed_it_is_torchs_own_and_with_one_that_is_left_alone(draw: Callable[..., Any]) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    draw(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    first = draw()
    torch.manual_seed(5)
    assert torch.equal(draw(seed=None), first)
    assert not torch.equal(torch.get_rng_state(), before)


@every_draw
@pytest.mark.parametrize("seed", [1.0, "1", True, torch.tensor(1)])
def test_anything_else_is_refused(draw: Callable[..., Any], seed: Any) -> None:
    with pytest.raises(TypeError, match=r"Argument `seed` must be an integer or a torch.Generator, but is "):
        draw(seed=seed)


@every_draw
def test_its_name_in_version_0_1_works_and_warns(draw: Callable[..., Any]) -> None:
    with pytest.warns(FutureWarning, match="Argument `generator` of `.*` is now called `seed`") as caught:
        old = draw(generator=torch.Generator().manual_seed(3))
    assert torch.equal(old, draw(seed=3))
    assert [warning.filename for warning in caught] == [__file__]
    with pytest.raises(TypeError, match="`generator` is the old name of `seed`, which was given too"):
        draw(generator=torch.Generator(), seed=3)
