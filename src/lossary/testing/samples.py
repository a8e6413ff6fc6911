"""Hard points and random samples, made from spaces and intervals alone.

Every number can be held by float32, so that one truth serves both precisions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossary.contract import Contract, Interval, LossError, Space
from lossary.inputs import class_axis

ROWS = 144  # units of a hard batch
CLASSES = 3
FEATURES = 3
ANCHORS = 6
STEPS, LABELS = 4, 2  # of a sequence: few enough to list every reading

# All orders of magnitude, and where known formulas lose digits: log-cosh at 1e-4, softmax beyond a
# gap of 16.6 (float32) and 36.7 (float64), exponentials at 87 (smaller ones are flushed by JAX and
# TensorFlow), shifts of 1e9.
_SIZES = (
    1e-30, 1e-18, 1e-8, 1e-5, 1e-4, 3e-4, 1e-3, 0.1, 0.25, 0.5, 0.75, 1.0, 1.0000001, 1.5, 2.0, 2.5,
    3.75, 5.0, 10.0, 16.75, 20.0, 40.0, 87.0, 100.0, 710.0, 1e3, 1e4, 1e9, 1e18, 1e30,
)  # fmt: skip
_COUNTS = (0.0, 1.0, 2.0, 3.0, 7.0, 10.0, 100.0, 1e4, 1e6)
_LOGARITHMS = (-80.0, -20.0, -3.0, -1.0, -1e-4, 0.0, 1e-4, 0.5, 1.0, 3.0, 20.0, 80.0)
_SHARES = (
    0.0, 1e-30, 1e-8, 1e-4, 0.125, 0.25, 0.5, 0.75, 0.875, 0.999, 0.99999994, 1.0,
)  # fmt: skip

Batch = dict[str, np.ndarray]
SHARE = Space("probability", Interval(0, 1))


@dataclass(frozen=True)
class Sample:
    """A batch of one loss, at parameter values; ``name`` says what is special about it."""

    name: str
    parameters: Mapping[str, Any]
    arrays: Batch


def single(numbers: Any) -> np.ndarray:
    """Rounded to float32, held in float64."""
    return np.asarray(numbers, dtype=np.float32).astype(np.float64)


def hard_numbers(space: Space) -> np.ndarray:
    """Members of the space where formulas break: its ends, both signs, all orders of magnitude."""
    if space.name == "count":
        return single(_COUNTS)
    if space.name in ("log rate", "log variance"):
        return single(_LOGARITHMS)
    if space.name == "sign":
        return single([-1.0, 1.0])
    if space.name == "pair labels":
        return single([0.0, 1.0])
    if space.name in ("binary", "mask"):
        return single([0.0, 1.0, 0.25])
    interval = space.interval
    if interval.high < math.inf:
        span = interval.high - interval.low
        candidates = single(interval.low + span * np.asarray(_SHARES))
    else:
        candidates = single([0.0, *_SIZES, *(-size for size in _SIZES)])
    return np.asarray([number for number in candidates if float(number) in interval])


def plain_numbers(space: Space) -> np.ndarray:
    """Members of the space of everyday size."""
    hard = hard_numbers(space)
    plain = hard[(np.abs(hard) <= 4) & ((np.abs(hard) >= 0.1) | (hard == 0))]
    return plain if len(plain) else hard


# -- hard batches -----------------------------------------------------------------------------


def hard_samples(
    contract: Contract, parameters: Mapping[str, Any], *, thin: bool = False
) -> list[Sample]:
    """The batches on which value and gradient are compared with the oracle; the main one first.

    ``thin`` keeps a fifth of the units: for parameter values that are not the main ones.
    """
    given = dict(parameters)
    unit = contract.unit.name if contract.unit else "element"
    layouts = {space.layout for space in contract.inputs.values()}
    rng = np.random.default_rng(20)
    if unit == "anchor" or contract.learned:
        made = _anchor_batches(contract, rng)
    elif unit == "tensor" or layouts == {"tensor"}:
        made = _tensor_batches(contract, rng)
    elif "image" in layouts:
        made = {"images": _image_batch(contract, given, rng)}
    elif "steps" in layouts:
        made = {"sequences": _sequence_batch(contract, rng)}
    elif unit == "region" and "class axis" not in layouts:
        made = {"regions": _region_batch(contract, rng)}
    elif "class axis" in layouts:
        made = _class_batches(contract, classes_of(given))
    elif "row" in layouts:
        made = {"rows": _row_batch(contract, rng)}
    else:
        made = {"numbers": _element_batch(contract, given, rng)}
    if thin and unit not in ("anchor", "tensor") and not contract.learned:
        made = {
            name: {key: array[::5] for key, array in arrays.items()}
            for name, arrays in made.items()
        }
    elif thin:
        made = dict(list(made.items())[:2])
    return [Sample(name, parameters, arrays) for name, arrays in made.items()]


def classes_of(parameters: Mapping[str, Any]) -> int:
    """How many classes the parameters speak of (costs, counts), else ``CLASSES``."""
    lengths = [len(value) for value in parameters.values() if isinstance(value, tuple)]
    return lengths[0] if lengths else CLASSES


def _element_batch(contract: Contract, parameters: Mapping[str, Any], rng: Any) -> Batch:
    hard = {name: hard_numbers(space) for name, space in contract.inputs.items()}
    plain = {name: plain_numbers(space) for name, space in contract.inputs.items()}
    names = list(hard)
    rows: list[tuple[float, ...]] = []
    for column, name in enumerate(names):
        bases = [[plain[other][shift % len(plain[other])] for other in names] for shift in (0, -1)]
        for number, base in itertools.product(hard[name], bases):
            rows.append(tuple(number if i == column else base[i] for i in range(len(names))))
    if len(names) == 2:
        one, other = (contract.inputs[name].interval for name in names)
        far = 20.0 if any("log" in contract.inputs[name].name for name in names) else 1e4
        anchors = [x for x in (0.0, 1.0, 2.5, far) if x in other]
        joints = [v for v in parameters.values() if isinstance(v, float) and 0 < v < math.inf]
        steps = [0.0, 1e-4, 1.0, *joints, *(joint * (1 + 2**-20) for joint in joints)]
        for anchor, step, sign in itertools.product(anchors, steps, (1, -1)):
            near = float(np.float32(anchor + sign * step))
            target_fits = not contract.inputs[names[1]].integral or anchor.is_integer()
            if near in one and target_fits:
                rows.append((near, anchor))
    rows += [tuple(rng.choice(hard[name]) for name in names) for _ in range(ROWS // 4)]
    table = np.unique(single(rows), axis=0)
    # Always the same number of rows, so that compilers see one shape: a full batch is thinned
    # evenly, a short one repeats.
    step = len(table) / ROWS
    table = table[
        (np.arange(ROWS) * step).astype(int) if step > 1 else np.arange(ROWS) % len(table)
    ]
    return {name: table[:, column].copy() for column, name in enumerate(names)}


def hard_logits(classes: int) -> np.ndarray:
    """Rows of logits: confident and right or wrong, tied, shifted, absent."""
    rng = np.random.default_rng(4)
    rows = []
    for gap in (0.0, 1e-8, 1e-4, 0.5, 3.0, 16.0, 17.0, 20.0, 40.0, 87.0, 200.0, 1e3, 1e4, 1e9):
        rows += [[gap, 0.0, 0.0], [-gap, 0.0, gap], [gap, 0.0, -1e4]]
    for shift in (-1e4, 1e3, 1e9):
        rows += [[shift, shift, shift], [shift, shift - 10, shift - 1000]]
    rows += (3 * rng.standard_normal((12, 3))).tolist()
    table = single(rows)
    more = single(rng.standard_normal((len(table), max(classes - 3, 0))))
    return np.concatenate([table, more], axis=1)[:, :classes]


def hard_simplex(classes: int) -> np.ndarray:
    """Rows of probabilities that add to 1 exactly in float32."""
    rows: list[list[float]] = [
        [1, 0, 0],
        [0, 1, 0],
        [0.25, 0.5, 0.25],
        [0.5, 0.5, 0],
        [2**-20, 1 - 2**-20, 0],
    ]
    table = np.zeros((len(rows), max(classes, 3)))
    table[:, :3] = rows
    if classes == 2:
        table = np.stack([table[:, 0] + table[:, 2], table[:, 1]], axis=1)
    return single(table)


def _class_batches(contract: Contract, classes: int) -> dict[str, Batch]:
    """Logits against class indices, and against distributions; other class-wise inputs likewise."""
    tables = {}
    for name, space in contract.inputs.items():
        if space.name == "simplex" or (space.name == "classes" and name != "target"):
            tables[name] = hard_simplex(classes)
        elif space.interval.high < math.inf and space.name != "classes":
            shares = hard_numbers(space)
            tables[name] = single(np.resize(shares, (len(shares), classes)))
        elif space.layout == "class axis":
            tables[name] = hard_logits(classes)
    target = contract.target
    if target is None or target.layout != "class":
        return {"classes": _paired(tables)}
    index = np.arange(classes)
    made = {"indices": _paired({**tables, "target": index})}
    made["indices"]["target"] = made["indices"]["target"].astype(np.int64)
    made["distributions"] = _paired({**tables, "target": hard_simplex(classes)})
    return made


def _paired(tables: Batch) -> Batch:
    """Every row of each table with every row of the others, thinned evenly to ``ROWS``."""
    sizes = [len(table) for table in tables.values()]
    every = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
    if len(every) > ROWS:
        every = every[np.linspace(0, len(every) - 1, ROWS).round().astype(int)]
    return {name: table[every[:, i]] for i, (name, table) in enumerate(tables.items())}


def hard_rows() -> np.ndarray:
    """Vectors: zero, tiny, huge, orthogonal, opposite, ordinary."""
    rng = np.random.default_rng(7)
    rows = [
        [0, 0, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [3, 4, 0], [0.6, 0.8, 0], [1e-4, 0, 0],
        [1e-20, 1e-20, 0], [1e18, 1e18, 1e18], [100, 0, 1e-3],
    ]  # fmt: skip
    return np.concatenate([single(rows), single(rng.standard_normal((4, FEATURES)))])


def _row_batch(contract: Contract, rng: Any) -> Batch:
    tables = {
        name: hard_rows() if space.layout == "row" else hard_numbers(space)
        for name, space in contract.inputs.items()
    }
    picks = [rng.integers(0, len(table), ROWS) for table in tables.values()]
    rows = [
        pick
        for pick, space in zip(picks, contract.inputs.values(), strict=True)
        if space.layout == "row"
    ]
    for pick in rows[1:]:  # coincident vectors
        pick[:14] = np.arange(14)
    rows[0][:14] = np.arange(14)
    return {name: table[pick] for (name, table), pick in zip(tables.items(), picks, strict=True)}


def _anchor_batches(contract: Contract, rng: Any) -> dict[str, Batch]:
    """Small batches whose rows meet each other."""
    shape = (ANCHORS, FEATURES)
    tables = {
        "random": rng.standard_normal(shape),
        "coincident": np.resize([[1.0, 2.0, -1.0], [1.0, 2.0, -1.0], [0.5, 0.5, 0.0]], shape),
        # Halves: properties are looked for where no number is small beside a step.
        "with a zero row": np.round(2 * rng.standard_normal(shape))
        / 2
        * (np.arange(ANCHORS) > 0)[:, None],
        "small": 1e-4 * rng.standard_normal(shape),
        "large": 1e3 * rng.standard_normal(shape),
    }
    labels = {
        "random": [0, 1, 0, 1, 2, 2],
        "coincident": [0, 0, 1, 1, 0, 2],
        "with a zero row": [0, 0, 0, 1, 1, 1],
        "small": [3, 3, 3, 3, 3, 3],
        "large": [0, 1, 2, 3, 4, 5],
    }
    made = {}
    for title, table in tables.items():
        batch = {}
        for column, (name, space) in enumerate(contract.inputs.items()):
            if space.layout == "label":
                batch[name] = np.asarray(labels[title])
            else:  # the second view of each row lies near the first
                aside = rng.standard_normal(shape) * (title != "coincident")
                aside = np.round(aside) if title == "with a zero row" else aside
                moved = table + 0.25 * column * aside
                batch[name] = single(moved)
        made[title] = batch
    return made


def _sequence_batch(contract: Contract, rng: Any) -> Batch:
    """Steps that are sure, torn and wrong, with every length that a target can be read from."""
    rows = hard_logits(CLASSES)
    rows = rows[np.abs(rows).max(axis=1) <= 1e4]
    batch = sequences(contract, 36, rng)
    steps = rows[rng.integers(0, len(rows), (36, STEPS))]
    plain = single(rng.standard_normal(steps.shape) * rng.choice([0.5, 2.0, 8.0], (36, 1, 1)))
    ordinary = np.arange(36)[:, None, None] % 3 > 0
    return batch | {contract.predictions[0]: np.where(ordinary, plain, steps)}


def sequences(contract: Contract, rows: int, rng: Any) -> Batch:
    """Labels and lengths of sequences: none that its steps are too few for."""
    batch, lengths = (
        {},
        [rng.integers(STEPS - 1, STEPS + 1, rows), rng.integers(0, LABELS + 1, rows)],
    )
    for name, space in contract.inputs.items():
        if space.layout == "sequence":
            batch[name] = rng.integers(1, CLASSES, (rows, LABELS))
        elif space.name == "length":
            batch[name] = lengths.pop(0)
        else:
            batch[name] = single(1.5 * rng.standard_normal((rows, STEPS, CLASSES)))
    return batch


def _region_batch(contract: Contract, rng: Any) -> Batch:
    """Rows of pixels: ordinary, empty, full, exactly right, exactly wrong."""
    count, pixels = 24, 4
    batch = {}
    for name, space in contract.inputs.items():
        if space.interval.high < math.inf:
            kind = SHARE if name in contract.predictions else space
            table = rng.choice(hard_numbers(kind), (count, pixels))
        else:
            table = rng.choice(hard_numbers(Space("log rate")), (count, pixels))
        batch[name] = single(table)
    one, other = list(batch)[:2]
    lowest = 0.0 if contract.inputs[one].interval.high < math.inf else -80.0
    ends = (lowest, 1.0 if lowest == 0 else 80.0)
    for row, (guess, truth) in enumerate(itertools.product(ends, (0.0, 1.0))):
        batch[one][row], batch[other][row] = guess, truth
    return batch


def image_shape(contract: Contract, parameters: Mapping[str, Any]) -> tuple[int, ...]:
    """(channels, length): the shortest signal that the loss's windows and scales fit into."""
    for length in (6, 12, 24, 48, 96, 176, 352):
        arrays = [np.full((1, 1, length), 0.5) for _ in contract.inputs]
        try:
            contract.compute(*arrays, **parameters)
        except LossError:  # says that the image is too small
            continue
        return (1, length)
    raise LossError(f"{contract.name}: no image of up to 352 pixels is large enough for it")


def _image_batch(contract: Contract, parameters: Mapping[str, Any], rng: Any) -> Batch:
    shape = (4, *image_shape(contract, parameters))
    names = list(contract.inputs)
    clean = single(rng.random(shape))
    noisy = single(np.clip(clean + 0.125 * rng.standard_normal(shape), 0, 1))
    batch = {name: (noisy if i == 0 else clean).copy() for i, name in enumerate(names)}
    batch[names[0]][1] = clean[1]  # equal
    for name in names:
        batch[name][2] = 0.5  # constant: no variance
    batch[names[0]][3] = single(1 - clean[3])  # opposite: negative correlation
    return batch


def _tensor_batches(contract: Contract, rng: Any) -> dict[str, Batch]:
    name = next(iter(contract.inputs))
    shape = (4, 3)
    return {
        "random": {name: single(rng.standard_normal(shape))},
        "with zeros": {name: single(rng.standard_normal(shape) * (rng.random(shape) > 0.5))},
        "small": {name: single(1e-8 * rng.standard_normal(shape))},
        "large": {name: single(1e9 * rng.standard_normal(shape))},
        "tied": {name: np.full(shape, 0.5)},
    }


def axis_of(contract: Contract, batch: Batch, parameters: Mapping[str, Any]) -> int:
    """The class axis of a batch."""
    return class_axis(contract, batch[contract.predictions[0]], parameters)
