"""The lab: trains networks on your data under several losses and shows what each loss did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossary.cost import Objective
    from lossary.evaluate import Loss


def compare(
    train: Any,
    validation: Any = None,
    *,
    losses: Sequence[str | Loss | Objective] | None = None,
    target: str | None = None,
    task: str | None = None,
    drop_missing: bool = False,
    model: str | Callable[..., Any] | None = None,
    predictions: Any = None,
    output: str | Path | None = None,
    storage: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train networks under each loss; the account that the report shows, as plain data.

    ``train``: a pair of arrays (features (n, columns) or images (n, channels, height, width),
    targets (n,)); a polars or pandas DataFrame with ``target``; or a file or the name of a set as
    on the command line. ``validation``, of the same kind: every network is judged on it, and a
    fifth of ``train`` chooses rate and epoch; without it each seed cuts its own 60, 20 and 20 %.

    ``losses``: as on the command line (``"huber:delta=2"``, ``"cross_entropy+0.5*dice"``), or a
    ``Loss`` or an ``Objective`` of them; by default the advised ones.
    ``model``: a factory ``build(inputs, outputs)`` of PyTorch modules; ``inputs`` is the number of
    columns or the shape of an image. ``settings``: seeds, metric, epochs, batch, hidden, rate,
    noise, outliers, imbalance, sweep. With ``output`` the report and the study are kept in that
    folder; ``storage`` is any Optuna storage.

    ``predictions`` (n,) or (n, classes), of a model at hand for the rows of ``train``: nothing is
    trained; the account tells what each loss would do to that model. Errors: LossError.
    """
    from lossary.advice import advise
    from lossary.contract import LossError
    from lossary.lab.data import Data, load
    from lossary.lab.files import prepare, write_files
    from lossary.lab.model import path_of
    from lossary.lab.objective import text_of
    from lossary.lab.run import Settings, run
    from lossary.lab.saved import judge_saved

    if isinstance(losses, str):
        raise LossError(f"losses={losses!r}: expected a list of names, such as [{losses!r}]")
    loaded = (
        train
        if isinstance(train, Data)
        else load(train, validation, target, task=task, drop_missing=drop_missing)
    )
    names: list[Any] = (
        list(losses) if losses else [c.text for c in advise(loaded.target).candidates]
    )
    if predictions is not None:
        return judge_saved(loaded.target, predictions, names)
    unknown = sorted(set(settings) - set(Settings.__dataclass_fields__))
    if unknown:
        known = ", ".join(name for name in Settings.__dataclass_fields__ if name != "model")
        raise LossError(f"compare: no setting {unknown[0]!r}; it can be {known}")
    chosen = Settings(**settings, model=path_of(model))
    if output is not None:
        prepare(Path(output))
        storage = storage or Path(output) / "study.db"
    account = run(loaded, names, chosen, storage=storage)
    texts = [item if isinstance(item, str) else text_of(item) for item in names]
    given = {key: value for key, value in settings.items() if value is not None}
    said = [f"{key}={value!r}" for key, value in ({"losses": texts} | given).items()]
    account["command"] = f"lossary.lab.compare({', '.join([repr(loaded.name), *said])})"
    if output is not None:
        write_files(account, Path(output))
    return account
