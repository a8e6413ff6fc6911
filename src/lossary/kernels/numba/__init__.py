"""CPU kernels compiled by Numba: value and gradient in one pass over the memory.

Nothing here imports Numba before a kernel runs; Numba comes with the extra ``lossary[fast]``.
"""
