"""Which loss is this? A name, a ``Loss``, a framework's loss or any callable, as a Subject."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lossary.contract import Contract, LossError, key_of, resolve
from lossary.doctor.arrays import library_of
from lossary.doctor.subject import MASKS, SETTINGS, WEIGHTS, Subject
from lossary.evaluate import Loss

_FRAMEWORKS = ("torch", "keras", "optax")
_TARGETS = ("target", "targets", "label", "labels", "truth", "true", "y", "ytrue", "gt")
_PREDICTIONS = (
    "prediction", "predictions", "pred", "preds", "ypred", "yhat", "output", "outputs", "input",
    "logits", "logit", "scores", "estimate",
)  # fmt: skip


def subject_of(
    loss: Any,
    *,
    predictions: str | None,
    arguments: str | None,
    reference: str | None,
    library: str,
    parameters: Mapping[str, Any],
    ignore: float | None = None,
) -> Subject | None:
    """The subject behind a name, a ``Loss``, a definition, a framework's loss or any callable."""
    if loss is None:
        return None
    settings: dict[str, Any] = {"predictions": predictions, "ignore": ignore}
    if isinstance(loss, str) or (
        callable(loss)
        and isinstance(getattr(loss, "contract", None), Contract)
        and not isinstance(loss, Loss)
    ):
        loss = Loss(loss, **settings, **parameters)
    if isinstance(loss, Loss):
        # The definition judges: no kernel is compiled for a look at some arrays.
        settings = {name: getattr(loss, name) for name in SETTINGS} | {
            "implementation": "definition"
        }
        settings["ignore"] = loss.ignore if ignore is None else ignore
        loss = Loss(loss.contract, **settings, **loss.parameters)
        return Subject(
            loss.contract.name,
            "numpy",
            loss.contract,
            loss,
            predictions=predictions or loss.predictions,
            parameters=dict(loss.parameters),
            reduction=loss.reduction,
            ignore=loss.ignore,
        )
    inner = getattr(loss, "loss", None)
    if isinstance(inner, Loss):  # an adapter's class holds the Loss that it runs
        found = subject_of(
            inner,
            predictions=predictions,
            arguments=arguments,
            reference=None,
            library=library,
            parameters={},
        )
        if found is not None:
            found.as_keras = library_of(loss) == "keras"
        return found
    if not callable(loss):
        raise LossError(f"loss={loss!r} is neither a name, a Loss nor a callable")
    if isinstance(loss, type):
        raise LossError(f"loss={loss.__name__} is a class; make one: loss={loss.__name__}(...)")
    return _foreign(loss, predictions, arguments, reference, library)


def _foreign(
    loss: Any, predictions: str | None, arguments: str | None, reference: str | None, library: str
) -> Subject:
    inner = loss.func if isinstance(loss, functools.partial) else loss
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if library_of(inner) != "numpy":
        library = library_of(inner)
    framework = framework_of(inner)
    settings = _settings(loss)
    subject = Subject(
        name,
        getattr(inner, "__lossary_library__", library),
        callable=loss,
        predictions=predictions,
        parameters={
            key: value for key, value in settings.items() if isinstance(value, (bool, int, float))
        },
        reduction=settings.get("reduction"),
        ignore=settings.get("ignore_index", settings.get("ignore_class")),
        framework=framework,
    )
    if framework == "keras" or library_of(inner) == "keras":
        subject.library = "keras"
    subject.target_place = place_of_target(loss, arguments)
    if reference is not None:
        subject.contract = resolve(reference)[0]
    elif framework is not None:
        _recognise(subject, settings)
    return subject


def framework_of(loss: Any) -> str | None:
    """The framework whose own loss this is; None for code of the user's, subclasses included."""
    kind = loss if inspect.isroutine(loss) else type(loss)
    root = (getattr(kind, "__module__", None) or "").partition(".")[0]
    return root if root in _FRAMEWORKS else None


def _recognise(subject: Subject, settings: Mapping[str, Any]) -> None:
    """The contract of a framework's own loss, and how it reads its first argument."""
    try:
        subject.contract, presets = resolve(key_of(subject.name))
    except LossError:
        return  # a framework's loss that Lossary does not hold
    if subject.framework == "torch":
        reads = presets.get("predictions")
        if subject.name == "binary_cross_entropy":  # the function of this name is no module's
            reads = "probabilities"
        if "log_input" in settings:
            reads = "log_rates" if settings["log_input"] else "rates"
        subject.predictions = subject.predictions or reads
        subject.target_in_logs = bool(settings.get("log_target"))
        names = [item.name for item in parameters_of(subject.callable)]
        if "target" in names[: len(subject.contract.predictions)]:
            subject.target_place = names.index("target")  # GaussianNLLLoss(input, target, var)
        if subject.contract.target is not None and subject.contract.target.name == "multi-hot":
            subject.contract = None  # PyTorch lists the true labels instead
    if subject.framework == "keras":
        subject.as_keras = True
        from_logits = settings.get("from_logits", False)
        subject.predictions = subject.predictions or ("logits" if from_logits else "probabilities")


def place_of_target(loss: Any, arguments: str | None) -> int | None:
    """Where the target stands among the positional arguments; None: after the predictions."""
    if arguments is not None:
        return 0 if arguments.replace(" ", "") == "target,prediction" else None
    if "keras" in (library_of(loss), framework_of(loss), getattr(loss, "__lossary_library__", "")):
        return 0
    names = [
        item.name.lower().replace("_", "")
        for item in parameters_of(loss)
        if item.kind is not item.KEYWORD_ONLY and item.kind is not item.VAR_KEYWORD
    ]
    swapped = len(names) > 1 and names[0] in _TARGETS and names[1] in _PREDICTIONS
    return 0 if swapped else None


def roles(
    loss: Any, arguments: Sequence[Any], options: Mapping[str, Any], order: str | None
) -> tuple[tuple[Any, ...], Any, dict[str, Any]]:
    """(predictions, target, mask and weights) of a call, by the names that the loss gives them."""
    held = getattr(loss, "contract", None)
    contract = held if isinstance(held, Contract) else None
    fixed = [item.name for item in parameters_of(loss) if item.kind is not item.VAR_POSITIONAL]
    names = list(contract.inputs) if contract else fixed[: len(arguments) + len(options)]
    names += [f"argument {place}" for place in range(len(names), len(arguments))]
    given = dict(zip(names, arguments, strict=False))
    given |= {name: value for name, value in options.items() if hasattr(value, "shape")}
    words = dict.fromkeys(MASKS, "mask") | dict.fromkeys(WEIGHTS, "weights")
    words["class_weights"] = "class_weights"
    beside = {words[name]: given.pop(name) for name in list(given) if name in words}
    named = [name for name in given if name.lower().replace("_", "") in _TARGETS]
    target = contract.target_name if contract else named[0] if named else None
    if order is not None and order.replace(" ", "") == "target,prediction":
        target = next(iter(given), None)
    elif contract is None and target is None and framework_of(loss) is None and len(given) > 1:
        target = list(given)[-1]
    truth = given.pop(target, None) if target is not None else None
    return tuple(value for value in given.values() if hasattr(value, "shape")), truth, beside


def parameters_of(loss: Any) -> list[inspect.Parameter]:
    """The parameters of a call; none where they cannot be read."""
    function: Callable[..., Any] = getattr(loss, "forward", None) or loss
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _settings(loss: Any) -> dict[str, Any]:
    """What a callable was set up with: attributes, or a function's defaults and fixed keywords."""
    if isinstance(loss, functools.partial):
        given = _settings(loss.func) | loss.keywords
    elif hasattr(loss, "get_config"):
        given = dict(loss.get_config())
    elif inspect.isroutine(loss):
        given = {
            item.name: item.default
            for item in parameters_of(loss)
            if item.default is not item.empty
        }
    else:
        given = {
            key: value for key, value in getattr(loss, "__dict__", {}).items() if key[:1] != "_"
        }
    given.pop("training", None)
    return given
