"""Every loss as Keras expects it, on each of its backends.

>>> import lossary.keras
>>> model.compile(loss=lossary.keras.Huber(delta=2.0))          # an object
>>> model.compile(loss=lossary.keras.focal)                     # a function
>>> lossary.keras.install(); model.compile(loss="focal")        # by name

For each name of a loss there is a class (``MeanSquaredError``, ``FocalLoss``, ``KLDivergence``: any
spelling of the field) and a function (``mean_squared_error``), both generated from the loss's
contract. They follow Keras: ``(y_true, y_pred)``, its reductions, sample weights and masks,
``from_logits=False``, one value per sample. Importing this module registers them, so a saved model
loads without ``custom_objects``. Losses that learn weights (``ArcFace``) are layers. Errors are
``ValueError``, as Keras raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import keras
from keras import ops, tree
from keras.src.losses import ALL_OBJECTS_DICT

from lossary.contract import REGISTRY, Alias, Array, Contract, contracts, key_of, resolve
from lossary.keras.arguments import HOST, signature
from lossary.keras.layer import LossLayer
from lossary.keras.loss import KerasLoss, dtype_of


def _class_name(key: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in key.split("_"))


def _make_class(key: str, contract: Contract, alias: Alias, base: type) -> Any:
    body = {
        "contract": contract,
        "key": key,
        "presets": alias.presets,
        "__doc__": inspect.getdoc(contract.compute),
        "__module__": __name__,
        "__signature__": signature(contract, key, alias.presets),
    }
    made = type(_class_name(key), (base,), body)
    return keras.saving.register_keras_serializable(package="lossary")(made)


def _make_function(key: str, kind: type[KerasLoss]) -> Callable[..., Array]:
    def function(y_true: Array, y_pred: Array, *arguments: Any, **options: Any) -> Array:
        y_pred = tree.map_structure(_floating, y_pred)
        y_true = tree.map_structure(ops.convert_to_tensor, y_true)
        if options.get("ref_embeddings") is not None:  # Keras' name for samples of other batches
            references = [options.pop(name) for name in ("ref_labels", "ref_embeddings")]
            options.pop("remove_diagonal", None)
            return kind(*arguments, **options).against(y_true, y_pred, *references)
        return kind(*arguments, **options).call(y_true, y_pred)

    function.__name__ = function.__qualname__ = key
    function.__doc__ = kind.__doc__
    pair = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        for name in ("y_true", "y_pred")
    ]
    options = [
        item for name, item in inspect.signature(kind).parameters.items() if name not in HOST
    ]
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [pair[0], pair[1], *(item.replace(kind=item.KEYWORD_ONLY) for item in options)]
    )
    return keras.saving.register_keras_serializable(package="lossary")(function)


def _floating(x: Any) -> Array:
    tensor = ops.convert_to_tensor(x)
    if keras.backend.is_float_dtype(dtype_of(tensor)):
        return tensor
    return ops.cast(tensor, keras.backend.floatx())


_CLASSES: dict[str, type[KerasLoss]] = {}

_FUNCTIONS: dict[str, Callable[..., Array]] = {}

_LAYERS: dict[str, type[LossLayer]] = {}  # losses with weights of their own


def _generate() -> None:
    contracts()
    for key, (contract, alias) in REGISTRY.items():
        if not contract.predictions or key in _CLASSES or key in _LAYERS:
            continue
        if contract.learned:
            _LAYERS[key] = _make_class(key, contract, alias, LossLayer)
            continue
        _CLASSES[key] = _make_class(key, contract, alias, KerasLoss)
        _FUNCTIONS[key] = _make_function(key, _CLASSES[key])


def get(identifier: Any) -> Any:
    """A loss by any of its names; a class's spelling gives an object. Others: ``keras.losses``."""
    if not isinstance(identifier, str):
        return keras.losses.get(identifier)
    resolve(identifier)  # a LossError with the nearest names
    key = key_of(identifier)
    if key in _LAYERS:
        return _LAYERS[key]
    return _FUNCTIONS[key] if identifier == identifier.lower() else _CLASSES[key]()


_KERAS_OWN: dict[str, Any] = {}


def install() -> None:
    """Let Keras find these losses by name: ``model.compile(loss="focal")``.

    Where Keras has a loss of the same name, Lossary's takes its place until ``uninstall``.
    """
    ours = {key: _FUNCTIONS[key] for key in _FUNCTIONS}
    ours |= {kind.__name__: kind for kind in _CLASSES.values()}
    for name, own in ALL_OBJECTS_DICT.items():
        if _knows(name):
            ours[name] = (_CLASSES if inspect.isclass(own) else _FUNCTIONS)[key_of(name)]
    _KERAS_OWN.update({name: ALL_OBJECTS_DICT.get(name) for name in ours if name not in _KERAS_OWN})
    ALL_OBJECTS_DICT.update(ours)


def uninstall() -> None:
    """Give Keras its own names back."""
    for name, own in _KERAS_OWN.items():
        if own is None:
            ALL_OBJECTS_DICT.pop(name, None)
        else:
            ALL_OBJECTS_DICT[name] = own
    _KERAS_OWN.clear()


def _knows(name: str) -> bool:
    return key_of(name) in _CLASSES and name != "Loss"


def __getattr__(name: str) -> Any:
    if name == "Watch":  # the doctor stands above the adapters: loaded when it is asked for
        return import_module("lossary.doctor.watch_keras").Watch
    if key_of(name) in _LAYERS and name != name.lower():
        return _LAYERS[key_of(name)]
    if name.startswith("_") or not _knows(name):
        raise AttributeError(f"module 'lossary.keras' has no attribute {name!r}")
    home = _FUNCTIONS if name == name.lower() else _CLASSES
    return home[key_of(name)]


def __dir__() -> list[str]:
    names = [kind.__name__ for kind in (*_CLASSES.values(), *_LAYERS.values())]
    return sorted([*names, *_FUNCTIONS, "KerasLoss", "get", "install", "uninstall"])


_generate()
