"""Definitions only: one file per family. Importing this package registers every loss."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def __getattr__(name: str) -> Any:
    from lossary.contract import LossError, resolve

    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return resolve(name)[0].compute
    except LossError as error:
        raise AttributeError(str(error)) from None
