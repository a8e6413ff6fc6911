"""Every wrong input gets one line: loss, argument, what came, what was expected, what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from lossary import Loss, LossError

REAL = np.zeros(4, np.float32)
LOGITS = np.zeros((4, 3), np.float32)


def _two_libraries() -> None:
    import torch

    Loss("mse")(torch.zeros(4), REAL)


def _sparse() -> None:
    import torch

    Loss("mse")(torch.zeros(4, 3), torch.eye(4, 3).to_sparse_csr())


def _nested() -> None:
    import torch

    parts = [torch.zeros(2), torch.zeros(3)]
    Loss("mse")(*[torch.nested.nested_tensor(parts, layout=torch.jagged)] * 2)


# what is wrong, the call, what the message must say
CASES: list[tuple[str, Callable[[], object], tuple[str, ...]]] = [
    (
        "unlike shapes",
        lambda: Loss("mse")(np.zeros((64, 1), np.float32), np.zeros(64, np.float32)),
        ("squared_error", "target", "(64,)", "(64, 1)", "[..., 0]"),
    ),
    (
        "unlike shapes, transposed",
        lambda: Loss("huber")(np.zeros((2, 3)), np.zeros((3, 2))),
        ("huber", "target", "(3, 2)", "(2, 3)", "transpose"),
    ),
    ("sparse", _sparse, ("squared_error", "target", "sparse_csr", "dense", "to_dense")),
    ("nested", _nested, ("squared_error", "prediction", "nested", "values()", "mask")),
    (
        "class index too large",
        lambda: Loss("cross_entropy")(LOGITS, np.array([0, 1, 2, 3])),
        ("cross_entropy", "target", "class 3", "3 classes", "0 to 2"),
    ),
    (
        "classes counted from one",
        lambda: Loss("cross_entropy")(LOGITS, np.array([1, 2, 3, 1])),
        ("cross_entropy", "target", "class 3", "subtract 1"),
    ),
    (
        "negative class index",
        lambda: Loss("categorical_focal")(LOGITS, np.array([0, -1, 2, 1])),
        ("categorical_focal", "target", "class -1", "ignore=-1"),
    ),
    ("unknown name", lambda: Loss("hubber"), ("hubber", "huber")),
    (
        "parameter outside its interval",
        lambda: Loss("huber", delta=-1.0),
        ("huber", "delta", "-1.0", "(0, inf)"),
    ),
    (
        "parameter is not a number",
        lambda: Loss("huber", delta="wide"),
        ("huber", "delta", "'wide'", "(0, inf)"),
    ),
    ("parameter is NaN", lambda: Loss("huber", delta=float("nan")), ("huber", "delta", "nan")),
    ("unknown parameter", lambda: Loss("huber", width=1.0), ("huber", "width", "delta")),
    ("two libraries", _two_libraries, ("squared_error", "numpy", "torch", "convert")),
    (
        "integer prediction",
        lambda: Loss("mse")(np.zeros(4, np.int64), REAL),
        ("squared_error", "prediction", "int64", "floating", "exchanged"),
    ),
    (
        "complex prediction",
        lambda: Loss("mse")(np.zeros(4, np.complex64), REAL),
        ("squared_error", "prediction", "complex64", "real"),
    ),
    (
        "complex target",
        lambda: Loss("mse")(REAL, np.zeros(4, np.complex64)),
        ("squared_error", "target", "complex64", "real"),
    ),
    (
        "unknown reduction",
        lambda: Loss("mse", reduction="average"),
        ("squared_error", "reduction", "'average'", "mean_over_batch"),
    ),
    (
        "predictions arrive in no known way",
        lambda: Loss("cross_entropy", predictions="odds"),
        ("cross_entropy", "predictions", "'odds'", "logits"),
    ),
    ("too few arrays", lambda: Loss("mse")(REAL), ("squared_error", "prediction, target")),
    (
        "weights that do not fit",
        lambda: Loss("mse")(REAL, REAL, weights=np.ones(3)),
        ("squared_error", "weights", "(3,)", "(4,)"),
    ),
    (
        "mask that does not fit",
        lambda: Loss("mse")(REAL, REAL, mask=np.ones(5, bool)),
        ("squared_error", "mask", "(5,)", "(4,)"),
    ),
    (
        "class weights of too few classes",
        lambda: Loss("cross_entropy")(LOGITS, np.zeros(4, np.int64), class_weights=np.ones(2)),
        ("cross_entropy", "class_weights", "(2,)", "(3,)"),
    ),
    (
        "class weights of too few learned classes",
        lambda: Loss("arcface")(REAL[:, None], np.zeros(4, int), REAL[:2, None], class_weights=[1]),
        ("arcface", "class_weights", "(1,)", "(2,)"),
    ),
    (
        "a parameter that comes with the call",
        lambda: Loss("siglip")(LOGITS, LOGITS, scale=np.ones(())),
        ("siglip", "scale", "when the loss is made", "contract_of('siglip').compute"),
    ),
    ("strings", lambda: Loss("mse")(np.array(["a"]), np.array(["b"])), ("squared_error",)),
    (
        "NaN where values are validated",
        lambda: Loss("mse", validate="values")(np.array([np.nan, 1.0]), np.zeros(2)),
        ("squared_error", "prediction", "1 of 2", "NaN"),
    ),
    (
        "nothing counts, as an error",
        lambda: Loss("mse", empty="error")(REAL, REAL, mask=np.zeros(4, bool)),
        ("nothing counts",),
    ),
    (
        "an axis that is not there",
        lambda: Loss("cross_entropy", axis=5)(LOGITS, np.zeros(4, np.int64)),
        ("cross_entropy", "axis=5", "(4, 3)"),
    ),
    ("config of a newer version", lambda: Loss.from_config({"loss": "mse", "x": 1}), ("x",)),
]


@pytest.mark.parametrize(
    ("call", "parts"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_one_clear_line(call: Callable[[], object], parts: tuple[str, ...]) -> None:
    with pytest.raises(LossError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("name", ["mse", "cross_entropy", "binary_cross_entropy"])
def test_zero_size_and_fully_masked_are_zero(name: str) -> None:
    wide = (0, 3) if name == "cross_entropy" else (0,)
    loss = Loss(name)
    target = np.zeros(0, np.int64 if name == "cross_entropy" else np.float32)
    value, gradient = loss.value_and_grad(np.zeros(wide, np.float32), target)
    assert value == 0
    assert gradient.shape == wide


def test_out_of_range_class_is_never_a_wrong_number_under_a_compiler() -> None:
    import jax
    import jax.numpy as jnp

    loss = Loss("cross_entropy", reduction="none")
    found = jax.jit(loss)(jnp.zeros((3, 2)), jnp.array([0, 2, -1]))
    assert np.isnan(np.asarray(found)[1:]).all()
    assert np.isfinite(np.asarray(found)[0])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["show", "hubber"], ("hubber", "huber")),
        (["check", "no_such_module:loss"], ("no_such_module",)),
        (["check", "json:no_such_function"], ("no_such_function",)),
        (["check", "without_a_colon"], ("without_a_colon", "MODULE:FUNCTION")),
        (["check", "math:sqrt", "--library", "abacus"], ("abacus", "numpy")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_line_exits_2_with_one_line(arguments: list[str], parts: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", "from lossary.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    for part in parts:
        assert part in done.stderr
