"""A loss as an object: printed, stored, copied, compared; and its parameters refused when wrong."""

from __future__ import annotations

import inspect
import math
import pickle
import re
from typing import Any

from lossary.contract import REGISTRY, LossError, key_of
from lossary.testing.checks.base import check
from lossary.testing.libraries import Library
from lossary.testing.strategies import outside
from lossary.testing.subject import CheckFailed, Subject


def _registered(subject: Subject) -> bool:
    entry = REGISTRY.get(key_of(subject.name))
    return entry is not None and entry[0] is subject.contract


@check("objects", "once", _registered)
def check_repr(subject: Subject, library: Library) -> None:
    """``repr`` evaluates to an equal object."""
    for parameters in subject.settings:
        loss = subject.loss(parameters, reduction="sum")
        again = eval(repr(loss), {"Loss": subject.make})
        if again != loss:
            raise CheckFailed(f"{subject.name}: {loss!r} evaluates to {again!r}")


@check("objects", "once", _registered)
def check_config(subject: Subject, library: Library) -> None:
    """``config`` is plain data and makes an equal object."""
    for parameters in subject.settings:
        loss = subject.loss(parameters, empty="nan")
        config = loss.config
        if not _plain(config):
            raise CheckFailed(f"{subject.name}: config holds more than plain data: {config}")
        if subject.make.from_config(config) != loss:
            raise CheckFailed(f"{subject.name}: config {config} does not make an equal loss")


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


@check("objects", "once", lambda subject: "<locals>" not in subject.contract.compute.__qualname__)
def check_pickle(subject: Subject, library: Library) -> None:
    """A pickled loss comes back equal."""
    loss = subject.loss(reduction="batch_mean")
    if pickle.loads(pickle.dumps(loss)) != loss:
        raise CheckFailed(f"{subject.name}: a pickled loss comes back different")


@check("objects", "once")
def check_hash(subject: Subject, library: Library) -> None:
    """Equal losses have equal hashes; a changed setting makes another loss; none can be changed."""
    loss, same = subject.loss(), subject.make(subject.contract, **subject.main)
    if loss != same or hash(loss) != hash(same):
        raise CheckFailed(f"{subject.name}: two losses of one making are not equal, or hash unlike")
    if loss == subject.loss(reduction="sum"):
        raise CheckFailed(f"{subject.name}: losses of unlike reductions are equal")
    for parameters in subject.settings[1:]:
        if loss == subject.loss(parameters):
            raise CheckFailed(f"{subject.name}: losses of unlike parameters are equal")
    try:
        loss.reduction = "none"  # type: ignore[misc]
    except AttributeError:
        return
    raise CheckFailed(f"{subject.name}: a loss can be changed after it was made")


@check("objects", "once", lambda subject: bool(subject.contract.parameters))
def check_bad_parameters(subject: Subject, library: Library) -> None:
    """A value outside a parameter's interval is refused in one line that names loss and keyword."""
    for name, parameter in subject.contract.parameters.items():
        if parameter.interval is None:
            continue
        for number in [*outside(parameter), "high"]:
            if number == parameter.default and not isinstance(number, str):
                continue
            _refused(subject, name, number)
    try:
        subject.make(subject.contract, **{**subject.main, "unheard_of": 1.0})
    except LossError as error:
        if "unheard_of" in str(error):
            return
    raise CheckFailed(f"{subject.name}: an unknown parameter is not refused by name")


def _refused(subject: Subject, name: str, value: Any) -> None:
    try:
        subject.make(subject.contract, **{**subject.main, name: value})
    except LossError as error:
        text = str(error)
        if "\n" in text or subject.name not in text or name not in text:
            raise CheckFailed(
                f"{subject.name}: {name}={value!r} is refused, but not in one line that names the "
                f"loss and the parameter: {text!r}"
            ) from None
        return
    raise CheckFailed(
        f"{subject.name}: {name}={value!r} lies outside "
        f"{subject.contract.parameters[name].interval} and is accepted"
    )


@check("objects", "once", lambda subject: bool(subject.contract.properties))
def check_page(subject: Subject, library: Library) -> None:
    """The docstring has a sentence, a formula, and when to use it; a paper is named."""
    text = inspect.getdoc(subject.contract.compute) or ""
    lacking = [
        what
        for what, present in {
            "a first line that is a sentence": subject.contract.summary.endswith("."),
            "a formula (.. math::)": bool(subject.contract.formula),
            "when to use it ('Use it ...')": bool(re.search(r"\bUse it\b", text)),
            "a source (paper=)": bool(subject.contract.paper),
            "a unit (-> PerElement ...)": subject.contract.unit is not None,
        }.items()
        if not present
    ]
    if lacking:
        raise CheckFailed(f"{subject.name} lacks {', '.join(lacking)}")


@check("objects", "once", lambda subject: bool(subject.contract.parameters))
def check_parameters_have_intervals(subject: Subject, library: Library) -> None:
    """Every real parameter says which numbers it may be."""
    for name, parameter in subject.contract.parameters.items():
        real = isinstance(parameter.default, float) and not math.isnan(parameter.default)
        if real and parameter.interval is None:
            raise CheckFailed(
                f"{subject.name}: parameter {name} has no interval; annotate it "
                "(Positive, Fraction, "
                "Number ...)"
            )
