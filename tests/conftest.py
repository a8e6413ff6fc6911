"""One loss stays on one worker, so that its oracle and its compiled programs are made once."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ORACLES = Path(__file__).parent / "oracles"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--library",
        default="all",
        help="array libraries to prove losses on, separated by commas; a missing one is an error",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        subject = getattr(item, "callspec", None) and item.callspec.params.get("subject")
        if subject is not None:
            item.add_marker(pytest.mark.xdist_group(subject.name))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadGroupScheduling

    return LoadGroupScheduling(config, log)


def load_oracles(family: str) -> Any:
    """The module ``tests/oracles/<family>.py``."""
    path = ORACLES / f"{family}.py"
    if not path.exists():
        raise pytest.UsageError(f"{path} is missing: every family of losses has its oracles")
    name = f"oracles_{family}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]
