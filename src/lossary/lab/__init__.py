"""The lab: trains networks on your data under several losses and shows what each loss did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def compare(
    data: Any,
    losses: Sequence[str] | None = None,
    *,
    target: str | None = None,
    model: str | Callable[..., Any] | None = None,
    output: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train networks under each loss; the account that the report shows, as plain data.

    ``data``: a file or the name of a set as on the command line (with ``target``), or a pair of
    arrays (features (n, columns) or images (n, channels, height, width), target (n,)). ``model``:
    a factory ``build(inputs, outputs)`` of PyTorch modules. ``settings``: seeds, metric, epochs,
    batch, hidden, rate, noise, outliers, imbalance, sweep. With ``output`` the report and the
    study are kept in that folder. Errors: LossError.
    """
    from lossary.advice import advise
    from lossary.lab.data import Data, from_arrays, read
    from lossary.lab.files import write_files
    from lossary.lab.run import Settings, factory_path, run

    if isinstance(data, tuple):
        loaded = from_arrays(*data)
    else:
        loaded = data if isinstance(data, Data) else read(data, target)
    names = list(losses) if losses else [c.text for c in advise(loaded.target).candidates]
    chosen = Settings(**settings, model=factory_path(model))
    account = run(
        loaded, names, chosen, storage=None if output is None else Path(output) / "study.db"
    )
    account["command"] = f"lossary.lab.compare({loaded.name!r}, {names!r}, **{settings!r})"
    if output is not None:
        write_files(account, Path(output))
    return account
