"""Predictions that arrive in another form: probabilities for logits, rates for their logarithms.

Where a loss has a definition of its own for the form, the truth is the loss's oracle behind the
inverse of the form's map; so no loss is named here. Where a conversion does it, the conversion is
what there is to prove (once for all losses); here the ends must give finite numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import mpmath as mp
import numpy as np

from lossary.contract import Contract, Interval
from lossary.inputs import CONVERSIONS, arrivals, unchanged
from lossary.numerics import log_softmax, sigmoid, softmax, softplus
from lossary.testing.checks.accuracy import compare
from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.oracle import Oracle, Truth, truth_of
from lossary.testing.precision import DTYPES
from lossary.testing.samples import Sample, single
from lossary.testing.subject import CheckFailed, Subject, as_dtype


class Form(NamedTuple):
    """How a prediction of the definition's space gets into the form, and back in mpmath."""

    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[Any], Any]
    interval: Interval


def _logit(p: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.clip(np.log(p) - np.log1p(-p), -80, 80)


_SHARE, _LOG_SHARE = Interval(0, 1, "neither"), Interval(-math.inf, 0, "neither")
_RATE = Form(np.exp, mp.log, Interval(0, math.inf, "neither"))
FORMS: dict[str, dict[str, Form]] = {
    "logit": {
        "probabilities": Form(sigmoid, lambda p: mp.log(p) - mp.log1p(-p), _SHARE),
        "log_probabilities": Form(
            lambda z: -softplus(-z), lambda log_p: log_p - mp.log(-mp.expm1(log_p)), _LOG_SHARE
        ),
    },
    "class logits": {
        "probabilities": Form(softmax, mp.log, _SHARE),
        "log_probabilities": Form(log_softmax, mp.mpf, _LOG_SHARE),
    },
    "log rate": {"rates": _RATE},
    "log variance": {"variances": _RATE},
    "mask": {"logits": Form(_logit, lambda z: 1 / (1 + mp.exp(-z)), Interval())},
}
THIN = 12  # every so many units of a hard batch


def inside(array: np.ndarray, way: str, dtype: str) -> np.ndarray:
    """Exactly 0 and 1 as the nearest numbers of the dtype inside."""
    info = np.finfo(dtype)
    least = float(info.smallest_normal)
    if way == "log_probabilities":
        return np.minimum(array, -least)
    if way == "probabilities":
        return np.clip(array, least, 1 - float(info.eps) / 2)
    return array


def _behind(oracle: Oracle, back: Callable[[Any], Any]) -> Oracle:
    """The oracle, of predictions in the form."""

    def canonical(numbers: Any) -> Any:
        if isinstance(numbers, list):
            return [canonical(number) for number in numbers]
        z = back(numbers)
        if isinstance(z, mp.mpc):
            raise ValueError("no member of the form")
        return z

    return lambda prediction, *others, **parameters: oracle(
        canonical(prediction), *others, **parameters
    )


def _samples(
    subject: Subject, library: Library, way: str, form: Form
) -> Iterator[tuple[int, Sample]]:
    """The hard batches in the form; like all samples, in numbers that float32 can hold.

    At the main parameter values; a definition of its own on the fast libraries at all.
    """
    (name,) = subject.contract.predictions
    least = float(np.finfo("float32").smallest_normal)
    every = way in subject.contract.forms and library.name in ("numpy", "torch")
    for number, sample in enumerate(subject.samples):
        if dict(sample.parameters) != subject.main and not every:
            continue
        arrays = {key: array[::THIN] for key, array in sample.arrays.items()}
        made = single(form.there(arrays[name]))
        made = np.where(np.abs(made) < least, 0.0, made)  # compilers flush what is smaller
        title = f"{sample.name} as {way}"
        yield number, Sample(title, sample.parameters, {**arrays, name: made})


def _truth(subject: Subject, way: str, form: Form, sample: Sample, dtype: str) -> Truth:
    contract = subject.contract
    (name,) = contract.predictions
    assert subject.oracle is not None
    oracle = subject.forms.get(way) or _behind(subject.oracle, form.back)
    arrays = {**sample.arrays, name: inside(sample.arrays[name], way, dtype)}
    space = replace(contract.inputs[name], name=way, interval=form.interval)
    spaces = {**contract.inputs, name: space}
    return truth_of(contract, oracle, arrays, sample.parameters, spaces)


def _ways(contract: Contract) -> dict[str, Form]:
    """The forms, less those that are the definition's own under another name."""
    if len(contract.predictions) != 1:
        return {}
    space = contract.inputs[contract.predictions[0]].name
    own = {way for way, convert in CONVERSIONS.get(space, {}).items() if convert is unchanged}
    return {
        way: form
        for way, form in FORMS.get(space, {}).items()
        if way in arrivals(contract) and (way in contract.forms or way not in own)
    }


@check("forms", "eager", lambda subject: bool(subject.oracle) and bool(_ways(subject.contract)))
def check_forms(subject: Subject, library: Library) -> None:
    """In each form that predictions may arrive in, value and derivative are as accurate."""
    if library.name == "array-api-strict":
        return  # the vocabulary is the definitions' own
    for way, form in _ways(subject.contract).items():
        converted = way not in subject.contract.forms
        if converted and library.name != "numpy":
            continue  # conversions are proved on every library by themselves
        for number, sample in _samples(subject, library, way, form):
            for dtype in DTYPES:
                values, gradient = _computed(subject, library, way, sample, dtype)
                if converted:
                    _must_be_finite(subject, library, sample, dtype, values, gradient)
                    continue
                key = ("form", way, number, dtype)
                if key not in subject._computed:
                    subject._computed[key] = _truth(subject, way, form, sample, dtype)
                truth = subject._computed[key]
                compare(subject, library, sample, dtype, values, truth)
                for name in truth.slopes:
                    compare(subject, library, sample, dtype, gradient, truth, name)


def _computed(
    subject: Subject, library: Library, way: str, sample: Sample, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    loss = subject.loss(sample.parameters, predictions=way, reduction="sum")
    arrays = library.arrays(subject.filled(library, as_dtype(sample.arrays, dtype)))
    (name,) = subject.contract.predictions
    gradient = library.numpy(loss.value_and_grad(**arrays)[1])
    values, gradients = subject.cut(sample, library.numpy(loss.values(**arrays)), {name: gradient})
    return values, gradients[name]


def _must_be_finite(
    subject: Subject, library: Library, sample: Sample, dtype: str, *found: np.ndarray
) -> None:
    values, gradient = found  # a slope beyond the largest number is infinite, and says so
    for what, fits in (("value", np.isfinite(values)), ("derivative", ~np.isnan(gradient))):
        by_unit = fits.reshape(len(fits), -1).all(axis=1)
        if not by_unit.all():
            unit = int(np.argmin(by_unit))
            inputs = {name: given[unit].tolist() for name, given in sample.arrays.items()}
            shown = {"value": values, "derivative": gradient}[what][unit]
            raise CheckFailed(
                f"{subject.name} on {library.name} in {dtype}, {sample.name}: at {inputs} the "
                f"{what} is {shown}"
            )
