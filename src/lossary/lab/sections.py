"""The report's tables, each as title, remark, header and rows of text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from lossary.lab.words import mean_and_spread, number, percent

WORST = 8
KINDS = ("value", "gradient")  # what an objective's terms share
TIMES = ("start", "end")
LOST = 0.05  # corrected p below which a difference counts


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
        _term_table(table),
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
    metric = account["metric"]["name"]
    rows = []
    for name, item in table["differences"].items():
        reached = table["losses"][name]["best"][metric]
        scale = abs(float(np.mean([value for value in reached if value is not None] or [0.0])))
        low, high = sorted((-sign * item["low"], -sign * item["high"]))
        found = "better" if item["corrected"] < LOST else "no difference found"
        rows.append(
            [
                name,
                number(-sign * item["mean"], scale),
                f"{number(low, scale)} to {number(high, scale)}",
                number(item["corrected"], digits=2),
                found,
            ]
        )
    return {
        "title": f"{table['reference']} against the others{suffix}",
        "remark": (
            "How much better the first loss is, paired by seed: bootstrap interval of 95 %; "
            "p by the t-test corrected for overlapping training rows (Nadeau and Bengio 2003), "
            "after Holm."
        ),
        "header": ["loss", f"better in {metric} by", "interval", "p", "verdict"],
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
            f"{key} {number(value)}"
            for key, value in row["side_effects"].items()
            if value is not None
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
                f"{1e3 * row['seconds_of_loss']:.3f} ms",
                f"{row['saved_bytes']} bytes",
                f"{row['process_bytes'] / 2**20:.0f} MiB" if row["process_bytes"] else "-",
                str(sum(row["nonfinite"])),
                f"{row['rate']:g}",
                f"{np.mean(row['best_epoch']) + 1:.0f}",
            ]
        )
    header = [
        "loss",
        "one step",
        "of the fastest",
        "loss alone",
        "kept per row",
        "peak memory",
        "non-finite steps",
        "rate",
        "best epoch",
    ]
    remark = (
        "A step is the whole network's (median over epochs), all seeds together; loss alone is its "
        "value and gradient in such a step. Kept per row is what the loss holds for its backward "
        "pass; peak memory is the process's, libraries and data included."
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
            "Scale: mean size per row before training; the factor would give each loss the first "
            "one's scale under plain gradient descent (Adam removes it). Shares: at the end of "
            "training."
        ),
        "header": ["loss", "scale", "rate factor", "top 1 % of rows", "harmed rows", "by class"],
        "rows": rows,
    }


def _term_table(table: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name in table["order"]:
        terms = table["losses"][name]["terms"]
        if not terms:
            continue
        for term, end in terms["at the end"].items():
            start = terms["at the start"][term]
            rows.append([name, term, *[percent(x[k]) for k in KINDS for x in (start, end)]])
    return {
        "title": "Terms of the objectives",
        "remark": (
            "Each term's share of the value and of the gradient (mean size per row, factor "
            "included), on training rows. A share near 0 is a term without effect; a gradient near "
            "100 % is the term that decides alone."
        ),
        "header": ["objective", "term", *[f"{k} at the {w}" for k in KINDS for w in TIMES]],
        "rows": rows,
    }


def _worst_tables(account: dict[str, Any], table: dict[str, Any]) -> list[dict[str, Any]]:
    errors = errors_by_loss(table)
    if not errors:
        return []
    pictures = account.get("pictures", {})
    measure = (
        "mean absolute error"
        if account["data"]["task"] in ("real", "count")
        else "mean of 1 - probability of the truth, or share of wrong decisions"
    )
    worst: dict[str, Any] = {
        "title": "Worst rows",
        "remark": f"Row number in your data ({measure}), over the seeds that tested it.",
        "header": ["loss", "rows"],
        "rows": [
            [name, ", ".join(f"{row + 1} ({number(item[row])})" for row in worst_of(item))]
            for name, item in errors.items()
        ],
    }
    if pictures:
        worst["gallery"] = [
            (name, [_picture(pictures, row, number(item[row])) for row in worst_of(item)])
            for name, item in errors.items()
        ]
    if len(errors) == 1:
        return [worst]
    ranked = most_disputed(errors)
    disputed: dict[str, Any] = {
        "title": "Where the losses disagree most",
        "remark": "Error of the same row under each loss.",
        "header": ["row", *errors],
        "rows": [
            [str(row + 1), *[number(item[row]) for item in errors.values()]] for row in ranked
        ],
    }
    if pictures:
        disputed["gallery"] = [("", [_picture(pictures, row, "") for row in ranked])]
    return [worst, disputed]


def errors_by_loss(table: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Error of each tested row by loss, best loss first; infinite where it was not finite."""
    return {
        name: {
            row: math.inf if value is None else value
            for row, value in zip(errors["rows"], errors["error"], strict=True)
        }
        for name in table["order"]
        if (errors := table["losses"][name]["errors"])
    }


def worst_of(errors: dict[int, float]) -> list[int]:
    """Rows of the largest errors, the largest first."""
    return sorted(errors, key=lambda row: -errors[row])[:WORST]


def most_disputed(errors: dict[str, dict[int, float]]) -> list[int]:
    """Rows whose error depends most on the loss."""
    common = set.intersection(*(set(item) for item in errors.values()))
    gaps = {row: float(np.ptp([item[row] for item in errors.values()])) for row in common}
    return worst_of({row: math.inf if math.isnan(gap) else gap for row, gap in gaps.items()})


def _picture(pictures: dict[str, Any], row: int, error: str) -> dict[str, str]:
    """The row's picture, and a caption: its number, its class and the error."""
    found = pictures[str(row)]
    caption = f"row {row + 1}" + f": {found['label']}" * bool(found["label"])
    return {"source": found["source"], "caption": caption + f" ({error})" * bool(error)}


def saved_sections(account: dict[str, Any]) -> list[dict[str, Any]]:
    """Tables of the report on saved predictions."""
    columns = (account["metrics"], *account["constants"].values())
    metrics = [
        [name, *[mean_and_spread(column[name]) for column in columns]]
        for name in account["metrics"]
    ]
    losses = account["losses"]
    gradients = []
    for name, row in losses.items():
        classes = ", ".join(f"{key} {share:.0%}" for key, share in row.get("by class", {}).items())
        gradients.append(
            [
                name,
                number(row["value"], digits=4),
                number(row["gradient scale"]),
                f"{row['top 1 %']:.0%}",
                classes or "-",
                row["estimates"],
            ]
        )
    terms = [
        [name, term, percent(share["value"]), percent(share["gradient"])]
        for name, row in losses.items()
        for term, share in row.get("terms", {}).items()
    ]
    pulled = [
        [name, ", ".join(str(k + 1) for k in row["pulled most"])] for name, row in losses.items()
    ]
    effects = [[key, number(value)] for key, value in account["side_effects"].items()]
    made = [
        {
            "title": "Metrics",
            "remark": "Of the saved predictions, and of constants fitted to the same targets.",
            "header": ["metric", "saved predictions", *account["constants"]],
            "rows": metrics,
        },
        {
            "title": "What each loss would do",
            "remark": (
                "Mean value (never comparable between losses), mean gradient size per row, and "
                "who would get the gradient in the next step of training."
            ),
            "header": ["loss", "mean value", "scale", "top 1 % of rows", "by class", "estimates"],
            "rows": gradients,
        },
        {
            "title": "Terms of the objectives",
            "remark": "Each term's share of the value and of the gradient, factor included.",
            "header": ["objective", "term", "value", "gradient"],
            "rows": terms,
        },
        {
            "title": "Rows pulled most",
            "remark": "Row numbers in your data, the largest gradient first.",
            "header": ["loss", "rows"],
            "rows": pulled,
        },
        {
            "title": "Side effects",
            "remark": "Of the saved predictions.",
            "header": ["measure", "value"],
            "rows": effects,
        },
    ]
    return [item for item in made if item["rows"]]
