"""What comes back: the same numbers from every library, in the dtype and library that came in."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.testing.checks.base import check
from lossary.testing.libraries import Library, library_of
from lossary.testing.precision import agree
from lossary.testing.subject import CheckFailed, Subject, as_dtype

AGREE = 64.0  # ulps; the truth itself is the business of the values check


@check("libraries", "every", lambda subject: bool(subject.contract.predictions))
def check_agrees_with_numpy(subject: Subject, library: Library) -> None:
    """An everyday batch has the value that NumPy gives it, at every parameter value."""
    settings = subject.settings[:1] if library.compiled else subject.settings
    if library.name == "torch-compile":
        return  # its values are compared with the truth; a second graph would tell nothing new
    for parameters in settings:
        batch = subject.batch(library, parameters=parameters)
        run = subject.loss(parameters).values
        found, right = library.values(run, batch), library_of("numpy").values(run, batch)
        scale = float(np.max(np.abs(right), initial=0.0))
        if not agree(found, right, AGREE, scale):
            raise CheckFailed(f"{subject.name}: {library.name} gives {found}, NumPy {right}")


@check("libraries", "eager")
def check_dtype_follows(subject: Subject, library: Library) -> None:
    """Value and gradient have the prediction's dtype and library; weights do not change that."""
    for dtype in ("float32", "float64"):
        arrays = library.arrays(subject.batch(library, dtype=dtype))
        first = next(iter(arrays.values()))
        loss = subject.loss()
        results: dict[str, Any] = {"mean": loss(**arrays), "values": loss.values(**arrays)}
        if subject.contract.predictions and library.differentiates:
            value, gradients = loss.value_and_grad(**arrays)
            found = gradients if isinstance(gradients, tuple) else (gradients,)
            results |= {"value": value, **{f"gradient {i}": g for i, g in enumerate(found)}}
        for what, result in results.items():
            home = type(result).__module__.partition(".")[0]
            if library.numpy(result).dtype.name != dtype:
                raise CheckFailed(
                    f"{subject.name} on {library.name}: {what} of {dtype} is {result.dtype}"
                )
            if home != type(first).__module__.partition(".")[0]:
                raise CheckFailed(f"{subject.name} on {library.name}: {what} is of {home}")


@check("libraries", "eager", lambda subject: bool(subject.contract.predictions))
def check_half_is_rounded_single(subject: Subject, library: Library) -> None:
    """Half precision gives the float32 result of the same numbers, rounded once."""
    if library.name == "array-api-strict":
        return  # the standard has no half precision
    half = subject.batch(library, dtype="float16")
    single = as_dtype(half, "float32")
    loss = subject.loss()
    found = library.numpy(loss.values(**library.arrays(half)))
    right = library.numpy(loss.values(**library.arrays(single))).astype(np.float16)
    if found.dtype != np.float16 or not np.array_equal(found, right, equal_nan=True):
        raise CheckFailed(
            f"{subject.name} on {library.name}: float16 gives {found} ({found.dtype}), "
            f"float32 rounded {right}"
        )
