"""Every loss from its textbook formula, in mpmath: one function per loss, named as the loss.

Written from the papers, not from the definitions, and evaluated with 50 digits.
"""

import importlib
from pathlib import Path
from types import ModuleType


def load(family: str) -> ModuleType:
    """The module ``oracles/<family>.py``."""
    path = Path(__file__).with_name(f"{family}.py")
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: every family of losses has its oracles")
    return importlib.import_module(f"oracles.{family}")
