"""One call of a loss: what came, checked and cast; and how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lossary import choose, companions, cost, inputs
from lossary.contract import Array, LossError
from lossary.xp import namespace, signature, tracing

if TYPE_CHECKING:
    from lossary.evaluate import Loss
    from lossary.kernels import Kernel


class Plan(NamedTuple):
    """What shapes and dtypes decide: worked out once for arrays of one signature."""

    casts: dict[str, Any]
    result: Any  # the dtype of the result
    definition_only: str | None  # why no kernel can stand in, whatever it supports
    kernels: tuple[Kernel, ...]
    scale: float  # of the sum, where every unit counts alike
    as_they_are: bool = False  # whether a kernel may take the arrays without the casts


def plan_of(loss: Loss, arrays: dict[str, Array]) -> Plan:
    """The plan for these arrays, remembered by their signature; checks shapes and dtypes."""
    key = signature(tuple(arrays.values()))
    if key is None:  # a compiler traces: checks cost it nothing, few kernels are made for it
        return _new_plan(loss, arrays, traced=True)
    plan = loss._plans.get(key)
    if plan is None:
        if len(loss._plans) >= 256:  # batches of ever new shapes
            loss._plans.clear()
        plan = loss._plans[key] = _new_plan(loss, arrays, traced=False)
    return plan


def _new_plan(loss: Loss, arrays: dict[str, Array], *, traced: bool) -> Plan:
    inputs.check(loss.contract, arrays, loss.parameters)
    casts, result = inputs.casts(loss.contract, arrays)
    reason = _definition_only(loss, arrays)
    found: tuple[Kernel, ...] = ()
    if reason is None:
        name = choose.name_of(loss.contract, loss.predictions)
        found = choose.candidates(name, loss.implementation, arrays, traced=traced)
    scale = _plain_scale(loss, arrays) if found else 1.0
    reals = all(
        namespace(arrays[name]).isdtype(arrays[name].dtype, "real floating") for name in casts
    )
    as_they_are = bool(casts) and reals and any(kernel.halves for kernel in found)
    return Plan(casts, result, reason, found, scale, as_they_are)


def _plain_scale(loss: Loss, arrays: dict[str, Array]) -> float:
    prediction = arrays[loss.contract.predictions[0]]
    units = companions.units(loss.contract, prediction, loss.parameters)
    if loss.reduction == "batch_mean":
        return 1.0 / (units.shape[0] if units.ndim else 1)
    return 1.0 if loss.reduction == "sum" else 1.0 / cost.size(units)


def _definition_only(loss: Loss, arrays: dict[str, Array]) -> str | None:
    contract = loss.contract
    unit = contract.unit.name if contract.unit else None
    if unit not in ("element", "sample", "anchor", "region") or not contract.predictions:
        return "kernels return one value for each unit of the prediction"
    if unit == "region" and loss.ignore is not None:
        return "places inside a region are ignored"
    if loss.validate:
        return "values are validated"
    if loss.empty != "zero":
        return f"empty={loss.empty!r}"
    if 0 in tuple(arrays[contract.predictions[0]].shape):
        return "the input has no elements"
    return None


class Shortcut(NamedTuple):
    """How a reduced loss of arrays of one signature is computed, if these arrays are ``ready``."""

    ready: Callable[..., bool]
    run: Callable[..., Any]


class Call(NamedTuple):
    """The arrays of one call, checked and cast; masked places are still as they came."""

    loss: Loss
    arrays: dict[str, Array]
    plan: Plan
    weights: Array | None
    class_weights: Array | None
    mask: Array | None
    beside: tuple[Array | None, Array | None]  # weights and mask as they came

    def kernel(self) -> Kernel | None:
        """The kernel that runs, or None for the definition."""
        contract, implementation = self.loss.contract, self.loss.implementation
        asked_for = implementation not in ("auto", choose.DEFINITION)
        if not self.plan.kernels and not asked_for:
            return None
        if self.plan.definition_only and asked_for:
            raise LossError(
                f"{contract.name}: implementation={implementation!r} was asked for, but "
                f"{self.plan.definition_only}; use implementation='auto'"
            )
        if self.mask is not None and "mask" in contract.accepts:  # places inside a unit
            return None
        for companion in (self.weights, self.class_weights):
            if getattr(companion, "requires_grad", False):  # kernels differentiate predictions
                return None
        parameters = {**self.loss.parameters, **self._inner("class_weights")}
        kernels = self.plan.kernels
        if any(each is not None for each in self.beside):  # first those that take them at once
            kernels = tuple(sorted(kernels, key=lambda kernel: not kernel.weighs))
        return choose.choose(contract.name, implementation, kernels, self.arrays, parameters)

    def remember(self, kernel: Kernel) -> None:
        """Let the next call on such arrays go to the kernel without detours."""
        loss, first = self.loss, next(iter(self.arrays.values()))
        if self.plan.result != first.dtype:
            return
        if kernel.prepare is None or kernel.ready is None:
            return
        if self.class_weights is not None and "class_weights" not in loss.contract.accepts:
            return
        options: dict[str, Any] = {**loss.parameters, **self._inner("class_weights")}
        if loss.ignore is not None or self.class_weights is not None:
            target = self.arrays[str(loss.contract.target_name)]
            if not namespace(target).isdtype(target.dtype, "integral"):
                return
            weighed = loss.reduction == "mean" and self.class_weights is not None
            counted = loss.reduction in ("mean", "mean_over_batch")
            options["ignore"] = loss.ignore
            options["divisor"] = "weight" if weighed else "count" if counted else None
        alone = all(each is None for each in self.beside)
        if not alone:
            if options.get("divisor") or loss.ignore is not None or not kernel.weighs:
                return
            means = {"mean": "weight", "mean_over_batch": "count"}
            options["divisor"] = means.get(loss.reduction)
        factor = None if loss.reduction == "none" else self.plan.scale
        beside = () if alone else self.beside
        key = signature(tuple(self.arrays.values()), self.class_weights, beside)
        run = kernel.prepare(*self.arrays.values(), factor=factor, **options)
        if key is not None:
            if len(loss._shortcuts) >= 256:
                loss._shortcuts.clear()
            loss._shortcuts[key] = Shortcut(kernel.ready, run)

    def share(self) -> dict[str, Any]:
        """``factor`` and ``weights`` that make a kernel's weighted sum this reduction."""
        contract, reduction = self.loss.contract, self.loss.reduction
        beside = (self.weights, self.class_weights, self.mask, contract.counts)
        if all(each is None for each in beside):
            return {"factor": self.plan.scale}
        units = self._units()
        xp = namespace(units)
        weights, measure = self._unit_weights(self.arrays, units)
        counts = self._counts(units)
        if counts is not None:
            weights = xp.where(counts, xp.ones_like(units) if weights is None else weights, 0.0)
        if weights is not None:
            weights = xp.broadcast_to(weights, units.shape)
        behind = None
        if reduction == "mean":
            both = [factor for factor in (weights, measure) if factor is not None]
            behind = xp.sum(both[0] if len(both) == 1 else both[0] * both[1])
        elif reduction == "mean_over_batch" and counts is not None:
            behind = xp.sum(xp.where(counts, xp.ones_like(units), 0.0))
        scale = self.plan.scale
        if behind is not None and tracing(behind):
            scale = xp.where(behind == 0, 0.0, cost.divide(xp.ones_like(behind), behind))
        elif behind is not None:
            scale = 1.0 / float(behind) if behind else 0.0
        return {"factor": scale, "weights": weights, **self._inner("class_weights")}

    def values(self, kernel: Kernel | None = None) -> tuple[Array, dict[str, Any]]:
        """The unreduced values, and what reduces them: weights, counts, measure."""
        contract, parameters = self.loss.contract, self.loss.parameters
        arrays, compute = self.arrays, contract.compute
        inner = self._inner("mask", "class_weights")
        whole = self.class_weights is None or "class_weights" in contract.accepts
        if kernel is not None and kernel.values is not None and kernel.skips and whole:
            values = kernel.values(*arrays.values(), weights=self._present(), **parameters, **inner)
            return values, self._reduced_by(values, arrays)
        inputs.check_classes(contract, arrays, parameters, self.mask)
        if self.mask is not None:
            arrays = companions.blank(contract, arrays, self.mask, parameters)
        if self.loss.validate:
            inputs.check_values(contract, arrays)
        arrival = self.loss.predictions
        if arrival is not None:
            if arrival in contract.forms:
                compute = contract.forms[arrival]
            else:
                arrays = inputs.convert(contract, arrays, arrival)
        if kernel is not None and kernel.values is not None:
            compute = kernel.values
        values = compute(*arrays.values(), **parameters, **inner)
        return values, self._reduced_by(values, arrays)

    def _reduced_by(self, values: Array, arrays: dict[str, Array]) -> dict[str, Any]:
        weights, measure = self._unit_weights(arrays, values)
        counts = self._counts(values, arrays)
        return {"weights": weights, "counts": counts, "measure": measure}

    def _units(self) -> Array:
        """An array like the unreduced values, in the dtype that is computed in."""
        contract = self.loss.contract
        name = contract.predictions[0]
        units = companions.units(contract, self.arrays[name], self.loss.parameters)
        wide = self.plan.casts.get(name, units.dtype)
        if units.dtype == wide:
            return units
        xp = namespace(units)
        return xp.broadcast_to(xp.zeros((), dtype=wide, device=units.device), units.shape)

    def _present(self) -> Array | None:
        """1 for each unit that is not masked, else 0."""
        if self.mask is None:
            return None
        units = self._units()
        xp = namespace(units)
        counts = companions.counted(self.loss.contract, self.mask, units, self.loss.parameters)
        return xp.astype(xp.broadcast_to(counts, units.shape), units.dtype)

    def _counts(self, units: Array, arrays: dict[str, Array] | None = None) -> Array | None:
        """Which units count; None: all."""
        contract = self.loss.contract
        if contract.counts is not None:
            return contract.counts((arrays or self.arrays)[str(contract.target_name)], self.mask)
        if self.mask is None:
            return None
        return companions.counted(contract, self.mask, units, self.loss.parameters)

    def _inner(self, *names: str) -> dict[str, Array]:
        """The companions that the definition takes itself."""
        accepts = self.loss.contract.accepts
        given = {name: getattr(self, name) for name in names if name in accepts}
        return {name: array for name, array in given.items() if array is not None}

    def _unit_weights(
        self, arrays: dict[str, Array], units: Array
    ) -> tuple[Array | None, Array | None]:
        """(weights of the units, weights that only the mean's denominator sees)."""
        contract = self.loss.contract
        weights, measure = self.weights, None
        if weights is not None:
            weights = namespace(weights).astype(weights, units.dtype)
            weights = cost.spread(weights, units, "weights", contract.name)
        if self.class_weights is not None:
            factor = companions.class_weights_of(
                contract, arrays, self.class_weights, self.loss.parameters
            )
            if "class_weights" in contract.accepts:
                measure = factor
            else:
                weights = factor if weights is None else weights * factor
        return weights, measure


def prepare(
    loss: Loss,
    arrays: tuple[Array, ...],
    named: Mapping[str, Array],
    weights: Array | None = None,
    class_weights: Array | None = None,
    mask: Array | None = None,
) -> Call:
    """Everything that came, checked, in the dtype that is computed in."""
    contract, beside = loss.contract, (weights, mask)
    bound = bind(loss, arrays, named)
    plan = plan_of(loss, bound)
    first = next(iter(bound.values()))
    if mask is not None:
        mask = companions.companion("mask", contract, mask, first)
        if not namespace(mask).isdtype(mask.dtype, "bool"):
            mask = mask != 0
    if loss.ignore is not None and contract.target_name is not None:
        kept = companions.ignored(bound[contract.target_name], loss.ignore)
        if mask is not None:
            mask = cost.spread(mask, kept, "mask", contract.name)
            kept = namespace(kept).logical_and(kept, mask)
        mask = kept
    if weights is not None:
        weights = companions.companion("weights", contract, weights, first)
    if plan.as_they_are and class_weights is None:
        call = Call(loss, bound, plan, weights, None, mask, beside)
        if call.kernel() is not None:
            return call
    for name, dtype in plan.casts.items():
        bound[name] = namespace(first).astype(bound[name], dtype)
    if class_weights is not None:
        class_weights = companions.companion("class_weights", contract, class_weights, first)
        companions.check_class_weights(contract, bound, class_weights, loss.parameters)
        kind = bound[contract.predictions[0]].dtype
        if class_weights.dtype != kind:  # a copy would be unknown to shortcuts
            class_weights = namespace(first).astype(class_weights, kind)
    return Call(loss, bound, plan, weights, class_weights, mask, beside)


def bind(loss: Loss, arrays: tuple[Array, ...], named: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays by the names of the definition's arguments."""
    names = tuple(loss.contract.inputs)
    if len(arrays) == len(names) and not named:
        return dict(zip(names, arrays, strict=True))
    given = dict(zip(names, arrays, strict=False)) | dict(named)
    if len(arrays) + len(named) != len(names) or set(given) != set(names):
        came = ", ".join([*names[: len(arrays)], *named]) or "nothing"
        for name in named:
            if name in loss.contract.parameters:
                function = f"contract_of({loss.contract.name!r}).compute"
                raise LossError(
                    f"{loss.contract.name}: {name} is given when the loss is made, as a number; "
                    f"to learn it, call {function}(..., {name}=...)"
                )
        raise LossError(f"{loss.contract.name}: takes {', '.join(names)}; got {came}")
    return {name: given[name] for name in names}  # keywords may come in any order
