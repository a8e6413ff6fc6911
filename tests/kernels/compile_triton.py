"""Compile Triton's kernels for an H100; run by ``test_triton.py`` in a process of its own."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lossary.kernels.pointwise import names
from lossary.kernels.triton import pointwise, softmax

TARGET = GPUTarget("cuda", 90, 32)


def build(function, dtype, pointers, integers, constants):
    real = {"float32": "*fp32", "float64": "*fp64"}[dtype]
    kinds = {"real": real, "double": "*fp64", "index": "*i64"}
    signature = {name: kinds[kind] for name, kind in pointers.items()}
    signature |= dict.fromkeys(integers, "i64") | dict.fromkeys(constants, "constexpr")
    signature = {name: signature[name] for name in function.arg_names}
    source = ASTSource(fn=function, signature=signature, constexprs=constants)
    code = triton.compile(source, target=TARGET).asm["ptx"]
    assert code.count(".entry") == 1
    return code


def main() -> None:
    common = {"weights_at": "real", "gradient_at": "real", "values_at": "real"}
    flags = {"WEIGHTED": True, "GRADIENT": True, "VALUES": True}
    for loss, dtype, parameters in [
        ("binary_focal", "float32", (2.0, -1.0)),
        ("binary_focal", "float32", (1.5, 0.25)),
        ("log_cosh", "float64", ()),
        ("cauchy", "float32", (1.0,)),
        ("binary_cross_entropy_of_probabilities", "float32", (0.0, 1.0)),
        ("poisson_nll", "float32", (1.0,)),
        ("poisson_nll_of_rates", "float64", (0.0,)),
        ("poisson_nll_of_rates", "float64", (1.0,)),
        ("gaussian_nll", "float32", (1.0,)),
        ("gaussian_kl", "float64", ()),
    ]:
        inputs, _, gradients = names(loss)
        places = ("weights", "values", "factor", *inputs, *gradients)
        code = build(
            pointwise.kernel(loss, dtype), dtype,
            {f"{name}_at": "real" for name in places} | {"partial_at": "double"},
            ["size"],
            {"parameters": parameters, **flags, "BLOCK": pointwise.BLOCK},
        )  # fmt: skip
        # Quotients are rounded once, and no exponential is the hardware's approximation.
        assert "div.full" not in code and "ex2.approx" not in code
    for smoothing, rows, block in [(0.0, 1, 4096), (0.1, 64, 16)]:
        build(
            softmax.kernel("float32"), "float32",
            {"prediction_at": "real", "target_at": "index", **common, "partial_at": "double",
             "class_weights_at": "real", "factor_at": "real"},
            ["samples", "classes"],
            {"smoothing": smoothing, "CLASSES": True, **flags, "ROWS": rows, "BLOCK": block},
        )  # fmt: skip


if __name__ == "__main__":
    main()
