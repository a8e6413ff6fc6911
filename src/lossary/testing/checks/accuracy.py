"""Values and gradients against the oracle, at hard points, in float32 and float64."""

from __future__ import annotations

from itertools import product

import numpy as np

from lossary.call import prepare
from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.oracle import Truth
from lossary.testing.precision import DTYPES
from lossary.testing.samples import Sample
from lossary.testing.subject import CheckFailed, Subject, as_dtype, parameters_text


def _samples(subject: Subject, library: Library) -> list[tuple[Sample, str]]:
    """What one library computes.

    torch.compile takes seconds a graph, so it compiles the main batch, whose hundred or so points
    it computes in one call. The other compilers compute the main parameter values' batches in both
    precisions; the other values they share out, one batch in one precision each; all else runs all.
    Eager JAX compiles every operation for every shape: it leaves images of other sizes to others.
    """
    dtypes = DTYPES if subject.oracle else ("float32",)
    if library.name == "torch-compile":
        return [(subject.samples[0], dtype) for dtype in dtypes]
    found = []
    for turn, given in enumerate(subject.settings):
        samples = [sample for sample in subject.samples if sample.parameters == given]
        pairs = list(product(samples, dtypes))
        if not library.compiled or turn == 0:
            found += pairs
        elif (library.package == "jax") == turn % 2:
            found += [pairs[turn // 2 % len(pairs)]]
    if library.name == "jax":
        size = _unit_shape(subject, subject.samples[0])
        found = [pair for pair in found if _unit_shape(subject, pair[0]) == size]
    return found


def _unit_shape(subject: Subject, sample: Sample) -> tuple[int, ...]:
    first = next(iter(subject.contract.predictions), None)
    return sample.arrays[first].shape[1:] if first else ()


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
        compare(subject, library, sample, dtype, values, truth)


@check("gradients", "differentiable", lambda subject: bool(subject.contract.predictions))
def check_gradients(subject: Subject, library: Library) -> None:
    """Every derivative is within 4 ulp of the truth; at a kink between the one-sided ones."""
    for sample, dtype in _samples(subject, library):
        truth = _truth(subject, library, sample)
        _, gradients = subject.computed(library, sample, dtype)
        for name in truth.slopes:
            compare(subject, library, sample, dtype, gradients[name], truth, name)


def compare(
    subject: Subject,
    library: Library,
    sample: Sample,
    dtype: str,
    computed: np.ndarray,
    truth: Truth,
    name: str | None = None,
) -> None:
    """Raise CheckFailed where a value, or derivative by ``name``, is off by more than allowed."""
    factors = truth.excess(computed, dtype, name)
    if not np.any(factors > 1):
        return
    low, high = truth.of(name)
    what = "value" if name is None else f"derivative by {name}"
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
        if library.name == "jax" and prepare(loss, (), arrays).kernel() is None:
            continue  # nothing stands in for it, and JAX would compile every operation again
        found = loss.value_and_grad(**arrays)[1]
        names = subject.contract.predictions
        parts = zip(names, found if isinstance(found, tuple) else (found,), strict=True)
        values, gradients = subject.cut(
            sample,
            library.numpy(loss.values(**arrays)),
            {name: library.numpy(gradient) for name, gradient in parts},
        )
        compare(subject, library, sample, dtype, values, truth)
        for name in truth.slopes:
            compare(subject, library, sample, dtype, gradients[name], truth, name)
