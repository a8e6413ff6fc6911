"""One table file: read by polars, checked, and turned into numbers."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lossary.advice.target import refuse_texts, strides
from lossary.contract import LossError
from lossary.lab.need import need

MOST_COLUMNS = 10_000
MOST_CATEGORIES = 50
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "?"]
FORMATS = (".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather")


@dataclass(frozen=True, eq=False)
class Table:
    """Numbers of a table: features (n, columns), the raw target, and what was done to get there."""

    features: np.ndarray
    columns: tuple[str, ...]
    target: np.ndarray
    target_name: str
    notes: tuple[str, ...]
    rows: np.ndarray  # which rows of the frame are left


def tabulate(frame: Any, source: str, target: str | None, drop_missing: bool) -> Table:
    """A polars frame in numbers; several target columns are named with commas between them."""
    names = _target_names(frame, source, target)
    frame, notes, rows = _complete(frame, source, names, drop_missing)
    chosen = frame.select(names)
    values = chosen.to_numpy() if len(names) > 1 else _target_values(chosen.to_series(), source)
    columns, blocks = [], []
    for name in frame.columns:
        if name in names:
            continue
        found, note = _numbers(frame[name])
        notes += (note,) if note else ()
        for label, block in found:
            columns.append(label)
            blocks.append(block)
    if not blocks:
        why = "".join(f"; {note}" for note in notes[:3])
        raise LossError(f"{source}: no column is left to predict {', '.join(names)} from{why}")
    features = np.stack(blocks, axis=1).astype(np.float32)
    return Table(features, tuple(columns), values, ",".join(names), notes, rows)


def read_columns(path: Path, target: str | None, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """The raw target, and the numbers of the named columns: (n,) of one, (n, columns) of
    several.
    """
    if not path.exists():
        raise LossError(f"{path}: no such file")
    frame = read_frame(path)
    wanted = _target_names(frame, path.name, target)
    stripped = [name.strip() for name in names]
    for name in stripped:
        _target_names(frame, path.name, name)
        if not frame[name].dtype.is_numeric():
            raise LossError(
                f"{path.name}: column {name!r} holds {frame[name].dtype}, expected numbers"
            )
    frame, _, _ = _complete(frame.select([*wanted, *stripped]), path.name, wanted, False)
    values = frame.select(stripped).to_numpy().astype(np.float64)
    return _target_values(frame[wanted[0]], path.name), values[:, 0] if len(
        stripped
    ) == 1 else values


def read_frame(path: Path) -> Any:
    """The polars frame of a table file."""
    polars = need("polars")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise LossError(
            f"{path.name}: cannot read {suffix or 'this'} files; give {', '.join(FORMATS)} or .npz"
        )
    _refuse_too_large(path)
    try:
        if suffix == ".parquet":
            frame = polars.read_parquet(path)
        elif suffix in (".arrow", ".feather"):
            frame = polars.read_ipc(path)
        else:
            frame = _read_csv(polars, path)
    except (polars.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise LossError(f"{path.name}: cannot be read as {suffix[1:]}: {first}") from None
    if frame.height == 0:
        raise LossError(f"{path.name}: has a header but no rows")
    _refuse_columns(frame.columns, path.name)
    return frame


def _refuse_too_large(path: Path) -> None:
    size = path.stat().st_size
    if size == 0:
        raise LossError(f"{path.name}: is empty")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory / 4:
        raise LossError(
            f"{path.name}: {size / 2**30:.1f} GiB do not fit in the memory of {memory / 2**30:.1f} "
            "GiB with room to train; give a sample of its rows"
        )


def _read_csv(polars: Any, path: Path) -> Any:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
    except UnicodeDecodeError:
        raise LossError(f"{path.name}: is not text in UTF-8; save it as UTF-8") from None
    if "\0" in header:
        raise LossError(f"{path.name}: is not text; a CSV has a line of column names")
    separator = max(",;\t|", key=header.count)
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
    _refuse_columns(names, path.name)
    settings = {"separator": separator, "null_values": MISSING}
    try:
        frame = polars.read_csv(path, infer_schema_length=10_000, **settings)
    except polars.exceptions.ComputeError:  # a later row may hold another type
        frame = polars.read_csv(path, infer_schema_length=None, **settings)
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    texts = frame.select(polars.selectors.string()).columns
    return frame.with_columns(_dated(polars, frame[name]) for name in texts)


def _dated(polars: Any, texts: Any) -> Any:
    """The column as dates or times of day and date, where every text is one.

    A few rows decide first: polars' own search for dates takes minutes on millions of texts.
    """
    for parse in ("to_date", "to_datetime"):
        for part in (texts.drop_nulls().head(100), texts):
            try:
                found = getattr(part.str, parse)(strict=False)
            except polars.exceptions.ComputeError:  # no text like a date
                break
            if not len(part) or found.null_count() > part.null_count():
                break
        else:
            return found
    return texts


def as_frame(table: Any, source: str) -> Any:
    """A polars or pandas DataFrame as a polars frame, checked like a file."""
    polars = need("polars")
    names = [str(name) for name in table.columns]
    _refuse_columns(names, source)
    if isinstance(table, polars.DataFrame):
        frame = table
    else:
        try:
            columns = {name: table.iloc[:, k].tolist() for k, name in enumerate(names)}
            frame = polars.DataFrame(columns, nan_to_null=True)
        except (TypeError, polars.exceptions.PolarsError) as error:
            first = str(error).strip().partition("\n")[0]
            raise LossError(f"{source}: a column mixes types: {first}") from None
    if frame.height == 0:
        raise LossError(f"{source}: has columns but no rows")
    return frame


def _refuse_columns(names: list[str], source: str) -> None:
    if len(names) > MOST_COLUMNS:
        raise LossError(
            f"{source}: {len(names)} columns; the lab takes at most {MOST_COLUMNS}: "
            "keep those that matter"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise LossError(
            f"{source}: column {twice[0]!r} occurs {names.count(twice[0])} times; rename it"
        )


def _target_names(frame: Any, source: str, target: str | None) -> list[str]:
    if target is None:
        shown = ", ".join(frame.columns[:10])
        raise LossError(f"{source}: say which column to predict: --target, one of {shown}")
    if target in frame.columns:
        return [target]
    names = [name.strip() for name in target.split(",")]
    missing = [name for name in names if name not in frame.columns]
    if missing:
        import difflib

        near = difflib.get_close_matches(missing[0], frame.columns, n=3, cutoff=0.4)
        shown = ", ".join(near or frame.columns[:10])
        raise LossError(f"{source}: no column {missing[0]!r}; it has {shown}")
    return names


def _complete(
    frame: Any, source: str, names: list[str], drop: bool
) -> tuple[Any, tuple[str, ...], np.ndarray]:
    """The rows without missing values, notes, and the rows' numbers; an error that counts the
    missing unless ``drop``.
    """
    polars = need("polars")
    empty = [n for n in frame.columns if n not in names and frame[n].null_count() == frame.height]
    notes = tuple(f"column {name!r} is empty and was left out" for name in empty)
    frame = frame.drop(empty)
    numeric = polars.selectors.float()
    missing = frame.with_columns(numeric.fill_nan(None)).select(polars.all().is_null())
    infinite = frame.select(numeric.is_infinite().fill_null(False))
    bad = missing.with_columns(missing[name] | infinite[name] for name in infinite.columns)
    rows = bad.select(polars.any_horizontal(polars.all())).to_series()
    count = int(rows.sum())
    if not count:
        return frame, notes, np.arange(frame.height)
    if not drop:
        where = {name: int(bad[name].sum()) for name in bad.columns if bad[name].any()}
        columns = ", ".join(f"{name} ({number})" for name, number in list(where.items())[:4])
        first = ", ".join(str(row + 1) for row in np.flatnonzero(rows.to_numpy())[:5])
        raise LossError(
            f"{source}: {count} of {frame.height} rows hold missing or infinite values, in "
            f"{columns}; first rows {first}; say --drop-missing to go on without them"
        )
    if count == frame.height:
        raise LossError(f"{source}: every row has a missing value; drop the emptiest columns first")
    note = f"dropped {count} of {frame.height} rows with missing values"
    return frame.filter(~rows), (*notes, note), np.flatnonzero(~rows.to_numpy())


def _target_values(series: Any, source: str) -> np.ndarray:
    """The target as it came; a column of numbers with a few texts among them is an error."""
    polars = need("polars")
    if series.dtype.is_temporal():
        raise LossError(
            f"{source}: target {series.name} holds dates; make the quantity to predict of them, "
            "such as the days until"
        )
    if series.dtype == polars.String:
        numbers = series.cast(polars.Float64, strict=False)
        share = 1 - numbers.null_count() / len(series)
        if 0.5 < share < 1:
            row = int(np.flatnonzero(numbers.is_null().to_numpy())[0])
            raise LossError(
                f"{source}: target {series.name} mixes numbers and texts: "
                f"{numbers.null_count()} "
                f"texts, the first {series[row]!r} in row {row + 1}; correct or remove them"
            )
        # Counted here, since millions of texts take seconds to become an array.
        for step in strides(len(series)):
            part = series.gather_every(step)
            longest = part.str.len_chars().max()
            refuse_texts(part.n_unique(), longest, len(series), series.name, step)
    return series.to_numpy()


def _numbers(series: Any) -> tuple[list[tuple[str, np.ndarray]], str]:
    """A column as named columns of numbers, and a note when it was left out."""
    polars = need("polars")
    name, kind = series.name, series.dtype
    if kind.is_numeric() or kind == polars.Boolean:
        return [(name, series.cast(polars.Float64).to_numpy())], ""
    if kind in (polars.Date, polars.Datetime):
        day = series.dt.ordinal_day().to_numpy() / 365.25
        found = [
            (f"{name}: season, cosine", np.cos(2 * np.pi * day)),
            (f"{name}: season, sine", np.sin(2 * np.pi * day)),
        ]
        if kind != polars.Date:
            hour = series.dt.hour().to_numpy() / 24
            found += [
                (f"{name}: hour, cosine", np.cos(2 * np.pi * hour)),
                (f"{name}: hour, sine", np.sin(2 * np.pi * hour)),
            ]
        return found, ""
    if kind in (polars.String, polars.Categorical, polars.Enum):
        texts = series.cast(polars.String)
        different = texts.n_unique()
        if different > MOST_CATEGORIES:
            return [], (
                f"column {name!r} has {different} different texts (at most "
                f"{MOST_CATEGORIES} are taken as categories) and was left out"
            )
        categories = texts.unique().sort().to_list()
        return [(f"{name} = {item}", (texts == item).to_numpy()) for item in categories], ""
    return [], f"column {name!r} holds {kind} and was left out"
