"""The laws of ``Loss``: what masks, weights, reductions and totals must mean, for every loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.precision import agree
from lossary.testing.samples import Batch, axis_of
from lossary.testing.subject import ROWS, CheckFailed, Subject

SUM = 16.0  # ulps allowed where numbers were added in another order


def _split(subject: Subject) -> bool:
    """A batch that can be cut: every unit stands for itself."""
    return subject.independent and "tensor" not in subject.layouts


def _batched(subject: Subject) -> bool:
    return "tensor" not in subject.layouts


def _call(subject: Subject, library: Library, batch: Batch, **settings: Any) -> np.ndarray:
    """The reduced loss of a batch; companions (weights, mask) may be among its arrays."""
    return library.numpy(subject.loss(**settings)(**library.arrays(batch)))


def _values(subject: Subject, library: Library, batch: Batch) -> np.ndarray:
    return library.numpy(subject.loss().values(**library.arrays(batch)))


def _gradients(
    subject: Subject, library: Library, batch: Batch, **settings: Any
) -> dict[str, np.ndarray]:
    _, gradients = subject.loss(**settings).value_and_grad(**library.arrays(batch))
    found = gradients if isinstance(gradients, tuple) else (gradients,)
    names = subject.contract.predictions
    return {name: library.numpy(array) for name, array in zip(names, found, strict=True)}


def _expect(
    subject: Subject, library: Library, law: str, one: Any, other: Any, scale: Any = None
) -> None:
    one, other = np.asarray(one), np.asarray(other)
    if scale is None and one.size and other.size:
        scale = max(float(np.max(np.abs(one))), float(np.max(np.abs(other))))
    if not agree(one, other, SUM, scale):
        raise CheckFailed(f"{subject.name} on {library.name}: {law}, but {one} is not {other}")


def _weights(values: np.ndarray) -> np.ndarray:
    return np.resize([0.5, 2.0, 0.0, 1.5, 1.0, 3.0], max(values.size, 1)).reshape(values.shape)


def _twice(batch: Batch, half: np.ndarray) -> Batch:
    """Half of the units, twice: their mean is the half's, and JAX compiled for as many already."""
    return {name: np.concatenate([array[half], array[half]]) for name, array in batch.items()}


@check("laws", "eager")
def check_reductions_follow_from_values(subject: Subject, library: Library) -> None:
    """sum, mean, mean_over_batch and batch_mean are what they say of the unreduced values."""
    batch = subject.batch(library)
    values = _values(subject, library, batch)
    weights = _weights(values)
    # Which units count is the loss's own affair (an anchor without a partner does not).
    weight = float(library.numpy(subject.loss().total(**library.arrays(batch)).weight))
    first = values.shape[0] if values.ndim else 1
    plain = {
        "none": values,
        "sum": values.sum(),
        "mean": values.sum() / weight,
        "mean_over_batch": values.sum() / weight,
        "batch_mean": values.sum() / first,
    }
    for reduction, expected in plain.items():
        found = _call(subject, library, batch, reduction=reduction)
        _expect(subject, library, f"reduction {reduction} follows from the values", found, expected)
    if subject.contract.counts is None:
        weighed = (values * weights).sum() / weights.sum()
        found = _call(subject, library, {**batch, "weights": weights})
        _expect(subject, library, "the weighted mean is sum(w v) / sum(w)", found, weighed)
        found = _call(subject, library, {**batch, "weights": weights}, reduction="mean_over_batch")
        over = (values * weights).sum() / values.size
        _expect(subject, library, "mean_over_batch divides by the number of units", found, over)


@check("laws", "eager", _split)
def check_masked_is_absent(subject: Subject, library: Library) -> None:
    """Weight 0, masked and absent are one: same mean, and derivative 0 at what does not count."""
    batch = subject.batch(library)
    keep = np.arange(subject.rows(library)) % 2 == 0
    part = _twice(batch, keep)
    absent = _call(subject, library, part)
    masked = _call(subject, library, {**batch, "mask": keep})
    weighed = _call(subject, library, {**batch, "weights": keep.astype(np.float64)})
    _expect(subject, library, "masked units are absent from the mean", masked, absent)
    _expect(subject, library, "units of weight 0 are absent from the mean", weighed, absent)
    if library.differentiates:
        whole = _gradients(subject, library, {**batch, "mask": keep})
        for name, alone in _gradients(subject, library, part).items():
            _expect(
                subject,
                library,
                f"masked units pull on no {name}",
                whole[name][~keep],
                0 * whole[name][~keep],
            )
            _expect(
                subject,
                library,
                f"derivatives by {name} ignore masked units",
                whole[name][keep],
                2 * alone[: len(alone) // 2],
            )


@check(
    "laws", "eager", lambda subject: subject.unit == "anchor" and "mask" in subject.contract.accepts
)
def check_masked_anchor_is_absent(subject: Subject, library: Library) -> None:
    """A masked row is no anchor, no partner and no negative of the others."""
    batch = subject.batch(library)
    keep = np.array([True, True, True, True, False, False])
    part = {name: array[keep] for name, array in batch.items()}
    masked = _call(subject, library, {**batch, "mask": keep})
    alone = library.numpy(library.once(subject.loss().__call__)(**library.arrays(part)))
    _expect(subject, library, "masked rows are absent", masked, alone)


@check("laws", "eager", _split)
def check_totals_add(subject: Subject, library: Library) -> None:
    """The totals of a batch's parts add to the whole's."""
    batch = subject.batch(library)
    rows = np.arange(subject.rows(library))
    batch["weights"] = np.resize([0.5, 2.0, 0.0, 1.5, 1.0, 3.0], len(rows))
    loss = subject.loss()
    whole = loss.total(**library.arrays(batch))
    first, last = (
        loss.total(**library.arrays(_twice(batch, half)))
        for half in (rows < len(rows) // 2, rows >= len(rows) // 2)
    )
    added, whole = first + last, whole + whole
    law = "the totals of two halves add to the whole's"
    for one, other in ((added.sum, whole.sum), (added.weight, whole.weight)):
        _expect(subject, library, law, library.numpy(one), library.numpy(other))
    mean = library.numpy(added.mean)
    _expect(subject, library, law, mean, _call(subject, library, batch))


@check("laws", "eager", _batched)
def check_nan_under_the_mask(subject: Subject, library: Library) -> None:
    """A NaN that is masked reaches neither the value nor any derivative."""
    clean = subject.batch(library)
    keep = np.arange(subject.rows(library)) != 2
    dirty = {name: array.copy() for name, array in clean.items()}
    for array in dirty.values():
        if array.dtype.kind == "f":
            array[2] = np.nan
    found = _call(subject, library, {**dirty, "mask": keep})
    right = _call(subject, library, {**clean, "mask": keep})
    _expect(subject, library, "a NaN under the mask changes nothing", found, right)
    if library.differentiates:
        for name, gradient in _gradients(subject, library, {**dirty, "mask": keep}).items():
            if not np.all(np.isfinite(gradient)):
                raise CheckFailed(
                    f"{subject.name} on {library.name}: a NaN under the mask reaches the "
                    f"derivative by {name}: {gradient}"
                )


@check("laws", "eager", lambda subject: _batched(subject) and subject.contract.target is not None)
def check_ignored_is_masked(subject: Subject, library: Library) -> None:
    """``ignore`` marks units by their target: the same as masking them."""
    batch = subject.batch(library)
    target = batch["target"]
    if target.ndim != 1:
        return
    keep = np.arange(len(target)) != 2
    code = -100 if target.dtype.kind in "iu" else -99.0
    marked = {**batch, "target": np.where(keep, target, code).astype(target.dtype)}
    ignored = _call(subject, library, marked, ignore=code)
    masked = _call(subject, library, {**batch, "mask": keep})
    _expect(subject, library, f"target {code} with ignore={code} is masked", ignored, masked)


@check("laws", "eager", _batched)
def check_order_of_the_batch(subject: Subject, library: Library) -> None:
    """Reordering the batch reorders the values, and changes nothing else."""
    batch = subject.batch(library)
    order = np.random.default_rng(0).permutation(subject.rows(library))
    moved = {name: array[order] for name, array in batch.items()}
    values = _values(subject, library, batch)
    if values.shape[:1] != order.shape:
        raise CheckFailed(f"{subject.name}: {len(order)} units gave values of shape {values.shape}")
    found = _values(subject, library, moved)
    _expect(subject, library, "reordering rows reorders the values", found, values[order])


@check(
    "laws",
    "eager",
    lambda subject: "axis" in subject.contract.parameters and "class axis" in subject.layouts,
)
def check_axis_moves_with_the_array(subject: Subject, library: Library) -> None:
    """``axis=k`` gives what moving axis k to the end gives."""
    batch = subject.batch(library)
    last = axis_of(subject.contract, batch, subject.main)
    deep = {name: np.stack([array, array[::-1]], axis=1) for name, array in batch.items()}
    rank = batch[subject.contract.predictions[0]].ndim
    moved = {
        name: np.moveaxis(array, -1, 1) if batch[name].ndim == rank else array
        for name, array in deep.items()
    }
    assert last == rank - 1
    right, found = (
        library.numpy(library.once(loss.values)(**library.arrays(arrays)))
        for loss, arrays in (
            (subject.loss({**subject.main, "axis": -1}), deep),
            (subject.loss({**subject.main, "axis": 1}), moved),
        )
    )
    _expect(subject, library, "axis=1 is axis=-1 of the moved array", found, right)


def _classes(subject: Subject) -> bool:
    target = subject.contract.target
    return target is not None and target.layout == "class"


@check("laws", "eager", _classes)
def check_index_is_one_hot(subject: Subject, library: Library) -> None:
    """A class index and its one-hot vector cost the same and pull the same."""
    batch = subject.batch(library)
    classes = batch[subject.contract.predictions[0]].shape[-1]
    hot = {**batch, "target": np.eye(classes)[batch["target"]]}
    one, other = (_values(subject, library, each) for each in (batch, hot))
    _expect(subject, library, "an index is its one-hot vector", one, other)
    if library.differentiates:
        right = _gradients(subject, library, batch)
        for name, gradient in _gradients(subject, library, hot).items():
            _expect(
                subject, library, f"derivatives by {name} agree for both", gradient, right[name]
            )


@check("laws", "eager", _classes)
def check_class_weights(subject: Subject, library: Library) -> None:
    """A class of weight 0 is absent; equal class weights change nothing."""
    batch = subject.batch(library)
    batch["target"] = np.arange(subject.rows(library)) % 2
    classes = batch[subject.contract.predictions[0]].shape[-1]
    equal = _call(subject, library, {**batch, "class_weights": np.full(classes, 2.0)})
    _expect(
        subject,
        library,
        "equal class weights leave the mean",
        equal,
        _call(subject, library, batch),
    )
    weights = np.ones(classes)
    weights[1] = 0.0
    part = _twice(batch, batch["target"] == 0)
    found = _call(subject, library, {**batch, "class_weights": weights})
    _expect(subject, library, "a class of weight 0 is absent", found, _call(subject, library, part))


@check("laws", "differentiable", lambda subject: bool(subject.contract.predictions))
def check_value_and_grad(subject: Subject, library: Library) -> None:
    """value_and_grad gives the call's value, and the slope that small steps of the call show."""
    if library.compiled:
        return
    batch = subject.batch(library)
    loss = subject.loss()
    value, _ = loss.value_and_grad(**library.arrays(batch))
    right = _call(subject, library, batch)
    _expect(subject, library, "value_and_grad's value is the call's", library.numpy(value), right)
    rng = np.random.default_rng(3)
    for name, gradient in _gradients(subject, library, batch).items():
        way = rng.standard_normal(gradient.shape)
        step = 1e-6
        ends = [
            float(_call(subject, library, {**batch, name: batch[name] + sign * step * way}))
            for sign in (1, -1)
        ]
        slope, claimed = (ends[0] - ends[1]) / (2 * step), float(np.sum(gradient * way))
        # A difference of values tells about half the digits: enough for a wrong factor or sign.
        if abs(slope - claimed) > 1e-4 * (1 + abs(slope)) * (1 + float(np.max(np.abs(gradient)))):
            raise CheckFailed(
                f"{subject.name} on {library.name}: the derivative by {name} along a random way is "
                f"{claimed:.9g}, small steps show {slope:.9g}"
            )


def _real_target(subject: Subject) -> bool:
    """Numbers or shares, not indices or counts: a target that another network may have made."""
    target = subject.contract.target
    if target is None or (target.integral and target.layout != "class"):
        return False
    return target.layout not in ("label", "labels")


def _target_from_zero(subject: Subject) -> bool:
    target = subject.contract.target
    shares = target is not None and (target.layout == "class" or target.interval.low == 0)
    return shares and _real_target(subject)


@check("laws", "differentiable", _target_from_zero)
def check_derivative_at_absent_target(subject: Subject, library: Library) -> None:
    """The derivative by a target of exactly 0 is what small steps show, where they have a limit."""
    if library.compiled:
        return
    batch = subject.batch(library, soft=True)
    if batch["target"].dtype.kind != "f":
        return
    target = batch["target"].copy()
    batch["target"] = target
    rows = range(min(ROWS, len(target)))
    places = [(row, *(row % size for size in target.shape[1:])) for row in rows]
    for place in places:
        target[place] = 0.0
    run = subject.loss(implementation="definition").values
    _, gradients = library.values_and_gradients(run, batch, ("target",))
    here = library.values(run, batch)
    for row, place in enumerate(places):
        slopes = []
        for step in (1e-6, 1e-9):
            moved = target.copy()
            moved[place] = step
            there = library.values(run, {**batch, "target": moved})
            slopes.append(float(np.sum((there - here)[row])) / step)
        claimed, slope = float(gradients["target"][place]), slopes[0]
        if abs(slopes[1] - slope) < 1e-2 * (1 + abs(slope)) and (
            abs(slope - claimed) > 1e-3 * (1 + abs(slope))
        ):
            raise CheckFailed(
                f"{subject.name} on {library.name}: the derivative by a target of 0 at "
                f"{list(place)} is {claimed:.9g}, small steps show {slope:.9g}"
            )


@check("laws", "differentiable", _real_target)
def check_target_derivative(subject: Subject, library: Library) -> None:
    """The derivative by the target, which distillation needs, is what small steps show."""
    if library.compiled:
        return
    batch = subject.batch(library, soft=True)
    if batch["target"].dtype.kind != "f":
        return
    run = subject.loss(implementation="definition").values
    _, gradients = library.values_and_gradients(run, batch, ("target",))
    way = np.random.default_rng(3).uniform(0.5, 1.5, batch["target"].shape)
    step = 1e-6
    if np.any(batch["target"] == 0) or subject.contract.inputs["target"].interval.high < np.inf:
        way = np.where(batch["target"] * (1 - batch["target"]) == 0, 0.0, way)
    ends = [
        library.values(run, {**batch, "target": batch["target"] + sign * step * way})
        for sign in (1, -1)
    ]
    slope = float(np.sum(ends[0] - ends[1]) / (2 * step))
    claimed = float(np.sum(gradients["target"] * way))
    if abs(slope - claimed) > 1e-4 * (1 + abs(slope)):
        raise CheckFailed(
            f"{subject.name} on {library.name}: the derivative by the target is {claimed:.9g} "
            f"along a random way, small steps show {slope:.9g}"
        )
