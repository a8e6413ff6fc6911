"""The user's own network: a factory by its path, or any function of this process."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from lossary.contract import LossError

# Factories that no import finds (a notebook's, a lambda): known to this process alone.
_HERE: dict[str, Callable[..., Any]] = {}


def path_of(model: str | Callable[..., Any] | None) -> str | None:
    """A model factory as ``module:name``, by which any worker finds it."""
    if model is None or isinstance(model, str):
        return model
    if not callable(model) or (hasattr(model, "state_dict") and not isinstance(model, type)):
        raise LossError(
            f"model: is a {type(model).__name__}; expected a factory build(inputs, outputs) that "
            "makes a new torch.nn.Module at each call"
        )
    name = getattr(model, "__qualname__", type(model).__name__)
    path = f"{getattr(model, '__module__', None)}:{name}"
    if name.isidentifier() and model.__module__ != "__main__" and _found(path) is model:
        return path
    # A study must tell two functions of one name apart: by what they compile to.
    code = getattr(model, "__code__", None)
    constants = [item for item in code.co_consts if not hasattr(item, "co_code")] if code else []
    content = repr((code.co_code, code.co_names, constants)) if code else name
    path = f"{path} {hashlib.sha256(content.encode()).hexdigest()[:8]}"
    _HERE[path] = model
    return path


def load_model(path: str) -> Callable[..., Any]:
    """The factory of ``package.module:build``."""
    if path in _HERE:
        return _HERE[path]
    if not path.partition(":")[2]:
        raise LossError(f"--model {path}: names no factory; expected package.module:build")
    try:
        return _found(path)
    except Exception as error:  # whatever the user's module does when it is imported
        first = str(error).strip().partition("\n")[0]
        raise LossError(
            f"--model {path}: {type(error).__name__}: {first}; expected package.module:build"
        ) from error


def _found(path: str) -> Any:
    module, _, name = path.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # an installed command looks elsewhere than `python` does
    return getattr(importlib.import_module(module), name)
