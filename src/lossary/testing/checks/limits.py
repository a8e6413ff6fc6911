"""Where losses break: nothing to average, infinite and missing numbers, odd arrays."""

from __future__ import annotations

import mpmath as mp
import numpy as np

from lossary.contract import LossError
from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.precision import agree
from lossary.testing.samples import Batch
from lossary.testing.subject import CheckFailed, Subject


def _batched(subject: Subject) -> bool:
    return "tensor" not in subject.layouts


def _result(
    subject: Subject, library: Library, batch: Batch
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The reduced loss, and the gradient where the library has gradients."""
    loss, arrays = subject.loss(), library.arrays(batch)
    if not library.differentiates:
        return library.numpy(loss(**arrays)), {}
    of_its_own = len(next(iter(batch.values()))) != subject.rows(library)
    run = library.once(loss.value_and_grad) if of_its_own else loss.value_and_grad
    value, gradients = run(**arrays)
    found = gradients if isinstance(gradients, tuple) else (gradients,)
    names = subject.contract.predictions
    return library.numpy(value), {n: library.numpy(g) for n, g in zip(names, found, strict=True)}


def _expect_nothing(subject: Subject, library: Library, what: str, batch: Batch) -> None:
    value, gradients = _result(subject, library, batch)
    if value.shape != () or value != 0:
        raise CheckFailed(f"{subject.name} on {library.name}: the mean of {what} is {value}, not 0")
    for name, gradient in gradients.items():
        if not np.all(gradient == 0) or gradient.shape != batch[name].shape:
            raise CheckFailed(
                f"{subject.name} on {library.name}: {what} has a derivative by {name} "
                f"that is not 0: "
                f"{gradient}"
            )


@check("limits", "eager", _batched)
def check_all_masked(subject: Subject, library: Library) -> None:
    """Where everything is masked the mean is 0 with derivative 0; NaN or an error on request."""
    batch = subject.batch(library)
    batch["mask"] = np.zeros(subject.rows(library), dtype=bool)
    _expect_nothing(subject, library, "a fully masked batch", batch)
    found = library.numpy(subject.loss(empty="nan")(**library.arrays(batch)))
    if not np.isnan(found):
        raise CheckFailed(f"{subject.name}: with empty='nan' a fully masked batch gives {found}")
    try:
        subject.loss(empty="error")(**library.arrays(batch))
    except LossError:
        return
    raise CheckFailed(f"{subject.name}: with empty='error' a fully masked batch raises nothing")


@check("limits", "eager", _batched)
def check_empty_batch(subject: Subject, library: Library) -> None:
    """A batch of no rows has mean 0, derivative of its own shape, and no values."""
    batch = {name: array[:0] for name, array in subject.batch(library, dtype="float32").items()}
    _expect_nothing(subject, library, "an empty batch", batch)
    values = library.numpy(library.once(subject.loss().values)(**library.arrays(batch)))
    if values.shape[:1] != (0,):
        raise CheckFailed(f"{subject.name}: no rows gave values of shape {values.shape}")


@check("limits", "eager", _batched)
def check_one_unit(subject: Subject, library: Library) -> None:
    """A batch of one has a finite value and derivative."""
    batch = subject.batch(library, rows=1)
    value, gradients = _result(subject, library, batch)
    for what, found in {"value": value, **gradients}.items():
        if not np.all(np.isfinite(found)):
            raise CheckFailed(f"{subject.name} on {library.name}: one unit's {what} is {found}")


@check("limits", "eager", lambda subject: "class axis" in subject.layouts)
def check_one_class(subject: Subject, library: Library) -> None:
    """With a single class nothing is to be learnt: value and derivative are finite."""
    if any(isinstance(value, tuple) for value in subject.main.values()):
        return  # its parameters speak of more classes
    batch = subject.batch(library, rows=4)
    single = {name: array[:, :1] if array.ndim == 2 else 0 * array for name, array in batch.items()}
    value, gradients = _result(subject, library, single)
    for what, found in {"value": value, **gradients}.items():
        if not np.all(np.isfinite(found)):
            raise CheckFailed(
                f"{subject.name} on {library.name}: of one class the {what} is {found}"
            )


@check("limits", "every", lambda subject: _batched(subject) and bool(subject.contract.predictions))
def check_nan_is_contagious(subject: Subject, library: Library) -> None:
    """A NaN that counts makes the result NaN: a broken network is never hidden."""
    if library.name == "torch-compile":
        return  # seconds of compilation for what torch itself has shown
    batch = subject.batch(library)
    for name in subject.contract.predictions:
        dirty = {**batch, name: batch[name].copy()}
        dirty[name][2] = np.nan
        values = library.values(subject.loss().values, dirty)
        if not np.any(np.isnan(values[2])):
            raise CheckFailed(
                f"{subject.name} on {library.name}: {name} is NaN in row 2, but "
                f"its value is {values[2]}"
            )


def _elementwise(subject: Subject) -> bool:
    unbounded = [
        space
        for name, space in subject.contract.inputs.items()
        if name in subject.contract.predictions and space.interval.high == np.inf
    ]
    return subject.layouts == {"element"} and bool(unbounded) and subject.oracle is not None


@check("limits", "eager", _elementwise)
def check_infinite_predictions(subject: Subject, library: Library) -> None:
    """At an infinite prediction the value is the formula's limit: never NaN where there is one."""
    assert subject.oracle is not None
    batch = subject.batch(library)
    for name in subject.contract.predictions:
        low = subject.contract.inputs[name].interval.low
        for sign in (1, -1) if low == -np.inf else (1,):
            given = {**batch, name: np.full_like(batch[name], sign * np.inf)}
            values = library.numpy(subject.loss().values(**library.arrays(given)))
            for row in range(6):
                limit = _limit(subject, given, name, sign, row)
                if limit is not None and not agree(values[row], np.asarray(limit), 1e6):
                    raise CheckFailed(
                        f"{subject.name} on {library.name}: at {name}={sign * np.inf} the value is "
                        f"{values[row]}, the limit {limit} "
                        f"({ {key: array[row] for key, array in batch.items() if key != name} })"
                    )


def _limit(subject: Subject, batch: Batch, name: str, sign: int, row: int) -> float | None:
    """The limit of the oracle: where it settles, or infinity where it grows; None if neither."""
    assert subject.oracle is not None
    given = {k: mp.mpf(v) if isinstance(v, float) else v for k, v in subject.main.items()}
    found = []
    with mp.workdps(200):
        for power in (40, 60, 80):
            arguments = {
                key: sign * mp.mpf(10) ** power if key == name else mp.mpf(float(array[row]))
                for key, array in batch.items()
            }
            found.append(subject.oracle(*arguments.values(), **given))
    first, second, third = found
    if abs(third - second) <= mp.mpf(10) ** -9 * max(1, abs(third)):
        return float(third)
    growing = abs(third) > abs(second) * (1 + mp.mpf(10) ** -3) > abs(first)
    return float(mp.sign(third) * mp.inf) if growing else None


@check("limits", "once")
def check_odd_arrays(subject: Subject, library: Library) -> None:
    """Read-only, strided and Fortran-ordered arrays give the same, and no input is written to."""
    batch = subject.batch(library)
    before = {name: array.copy() for name, array in batch.items()}
    right = subject.loss()(**batch)
    strided = {name: np.repeat(array, 2, axis=0)[::2] for name, array in batch.items()}
    backward = {name: array[::-1].copy()[::-1] for name, array in batch.items()}
    fortran = {name: np.asfortranarray(array) for name, array in batch.items()}
    frozen = {name: array.copy() for name, array in batch.items()}
    for array in frozen.values():
        array.flags.writeable = False
    for what, odd in {
        "strided": strided,
        "reversed": backward,
        "Fortran-ordered": fortran,
        "read-only": frozen,
    }.items():
        found = [subject.loss()(**odd)]
        if subject.contract.predictions:
            found.append(subject.loss().value_and_grad(**odd)[0])
        for value in found:
            if not agree(np.asarray(value), np.asarray(right), 16):
                raise CheckFailed(f"{subject.name}: {what} arrays give {value}, not {right}")
    for name, array in batch.items():
        if not np.array_equal(array, before[name]):
            raise CheckFailed(f"{subject.name}: it wrote into {name}")
