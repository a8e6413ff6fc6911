"""Rows as pictures, where the data are pictures."""

from __future__ import annotations

import base64
import re
from io import BytesIO
from typing import Any

import numpy as np

from lossary.lab.data import Data
from lossary.lab.need import need
from lossary.lab.sections import errors_by_loss, most_disputed, worst_of

PIXEL = re.compile(r"pixel_(\d+)_(\d+)")


def pictures_of(data: Data, table: dict[str, Any]) -> dict[str, dict[str, str]]:
    """By row number: a PNG as a data URI and the true class, of the rows that the report shows.

    Empty where the data are no pictures. ``table``: one of the account's.
    """
    errors = errors_by_loss(table)
    images = as_images(data)
    if images is None or not errors:
        return {}
    rows = {row for item in errors.values() for row in worst_of(item)}
    rows.update(most_disputed(errors))
    labels = data.target.labels
    return {
        str(row): {
            "source": png(images[row]),
            "label": labels[int(data.target.values[row])] if labels else "",
        }
        for row in sorted(rows)
    }


def as_images(data: Data) -> np.ndarray | None:
    """Pixels (n, channels, height, width), also of columns named pixel_ROW_COLUMN; else None."""
    if data.features.ndim == 4:
        return data.features
    places = [PIXEL.fullmatch(name) for name in data.columns]
    grid = [(int(place[1]), int(place[2])) for place in places if place]
    height, width = (max(axis) + 1 for axis in zip(*grid, strict=True)) if grid else (0, 0)
    whole = [(row, column) for row in range(height) for column in range(width)]
    if grid != whole or len(grid) != len(data.columns):
        return None
    return data.features.reshape(-1, 1, height, width)


def png(pixels: np.ndarray) -> str:
    """(channels, height, width) as a data URI: stretched to the full range; grey unless RGB."""
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    whole = np.round(255 * scaled).astype(np.uint8)
    shown = whole[:3].transpose(1, 2, 0) if len(whole) >= 3 else whole[0]
    file = BytesIO()
    need("PIL.Image").fromarray(shown).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
