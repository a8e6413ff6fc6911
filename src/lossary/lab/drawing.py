"""What all plots of the report share: colours, escaped names, a frame."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito's colours, told apart by colour-blind readers, then Plotly's own.
COLOURS = [
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#F0E442",
    "#8C564B", "#17BECF", "#7F3C8D", "#11A579", "#3969AC", "#E73F74", "#80BA5A", "#E68310",
]  # fmt: skip


def escape(text: str, most: int = 28) -> str:
    """Text that Plotly shows as it is, cut to a length that leaves room for the plot."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def entry(title: str, remark: str, figure: Any) -> dict[str, Any]:
    """A plot as the report places it: title, remark, figure and height in pixels."""
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        font={"size": 12},
    )
    return {
        "title": title,
        "remark": remark,
        "figure": figure.to_plotly_json(),
        "height": figure.layout.height or 380,
    }


def colour(position: int) -> str:
    """The colour of the loss in this place of the order."""
    return COLOURS[position % len(COLOURS)]


def numbers(values: list[float | None]) -> np.ndarray:
    """Numbers, NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def ranked(table: dict[str, Any]) -> list[tuple[int, str, dict[str, Any]]]:
    """Position, name (escaped: Plotly reads some HTML) and row, best first."""
    return [(k, escape(name), table["losses"][name]) for k, name in enumerate(table["order"])]
