"""The study survives being killed at any moment, and shares its cells among workers exactly
once.
"""

import json
import multiprocessing
import os
import random
import re
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lossary.advice import describe
from lossary.contract import LossError
from lossary.lab import study as lab_study
from lossary.lab.cell import Cell, Plan
from lossary.lab.data import Data
from lossary.lab.study import Study, alive, key_of, this_worker

FORK = multiprocessing.get_context("fork")
PLAN = Plan("accuracy", 1, 8)
CELLS = [Cell(f"loss {k}", {"loss": "x", "parameters": {"k": k}}, (0, 1)) for k in range(40)]


def some_data():
    features = np.arange(60, dtype=np.float32).reshape(30, 2)
    return Data("some", features, ("a", "b"), describe(np.arange(30) % 2))


def worker(storage, journal, seconds):
    """Do cells, writing down when each begins; a result tells which cell and process made it."""

    def run(cell):
        with Path(journal).open("a") as file:
            file.write(f"{cell.name}\t{os.getpid()}\n")
        time.sleep(seconds)
        return {"best": {"accuracy": [0.5, 0.7]}, "made": cell.name, "by": os.getpid()}

    Study(storage, some_data(), PLAN).work(CELLS, run)


def begun(journal):
    return Counter(line.split("\t")[0] for line in journal.read_text().splitlines())


@pytest.mark.parametrize("name", ["study.db", "study.log"])
def test_fifty_kills_lose_nothing_and_double_nothing(tmp_path, name):
    storage, journal = tmp_path / name, tmp_path / "begun"
    journal.touch()
    chance = random.Random(0)
    known = {}
    for _ in range(50 if name == "study.db" else 5):
        process = FORK.Process(target=worker, args=(storage, journal, 0.05))
        process.start()
        time.sleep(chance.uniform(0.02, 0.5))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        before = begun(journal)
        finished = Study(storage, some_data(), PLAN).finished()
        assert {key: finished[key] for key in known} == known
        known = finished
        assert all(before[result["made"]] >= 1 for result in known.values())
    last = begun(journal)
    worker(storage, journal, 0.0)
    finished = Study(storage, some_data(), PLAN).finished()
    assert set(finished) == {key_of(cell) for cell in CELLS}
    assert {key: finished[key] for key in known} == known
    again = begun(journal) - last
    assert {result["made"] for result in known.values()}.isdisjoint(again)


@pytest.fixture(params=["study.db", "study.journal", "grpc"])
def storage(request, tmp_path):
    """An embedded file, or a server of Optuna's on a free port of the loopback."""
    if request.param != "grpc":
        yield tmp_path / request.param
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path / "served.db"), str(port)]
    )
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


SERVER = """
import sys
from optuna.storages import RDBStorage, run_grpc_proxy_server
path, port = sys.argv[1:]
storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
run_grpc_proxy_server(storage, host="127.0.0.1", port=int(port))
"""


def listening(storage):
    """Wait until the server answers; files need no waiting."""
    for _ in range(200 if "://" in str(storage) else 0):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", int(storage.rpartition(":")[2]))) == 0:
                return
        time.sleep(0.1)


def test_workers_that_start_at_once_share_the_cells_and_do_each_once(tmp_path, storage):
    journal = tmp_path / "begun"
    journal.touch()
    listening(storage)
    processes = [FORK.Process(target=worker, args=(storage, journal, 0.05)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert begun(journal) == Counter(cell.name for cell in CELLS)
    makers = Counter(r["by"] for r in Study(storage, some_data(), PLAN).finished().values())
    assert set(makers) == {process.pid for process in processes}


def test_a_long_result_is_kept_in_pieces_that_every_database_holds(tmp_path):
    study = Study(tmp_path / "study.db", some_data(), PLAN)
    result = {"best": {"accuracy": [1.0]}, "text": '"\\' * 50_000, "number": list(range(20_000))}
    study.work(CELLS[:1], lambda cell: result)
    assert list(study.finished().values()) == [result]
    rows = sqlite3.connect(tmp_path / "study.db").execute(
        "select max(length(value_json)), count(*) from trial_user_attributes"
    )
    longest, count = rows.fetchone()
    assert longest < 65_535
    assert count > 10


def test_a_cell_that_fails_leaves_the_study_usable(tmp_path):
    study = Study(tmp_path / "study.db", some_data(), PLAN)

    def fail(cell):
        raise LossError("no")

    with pytest.raises(LossError, match="no"):
        study.work(CELLS[:1], fail)
    study.work(CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}})
    assert len(study.finished()) == 1


def test_another_plan_or_other_data_is_another_study(tmp_path):
    study = Study(tmp_path / "study.db", some_data(), PLAN)
    study.work(CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}})
    assert Study(tmp_path / "study.db", some_data(), Plan("accuracy", 2, 8)).finished() == {}
    other = Data("some", np.zeros((30, 2), np.float32), ("a", "b"), describe(np.arange(30) % 2))
    assert Study(tmp_path / "study.db", other, PLAN).finished() == {}


def test_a_storage_that_cannot_be_used_gets_one_line(tmp_path):
    (tmp_path / "not.db").write_text("this is no database, but a text that is long enough to tell")
    with pytest.raises(LossError, match=r"storage .*not\.db: .*not a database.*another --storage"):
        Study(tmp_path / "not.db", some_data(), PLAN)
    with pytest.raises(LossError, match="storage"):
        Study("/proc/nowhere/study.db", some_data(), PLAN)
    with pytest.raises(LossError, match="storage nonsense://x"):
        Study("nonsense://x", some_data(), PLAN)
    with pytest.raises(LossError, match=r"storage grpc://127.0.0.1:1: .*connect") as caught:
        Study("grpc://127.0.0.1:1", some_data(), PLAN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("postgresql+psycopg2://me:hidden@h/d", "pip install psycopg2-binary"),
        ("mysql://me:hidden@h/d", r"or write mysql\+pymysql:// and pip install pymysql"),
    ],
)
def test_a_missing_driver_is_named_and_a_password_is_not(monkeypatch, url, package):
    for module in ("psycopg2", "MySQLdb"):  # as if not installed, wherever the test runs
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LossError, match=rf"storage .*//me:\*\*\*@h/d: .*{package}") as caught:
        Study(url, some_data(), PLAN)
    assert "hidden" not in str(caught.value)


def test_a_full_disk_gets_one_line_and_keeps_what_is_finished(tmp_path):
    path = tmp_path / "study.db"
    study = Study(path, some_data(), PLAN)
    study.work(CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}})
    backend = study._study._storage._backend
    pages = sqlite3.connect(path).execute("pragma page_count").fetchone()[0]

    # SQLite reports a database at its page limit exactly as it reports a full disk.
    from sqlalchemy import event

    @event.listens_for(backend.engine, "connect")
    def limit(connection, _):
        connection.execute(f"pragma max_page_count = {pages + 1}")

    backend.engine.dispose()
    backend.scoped_session.remove()
    large = {"best": {"accuracy": [1.0]}, "filler": "x" * 300_000}
    with pytest.raises(LossError, match=r"storage .*full.*finished cells are kept"):
        study.work(CELLS, lambda cell: large)
    assert len(Study(path, some_data(), PLAN).finished()) == 1


def cramped(storage, limit):
    """Do cells of 20 kB where no file may grow beyond ``limit`` bytes; exit 7 for the one line."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    result = {"best": {"accuracy": [1.0]}, "filler": "x" * 20_000}
    try:
        Study(storage, some_data(), PLAN).work(CELLS, lambda cell: result)
    except LossError as error:
        os._exit(7 if re.fullmatch(".*finished cells are kept.*", str(error)) else 8)


@pytest.mark.parametrize("name", ["study.db", "study.journal"])
def test_a_disk_that_fills_leaves_a_study_that_goes_on_when_there_is_room(tmp_path, name):
    """The limit cuts a write short in the middle, as a full disk does."""
    storage = tmp_path / name
    Study(storage, some_data(), PLAN)
    process = FORK.Process(target=cramped, args=(storage, storage.stat().st_size + 150_000))
    process.start()
    process.join()
    assert process.exitcode == 7
    before = Study(storage, some_data(), PLAN).finished()
    assert 1 < len(before) < len(CELLS)
    Study(storage, some_data(), PLAN).work(CELLS, lambda cell: {"best": {"accuracy": [0.0]}})
    after = Study(storage, some_data(), PLAN).finished()
    assert len(after) == len(CELLS)
    assert {key: after[key] for key in before} == before


def test_half_a_line_of_a_killed_writer_is_cut_off(tmp_path):
    storage = tmp_path / "study.journal"
    study = Study(storage, some_data(), PLAN)
    study.work(CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}})
    with storage.open("a") as file:
        file.write('{"op_code": 4, "half a line": "' + "x" * 100_000)
    Study(storage, some_data(), PLAN).work(CELLS[:2], lambda c: {"best": {"accuracy": [0.0]}})
    assert len(Study(storage, some_data(), PLAN).finished()) == 2


def test_a_storage_that_is_locked_or_read_only_gets_one_line(tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    study = Study(path, some_data(), PLAN)
    study.work(CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}})
    with pytest.raises(LossError, match=r"storage .*readonly database.*give another --storage"):
        Study(f"sqlite:///file:{path}?mode=ro&uri=true", some_data(), Plan("accuracy", 2, 8))
    monkeypatch.setattr(lab_study, "PATIENCE", 0.2)
    monkeypatch.setattr(lab_study, "OPENING", ())
    patient = Study(path, some_data(), PLAN)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin exclusive")
    with pytest.raises(LossError, match=r"storage .*database is locked.*finished cells are kept"):
        Study(path, some_data(), PLAN)
    with pytest.raises(LossError, match=r"storage .*database is locked"):
        patient.work(CELLS[:2], lambda cell: {"best": {"accuracy": [1.0]}})
    holder.execute("rollback")
    patient.work(CELLS[:2], lambda cell: {"best": {"accuracy": [1.0]}})
    assert len(patient.finished()) == 2


def test_storages_of_others_are_left_as_they_are(tmp_path):
    path = tmp_path / "later.db"
    Study(path, some_data(), PLAN)
    with sqlite3.connect(path) as later:
        later.execute("update alembic_version set version_num = 'v99.0.0'")
    with pytest.raises(LossError, match=r"storage .*version") as caught:
        Study(path, some_data(), PLAN)
    assert "\n" not in str(caught.value)
    journal = tmp_path / "other.log"
    journal.write_text("2026-01-01 a log of something else\nsecond line\n")
    with pytest.raises(LossError, match=r"storage .*other\.log: JSONDecodeError"):
        Study(journal, some_data(), PLAN)
    assert journal.read_text().endswith("second line\n")


def test_joining_takes_part_in_the_study_that_is_there_and_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(lab_study, "PATIENCE", 0.0)
    path = tmp_path / "study.db"
    with pytest.raises(LossError, match="start the same command without --join first"):
        Study(path, some_data(), PLAN, join=True)
    Study(path, some_data(), PLAN)
    Study(path, some_data(), PLAN, join=True).work(
        CELLS[:1], lambda cell: {"best": {"accuracy": [1.0]}}
    )
    with pytest.raises(LossError, match=r"but one with epochs=1 instead of 3; join with the first"):
        Study(path, some_data(), Plan("accuracy", 3, 8), join=True)
    other = Data("some", np.zeros((30, 2), np.float32), ("a", "b"), describe(np.arange(30) % 2))
    with pytest.raises(LossError, match="but one with other data of the same name"):
        Study(path, other, PLAN, join=True)


def test_a_worker_is_alive_only_while_its_own_process_runs():
    mine = this_worker()
    assert alive(mine)
    assert not alive(mine | {"born": "1"})  # the number was reused
    process = FORK.Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    assert not alive(mine | {"process": process.pid})
    assert alive(mine | {"host": "elsewhere"})
    assert not alive(mine | {"host": "elsewhere", "since": 0})


def test_cells_survive_json():
    cell = CELLS[3]
    again = Cell.of(json.loads(json.dumps(cell.plain())))
    assert key_of(again) == key_of(cell)
