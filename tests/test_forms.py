"""Predictions that arrive in another form: the conversions, once for all losses that use them.

Losses with a definition of their own for a form are proved by the battery's check of forms.
"""

from __future__ import annotations

import numpy as np
import pytest

from lossary import Loss
from lossary.contract import Contract, Space
from lossary.inputs import CONVERSIONS, unchanged
from lossary.numerics import sigmoid
from lossary.testing import library_of
from lossary.testing.checks.forms import FORMS, inside
from lossary.testing.oracle import truth_of
from lossary.testing.precision import DTYPES
from lossary.testing.samples import single

CASES = [
    (space, way)
    for space, ways in CONVERSIONS.items()
    for way, convert in ways.items()
    if convert is not unchanged
]
LOGITS = np.array([0, 1e-4, 0.1, 1, 3, 10, 20, 40, 80, 200, 1e4])


def test_every_conversion_is_proved() -> None:
    assert {(space, way) for space, ways in FORMS.items() for way in ways} >= set(CASES)


@pytest.mark.parametrize("name", ["torch", "jax", "tensorflow"])
@pytest.mark.parametrize(("space", "way"), CASES)
def test_conversion_is_right_in_value_and_slope(space: str, way: str, name: str) -> None:
    form, convert, library = FORMS[space][way], CONVERSIONS[space][way], library_of(name)
    numbers = np.array([*-LOGITS, *LOGITS])
    if space == "mask":
        numbers = sigmoid(numbers)
    elif form.interval.high > 1:
        numbers = numbers[np.abs(numbers) <= 80]
    made = single(form.there(numbers))
    made = np.unique(np.where(np.abs(made) < float(np.finfo("float32").tiny), 0.0, made))

    def number(x):  # type: ignore[no-untyped-def]
        return convert(x)

    for dtype in DTYPES:
        batch, spaces = {"x": inside(made, way, dtype)}, {"x": Space(way, form.interval)}
        truth = truth_of(Contract(number), form.back, batch, {}, spaces)
        given = {"x": made.astype(dtype)}
        values, slopes = library.values_and_gradients(number, given, ("x",))
        factors = truth.excess(values, dtype)
        assert (factors <= 1).all(), (given, values, truth.values.high)
        factors = truth.excess(slopes["x"], dtype, "x")
        assert (factors <= 1).all(), (given, slopes, truth.slopes["x"][0].high)


@pytest.mark.parametrize("way", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_wrong_and_certain_has_a_finite_cost_and_a_slope(way: str, dtype: str) -> None:
    """Exactly 0 and 1 count as the nearest numbers inside; no logarithm of 0 reaches anyone."""
    ends = np.array([0.0, 1.0], dtype)
    with np.errstate(divide="ignore"):
        prediction = ends if way == "probabilities" else np.log(ends)
    loss = Loss("real_world_weight_binary_cross_entropy", predictions=way, reduction="sum")
    value, slope = loss.value_and_grad(prediction, 1 - ends)
    assert np.isfinite(value)
    assert value > 80
    assert np.isfinite(slope).all()
    assert slope[1] > 0
    right, flat = loss.value_and_grad(prediction, ends)
    assert 0 <= right < 1e-6
    assert np.isfinite(flat).all()
