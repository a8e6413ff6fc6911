"""What a loss demands and promises, read from its signature; and the registry of losses.

A loss is one plain function. Each positional argument's annotation names the :class:`Space` it
lives in, each keyword's annotation its :class:`Interval`, the return annotation what one returned
number stands for (:class:`Unit`). The decorator :func:`loss` records what a signature cannot say
and returns the function unchanged.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar, overload

from lossary.spaces import *  # noqa: F403
from lossary.spaces import ANYTHING, Array, Interval, Property, Space, Unit


class LossError(ValueError):
    """One line: which loss, which argument, what came, what was expected, what to do."""


@dataclass(frozen=True)
class Parameter:
    """A keyword of a definition: its type, interval and default."""

    name: str
    interval: Interval
    type: Any
    default: Any
    required: bool

    def check(self, value: Any, loss_name: str) -> Any:
        """``value``, hashable, or a LossError that names the interval."""
        if getattr(value, "requires_grad", False) or not _readable(value):
            raise LossError(
                f"{loss_name}: {self.name} is a tensor to be learned or traced, but a Loss holds "
                f"numbers; give it to the function: contract_of({loss_name!r}).compute("
                f"..., {self.name}=...)"
            )
        choices = _choices(self.type)
        if value == self.default and type(value) is type(self.default):
            return value
        if choices:
            if value not in choices:
                expected = ", ".join(map(repr, choices))
                raise LossError(f"{loss_name}: {self.name}={value!r} is not one of {expected}")
            return value
        if self.type is bool:
            if not isinstance(value, bool):
                raise LossError(f"{loss_name}: {self.name}={value!r} must be True or False")
            return value
        if self.interval is None:
            return _hashable(value)
        plain = _hashable(value)
        scalar = self.type in (int, float)
        for number in _numbers(plain):
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                raise LossError(
                    f"{loss_name}: {self.name}={value!r} must be a number in {self.interval}"
                )
            if number not in self.interval or math.isnan(number):
                raise LossError(
                    f"{loss_name}: {self.name}={number!r} is outside {self.interval}; "
                    f"choose a value in {self.interval}"
                )
        if scalar and isinstance(plain, tuple):
            raise LossError(f"{loss_name}: {self.name} must be one number in {self.interval}")
        if self.type is int and not isinstance(plain, int):
            raise LossError(f"{loss_name}: {self.name}={value!r} must be a whole number")
        return plain


def _choices(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    return ()


def _readable(value: Any) -> bool:
    """Whether numbers can be read out of ``value``; not while a compiler traces it."""
    try:
        _hashable(value)
    except (TypeError, RuntimeError):
        return False
    return True


def _hashable(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(item) for item in value)
    return value


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value]


@dataclass(frozen=True)
class Alias:
    """Another name of a loss, with the parameter values that the name implies."""

    name: str
    presets: Mapping[str, Any] = field(default_factory=dict)


def named(name: str, **presets: Any) -> Alias:
    """An alias that fixes parameters: ``named("half_squared_error", half=True)``."""
    return Alias(name, presets)


@dataclass(frozen=True, eq=False)
class Contract:
    """A loss as recorded: the function, and everything that follows from its signature."""

    compute: Callable[..., Array]
    properties: frozenset[Property] = frozenset()
    aliases: tuple[Alias, ...] = ()
    paper: str = ""
    counts: Callable[..., Array] | None = None  # (target, mask) -> which units count
    forms: Mapping[str, Callable[..., Array]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.compute.__name__

    @property
    def family(self) -> str:
        return self.compute.__module__.rpartition(".")[2]

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return typing.get_type_hints(self.compute, include_extras=True)

    @cached_property
    def inputs(self) -> dict[str, Space]:
        """Positional arguments in order, with their spaces (ANYTHING where not annotated)."""
        return {
            parameter.name: _annotation(self._hints.get(parameter.name), Space) or ANYTHING
            for parameter in inspect.signature(self.compute).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        }

    @cached_property
    def target_name(self) -> str | None:
        """The argument named target; without annotations, the second of two."""
        names = list(self.inputs)
        if "target" in names:
            return "target"
        if len(names) == 2 and self.inputs[names[1]] is ANYTHING:
            return names[1]
        return None

    @cached_property
    def predictions(self) -> tuple[str, ...]:
        """The positional arguments that are differentiable: all but the target and lengths."""
        return tuple(
            name
            for name, space in self.inputs.items()
            if name != self.target_name and space.layout != "label"
        )

    @cached_property
    def learned(self) -> tuple[str, ...]:
        """Inputs that are trained with the network: weight tensors beside other inputs."""
        whole = tuple(name for name, space in self.inputs.items() if space.layout == "tensor")
        return whole if len(whole) < len(self.inputs) else ()

    @property
    def target(self) -> Space | None:
        """The space of the target; None where there is none."""
        return None if self.target_name is None else self.inputs[self.target_name]

    @cached_property
    def accepts(self) -> frozenset[str]:
        """Arrays that the definition takes itself: mask, class_weights, references."""
        return frozenset(
            {"mask", "class_weights", "references"}
            & set(inspect.signature(self.compute).parameters)
        )

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """Keywords with interval and default."""
        found = {}
        for parameter in inspect.signature(self.compute).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in self.accepts:
                continue
            hint = self._hints.get(parameter.name, Any)
            interval = _annotation(hint, Interval)
            required = parameter.default is parameter.empty
            found[parameter.name] = Parameter(
                parameter.name,
                interval,
                _plain_type(hint),
                None if required else parameter.default,
                required,
            )
        return found

    @cached_property
    def unit(self) -> Unit | None:
        """What one value stands for; None when the definition does not say."""
        return _annotation(self._hints.get("return"), Unit)

    @cached_property
    def summary(self) -> str:
        return (inspect.getdoc(self.compute) or "").partition("\n")[0]

    @cached_property
    def formula(self) -> str:
        text = inspect.getdoc(self.compute) or ""
        match = re.search(r"\.\. math::\s*(.+?)(?:\n\s*\n|\Z)", text, re.DOTALL)
        return re.sub(r"\s+", " ", match.group(1)).strip() if match else ""

    def read(self) -> None:
        """Read the signature now: a compiler that traces a call cannot."""
        facts = "inputs target_name predictions learned accepts parameters unit"
        for fact in facts.split():
            getattr(self, fact)

    def has(self, name: str, parameters: Mapping[str, Any] | None = None) -> bool:
        """Whether the property of this name is claimed (at these parameter values)."""
        return self.fact(name, parameters) is not None

    def fact(self, name: str, parameters: Mapping[str, Any] | None = None) -> Property | None:
        """The claimed property of this name that holds at these parameter values, or None."""
        defaults = {key: value.default for key, value in self.parameters.items()}
        given = defaults | dict(parameters or {})
        for item in sorted(self.properties, key=str):
            if item.name == name and all(given.get(key) == value for key, value in item.when):
                return item
        return None

    def check_parameters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters, defaults filled in, each inside its interval; or a LossError."""
        unknown = [key for key in given if key not in self.parameters]
        if unknown:
            known = ", ".join(self.parameters) or "no parameters"
            raise LossError(f"{self.name}: unknown parameter {unknown[0]!r}; it has {known}")
        missing = [
            key for key, value in self.parameters.items() if value.required and key not in given
        ]
        if missing:
            raise LossError(f"{self.name}: parameter {missing[0]!r} is required")
        return {
            key: value.check(given[key], self.name) if key in given else value.default
            for key, value in self.parameters.items()
        }


def _annotation(hint: Any, kind: type) -> Any:
    """The metadata of this kind in a hint, also inside ``X | None``."""
    for part in (hint, *typing.get_args(hint)):
        for item in getattr(part, "__metadata__", ()):
            if isinstance(item, kind):
                return item
    return None


def _plain_type(hint: Any) -> Any:
    for part in (hint, *typing.get_args(hint)):
        if hasattr(part, "__metadata__"):
            return part.__origin__
        if typing.get_origin(part) is Literal:
            return part
    return hint


REGISTRY: dict[str, tuple[Contract, Alias]] = {}


def key_of(name: str) -> str:
    """One spelling for all: ``MSELoss``, ``mse-loss`` and ``mse`` are the same name."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    snake = re.sub(r"[\s\-]+", "_", snake).lower()
    return snake.removesuffix("_loss") or snake


Definition = TypeVar("Definition", bound=Callable[..., Any])


@overload
def loss(function: Definition) -> Definition: ...


@overload
def loss(
    *,
    properties: set[Property] | frozenset[Property] = ...,
    aliases: tuple[str | Alias, ...] = ...,
    paper: str = ...,
    counts: Callable[..., Array] | None = ...,
    forms: Mapping[str, Callable[..., Array]] | None = ...,
) -> Callable[[Definition], Definition]: ...


def loss(
    function: Callable[..., Array] | None = None,
    *,
    properties: set[Property] | frozenset[Property] = frozenset(),
    aliases: tuple[str | Alias, ...] = (),
    paper: str = "",
    counts: Callable[..., Array] | None = None,
    forms: Mapping[str, Callable[..., Array]] | None = None,
) -> Any:
    """Register a definition and return it unchanged.

    ``counts(target, mask)`` tells which units enter a mean, where not all do. ``forms`` are
    definitions for predictions that arrive as ``"probabilities"`` or ``"log_probabilities"``,
    where a conversion to logits would lose digits.
    """

    def register(definition: Callable[..., Array]) -> Callable[..., Array]:
        others = tuple(item if isinstance(item, Alias) else Alias(item) for item in aliases)
        contract = Contract(
            definition, frozenset(properties), others, paper, counts, dict(forms or {})
        )
        for alias in (Alias(definition.__name__), *others):
            key = key_of(alias.name)
            holder = REGISTRY.get(key)
            if holder and not _same_definition(holder[0].compute, definition):
                raise LossError(f"{alias.name}: this name is taken by {holder[0].name}")
            REGISTRY[key] = (contract, alias)
        definition.contract = contract  # type: ignore[attr-defined]
        return definition

    return register if function is None else register(function)


def _same_definition(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """A module that is reloaded registers its losses again."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _load() -> None:
    importlib.import_module("lossary.losses")


def resolve(name: str) -> tuple[Contract, Mapping[str, Any]]:
    """The contract that goes by ``name``, and the parameters that the name implies."""
    _load()
    entry = REGISTRY.get(key_of(name))
    if entry is None:
        near = nearest_names(name)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise LossError(f"{name}: no loss of this name{hint} `lossary list` shows all")
    contract, alias = entry
    return contract, alias.presets


def contract_of(loss_: str | Callable[..., Array]) -> Contract:
    """The contract of a name, of a decorated function, or inferred for any other function."""
    if isinstance(loss_, str):
        return resolve(loss_)[0]
    contract = getattr(loss_, "contract", None)
    return contract if isinstance(contract, Contract) else Contract(loss_)


def contracts() -> list[Contract]:
    """Every registered contract, by name."""
    _load()
    return sorted(
        {id(item[0]): item[0] for item in REGISTRY.values()}.values(), key=lambda c: c.name
    )


def nearest_names(name: str, count: int = 3) -> list[str]:
    """Registered names closest to a misspelt one."""
    _load()
    matches = difflib.get_close_matches(key_of(name), REGISTRY, n=count, cutoff=0.5)
    return [REGISTRY[key][1].name for key in matches]
