"""The durable study: finished cells in an Optuna storage that any number of workers share.

A claim is a running trial that names its worker; it is made in one atomic write, and where two
workers claim the same cell the earlier trial wins. A worker that died leaves its claim behind; any
other sees that its process is gone and takes the cell over. Nothing finished is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lossary.contract import LossError
from lossary.lab.cell import Cell, Plan
from lossary.lab.data import Data
from lossary.lab.need import need

SILENT_AFTER = 1800.0  # seconds after which a claim from another machine counts as abandoned
PIECE = 30_000  # characters of a result in one attribute: MySQL's TEXT holds 65,535, quotes doubled
PATIENCE = 60.0  # seconds to wait for another's lock, or for the study that a worker joins
OPENING = (0.2, 0.5, 1.0)  # seconds between attempts to open, while another makes the tables


class Study:
    """The cells of one data set under one plan, in an Optuna storage."""

    def __init__(self, storage: str | Path, data: Data, plan: Plan, *, join: bool = False) -> None:
        """Open the study, or make it; ``join`` waits for another process to make it."""
        self._optuna = need("optuna")
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self.data, self.plan = data, plan
        self.name = f"{data.name} {study_digest(data, plan)}"
        self.storage = storage
        self._study = self._join(storage) if join else self._open(storage)

    def _open(self, storage: str | Path) -> Any:
        """The study, made if need be; several workers may find it missing at once."""
        began = time.monotonic()
        for wait in OPENING:
            try:
                return self._make(storage)
            except ImportError:
                break
            except Exception:  # the tables are half made: whatever is wrong for good comes again
                if time.monotonic() - began > 10:  # it waited for a lock already
                    break
                time.sleep(wait)
        with self._asking():
            return self._make(storage)

    def _join(self, storage: str | Path) -> Any:
        """The study that another process made, or makes within a minute."""
        optuna = self._optuna
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return optuna.load_study(
                    storage=open_storage(optuna, storage), study_name=self.name
                )
            except Exception as error:  # not made yet, or half made
                if time.monotonic() > until or isinstance(error, ImportError):
                    if isinstance(error, KeyError):
                        raise LossError(self._not_here(storage)) from None
                    raise storage_error(storage, error) from error
            time.sleep(0.5)

    def _not_here(self, storage: str | Path) -> str:
        """What the storage holds instead of this study."""
        with self._asking():
            backend = open_storage(self._optuna, storage)
            held = self._optuna.get_all_study_summaries(backend)
        line = (
            f"storage {without_password(str(storage))}: holds no study of these data and settings"
        )
        mine = json.loads(json.dumps(self.plan.__dict__))
        for study in held:
            if study.study_name.startswith(f"{self.data.name} ") and "plan" in study.user_attrs:
                theirs = json.loads(study.user_attrs["plan"])
                unlike = [
                    f"{key}={value} instead of {mine[key]}"
                    for key, value in theirs.items()
                    if key in mine and mine[key] != value
                ]
                told = ", ".join(unlike) or "other data of the same name"
                return f"{line}, but one with {told}; join with the first worker's command"
        return f"{line}; start the same command without --join first"

    def _make(self, storage: str | Path) -> Any:
        optuna = self._optuna
        study = optuna.create_study(
            storage=open_storage(optuna, storage),
            study_name=self.name,
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        if "plan" not in study.user_attrs:
            study.set_user_attr("plan", json.dumps(self.plan.__dict__))
        return study

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Whatever the storage raises (SQLAlchemy, a driver, the file system) as one line."""
        try:
            yield
        except Exception as error:
            raise storage_error(self.storage, error) from error

    # -- reading --------------------------------------------------------------------------------

    def finished(self) -> dict[str, dict[str, Any]]:
        """Results by cell key."""
        state = self._optuna.trial.TrialState.COMPLETE
        found: dict[str, dict[str, Any]] = {}
        for trial in self._trials((state,)):
            kept = trial.user_attrs
            pieces = [kept[name] for k in range(len(kept)) if (name := f"result {k}") in kept]
            if pieces:
                found.setdefault(kept["cell"], json.loads("".join(pieces)))
        return found

    def _trials(self, states: tuple[Any, ...]) -> list[Any]:
        with self._asking():
            return list(self._study.get_trials(deepcopy=False, states=states))

    # -- working --------------------------------------------------------------------------------

    def work(
        self,
        cells: Sequence[Cell],
        run: Callable[[Cell], dict[str, Any]],
        *,
        wait: bool = True,
        note: Callable[[int, str], None] | None = None,
    ) -> None:
        """Do cells until none is left; ``wait`` for those that other workers hold."""
        order = {key_of(cell): cell for cell in cells}
        while True:
            done, held = self._state()
            missing = [key for key in order if key not in done]
            if note:
                note(len(order) - len(missing), "")
            if not missing:
                return
            free = [key for key in missing if key not in held]
            if not free:
                if not wait:
                    return
                time.sleep(0.5)
                continue
            claimed = self._claim(free[0], order[free[0]])
            if claimed is not None:
                self._do(claimed, order[free[0]], run)

    def _state(self) -> tuple[set[str], set[str]]:
        """Keys of finished cells, and of cells that a living worker holds."""
        states = self._optuna.trial.TrialState
        done, held = set(), set()
        for trial in self._trials((states.COMPLETE, states.RUNNING)):
            key = trial.user_attrs.get("cell")
            if trial.state == states.COMPLETE:
                done.add(key)
            elif alive(trial.user_attrs.get("worker", {})):
                held.add(key)
            else:
                self._tell(trial.number, None, states.FAIL)
        return done, held

    def _claim(self, key: str, cell: Cell) -> int | None:
        """The trial that holds the cell for this worker, or None if another was first."""
        optuna = self._optuna
        states = optuna.trial.TrialState
        mine = f"{time.time_ns()}-{os.getpid()}-{os.urandom(4).hex()}"
        claim = optuna.trial.create_trial(
            state=states.RUNNING,
            user_attrs={
                "cell": key,
                "loss": cell.name,
                "purpose": cell.purpose,
                "corruption": str(cell.corruption),
                "seeds": f"{cell.seeds[0]}-{cell.seeds[-1]}",
                "claim": mine,
                "worker": this_worker(),
            },
        )
        with self._asking():
            self._study.add_trial(claim)
        rivals = [
            trial
            for trial in self._trials((states.RUNNING, states.COMPLETE))
            if trial.user_attrs.get("cell") == key
            and (trial.state == states.COMPLETE or alive(trial.user_attrs["worker"]))
        ]
        own = next(trial.number for trial in rivals if trial.user_attrs.get("claim") == mine)
        if any(trial.number < own or trial.state == states.COMPLETE for trial in rivals):
            self._tell(own, None, states.PRUNED)
            return None
        return own

    def _do(self, number: int, cell: Cell, run: Callable[[Cell], dict[str, Any]]) -> None:
        states = self._optuna.trial.TrialState
        try:
            result = run(cell)
        except BaseException:
            self._tell(number, None, states.FAIL)
            raise
        with self._asking():
            identity = self._study._storage.get_trial_id_from_study_id_trial_number(
                self._study._study_id, number
            )
            text = json.dumps(result)
            for k, first in enumerate(range(0, len(text), PIECE)):
                piece = text[first : first + PIECE]
                self._study._storage.set_trial_user_attr(identity, f"result {k}", piece)
        scores = [value for value in result["best"][self.plan.metric] if value is not None]
        value = sum(scores) / len(scores) if scores else 0.0
        self._tell(number, value, states.COMPLETE)

    def _tell(self, number: int, value: float | None, state: Any) -> None:
        with self._asking():
            self._study.tell(number, value, state=state, skip_if_finished=True)


def key_of(cell: Cell) -> str:
    """A cell's key with a fingerprint of its full setting."""
    setting = json.dumps(cell.plain(), sort_keys=True, default=str)
    return f"{cell.key} | {hashlib.sha256(setting.encode()).hexdigest()[:12]}"


def study_digest(data: Data, plan: Plan) -> str:
    """A fingerprint of the data and of everything that all cells share."""
    text = data.digest + json.dumps(plan.__dict__, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def open_storage(optuna: Any, storage: str | Path) -> Any:
    """SQLite for a path, a journal for a .log or .journal file, else what Optuna makes of the
    URL.
    """
    text = str(storage)
    if text.startswith("grpc://"):
        host, _, port = text.removeprefix("grpc://").partition(":")
        with warnings.catch_warnings():  # it is called experimental; a test sees that it works
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.storages.GrpcStorageProxy(host=host, port=int(port or 13000))
    if "://" not in text:
        Path(text).parent.mkdir(parents=True, exist_ok=True)
        if text.endswith((".log", ".journal")):
            from lossary.lab.journal import Journal

            return optuna.storages.JournalStorage(Journal(text))
        text = f"sqlite:///{text}"
    # A rival's write may hold SQLite's lock; wait for it rather than fail.
    arguments = {"connect_args": {"timeout": PATIENCE}} if text.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(text, engine_kwargs=arguments)


def storage_error(storage: str | Path, error: Exception) -> LossError:
    """One line for a storage that is locked, read-only, full, without its driver, or none at
    all.
    """
    said = without_password(str(storage))
    missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    if isinstance(missing, ModuleNotFoundError) and missing.name:
        module = missing.name.partition(".")[0]
        package, hint = DRIVERS.get(module, (module, ""))
        return LossError(f"storage {said}: its driver is missing: pip install {package}{hint}")
    deepest: Any = error
    while deepest.__cause__ is not None:  # Optuna's "invalid data" may be a disk that is full
        deepest = deepest.__cause__
    details = getattr(deepest, "details", None)  # gRPC's
    cause = details() if callable(details) else getattr(deepest, "orig", None) or deepest
    cause = without_password(str(cause).strip().partition("\n")[0])
    return LossError(
        f"storage {said}: {type(error).__name__}: {cause}; finished cells are kept: free it, or "
        "give another --storage"
    )


# The packages that hold the modules SQLAlchemy and Optuna ask for, and a simpler way if any.
DRIVERS = {
    "psycopg": ("'psycopg[binary]'", ""),
    "psycopg2": ("psycopg2-binary", ""),
    "MySQLdb": ("mysqlclient, or write mysql+pymysql://", " and pip install pymysql"),
    "grpc": ("grpcio protobuf", ""),
    "google": ("grpcio protobuf", ""),
}


def without_password(text: str) -> str:
    """The text with passwords in URLs hidden: it may be shown, stored and passed on."""
    return re.sub(r"(://[^:/@\s]+):[^@/\s]*@", r"\1:***@", text)


def this_worker() -> dict[str, Any]:
    """Who holds a claim: machine, process, and when the process and the claim began."""
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "born": _born(os.getpid()),
        "since": time.time(),
    }


def alive(worker: dict[str, Any]) -> bool:
    """Whether the worker of a claim still runs; on another machine, whether it is not silent
    too long.
    """
    if worker.get("host") != socket.gethostname():
        return time.time() - worker.get("since", 0) < SILENT_AFTER
    born = _born(worker["process"])
    return born is not None and born == worker["born"]


def _born(process: int) -> str | None:
    """When the process began, in the kernel's ticks: a reused number is another process."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self").exists() else _by_signal(process)
    return None if fields[0] in "ZX" else fields[19]


def _by_signal(process: int) -> str | None:
    """Without /proc all that can be known is whether the number is in use."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "running"
