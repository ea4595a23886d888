"""`Estimate`: a float with its error, its bounds and its unit, through arithmetic, formats, files and copies."""

import copy
import json
import math
import pickle
import statistics
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

import ketwork as kw
from ketwork.quantum import Estimate

NAN = float("nan")


def parts(e: Estimate) -> tuple[object, ...]:
    """All that it is; NaN as None, which is equal to itself."""
    numbers = (e.value, e.stderr, *(e.bounds or ()))
    return (type(e), *(None if math.isnan(x) else x for x in numbers), e.unit)


# A number
def test_it_is_a_float_wherever_one_is_taken() -> None:
    e = Estimate(2.25, 0.5, (2.0, 3.0), "bit")
    assert isinstance(e, float)
    assert kw.Estimate is Estimate
    assert type(e.value) is float
    assert (e == 2.25, e > 2, e < 2.5, hash(e) == hash(2.25), bool(Estimate(0.0))) == (True,) * 4 + (False,)
    assert {2.25: "found"}[e] == "found"
    assert math.sqrt(e) == 1.5
    assert sorted([Estimate(3), Estimate(1), 2]) == [1, 2, 3]
    assert round(e) == 2
    assert json.dumps({"S": e}) == '{"S": 2.25}'
    assert np.array([e, e]).dtype == np.float64
    assert pd.Series([e]).dtype == np.float64
    assert torch.tensor([e], dtype=torch.float64).tolist() == [2.25]
    assert statistics.mean([Estimate(1), Estimate(2)]) == 1.5


@pytest.mark.parametrize("made", [3, 3.0, np.float32(3), np.int64(3), torch.tensor(3.0), "3"])
def test_it_is_made_of_whatever_float_takes(made: object) -> None:
    assert parts(Estimate(made)) == (Estimate, 3.0, None, "")  # type: ignore[arg-type]


def test_parts_are_plain_numbers() -> None:
    e = Estimate(np.float32(1.5), np.float32(0.5), (np.float32(1), np.int64(2)))  # type: ignore[arg-type]
    assert [type(x) for x in (e.value, e.stderr, *e.bounds)] == [float] * 4  # type: ignore[misc]


# Bounds
def test_bounds_are_those_given_or_the_value_alone() -> None:
    assert (Estimate(1.5).low, Estimate(1.5).high, Estimate(1.5).bounds) == (1.5, 1.5, None)
    known = Estimate(1.5, bounds=(1.25, 1.75))
    assert (known.low, known.value, known.high) == (1.25, 1.5, 1.75)


# Arithmetic with plain numbers
@pytest.mark.parametrize("two", [2, 2.0, np.float32(2), np.float64(2), np.int64(2), Fraction(2)])
def test_plain_numbers_scale_and_shift_all_parts(two: float) -> None:
    e = Estimate(3.0, 0.5, (2.0, 5.0), "bit")
    assert parts(e + two) == (Estimate, 5.0, 0.5, 4.0, 7.0, "bit")
    assert parts(e - two) == (Estimate, 1.0, 0.5, 0.0, 3.0, "bit")
    assert parts(e * two) == (Estimate, 6.0, 1.0, 4.0, 10.0, "bit")
    assert parts(e / two) == (Estimate, 1.5, 0.25, 1.0, 2.5, "bit")
    assert parts(e * -two) == (Estimate, -6.0, 1.0, -10.0, -4.0, "bit")


def test_plain_numbers_may_stand_on_the_left() -> None:
    e = Estimate(3.0, 0.5, (2.0, 5.0), "bit")
    assert parts(2 + e) == parts(e + 2)
    assert parts(2.0 - e) == (Estimate, -1.0, 0.5, -3.0, 0.0, "bit")
    assert parts(100 * e) == (Estimate, 300.0, 50.0, 200.0, 500.0, "bit")


def test_signs() -> None:
    e = Estimate(-3.0, 0.5, (-5.0, -2.0), "bit")
    assert parts(+e) == parts(e)
    assert parts(-e) == parts(abs(e)) == (Estimate, 3.0, 0.5, 2.0, 5.0, "bit")
    assert parts(abs(Estimate(-1.0, 0.5, (-2.0, 1.0)))) == (Estimate, 1.0, 0.5, 0.0, 2.0, "")
    assert parts(abs(Estimate(1.0, 0.5, (-4.0, 2.0)))) == (Estimate, 1.0, 0.5, 0.0, 4.0, "")


def test_what_has_no_known_error_is_a_plain_number() -> None:
    """Two estimates of one data set are not independent, and a curved function has another error."""
    a, b = Estimate(3.0, 0.5), Estimate(2.0, 0.25)
    plain = [a + b, a - b, a * b, a / b, a**2, 1 / a, a // 1, a % 2, sum([a, b])]
    assert plain == [5.0, 1.0, 6.0, 1.5, 9.0, 1 / 3, 3.0, 1.0, 5.0]
    assert {type(x) for x in plain} == {float}


def test_tensors_and_arrays_take_it_as_a_number() -> None:
    e = Estimate(3.0, 0.5)
    assert (torch.ones(2) * e).tolist() == (e * torch.ones(2)).tolist() == [3, 3]
    assert (np.ones(2) * e).tolist() == (e * np.ones(2)).tolist() == [3, 3]
    assert e * 1j == 3j
    with pytest.raises(TypeError):
        e + "1"
    with pytest.raises(ZeroDivisionError):
        e / 0


# Formats
@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(2.2891, 0.0022, unit="bit"), "2.289 ± 0.002 bit"),
        (Estimate(2.2891, 0.0011), "2.2891 ± 0.0011"),
        (Estimate(203.4, 14.0), "203 ± 14"),
        (Estimate(203.4, 3.0, unit="dimensions"), "203 ± 3 dimensions"),
        (Estimate(1.0, 0.0), "1.00 ± 0.00"),
        (Estimate(2.5), "2.5"),
        (Estimate(2.5, unit="bit"), "2.5 bit"),
        (Estimate(123456.0), "1.235e+05"),
        (Estimate(NAN), "–"),
        (Estimate(NAN, 0.1, unit="bit"), "–"),
        (Estimate(), "–"),
        (Estimate(1.5, bounds=(1.25, 1.75)), "1.25 … 1.75"),
        (Estimate(1.5, 0.1, (1.25, 1.75), "bit"), "1.25 … 1.75 ± 0.10 bit"),
        (Estimate(1.5, 0.1, (1.4999, 1.5001)), "1.50 ± 0.10"),
        (Estimate(1.0, math.inf), "1 ± inf"),
        (Estimate(math.inf, 0.1), "inf ± 0.10"),
        # Errors too small for decimals, of which zeros would be left alone.
        (Estimate(2.289123456789, 3e-9), "2.289123457 ± 3e-09"),
        (Estimate(2.3e-9, 1.2e-10), "2.3e-09 ± 1e-10"),
        (Estimate(0.0, 1e-9), "0 ± 1e-09"),
        (Estimate(1e-12, 1e-9, unit="nat"), "1e-12 ± 1e-09 nat"),
    ],
)
def test_it_prints_with_the_digits_that_its_error_leaves(estimate: Estimate, text: str) -> None:
    assert str(estimate) == f"{estimate}" == text
    assert repr(estimate) == f"<Estimate {text}>"


def test_format_specs_are_those_of_the_number() -> None:
    e = Estimate(2.2891, 0.0022, unit="bit")
    assert (f"{e:.1f}", f"{e:8.2e}", f"{e:>6.1%}", f"{e:.2f}") == (
        "2.3",
        "2.29e+00",
        "228.9%",
        "2.29",
    )
    with pytest.raises(ValueError, match="format"):
        f"{e:d}"


def test_words_show_bounds_where_they_read_apart() -> None:
    e = Estimate(1.5, bounds=(1.46, 1.53))
    assert e.words("{:.2f}".format) == "1.46 … 1.53"
    assert e.words("{:.1f}".format) == "1.5"
    assert Estimate(0.125).words("{:.1%}".format) == "12.5%"


# Files and copies
@pytest.mark.parametrize(
    "estimate",
    [Estimate(), Estimate(1.5), Estimate(1.5, 0.1, unit="bit"), Estimate(1.5, 0.1, (1.0, 2.0), "bit")],
)
def test_copies_have_all_parts(estimate: Estimate) -> None:
    copies = [copy.copy(estimate), copy.deepcopy(estimate)]
    copies += [
        pickle.loads(pickle.dumps(estimate, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ]
    assert {parts(each) for each in copies} == {parts(estimate)}


def test_nan_is_nan() -> None:
    e = Estimate(NAN, 0.1, (1.0, 2.0))
    assert math.isnan(e)
    assert [e == e, e < 1, e > 1] == [False] * 3
    assert all(math.isnan(x) for x in (e + 1, 2 * e, -e, abs(e), e / 3))
    assert math.isnan(Estimate(1.0).stderr)
    assert math.isnan((Estimate(1.0) * 2).stderr)
