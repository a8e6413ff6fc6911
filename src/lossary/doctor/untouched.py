"""The doctor leaves no trace: what it calls is as it was before, and so is all chance."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lossary.doctor.chance import same_chance


@contextmanager
def untouched(function: Any) -> Iterator[None]:
    """Call ``function`` from one and the same state, however often, and give its state back.

    A loss may count its calls, keep a running mean in a buffer, or draw at random. Only then is
    it the same function twice, and training goes on as if nobody had looked.
    """
    parts = list(function.modules()) if hasattr(function, "modules") else [function]
    kept = [(part, _attributes(part), _buffers(part)) for part in parts]
    with same_chance(0, parts):
        try:
            yield
        finally:
            for part, attributes, buffers in kept:
                _restore(part, attributes, buffers)


def _attributes(part: Any) -> dict[str, Any]:
    """Shallow copies: enough for numbers, and for lists and dictionaries that calls add to."""
    return {
        name: (value, copy.copy(value) if type(value) in (list, dict) else None)
        for name, value in getattr(part, "__dict__", {}).items()
        if not name.startswith("__")
    }


def _buffers(part: Any) -> dict[str, Any]:
    return {
        name: (buffer, buffer._version, buffer.detach().clone())
        for name, buffer in getattr(part, "_buffers", {}).items()
        if buffer is not None
    }


def _restore(part: Any, attributes: dict[str, Any], buffers: dict[str, Any]) -> None:
    names = getattr(part, "__dict__", {})
    for name in [name for name in names if name not in attributes and not name.startswith("__")]:
        del names[name]
    for name, (value, before) in attributes.items():
        names[name] = value
        if type(value) is list:
            value[:] = before
        elif type(value) is dict and value.keys() != before.keys():
            value.clear()
            value.update(before)
    for name, (buffer, version, before) in buffers.items():
        part._buffers[name] = buffer
        if buffer._version != version:
            buffer.data.copy_(before)
