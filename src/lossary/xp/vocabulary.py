"""The array functions that definitions may use: a closed list, so that a library is one short file.

Every supported library supplies each name, with the meaning of the array API standard.
"""

FUNCTIONS = frozenset(
    """
    abs all any arange argmax argmin argsort asarray astype broadcast_to clip concat cos
    cumulative_sum equal exp expand_dims expm1 finfo floor full_like isdtype isfinite isnan
    log log1p logical_and logical_not logical_or matmul matrix_transpose max maximum mean
    min minimum moveaxis ones_like permute_dims reshape sign sort sqrt square squeeze stack
    sum take take_along_axis tanh unstack where zeros_like
    """.split()
)
DTYPES = frozenset("bool float32 float64 int32 int64".split())
VOCABULARY = FUNCTIONS | DTYPES
