"""The public list of checks, one module per group of facts."""

from importlib import import_module
from pkgutil import iter_modules

from lossary.testing.checks.base import CHECKS as CHECKS
from lossary.testing.checks.base import Check as Check

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
