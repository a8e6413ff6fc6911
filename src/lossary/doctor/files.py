"""Predictions and targets from files: nothing is unpickled, and large arrays stay on disk."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lossary.contract import LossError

KINDS = (".npy", ".npz", ".csv", ".parquet", ".safetensors")
_TARGETS = ("target", "targets", "label", "labels", "y", "y_true")
_PREDICTIONS = (
    "prediction",
    "predictions",
    "pred",
    "preds",
    "logits",
    "y_pred",
    "output",
    "outputs",
)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; a single array is named ``""``. Errors: LossError."""
    path = Path(path)
    if not path.exists():
        raise LossError(f"{path}: no such file")
    if path.is_dir():
        raise LossError(f"{path}: is a directory; give one file ({', '.join(KINDS)})")
    if not path.stat().st_size:
        raise LossError(f"{path}: the file is empty")
    readers = {
        ".npy": _npy,
        ".npz": _npz,
        ".csv": _csv,
        ".parquet": _parquet,
        ".safetensors": _safetensors,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise LossError(
            f"{path}: the extension {path.suffix or '(none)'} is not known; expected "
            f"{', '.join(KINDS)}"
        )
    try:
        return reader(path)
    except LossError:
        raise
    except (
        OSError,
        ValueError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        json.JSONDecodeError,
        UnicodeDecodeError,
    ) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "allow_pickle" in first or "Object arrays" in first:
            raise LossError(
                f"{path}: holds pickled Python objects, which are never loaded; save a plain array"
            ) from None
        raise LossError(f"{path}: is no readable {path.suffix[1:]} file ({first[:160]})") from None


def _npy(path: Path) -> dict[str, np.ndarray]:
    return {"": np.load(path, mmap_mode="r", allow_pickle=False)}


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _csv(path: Path) -> dict[str, np.ndarray]:
    with path.open(encoding="utf-8") as file:
        head = file.readline()
    names = [name.strip().strip('"') for name in head.split(",")]
    numeric = all(_is_number(name) for name in names)
    table = np.genfromtxt(
        path,
        delimiter=",",
        skip_header=0 if numeric else 1,
        dtype=np.float64,
        ndmin=2,
        missing_values="",
        filling_values=np.nan,
    )
    if not table.size:
        raise LossError(f"{path}: has no rows of numbers")
    if np.isnan(table).all():
        raise LossError(
            f"{path}: no entry is a number; expected columns of numbers separated by commas"
        )
    if numeric:
        return {"": _columns(table)}
    found = {name: table[:, i] for i, name in enumerate(names)}
    role = {name for name in names if name.lower() in (*_TARGETS, *_PREDICTIONS)}
    return found if role else {"": _columns(table)}


def _columns(table: np.ndarray) -> np.ndarray:
    column = table[:, 0] if table.shape[1] == 1 else table
    whole = (
        np.isfinite(column).all()
        and (column == np.rint(column)).all()
        and np.abs(column).max() < 2**53
    )
    return column.astype(np.int64) if whole else column


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""
    return True


def _parquet(path: Path) -> dict[str, np.ndarray]:
    try:
        import polars
    except ImportError:
        raise LossError(
            f"{path}: Parquet needs polars; install it with: pip install 'lossary[lab]'"
        ) from None
    try:
        frame = polars.read_parquet(path)
    except polars.exceptions.PolarsError as error:
        raise LossError(
            f"{path}: is no readable parquet file ({str(error).splitlines()[0][:160]})"
        ) from None
    if not frame.height:
        raise LossError(f"{path}: has no rows")
    text = [
        name
        for name, kind in frame.schema.items()
        if not (kind.is_numeric() or kind == polars.Boolean)
    ]
    if text:
        raise LossError(
            f"{path}: column {text[0]!r} is {frame.schema[text[0]]}, not numeric; encode it as "
            "numbers first"
        )
    if any(name.lower() in (*_TARGETS, *_PREDICTIONS) for name in frame.columns):
        return {name: frame[name].to_numpy() for name in frame.columns}
    table = frame.to_numpy()
    return {"": table[:, 0] if table.shape[1] == 1 else table}


_SAFE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "BOOL": "?",
}


def _safetensors(path: Path) -> dict[str, np.ndarray]:
    """The format is a length, a JSON header and raw numbers: read without its library, on disk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise LossError(f"{path}: is truncated or no safetensors file")
        header = json.loads(file.read(length))
    arrays = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, stop = entry["data_offsets"]
        if 8 + length + stop > size:
            raise LossError(f"{path}: is truncated: {name!r} ends beyond the file")
        shape = tuple(entry["shape"])
        if entry["dtype"] == "BF16":
            raw = np.memmap(path, "<u2", "r", 8 + length + start, shape)
            arrays[name] = (raw.astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] not in _SAFE:
            raise LossError(f"{path}: {name!r} has dtype {entry['dtype']}, which is not supported")
        elif start == stop:
            arrays[name] = np.empty(shape, _SAFE[entry["dtype"]])
        else:
            arrays[name] = np.memmap(path, _SAFE[entry["dtype"]], "r", 8 + length + start, shape)
    return arrays


def load_case(predictions: str, targets: str | None) -> dict[str, Any]:
    """What ``examine`` takes, from one or two files; names are those of its arguments."""
    first = read(predictions)
    if targets is None:
        return _named(first, predictions)
    second = read(targets)
    prediction = _one(first, _PREDICTIONS, predictions)
    target = _one(second, _TARGETS, targets)
    if prediction.ndim and target.ndim and len(prediction) != len(target):
        raise LossError(
            f"{predictions} has {len(prediction):,} rows and {targets} {len(target):,}; they must "
            "be the same rows"
        )
    return {"prediction": prediction, "target": target}


def _one(arrays: dict[str, np.ndarray], names: tuple[str, ...], path: str) -> np.ndarray:
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    for name in arrays:
        if name.lower() in names:
            return arrays[name]
    raise LossError(
        f"{path}: holds {', '.join(arrays) or 'nothing'}; expected one array, or one named "
        f"{names[0]}"
    )


_TEXT = (
    "loss",
    "predictions",
    "reference",
    "combine",
    "gather",
    "metric_goal",
    "dtype",
    "explanation",
)


def _named(arrays: dict[str, np.ndarray], path: str) -> dict[str, Any]:
    """A whole case in one file: arrays and settings by the names of ``examine``'s arguments."""
    case: dict[str, Any] = {}
    for name, array in arrays.items():
        if name == "explanation":
            continue
        if array.dtype.kind == "U":
            if name not in _TEXT:
                raise LossError(f"{path}: {name!r} holds text; encode it as numbers first")
            case[name] = str(array)
        elif name.startswith("parameter "):
            case.setdefault("parameters", {})[name.removeprefix("parameter ")] = array.item()
        elif array.ndim == 0:
            case[name] = array.item()
        elif name.startswith("term "):
            case.setdefault("terms", {})[name.removeprefix("term ")] = (
                float(array[0]) if len(array) == 1 else (float(array[0]), array[1:])
            )
        else:
            lower = name.lower()
            role = (
                "target" if lower in _TARGETS else "prediction" if lower in _PREDICTIONS else name
            )
            case[role] = array
    if set(case) == {""}:
        raise LossError(f"{path}: holds one array; give the targets as a second file")
    return case
