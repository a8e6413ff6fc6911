"""Libraries that only the lab needs, named clearly when they are missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lossary.contract import LossError


def need(module: str) -> Any:
    """The module, or a LossError that names the extra to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise LossError(f"the lab needs {missing}: pip install 'lossary[lab]'") from None
