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
from lossary.lab.table import read_table

SETS = ("digits", "diabetes", "breast-cancer", "wine")


@dataclass(frozen=True, eq=False)
class Data:
    """Features (n, columns) or images (n, channels, height, width), float32, and their target."""

    name: str
    features: np.ndarray
    columns: tuple[str, ...]
    target: Target
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A fingerprint of every number: two studies of one digest saw the same data."""
        content = hashlib.sha256(np.ascontiguousarray(self.features).tobytes())
        content.update(np.ascontiguousarray(self.target.values).tobytes())
        content.update(repr((self.columns, self.target.labels, self.target.task)).encode())
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


def from_arrays(features: Any, target: Any, *, name: str = "arrays") -> Data:
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
    numbers = numbers.astype(np.float32)
    bad = int((~np.isfinite(numbers).reshape(len(numbers), -1).all(axis=1)).sum())
    if bad:
        raise LossError(f"{name}: {bad} rows of features hold NaN or infinity; remove or fill them")
    columns = tuple(map(str, range(numbers.shape[1]))) if numbers.ndim == 2 else ("pixels",)
    return Data(name, numbers, columns, describe(target))


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
    table = read_table(path, target, drop_missing)
    described = describe(table.target, name=table.target_name, task=task)
    if described.task == "multi-label":
        described = replace(described, labels=tuple(table.target_name.split(",")))
    return Data(path.name, table.features, table.columns, described, table.notes)


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


def _npz_arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError) as error:
        raise LossError(f"{path.name}: is not a readable .npz of plain arrays ({error})") from None
