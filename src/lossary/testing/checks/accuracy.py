"""Values and gradients against the oracle, at hard points, in float32 and float64."""

from __future__ import annotations

import numpy as np

from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.oracle import Truth
from lossary.testing.precision import DTYPES, Exact, excess
from lossary.testing.samples import Sample
from lossary.testing.subject import CheckFailed, Subject, as_dtype, parameters_text


def _samples(subject: Subject, library: Library) -> list[tuple[Sample, str]]:
    """What one library computes.

    torch.compile takes seconds a graph, so it compiles the main batch, whose hundred or so points
    it computes in one call. The other compilers compute every batch, those of the main parameter
    values in both precisions, the others in the one and the other in turn; all else runs all.
    """
    samples = subject.samples[:1] if library.name == "torch-compile" else subject.samples
    dtypes = DTYPES if subject.oracle else ("float32",)
    found = []
    for sample in samples:
        turn = subject.settings.index(dict(sample.parameters))
        in_turn = library.compiled and turn > 0
        found += [
            (sample, dtype) for dtype in (dtypes[turn % len(dtypes) :][:1] if in_turn else dtypes)
        ]
    return found


def _truth(subject: Subject, library: Library, sample: Sample) -> Truth:
    return subject.truth(sample) if subject.oracle else subject.reference(library, sample)


@check("values", "every")
def check_values(subject: Subject, library: Library) -> None:
    """Every value is within 4 ulp of the truth, or of what rounding the inputs does to it."""
    for sample, dtype in _samples(subject, library):
        truth = _truth(subject, library, sample)
        values, _ = subject.computed(library, sample, dtype)
        expected = truth.values.high.shape
        if values.shape != expected:
            raise CheckFailed(
                f"{subject.name} on {library.name}: values have shape {values.shape} for "
                f"{_shapes(sample)}; expected {expected}, one per unit"
            )
        exact = (truth.values, truth.values)
        compare(subject, library, sample, dtype, "value", values, exact, truth)


@check("gradients", "differentiable", lambda subject: bool(subject.contract.predictions))
def check_gradients(subject: Subject, library: Library) -> None:
    """Every derivative is within 4 ulp of the truth; at a kink between the one-sided ones."""
    for sample, dtype in _samples(subject, library):
        truth = _truth(subject, library, sample)
        _, gradients = subject.computed(library, sample, dtype)
        for name, exact in truth.slopes.items():
            what = f"derivative by {name}"
            compare(subject, library, sample, dtype, what, gradients[name], exact, truth)


def compare(
    subject: Subject,
    library: Library,
    sample: Sample,
    dtype: str,
    what: str,
    computed: np.ndarray,
    exact: tuple[Exact, Exact],
    truth: Truth,
) -> None:
    """Raise CheckFailed where a number is off its truth by more than its tolerance."""
    low, high = exact
    factors = excess(computed, low, high, dtype)
    # The condition is costly to find, so only where 4 ulp are exceeded.
    if np.any(factors > 1) and truth.widen(
        np.unique(np.nonzero(np.atleast_1d(factors > 1))[0]), dtype
    ):
        factors = excess(computed, low, high, dtype)
    if not np.any(factors > 1):
        return
    worst = tuple(map(int, np.unravel_index(np.argmax(factors), factors.shape)))
    wrong = int(np.sum(factors > 1))
    right = f"{low.high[worst]:.9g}"
    if high.high[worst] != low.high[worst]:
        right = f"between {right} and {high.high[worst]:.9g}"
    raise CheckFailed(
        f"{subject.name} ({parameters_text(sample.parameters)}) on {library.name} in {dtype}, "
        f"{sample.name}: {what} at {_point(subject, sample, worst)} is {computed[worst]:.9g}, "
        f"truth {right}: {4 * factors[worst]:.3g} ulp where 4 are allowed; "
        f"{wrong} of {factors.size} numbers are wrong"
    )


def _point(subject: Subject, sample: Sample, place: tuple[int, ...]) -> str:
    """The inputs of the unit at a place."""
    texts = []
    for name, array in sample.arrays.items():
        part = array[place[0]] if subject.independent and array.ndim else array
        text = np.array2string(part, precision=9, separator=", ", threshold=12)
        texts.append(f"{name}={' '.join(text.split())}")
    inner = f"{list(map(int, place[1:]))} of " if len(place) > 1 else ""
    return inner + ", ".join(texts)


def _shapes(sample: Sample) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in sample.arrays.items())


@check("values", "eager", lambda subject: bool(subject.contract.predictions))
def check_what_runs(subject: Subject, library: Library) -> None:
    """What ``Loss`` runs by default, kernel or definition, is as accurate in value and gradient."""
    if library.name == "array-api-strict":
        return  # no kernels, no gradients: what runs is the definition, which was checked
    for sample, dtype in _samples(subject, library):
        truth = _truth(subject, library, sample)
        loss = subject.loss(sample.parameters, reduction="sum")
        arrays = library.arrays(subject.filled(library, as_dtype(sample.arrays, dtype)))
        found = loss.value_and_grad(**arrays)[1]
        names = subject.contract.predictions
        parts = zip(names, found if isinstance(found, tuple) else (found,), strict=True)
        values, gradients = subject.cut(
            sample,
            library.numpy(loss.values(**arrays)),
            {name: library.numpy(gradient) for name, gradient in parts},
        )
        exact = (truth.values, truth.values)
        compare(subject, library, sample, dtype, "value", values, exact, truth)
        for name, slopes in truth.slopes.items():
            what = f"derivative by {name}"
            compare(subject, library, sample, dtype, what, gradients[name], slopes, truth)
