"""The numerical helpers of definitions, right in value and derivative on every array library.

Each is written so that differentiating it line by line (which is what the frameworks do) gives a
derivative as accurate as the value: no branch point with a shared derivative, no cancellation, no
``0 * inf``. Stability comes from the formula, not from an epsilon.
"""

from __future__ import annotations

from lossary.contract import Array, LossError
from lossary.xp import device, namespace


def stop_gradient(x: Array) -> Array:
    """``x`` as a constant."""
    stop = getattr(namespace(x), "stop_gradient", None)
    return x if stop is None else stop(x)


def computed_once(x: Array) -> Array:
    """``x``, which a compiler is to hold in memory, because the formula uses it many times.

    torch.compile writes a short expression out again at every use, and so on for what uses it: a
    difference of log-gammas grew from 300 operations to 80,000.
    """
    once = getattr(namespace(x), "computed_once", None)
    return x if once is None else once(x)


def constant(values: object, like: Array) -> Array:
    """Numbers as an array of the library, dtype and device of ``like``."""
    xp = namespace(like)
    return xp.asarray(values, dtype=like.dtype, device=device(like))


def largest(like: Array) -> float:
    """The largest finite number of the dtype."""
    return float(namespace(like).finfo(like.dtype).max)


def smallest(like: Array) -> float:
    """The smallest positive normal number of the dtype."""
    return float(namespace(like).finfo(like.dtype).smallest_normal)


def absolute(x: Array) -> Array:
    """``|x|``; at 0 the derivative is 0 on every library."""
    xp = namespace(x)
    return xp.where(x == 0, 0.0, xp.abs(x))


def quotient(x: Array, y: Array) -> Array:
    """``x / y``, differentiable wherever the derivative is representable.

    A library may form 1 / y^2 for the derivative by ``y``, which overflows or vanishes long before
    the derivative does. Here what is differentiated is divided by ``y`` first, as a constant.
    """
    xp = namespace(x, y)
    whole = stop_gradient(y)
    usable = xp.logical_and(whole != 0, xp.isfinite(whole))
    whole = xp.where(usable, whole, 1.0)
    # This where() also keeps compilers from making (x y') / (y y') of it, which overflows.
    y = xp.where(usable, y / whole, y)
    return (x / whole) / y


def times(weight: Array, value: Array) -> Array:
    """``weight * value`` where a zero weight wins over an infinite value.

    Its derivative by a weight of 0 is the value; by the value it is 0, also where that has none.
    """
    xp = namespace(weight, value)
    fixed = stop_gradient(value)
    fixed = xp.where(xp.isfinite(fixed), fixed, 0.0)
    return weight * xp.where(weight == 0, fixed, value)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))``."""
    xp = namespace(x)
    above = x > 0
    # where() instead of max and abs: at 0 each library shares their derivatives differently.
    return xp.where(above, x, 0.0) + xp.log1p(xp.exp(xp.where(above, -x, x)))


def sigmoid(x: Array) -> Array:
    """``1 / (1 + exp(-x))``, with both tails."""
    xp = namespace(x)
    small = xp.exp(xp.where(x > 0, -x, x))
    return xp.where(x > 0, 1.0, small) / (1.0 + small)


def log1mexp(x: Array) -> Array:
    """``log(1 - exp(x))`` for ``x < 0`` (Maechler 2012)."""
    xp = namespace(x)
    near = x > -0.6931471805599453
    return xp.where(
        near,
        xp.log(-xp.expm1(xp.where(near, x, -1.0))),
        xp.log1p(-xp.exp(xp.where(near, -1.0, x))),
    )


def one_minus_exp(x: Array) -> Array:
    """``1 - exp(x)`` for ``x <= 0``, right in value and derivative at both ends.

    Not ``expm1`` alone: its derivative is taken from its value, which is rounded to -1 below.
    """
    xp = namespace(x)
    near = x > -0.6931471805599453
    return xp.where(near, -xp.expm1(xp.where(near, x, 0.0)), 1.0 - xp.exp(x))


def surprise_of_logit(logit: Array, yes: Array, no: Array) -> Array:
    """``yes * log(1 + exp(-logit)) + no * log(1 + exp(logit))`` for weights of yes and no."""
    xp = namespace(logit, yes)
    above = logit > 0
    missed = times(xp.where(above, no, yes), xp.where(above, logit, -logit))
    return (yes + no) * xp.log1p(xp.exp(xp.where(above, -logit, logit))) + missed


def from_highest(logits: Array, *, axis: int = -1) -> Array:
    """Logits less the largest along ``axis``, which is a constant in the derivative.

    For whatever does not depend on a common shift, where adding to large logits would round.
    """
    xp = namespace(logits)
    high = xp.max(logits, axis=axis, keepdims=True)
    return logits - stop_gradient(xp.clip(high, -largest(logits), largest(logits)))


def class_range(like: Array, axis: int) -> Array:
    """0, 1, ... along ``axis``, shaped to meet ``like`` there."""
    xp = namespace(like)
    if like.shape[axis] is None:  # in a graph that will know it later
        return xp.astype(xp.cumulative_sum(xp.ones_like(like), axis=axis), xp.int64) - 1
    shape = [1] * like.ndim
    shape[axis] = like.shape[axis]
    return xp.reshape(xp.arange(like.shape[axis], device=device(like)), tuple(shape))


def log_softmax(logits: Array, *, axis: int = -1) -> Array:
    """``log(exp(z_k) / sum_j exp(z_j))`` along ``axis``; the shape stays.

    Accurate where others round to zero: at ``[20, 0]`` the first is ``-2.06e-9``. The likeliest
    class ``a`` is ``-log1p(sum of the others' exp(z_j - z_a))``; any other is a difference of which
    no part cancels. The maximum is a constant in the derivative, where it would cancel with itself.
    """
    xp = namespace(logits)
    high = xp.max(logits, axis=axis, keepdims=True)
    high = stop_gradient(xp.clip(high, -largest(logits), largest(logits)))
    likeliest = class_range(logits, axis) == xp.expand_dims(
        xp.argmax(stop_gradient(logits), axis=axis), axis=axis
    )
    exponential = xp.exp(logits - high)
    total = xp.sum(exponential, axis=axis, keepdims=True)
    others = xp.sum(xp.where(likeliest, 0.0, exponential), axis=axis, keepdims=True)
    # exp(high - z_a) is 1; it carries the derivative by the likeliest class.
    peak = xp.sum(xp.where(likeliest, logits, 0.0), axis=axis, keepdims=True)
    certain = -xp.log1p(others * xp.exp(high - peak))
    return xp.where(likeliest, certain, (logits - high) - xp.log(total))


def logsumexp(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """``log(sum_j exp(x_j))`` along ``axis``."""
    xp = namespace(x)
    high = xp.max(x, axis=axis, keepdims=True)
    high = stop_gradient(xp.clip(high, -largest(x), largest(x)))
    result = high + xp.log(xp.sum(xp.exp(x - high), axis=axis, keepdims=True))
    return result if keepdims else xp.squeeze(result, axis=axis)


def softmax(logits: Array, *, axis: int = -1) -> Array:
    """``exp(z_k) / sum_j exp(z_j)`` along ``axis``."""
    xp = namespace(logits)
    exponential = xp.exp(from_highest(logits, axis=axis))
    return exponential / xp.sum(exponential, axis=axis, keepdims=True)


def log_one_minus_softmax(logits: Array, *, axis: int = -1) -> Array:
    """``log(1 - softmax)``, also where the difference is too small for a number."""
    xp = namespace(logits)
    shifted = from_highest(logits, axis=axis)
    share = softmax(shifted, axis=axis)
    sure = share > 0.5
    absent = xp.logical_or(sure, shifted == -float("inf"))
    alone = xp.all(absent, axis=axis, keepdims=True)
    total = xp.sum(xp.exp(shifted), axis=axis, keepdims=True)
    others = xp.where(alone, 0.0, xp.where(sure, -float("inf"), shifted))
    del shifted  # as large as the input
    rest = logsumexp(others, axis=axis, keepdims=True) - xp.log(total)
    del others
    rest = xp.where(alone, -float("inf"), rest)
    return xp.where(sure, rest, xp.log1p(-xp.where(sure, 0.0, share)))


def normalized(probabilities: Array, *, axis: int = -1) -> tuple[Array, Array]:
    """``p_k / sum_j p_j`` along ``axis`` and its logarithm; exactly 0 counts as ``smallest``.

    The derivative passes a 0 unchanged, so a wrong certain answer still gets a gradient.
    """
    xp = namespace(probabilities)
    low = smallest(probabilities)
    lifted = low + (probabilities - stop_gradient(probabilities))
    positive = xp.where(probabilities < low, lifted, probabilities)
    del lifted  # as large as the input
    share = positive / xp.sum(positive, axis=axis, keepdims=True)
    sure = share > 0.5
    others = xp.sum(xp.where(sure, 0.0, positive), axis=axis, keepdims=True)
    peak = xp.sum(xp.where(sure, positive, 0.0), axis=axis, keepdims=True)
    odds = others / xp.where(peak == 0, 1.0, peak)  # of being wrong, where one class is sure
    share = xp.where(sure, 1.0 / (1.0 + odds), share)
    return share, xp.where(sure, -xp.log1p(odds), xp.log(share))


def log_normalized(probabilities: Array, *, axis: int = -1) -> Array:
    """``log(p_k / sum_j p_j)`` along ``axis``; exactly 0 counts as the smallest normal number."""
    return normalized(probabilities, axis=axis)[1]


def power(base: Array, exponent: float) -> Array:
    """``base ** exponent`` of numbers from 0 up; at 0 the derivative is 0."""
    xp = namespace(base)
    zero = base == 0
    return xp.where(zero, 0.0 if exponent else 1.0, xp.where(zero, 1.0, base) ** exponent)


def positive_part(x: Array) -> Array:
    """``max(x, 0)``; at 0 the derivative is 0 on every library."""
    return namespace(x).where(x <= 0, 0.0, x)


def log_of_weight(weight: Array) -> Array:
    """``log(weight)``, but 0 where the weight is 0: for ``weight * log(weight)``."""
    xp = namespace(weight)
    return xp.log(xp.where(weight == 0, 1.0, weight))


def per_class(numbers: object, like: Array, *, axis: int = -1, what: str = "numbers") -> object:
    """One number for all classes, or one per class, shaped to meet ``like`` along ``axis``."""
    if isinstance(numbers, (int, float)):
        return numbers
    classes = like.shape[axis]
    given = constant(numbers, like)
    if tuple(given.shape) != (classes,):
        raise LossError(
            f"{what} has shape {tuple(given.shape)}, but the prediction has {classes} classes; "
            f"give one number for all, or {classes}"
        )
    shape = [1] * like.ndim
    shape[axis] = classes
    return namespace(like).reshape(given, tuple(shape))


def is_index(target: Array, values: Array) -> bool:
    """Whether ``target`` holds class indices: it lacks the class axis of ``values``."""
    return bool(target.ndim == values.ndim - 1)


def pick(values: Array, target: Array, *, axis: int = -1) -> Array:
    """The value of the target class along ``axis``, which disappears.

    ``target`` holds class indices (one dimension less than ``values``) or weights per class (same
    shape: one-hot or a distribution; a weight of 0 wins over an infinite value). An index outside
    the classes gives NaN, never a wrong number.
    """
    xp = namespace(values, target)
    if not is_index(target, values):
        return xp.sum(times(target, values), axis=axis)
    classes = values.shape[axis]
    known = xp.logical_and(target >= 0, target < classes)
    index = xp.where(known, target, xp.zeros_like(target))
    if not xp.isdtype(index.dtype, "integral"):
        index = xp.astype(index, xp.int64)
    found = xp.take_along_axis(values, xp.expand_dims(index, axis=axis), axis=axis)
    return xp.where(known, xp.squeeze(found, axis=axis), float("nan"))


def one_hot(target: Array, like: Array, *, axis: int = -1) -> Array:
    """Class indices as 0 and 1 along ``axis`` in the dtype of ``like``; a distribution stays."""
    xp = namespace(target, like)
    if not is_index(target, like):
        return xp.astype(target, like.dtype, copy=False)
    classes = xp.astype(class_range(like, axis), target.dtype)
    return xp.astype(classes == xp.expand_dims(target, axis=axis), like.dtype)


def signs(target: Array) -> Array:
    """Labels as -1 and 1; a 0 counts as -1, so both codes of a binary label are understood."""
    xp = namespace(target)
    return xp.where(target == 0, -1.0, target)


def interior(probability: Array) -> Array:
    """Probabilities inside (0, 1): exactly 0 or 1 becomes the nearest number inside.

    The derivative passes unchanged, so a wrong certain answer still gets a gradient.
    """
    xp = namespace(probability)
    low, high = smallest(probability), 1.0 - float(xp.finfo(probability.dtype).eps) / 2
    inside = xp.clip(stop_gradient(probability), low, high)
    return xp.where(
        probability == inside, probability, inside + (probability - stop_gradient(probability))
    )


def below_zero(log_probability: Array) -> Array:
    """Log-probabilities inside (-inf, 0): at an end, the nearest number inside.

    The derivative passes 0 unchanged.
    """
    xp = namespace(log_probability)
    fixed = stop_gradient(log_probability)
    inside = xp.clip(fixed, -largest(fixed), -smallest(fixed))
    step = xp.where(xp.isfinite(fixed), log_probability - fixed, 0.0)
    return xp.where(fixed == inside, log_probability, inside + step)


def mean_where(values: Array, where: Array, *, axis: int | tuple[int, ...]) -> Array:
    """The mean of ``values`` along ``axis`` over the places where ``where`` holds; 0 if nowhere."""
    xp = namespace(values, where)
    count = xp.sum(xp.astype(where, values.dtype), axis=axis)
    total = xp.sum(xp.where(where, values, 0.0), axis=axis)
    return total / xp.where(count == 0, 1.0, count)


def norm(x: Array, *, axis: int = -1, keepdims: bool = False) -> Array:
    """Euclidean length along ``axis``, free of overflow; at 0 the derivative is 0."""
    xp = namespace(x)
    scale = stop_gradient(xp.max(xp.abs(x), axis=axis, keepdims=True))
    scale = xp.where(xp.logical_or(scale == 0, xp.logical_not(xp.isfinite(scale))), 1.0, scale)
    square = xp.sum(xp.square(x / scale), axis=axis, keepdims=True)
    zero = square == 0
    length = scale * xp.where(zero, 0.0, xp.sqrt(xp.where(zero, 1.0, square)))
    return length if keepdims else xp.squeeze(length, axis=axis)


def unit_rows(x: Array, *, axis: int = -1) -> Array:
    """``x`` scaled to length 1 along ``axis``; a zero vector stays zero, with derivative 0.

    Divided by its largest component first, in the derivative too: nothing overflows, and a nearly
    axis-parallel vector's derivative along that axis does not cancel.
    """
    xp = namespace(x)
    largest_at = xp.expand_dims(xp.argmax(xp.abs(stop_gradient(x)), axis=axis), axis=axis)
    pivot = class_range(x, axis) == largest_at
    high = xp.sum(xp.where(pivot, x, 0.0), axis=axis, keepdims=True)
    zero = high == 0
    ratio = quotient(xp.where(pivot, 0.0, x), xp.where(zero, 1.0, high))
    # The where() keeps compilers from multiplying by an approximate 1/sqrt instead.
    length = xp.sqrt(1.0 + xp.sum(xp.square(ratio), axis=axis, keepdims=True))
    length = xp.where(zero, 1.0, length)
    return xp.where(pivot, xp.sign(high), ratio * xp.sign(high)) / length


def pairs(labels: Array, mask: Array | None = None) -> tuple[Array, Array]:
    """Who may be compared with whom: (others, partners), each of shape (n, n).

    ``others[i, j]``: j is not i (and neither is masked); ``partners``: others of the same label.
    """
    xp = namespace(labels)
    # Not arange: in a graph the number of rows may not be known yet.
    index = xp.cumulative_sum(xp.ones_like(labels), axis=0)
    others = xp.expand_dims(index, axis=1) != xp.expand_dims(index, axis=0)
    if mask is not None:
        both = xp.logical_and(xp.expand_dims(mask, axis=1), xp.expand_dims(mask, axis=0))
        others = xp.logical_and(others, both)
    same = xp.expand_dims(labels, axis=1) == xp.expand_dims(labels, axis=0)
    return others, xp.logical_and(others, same)
