"""Tables, scikit-learn's sets, arrays and image folders, read into features and a target."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lossary.advice.target import Target, describe
from lossary.contract import LossError
from lossary.lab.need import need
from lossary.lab.table import MOST_COLUMNS, as_frame, read_frame, tabulate

SETS = ("digits", "diabetes", "breast-cancer", "wine")


@dataclass(frozen=True, eq=False)
class Data:
    """Features (n, columns) or images (n, channels, height, width), float32, and their target.

    ``held_out``: the last so many rows are never trained on: every seed is judged on them.
    """

    name: str
    features: np.ndarray
    columns: tuple[str, ...]
    target: Target
    notes: tuple[str, ...] = ()
    held_out: int = 0

    @property
    def digest(self) -> str:
        """A fingerprint of every number: two studies of one digest saw the same data."""
        content = hashlib.sha256(np.ascontiguousarray(self.features).tobytes())
        content.update(np.ascontiguousarray(self.target.values).tobytes())
        content.update(repr((self.columns, self.target.labels, self.target.task)).encode())
        if self.held_out:
            content.update(str(self.held_out).encode())
        return content.hexdigest()[:16]


def read(
    source: str | Path,
    target: str | None = None,
    *,
    task: str | None = None,
    drop_missing: bool = False,
) -> Data:
    """Data by the name of a set, or from a .csv, .parquet, .arrow, .npz file or an image folder."""
    if str(source) in SETS:
        return _from_sklearn(str(source), target, task)
    path = Path(source)
    if not path.exists():
        known = ", ".join(SETS)
        raise LossError(f"{source}: no such file; give a file, or one of the sets {known}")
    if path.is_dir():
        from lossary.lab.images import read_folder

        pixels, names, notes = read_folder(path)
        return Data(
            path.name, pixels, ("pixels",), describe(names, name="folder", task=task), notes
        )
    readers: dict[str, Callable[..., Data]] = {".npz": _from_npz}
    reader = readers.get(path.suffix.lower(), _from_table)
    return reader(path, target, task, drop_missing)


def from_arrays(
    features: Any, target: Any, *, name: str = "arrays", task: str | None = None
) -> Data:
    """Data from features (n, columns) or images (n, channels, height, width), and targets."""
    numbers = np.asarray(features)
    if numbers.ndim not in (2, 4) or numbers.dtype.kind not in "iufb":
        raise LossError(
            f"{name}: features have shape {numbers.shape} and type {numbers.dtype}; expected "
            "numbers "
            "of shape (rows, columns) or (rows, channels, height, width)"
        )
    if len(numbers) != len(target):
        raise LossError(f"{name}: {len(numbers)} rows of features, {len(target)} targets")
    _refuse_wide(name, numbers)
    numbers = numbers.astype(np.float32)
    bad = int((~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)).sum())
    if bad:
        raise LossError(f"{name}: {bad} rows of features hold NaN or infinity; remove or fill them")
    columns = tuple(map(str, range(numbers.shape[1]))) if numbers.ndim == 2 else ("pixels",)
    return Data(name, numbers, columns, describe(target, task=task))


def _from_sklearn(name: str, target: str | None, task: str | None) -> Data:
    datasets = need("sklearn.datasets")
    bunch = getattr(datasets, f"load_{name.replace('-', '_')}")()
    if target not in (None, "target"):
        raise LossError(f"{name}: has one target, named 'target'; --target {target} does not exist")
    labels = [str(item) for item in getattr(bunch, "target_names", [])]
    kind = task or ("real" if name == "diabetes" else None)
    values = bunch.target if kind == "real" else bunch.target.astype(np.int64)
    described = describe(values, task=kind or ("binary" if len(labels) == 2 else "classes"))
    if labels and len(labels) == len(described.labels):
        described = replace(described, labels=tuple(labels))
    # Codes of kinds have no order, but digits and sorts of wine are told apart by name only.
    described = replace(described, ordered=False)
    columns = tuple(map(str, getattr(bunch, "feature_names", range(bunch.data.shape[1]))))
    return Data(name, bunch.data.astype(np.float32), columns, described)


def _from_table(path: Path, target: str | None, task: str | None, drop_missing: bool) -> Data:
    return from_frame(read_frame(path), path.name, target, task, drop_missing)


def from_frame(
    frame: Any, name: str, target: str | None, task: str | None, drop_missing: bool, held: int = 0
) -> Data:
    """Data from a polars frame, of which the last ``held`` rows are held out."""
    table = tabulate(frame, name, target, drop_missing)
    described = describe(table.target, name=table.target_name, task=task)
    if described.task == "multi-label":
        described = replace(described, labels=tuple(table.target_name.split(",")))
    held = int((table.rows >= frame.height - held).sum())
    return Data(name, table.features, table.columns, described, table.notes, held)


def load(
    train: Any,
    validation: Any = None,
    target: str | None = None,
    *,
    task: str | None = None,
    drop_missing: bool = False,
) -> Data:
    """Data from what Python has: a file or set by name, a DataFrame, or (features, target).

    ``validation``, of the same kind, is held out: networks are judged on it and never see it.
    """
    if validation is None and isinstance(train, (str, Path)):
        return read(train, target, task=task, drop_missing=drop_missing)
    sides = [train] if validation is None else [train, validation]
    if all(isinstance(side, (tuple, list)) and len(side) == 2 for side in sides):
        pairs = [_arrays(side, place) for side, place in zip(sides, PLACES, strict=False)]
        if len({features.shape[1:] for features, _ in pairs}) > 1:
            shapes = " and ".join(str(features.shape) for features, _ in pairs)
            raise LossError(f"train and validation: features have shapes {shapes}")
        features, values = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        data = from_arrays(features, values, task=task)
        return _judged_on(replace(data, held_out=0 if len(pairs) == 1 else len(pairs[1][0])))
    frames = [_frame_of(side, place) for side, place in zip(sides, PLACES, strict=False)]
    if len(frames) == 2 and frames[0].schema != frames[1].schema:
        differ = set(frames[0].schema.items()) ^ set(frames[1].schema.items())
        names = ", ".join(sorted({name for name, _ in differ})) or "their order"
        raise LossError(f"train and validation: columns differ: {names}")
    name = Path(train).name if isinstance(train, (str, Path)) else "frame"
    held = frames[1].height if len(frames) == 2 else 0
    joined = need("polars").concat(frames)
    return _judged_on(from_frame(joined, name, target, task, drop_missing, held))


PLACES = ("train", "validation")


def _arrays(pair: Any, place: str) -> tuple[np.ndarray, np.ndarray]:
    features, values = (np.asarray(item) for item in pair)
    if features.ndim < 2 or len(features) != len(values):
        raise LossError(
            f"{place}: features have shape {features.shape}, targets {values.shape}; expected "
            "(rows, columns) and (rows,)"
        )
    return features, values


def _frame_of(side: Any, place: str) -> Any:
    if isinstance(side, (str, Path)):
        return read_frame(Path(side))
    if hasattr(side, "columns") and hasattr(side, "shape"):
        return as_frame(side, place)
    raise LossError(
        f"{place}: is a {type(side).__name__}; expected a pair (features, target), a DataFrame or "
        "a file, and for validation the same kind"
    )


def _judged_on(data: Data) -> Data:
    if not data.held_out:
        return data
    note = (
        f"judged on the {data.held_out} validation rows given, the same for every seed: intervals "
        "are about training, not about other rows"
    )
    return replace(data, notes=(*data.notes, note))


def _from_npz(path: Path, target: str | None, task: str | None, drop_missing: bool) -> Data:
    """Arrays ``x`` and ``y``, or ``--target NAME`` and the one other array."""
    arrays = _npz_arrays(path)
    name = target or "y"
    if name not in arrays:
        raise LossError(
            f"{path.name}: no array {name!r}; it holds {', '.join(arrays) or 'nothing'}"
        )
    others = [key for key in arrays if key != name and arrays[key].ndim >= 2]
    if len(others) != 1:
        raise LossError(
            f"{path.name}: expected one array of features beside {name!r}, found {len(others)}"
        )
    features, values = arrays[others[0]], arrays[name]
    if len(features) != len(values):
        raise LossError(
            f"{path.name}: {others[0]} has {len(features)} rows, {name} has {len(values)}"
        )
    if features.dtype.kind not in "iufb":
        raise LossError(f"{path.name}: {others[0]} holds {features.dtype}, expected numbers")
    _refuse_wide(path.name, features)
    scale = 255.0 if features.dtype == np.uint8 else 1.0
    features = features.astype(np.float32) / scale
    if features.ndim == 3:
        features = features[:, None]
    elif features.ndim == 4 and features.shape[-1] in (1, 3, 4):
        features = np.moveaxis(features, -1, 1)
    notes: tuple[str, ...] = ()
    missing = ~np.isfinite(features).reshape(len(features), -1).all(axis=1)
    if missing.any() and not drop_missing:
        raise LossError(
            f"{path.name}: {int(missing.sum())} rows of {others[0]} hold NaN or infinity; "
            "say --drop-missing to go on without them"
        )
    if missing.any():
        features, values = features[~missing], values[~missing]
        notes = (f"dropped {int(missing.sum())} rows with missing values",)
    columns = tuple(map(str, range(features.shape[1]))) if features.ndim == 2 else ("pixels",)
    return Data(path.name, features, columns, describe(values, name=name, task=task), notes)


def _refuse_wide(name: str, features: np.ndarray) -> None:
    if features.ndim == 2 and features.shape[1] > MOST_COLUMNS:
        raise LossError(
            f"{name}: {features.shape[1]} columns; the lab takes at most {MOST_COLUMNS}: "
            "keep those that matter"
        )
    if not len(features):
        raise LossError(f"{name}: has no rows")


def _npz_arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise LossError(f"{path.name}: is not a readable .npz of plain arrays ({error})") from None
