"""Value and slope of every pointwise loss that has a fused kernel: each loss once, as mathematics.

A formula takes the loss's inputs and its parameters as numbers, under their own names; it returns
the value and its derivative by each prediction. ``<loss>_of_<form>`` is of predictions that arrive
in another form. The toolchains compile these functions with their own ``where``, ``exp``,
``exp_below`` and ``expm1`` (of numbers <= 1), ``log`` (of normal numbers > 0) and ``log_any`` (of
all), ``log1p`` (of numbers > -1), ``log1p_unit`` (of numbers in [0, 1]), ``log1p_gap`` and
``exp_gap`` (what the first term of the series leaves, near 0), ``log_ratio`` and ``power_of`` (of
positive numbers), ``relative_entropy`` and ``surprise_at_best`` (of counts > 0),
``surprise_of_logit`` (and its slope), ``ratio`` (by numbers near 1), ``sqrt``, ``absolute`` and
``sign`` (0 at 0), ``infinity``, ``smallest`` (the first normal number) and ``below_one`` (the
number before 1), in single and double precision.
Forms are chosen so that no difference cancels, both tails are right, NaN goes through and an
infinity comes out as in the limit. A parameter arrives as a number: True as 1, False as 0, None as
-1.
"""

from lossary.kernels.formulas.counts import *  # noqa: F403
from lossary.kernels.formulas.densities import *  # noqa: F403
from lossary.kernels.formulas.distances import *  # noqa: F403
from lossary.kernels.formulas.labels import *  # noqa: F403

# The modules above; what is compiled of formulas is kept by a hash of their sources.
MODULES = tuple(
    found for found in [*globals().values()] if getattr(found, "__package__", None) == __name__
)
