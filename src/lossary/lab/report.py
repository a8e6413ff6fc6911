"""The report: one HTML file that holds everything, Plotly included, and needs no network."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from lossary.lab.need import need
from lossary.lab.pictures import figures, saved_figures
from lossary.lab.sections import saved_sections, sections
from lossary.lab.terminal import BANNER


def write_report(account: dict[str, Any], path: Path) -> Path:
    """Write the account of a comparison as HTML."""
    data, plan = account["data"], account["plan"]
    page = {
        "title": f"Losses on {data['name']}",
        "lead": (
            f"{data['rows']} rows, {len(data['columns'])} columns, target column "
            f"{data['target']} ({data['task']}); {account['seeds']} seeds, "
            f"{plan['epochs']} epochs in batches of {plan['batch']}."
        ),
        "banner": BANNER.format(metric=account["metric"]["name"]),
        "verdicts": [
            {
                "title": "Verdict"
                if setting == "as is"
                else f"Verdict, training part with {setting}",
                "sentences": table["sentences"],
            }
            for setting, table in account["tables"].items()
        ],
        "remark": (
            "Every loss had the same splits, initial weights, batch orders and epochs, and "
            + (
                f"a learning-rate search of the same size ({', '.join(map(str, plan['rates']))})"
                if len(plan["rates"]) > 1
                else f"the same learning rate ({plan['rates'][0]})"
            )
            + "; only the loss and the output layer that it needs differ. Rate and epoch were "
            "chosen on validation rows."
        ),
        "call": account.get("calls"),
        "sections": sections(account),
        "columns": data["columns"],
        "notes": data["notes"],
        "repeat": [account["command"], f"data {data['digest']}", *_versions(account)],
    }
    return _render(page, figures(account), path)


def write_saved_report(account: dict[str, Any], path: Path) -> Path:
    """Write the account of saved predictions as HTML."""
    page = {
        "title": f"Losses on saved predictions of {account['target']}",
        "lead": f"{account['rows']} rows, target column {account['target']} ({account['task']}); "
        "nothing was trained.",
        "banner": "Values of different losses are not comparable; shares of the gradient are.",
        "verdicts": [{"title": "In short", "sentences": account["sentences"]}],
        "sections": saved_sections(account),
        "repeat": [account["command"], *_versions(account)],
    }
    return _render(page, saved_figures(account), path)


def _versions(account: dict[str, Any]) -> list[str]:
    return [f"{name} {version}" for name, version in account["versions"].items()]


def _render(page: dict[str, Any], plots: list[dict[str, Any]], path: Path) -> Path:
    """Fill the template; names of columns and classes are data, and escaped."""
    jinja = need("jinja2")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True
    )
    environment.filters["breakable"] = lambda text: _breakable(jinja, text)
    text = environment.get_template("report.html.j2").render(
        page=page,
        plots=[{key: plot[key] for key in ("title", "remark", "height")} for plot in plots],
        # The two trusted parts: Plotly's own code, and JSON in which no tag can begin or end.
        script=_inline(need("plotly.offline").get_plotlyjs()),
        data=_json([plot["figure"] for plot in plots]),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _breakable(jinja: Any, text: Any) -> Any:
    """Escaped text that may break after the underscores and plus signs of long names."""
    shown = str(jinja.utils.markupsafe.escape(text))
    return jinja.utils.markupsafe.Markup(shown.replace("_", "_<wbr>").replace("+", "+<wbr>"))


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
