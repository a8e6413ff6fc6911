"""The report's plots, as Plotly figures: one function each, from the account alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from lossary.lab.drawing import colour, entry, escape, numbers, ranked
from lossary.lab.need import need
from lossary.lab.sweep import in_words


def figures(account: dict[str, Any]) -> list[dict[str, Any]]:
    """Title, remark and figure of every plot that the account has data for."""
    go = need("plotly.graph_objects")
    table = next(iter(account["tables"].values()))
    made = [
        _scores(go, account, table),
        _validation(go, account, table),
        _training(go, table),
        _rates(go, table),
        _groups(go, table),
        _reliability(go, table),
        _curves(go, account),
        _shares(go, table),
        _robustness(go, account),
        *_sweeps(go, account),
    ]
    return [item for item in made if item is not None]


def saved_figures(account: dict[str, Any]) -> list[dict[str, Any]]:
    """The plots of saved predictions: calibration, curves, and who would get the gradient."""
    go = need("plotly.graph_objects")
    name = "saved predictions"
    one = {"order": [name], "losses": {name: {"reliability": account["reliability"]}}}
    losses = {
        key: {"gradient": {"tenths": row["tenths"]}} for key, row in account["losses"].items()
    }
    made = [
        _reliability(go, one),
        _curves(go, account),
        _shares(go, {"order": list(losses), "losses": losses}, "In the next step of training."),
    ]
    return [item for item in made if item is not None]


def _scores(go: Any, account: dict[str, Any], table: dict[str, Any]) -> Any:
    metric = account["metric"]["name"]
    figure = go.Figure()
    for position, name, row in reversed(ranked(table)):
        values = numbers(row["best"][metric])
        figure.add_trace(
            go.Box(
                x=values.tolist(),
                name=name,
                boxpoints="all",
                pointpos=0,
                jitter=0.5,
                marker={"color": colour(position), "size": 4},
                showlegend=False,
            )
        )
    figure.update_layout(height=max(260, 34 * len(table["order"]) + 90), xaxis_title=metric)
    figure.update_yaxes(automargin=True)
    return entry(
        f"{metric} on test rows", "One dot per seed; the box spans the middle half.", figure
    )


def _validation(go: Any, account: dict[str, Any], table: dict[str, Any]) -> Any:
    figure = go.Figure()
    for position, name, row in ranked(table):
        scores = np.array([numbers(epoch) for epoch in row["score"]])
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(scores) + 1)),
                y=scores.mean(axis=1).tolist(),
                name=name,
                mode="lines",
                line={"color": colour(position)},
            )
        )
    sign = "" if account["metric"]["higher is better"] else "minus "
    figure.update_layout(xaxis_title="epoch", yaxis_title=f"{sign}{account['metric']['name']}")
    return entry(
        "Validation score by epoch",
        "Mean over seeds; higher is better. The best epoch of each seed is what the table shows.",
        figure,
    )


def _training(go: Any, table: dict[str, Any]) -> Any:
    subplots = need("plotly.subplots")
    rows = ranked(table)
    columns = min(2, len(rows))  # more are too narrow on a telephone
    titles = [escape(name, most=22) for name in table["order"]]
    figure = subplots.make_subplots(
        rows=-(-len(rows) // columns), cols=columns, subplot_titles=titles
    )
    for position, name, row in rows:
        losses = np.array([numbers(epoch) for epoch in row["loss"]])
        place = {"row": position // columns + 1, "col": position % columns + 1}
        mean = losses.mean(axis=1)
        low, high = losses.min(axis=1), losses.max(axis=1)
        epochs = list(range(1, len(mean) + 1))
        band = {"mode": "lines", "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=epochs, y=high.tolist(), **band), **place)
        figure.add_trace(
            go.Scatter(
                x=epochs, y=low.tolist(), fill="tonexty", fillcolor="rgba(0,114,178,0.2)", **band
            ),
            **place,
        )
        figure.add_trace(
            go.Scatter(
                x=epochs,
                y=mean.tolist(),
                name=name,
                showlegend=False,
                line={"color": colour(position)},
            ),
            **place,
        )
        if np.nanmin(low) > 0:
            figure.update_yaxes(type="log", nticks=5, **place)
    figure.update_annotations(font_size=12)
    figure.update_layout(height=230 * -(-len(rows) // columns) + 60)
    return entry(
        "Training loss by epoch",
        "Each loss in its own panel and unit: compare shapes, not heights. The band spans "
        "the seeds.",
        figure,
    )


def _rates(go: Any, table: dict[str, Any]) -> Any:
    figure = go.Figure()
    for position, name, row in ranked(table):
        if row["search"]["scores"]:
            figure.add_trace(
                go.Scatter(
                    x=row["search"]["rates"],
                    y=row["search"]["scores"],
                    name=name,
                    mode="lines+markers",
                    line={"color": colour(position)},
                )
            )
    if not figure.data:
        return None
    figure.update_xaxes(type="log", title="learning rate", dtick=1)
    figure.update_yaxes(title="validation score")
    return entry(
        "Learning-rate search",
        "Every loss got the same rates and seeds; the best rate of each was used.",
        figure,
    )


def _groups(go: Any, table: dict[str, Any]) -> Any:
    figure = go.Figure()
    measure = ""
    for position, name, row in ranked(table):
        if row["per_group"]:
            measure = row["per_group"]["measure"]
            groups = row["per_group"]["groups"]
            figure.add_trace(
                go.Scatter(
                    x=[escape(str(key)) for key in groups],
                    y=list(groups.values()),
                    name=name,
                    mode="markers+lines",
                    line={"color": colour(position), "width": 1},
                    marker={"size": 8},
                )
            )
    if not figure.data:
        return None
    figure.update_xaxes(type="category", automargin=True)
    figure.update_yaxes(title=measure)
    what = "class" if measure == "recall" else "fifth of the target"
    return entry(
        f"{measure[0].upper()}{measure[1:]} by {what}", "Mean over seeds, on test rows.", figure
    )


def _reliability(go: Any, table: dict[str, Any]) -> Any:
    figure = go.Figure()
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"dash": "dot", "color": "#888"},
            name="calibrated",
        )
    )
    for position, name, row in ranked(table):
        bins = row["reliability"]
        if bins:
            kept = [k for k, rows in enumerate(bins["rows"]) if rows >= 5]
            figure.add_trace(
                go.Scatter(
                    x=[bins["confidence"][k] for k in kept],
                    y=[bins["right"][k] for k in kept],
                    text=[f"{bins['rows'][k]:.0f} rows" for k in kept],
                    name=name,
                    mode="lines+markers",
                    line={"color": colour(position)},
                )
            )
    if len(figure.data) == 1:
        return None
    figure.update_xaxes(title="probability given", range=[0, 1])
    figure.update_yaxes(title="share that came true", range=[0, 1])
    return entry(
        "Calibration",
        "On the dotted line, probabilities mean what they say. Above it the network is too "
        "modest, below too sure.",
        figure,
    )


def _curves(go: Any, account: dict[str, Any]) -> Any:
    found = account.get("curves")
    if not found or not found["losses"]:
        return None
    subplots = need("plotly.subplots")
    figure = subplots.make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    histogram = found["histogram"]
    shares = np.array(histogram["shares"])
    edges = np.linspace(histogram["low"], histogram["high"], len(shares) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    for row, key in enumerate(("values", "slopes"), 1):
        tallest = max(
            float(np.nanmax(np.abs(_scaled(item, key)))) for item in found["losses"].values()
        )
        figure.add_trace(
            go.Bar(
                x=centres.tolist(),
                y=(shares / shares.max() * tallest).tolist(),
                width=float(edges[1] - edges[0]),
                marker={"color": "rgba(128,128,128,0.35)"},
                name="your rows",
                showlegend=row == 1,
                hoverinfo="skip",
            ),
            row=row,
            col=1,
        )
    for position, (name, item) in enumerate(found["losses"].items()):
        for row, key in enumerate(("values", "slopes"), 1):
            figure.add_trace(
                go.Scatter(
                    x=item["positions"],
                    y=_scaled(item, key).tolist(),
                    name=escape(name),
                    mode="lines",
                    legendgroup=name,
                    showlegend=row == 1,
                    line={"color": colour(position)},
                ),
                row=row,
                col=1,
            )
    figure.update_yaxes(title="loss, scaled", row=1, col=1)
    figure.update_yaxes(title="pull, scaled", row=2, col=1)
    figure.update_xaxes(title=found["kind"], row=2, col=1)
    figure.update_layout(height=560, bargap=0)
    return entry(
        "Shape over your data",
        "Each loss and the size of its slope, scaled to the same mean over the range; the "
        "bars are your own rows.",
        figure,
    )


def _scaled(item: dict[str, Any], key: str) -> np.ndarray:
    values = numbers(item[key])
    size = float(np.nanmean(np.abs(values)))
    return values / size if size > 0 else values


def _shares(go: Any, table: dict[str, Any], when: str = "At the end of training.") -> Any:
    figure = go.Figure()
    for position, name, row in ranked(table):
        if row["gradient"]:
            figure.add_trace(
                go.Bar(
                    x=[f"{10 * k + 10}" for k in range(10)],
                    y=row["gradient"]["tenths"],
                    name=name,
                    marker={"color": colour(position)},
                )
            )
    if not figure.data:
        return None
    figure.update_xaxes(
        type="category", tickangle=0, title="% of the rows, the largest gradient first"
    )
    figure.update_yaxes(title="share of the gradient", tickformat=".0%")
    return entry(
        "Who gets the gradient",
        f"{when} Even bars: every row pulls alike. A tall first bar: few rows decide.",
        figure,
    )


def _robustness(go: Any, account: dict[str, Any]) -> Any:
    if len(account["tables"]) < 2:
        return None
    metric = account["metric"]["name"]
    figure = go.Figure()
    settings = list(account["tables"])
    order = account["tables"][settings[0]]["order"]
    for position, name in enumerate(order):
        means = [
            float(np.nanmean(numbers(account["tables"][s]["losses"][name]["best"][metric])))
            for s in settings
        ]
        figure.add_trace(
            go.Scatter(
                x=settings,
                y=means,
                name=escape(name),
                mode="lines+markers",
                line={"color": colour(position)},
            )
        )
    figure.update_yaxes(title=metric)
    # Room for the names of the first and the last setting.
    figure.update_xaxes(type="category", range=[-0.4, len(settings) - 0.6], automargin=True)
    return entry(
        "Robustness",
        "The training part was harmed as named; validation and test rows stayed clean.",
        figure,
    )


def _sweeps(go: Any, account: dict[str, Any]) -> list[Any]:
    made = []
    for item in account.get("sweep", []):
        if item["best"] is None:
            continue
        scores = dict(zip(item["values"], item["scores"], strict=True))
        ends = [(0.0, 0.0)] * len(scores)
        for value, gap in item["against the best"].items():
            away = scores[float(value)] - scores[item["best"]]
            ends[item["values"].index(float(value))] = (away - gap["low"], gap["high"] - away)
        figure = go.Figure(
            go.Scatter(
                x=item["values"],
                y=item["scores"],
                mode="lines+markers",
                error_y={
                    "array": [max(0.0, high) for _, high in ends],
                    "arrayminus": [max(0.0, low) for low, _ in ends],
                },
            )
        )
        figure.update_xaxes(title=item["parameter"])
        figure.update_yaxes(title=account["metric"]["name"])
        words = in_words(account["metric"]["name"], item)
        made.append(
            entry(
                f"{item['loss']}: {item['parameter']} is {item['verdict']}",
                f"{words} Bars: the paired difference to the best value.",
                figure,
            )
        )
    return made
