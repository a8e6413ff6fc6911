"""The report: one HTML file that holds everything, Plotly included, and needs no network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lossary.lab.need import need
from lossary.lab.pictures import figures
from lossary.lab.terminal import BANNER, mean_and_spread

WORST = 8


def write_report(account: dict[str, Any], path: Path) -> Path:
    """Write the account as HTML; names of columns and classes are data, and escaped."""
    jinja = need("jinja2")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    plots = figures(account)
    page = environment.get_template("report.html.j2").render(
        account=account,
        banner=BANNER.format(metric=account["metric"]["name"]),
        sections=sections(account),
        plots=[{key: plot[key] for key in ("title", "remark", "height")} for plot in plots],
        # The two trusted parts: Plotly's own code, and JSON in which no tag can begin or end.
        script=_inline(need("plotly.offline").get_plotlyjs()),
        data=_json([plot["figure"] for plot in plots]),
    )
    path.write_text(page, encoding="utf-8")
    return path


def _json(value: Any) -> str:
    text = json.dumps(_plain(value), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    """Nested plain data; numbers that JSON lacks become null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _inline(code: str) -> str:
    """JavaScript that can stand inside a script element."""
    return code.replace("</script", "<\\/script")


def sections(account: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables of the report: title, remark, header and rows of text."""
    made = []
    for setting, table in account["tables"].items():
        suffix = "" if setting == "as is" else f", training part with {setting}"
        made.append(_metric_table(account, table, "best", f"Metrics at the best epoch{suffix}"))
        made.append(_difference_table(account, table, suffix))
    table = next(iter(account["tables"].values()))
    made += [
        _metric_table(account, table, "last", "Metrics at the last epoch"),
        _meaning_table(table),
        _cost_table(table),
        _gradient_table(table),
        *_worst_tables(account, table),
    ]
    return [item for item in made if item["rows"]]


def _metric_table(
    account: dict[str, Any], table: dict[str, Any], when: str, title: str
) -> dict[str, Any]:
    main = account["metric"]["name"]
    names = [main, *(name for name in account["metrics"] if name != main)]
    rows = [
        [loss, *[mean_and_spread(table["losses"][loss][when][name]) for name in names]]
        for loss in table["order"]
    ]
    rows += [
        [name, *[mean_and_spread(scores[key]) for key in names]]
        for name, scores in account["baselines"].items()
    ]
    arrows = [f"{name} {'↑' if account['metrics'][name] else '↓'}" for name in names]
    remark = "Mean ± standard deviation over seeds, on test rows. The first column orders."
    return {"title": title, "remark": remark, "header": ["loss", *arrows], "rows": rows}


def _difference_table(
    account: dict[str, Any], table: dict[str, Any], suffix: str
) -> dict[str, Any]:
    sign = 1 if account["metric"]["higher is better"] else -1
    rows = []
    for name, item in table["differences"].items():
        low, high = sorted((-sign * item["low"], -sign * item["high"]))
        found = "better" if item["corrected"] < 0.05 else "no difference found"
        rows.append(
            [
                name,
                f"{-sign * item['mean']:.3g}",
                f"{low:.3g} to {high:.3g}",
                f"{item['corrected']:.2g}",
                found,
            ]
        )
    return {
        "title": f"{table['reference']} against the others{suffix}",
        "remark": (
            "How much better the first loss is, paired by seed: bootstrap interval of 95 %; "
            "p by the "
            "t-test corrected for overlapping training rows (Nadeau and Bengio 2003), after Holm."
        ),
        "header": ["loss", f"better in {account['metric']['name']} by", "interval", "p", "verdict"],
        "rows": rows,
    }


def _meaning_table(table: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name in table["order"]:
        row = table["losses"][name]
        heads = "; ".join(
            f"{key}: {value['units']} × {value['activation']}" for key, value in row["head"].items()
        )
        effects = "; ".join(
            f"{key} {value:.3g}" for key, value in row["side_effects"].items() if value is not None
        )
        rows.append([name, row["estimates"], heads, effects or "-"])
    return {
        "title": "What each loss estimates",
        "remark": "From its contract; side effects as measured on test rows.",
        "header": ["loss", "estimates", "head", "side effects"],
        "rows": rows,
    }


def _cost_table(table: dict[str, Any]) -> dict[str, Any]:
    fastest = min(row["seconds_per_step"] for row in table["losses"].values())
    rows = []
    for name in table["order"]:
        row = table["losses"][name]
        replicas = len(row["seeds"])
        rows.append(
            [
                name,
                f"{1e3 * row['seconds_per_step']:.2f} ms for {replicas} networks",
                f"{row['seconds_per_step'] / fastest:.2f}",
                f"{row['saved_bytes']} bytes",
                str(sum(row["nonfinite"])),
                f"{row['rate']:g}",
                f"{np.mean(row['best_epoch']) + 1:.0f}",
            ]
        )
    header = [
        "loss",
        "one step",
        "of the fastest",
        "kept per row",
        "non-finite steps",
        "rate",
        "best epoch",
    ]
    remark = (
        "A step is the whole network's (median over epochs); kept per row is what the loss holds "
        "for its backward pass."
    )
    return {"title": "Cost and stability", "remark": remark, "header": header, "rows": rows}


def _gradient_table(table: dict[str, Any]) -> dict[str, Any]:
    scales = {name: table["losses"][name]["gradient_scale"] for name in table["order"]}
    reference = scales[table["order"][0]]
    rows = []
    for name in table["order"]:
        shares = table["losses"][name]["gradient"]
        if not shares or not scales[name] or not reference:
            continue
        classes = shares.get("by class", {})
        shown = ", ".join(f"{key} {value:.0%}" for key, value in list(classes.items())[:12])
        harmed = shares.get("harmed rows")
        rows.append(
            [
                name,
                f"{scales[name]:.3g}",
                f"{reference / scales[name]:.3g}",
                f"{shares['top 1 %']:.0%}",
                "-" if harmed is None else f"{harmed:.0%}",
                shown or "-",
            ]
        )
    return {
        "title": "Gradients",
        "remark": (
            "Scale: mean size per row before training; the factor would give each loss the "
            "first one's "
            "scale under plain gradient descent (Adam removes it). Shares: at the end of training."
        ),
        "header": ["loss", "scale", "rate factor", "top 1 % of rows", "harmed rows", "by class"],
        "rows": rows,
    }


def _worst_tables(account: dict[str, Any], table: dict[str, Any]) -> list[dict[str, Any]]:
    errors = {
        name: dict(zip(row["errors"]["rows"], _floats(row["errors"]["error"]), strict=True))
        for name, row in table["losses"].items()
        if row["errors"]
    }
    if not errors:
        return []
    worst = []
    for name in table["order"]:
        if name in errors:
            ranked = sorted(errors[name].items(), key=lambda item: -item[1])[:WORST]
            worst.append([name, ", ".join(f"{row + 1} ({value:.3g})" for row, value in ranked)])
    measure = (
        "mean absolute error"
        if account["data"]["task"] in ("real", "count")
        else "mean of 1 - probability of the truth, or share of wrong decisions"
    )
    made = [
        {
            "title": "Worst rows",
            "remark": f"Row number in your data ({measure}), over the seeds that tested it.",
            "header": ["loss", "rows"],
            "rows": worst,
        }
    ]
    if len(errors) > 1:
        common = set.intersection(*(set(item) for item in errors.values()))
        gaps = {row: np.ptp([item[row] for item in errors.values()]) for row in common}
        ranked = sorted(gaps.items(), key=lambda item: -item[1])[:WORST]
        names = [name for name in table["order"] if name in errors]
        made.append(
            {
                "title": "Where the losses disagree most",
                "remark": "Error of the same row under each loss.",
                "header": ["row", *names],
                "rows": [
                    [str(row + 1), *[f"{errors[name][row]:.3g}" for name in names]]
                    for row, _ in ranked
                ],
            }
        )
    return made


def _floats(values: list[float | None]) -> list[float]:
    return [math.inf if value is None else value for value in values]
