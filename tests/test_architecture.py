"""The plan of the house, kept by tests: who imports whom, which words definitions use, sizes."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lossary
from lossary.contract import Contract, contracts
from lossary.testing.everyday import plain_batch
from lossary.testing.libraries import library_of
from lossary.testing.settings import parameter_sets
from lossary.xp import namespace
from lossary.xp.vocabulary import DTYPES, FUNCTIONS, VOCABULARY

SOURCE = Path(lossary.__file__).parent
FRAMEWORKS = (
    "torch", "jax", "tensorflow", "keras", "numba", "sklearn", "scipy", "polars", "optuna",
    "plotly", "lightgbm", "xgboost", "hypothesis", "mpmath", "array_api_strict",
)  # fmt: skip

# Each room, from the ground up, and the rooms below that it may import.
FOUNDATION = {"spaces", "contract", "xp"}
MATHEMATICS = FOUNDATION | {"numerics", "special"}
MACHINE = MATHEMATICS | {
    "losses", "cost", "inputs", "companions", "gradient", "call", "choose", "evaluate", "kernels",
}  # fmt: skip
ADAPTERS = {"torch", "keras", "boosting"}
TOOLS = {"lines", "show", "advice", "doctor", "testing", "lab"}
MAY_IMPORT = {
    "spaces": set(),
    "contract": {"spaces", "losses"},  # losses by name, on first use: the registry fills itself
    "xp": FOUNDATION,
    "numerics": MATHEMATICS,
    "special": MATHEMATICS,
    "losses": MATHEMATICS,
    "cost": MATHEMATICS,
    "inputs": MATHEMATICS | {"cost"},
    "companions": MATHEMATICS | {"cost", "inputs"},
    "gradient": MATHEMATICS,
    "kernels": MATHEMATICS,
    "choose": MATHEMATICS | {"kernels", "inputs", "cost"},
    "call": MACHINE,
    "evaluate": MACHINE,
    "torch": MACHINE,
    "keras": MACHINE,
    "boosting": MACHINE,
    "lines": set(),
    "show": MACHINE | {"lines"},
    "advice": MACHINE | ADAPTERS | {"show"},
    "doctor": MACHINE | ADAPTERS | {"lines", "show", "advice"},
    "testing": MACHINE,
    "lab": MACHINE | ADAPTERS | TOOLS,
    "pytest_plugin": MACHINE | ADAPTERS | TOOLS,
    "cli": MACHINE | ADAPTERS | TOOLS,
}


def _modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import statement of lossary's own modules, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [node.module or ""]
            if node.module == "lossary":
                names = [f"lossary.{alias.name}" for alias in node.names]
        for name in names:
            if name.startswith("lossary."):
                yield node.lineno, name.split(".")[1]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    room = _room(path)
    homes = lossary._HOMES
    for line, name in _imports(path):
        target = homes.get(name, name).split(".")[0]
        allowed = target == room or target in MAY_IMPORT[room]
        assert allowed, f"{path.name}:{line}: {room} imports {target}"


def test_every_room_has_its_place() -> None:
    assert {_room(path) for path in _modules()} == set(MAY_IMPORT)


def _fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_cheap() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import lossary; lossary.Loss;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = _fresh(code).split()
    assert not {name.partition(".")[0] for name in loaded} & set(FRAMEWORKS)
    assert len(loaded) < 60, f"import lossary loads {len(loaded)} modules: {loaded}"


def test_numpy_path_loads_no_framework() -> None:
    code = (
        "import sys, numpy as np; import lossary;"
        "from lossary.contract import contracts; contracts();"
        "lossary.Loss('huber', implementation='definition')(np.zeros(3), np.ones(3));"
        "lossary.Loss('cross_entropy', implementation='definition')"
        "(np.zeros((2, 3)), np.array([0, 1]));"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    assert not set(_fresh(code).split()) & set(FRAMEWORKS)


# -- definitions ------------------------------------------------------------------------------

DEFINITIONS = [
    *sorted((SOURCE / "losses").glob("[a-z]*.py")),
    SOURCE / "numerics.py",
    SOURCE / "special.py",
]


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definitions_keep_to_the_vocabulary(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        spoken = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if spoken and node.value.id == "xp":
            assert node.attr in VOCABULARY, f"{path.name}:{node.lineno}: xp.{node.attr}"


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_definitions_are_mathematics(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, (ast.ClassDef, ast.Try)), f"{path.name}:{node.lineno}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            roots = {name.partition(".")[0] for name in names}
            assert not roots & set(FRAMEWORKS), f"{path.name}:{node.lineno}"


LIBRARIES = ("numpy", "array-api-strict", "torch", "jax", "tensorflow")


@pytest.mark.parametrize("name", LIBRARIES)
def test_library_supplies_the_vocabulary(name: str) -> None:
    xp = namespace(library_of(name).array(np.zeros(2)))
    lacking = [word for word in sorted(VOCABULARY) if not hasattr(xp, word)]
    assert not lacking


@pytest.mark.parametrize("name", LIBRARIES[1:])
def test_library_means_what_numpy_means(name: str) -> None:
    library = library_of(name)
    table = np.array([[0.5, -1.5, 2.25], [3.0, 0.0, -0.25]])
    index = np.array([[2], [0]])
    calls = {
        word: (lambda xp, x, word=word: getattr(xp, word)(x))
        for word in ("abs", "exp", "expm1", "floor", "isfinite", "isnan", "log1p", "sign", "square",
                     "tanh", "cos", "ones_like", "zeros_like", "matrix_transpose", "logical_not")
    }  # fmt: skip
    calls["logical_not"] = lambda xp, x: xp.logical_not(x > 0)
    for word in ("sum", "mean", "max", "min"):
        calls[word] = lambda xp, x, word=word: getattr(xp, word)(x, axis=1, keepdims=True)
        calls[word + " of all"] = lambda xp, x, word=word: getattr(xp, word)(x)
    for word in ("any", "all"):
        calls[word] = lambda xp, x, word=word: getattr(xp, word)(x > 0, axis=0)
    for word in ("argmax", "argmin", "argsort", "sort", "cumulative_sum"):
        calls[word] = lambda xp, x, word=word: getattr(xp, word)(x, axis=1)
    for word in ("maximum", "minimum", "equal", "logical_and", "logical_or"):
        calls[word] = (
            (lambda xp, x, word=word: getattr(xp, word)(x > 0, x > 1))
            if word.startswith("logical")
            else (lambda xp, x, word=word: getattr(xp, word)(x, x * x))
        )
    calls |= {
        "log": lambda xp, x: xp.log(x * x + 1.0),
        "sqrt": lambda xp, x: xp.sqrt(x * x),
        "clip": lambda xp, x: xp.clip(x, -1.0, 2.0),
        "clip above": lambda xp, x: xp.clip(x, None, 1.0),
        "where": lambda xp, x: xp.where(x > 0, x, 0.0),
        "matmul": lambda xp, x: xp.matmul(x, xp.matrix_transpose(x)),
        "reshape": lambda xp, x: xp.reshape(x, (3, 2)),
        "broadcast_to": lambda xp, x: xp.broadcast_to(x[:1, :], (4, 3)),
        "expand_dims": lambda xp, x: xp.expand_dims(x, axis=1),
        "squeeze": lambda xp, x: xp.squeeze(x[:, :1], axis=1),
        "concat": lambda xp, x: xp.concat([x, x], axis=1),
        "stack": lambda xp, x: xp.stack([x, x], axis=1),
        "unstack": lambda xp, x: xp.unstack(x, axis=1)[1],
        "permute_dims": lambda xp, x: xp.permute_dims(x, (1, 0)),
        "moveaxis": lambda xp, x: xp.moveaxis(x, 0, 1),
        "take": lambda xp, x: xp.take(x, xp.asarray([1, 0]), axis=0),
        "take_along_axis": lambda xp, x: xp.take_along_axis(x, library_index(xp), axis=1),
        "arange": lambda xp, x: xp.arange(5),
        "asarray": lambda xp, x: xp.asarray([1.0, 2.0], dtype=x.dtype),
        "astype": lambda xp, x: xp.astype(x, xp.float32),
        "full_like": lambda xp, x: xp.full_like(x, 2.5),
    }

    def library_index(xp: object) -> object:
        return library.array(index) if xp is not namespace(table) else index

    theirs, ours = namespace(library.array(table)), namespace(table)
    for word, call in calls.items():
        found, right = library.numpy(call(theirs, library.array(table))), call(ours, table)
        np.testing.assert_allclose(found, right, rtol=1e-13, err_msg=word)
    tried = {word.partition(" ")[0] for word in calls}
    assert FUNCTIONS - tried - {"finfo", "isdtype"} == set(), "a word without a comparison"
    assert float(theirs.finfo(theirs.float32).eps) == float(np.finfo(np.float32).eps)
    for kind in DTYPES & {"float32", "float64"}:
        assert theirs.isdtype(getattr(theirs, kind), "real floating")


def _code_lines(function: object) -> int:
    """Lines of a function's body, without its docstring, comments and blanks."""
    text = inspect.getsource(function)  # type: ignore[arg-type]
    tree = ast.parse(inspect.cleandoc("\n" + text)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    body = tree.body[1:] if ast.get_docstring(tree) else tree.body
    lines = {
        line for part in body for node in ast.walk(part) if isinstance(node, ast.stmt)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }  # fmt: skip
    return len(lines)


LOSSES = contracts()


@pytest.mark.parametrize("contract", LOSSES, ids=lambda contract: contract.name)
def test_definition_is_short(contract: Contract) -> None:
    assert _code_lines(contract.compute) <= 25


def test_no_list_of_loss_names() -> None:
    """Four names of losses in one literal are a list, and lists of losses are computed."""
    names = {contract.name for contract in LOSSES}
    exempt = {"kernels", "losses", "doctor"}  # the manifest; aliases; what the doctor knows of
    for path in _modules():
        if _room(path) in exempt:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
                continue
            parts = node.keys if isinstance(node, ast.Dict) else node.elts
            found = [part.value for part in parts if isinstance(part, ast.Constant)]
            listed = [name for name in found if name in names]
            assert len(listed) < 4, f"{path}:{node.lineno}: a list of losses: {listed}"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_is_small(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= 480, f"{path.name} has {len(lines)} lines; a module has some 400"
    assert not any(re.match(r"\s*#\s*type: ignore\s*$", line) for line in lines)


# -- memory -----------------------------------------------------------------------------------

MOST = 6.0  # arrays of the input's size that a definition may hold at once
WIDER = 14  # so many times the classes, beside which class indices are small


def _counts_memory(contract: Contract) -> bool:
    """Rows that meet each other make a square of scores; images are smoothed window by window."""
    assert contract.unit is not None
    layouts = {space.layout for space in contract.inputs.values()}
    return contract.unit.name in ("element", "sample", "region") and not layouts & {
        "image",
        "tensor",
    }


def _widths(contract: Contract) -> tuple[int, ...]:
    """Few classes and many; labels of which several are true meet each other, as rows do."""
    spaces = contract.inputs.values()
    many = any(space.layout == "class axis" for space in spaces)
    return (1, WIDER) if many and not any(space.name == "multi-hot" for space in spaces) else (1,)


def _large(
    contract: Contract, parameters: dict[str, Any], soft: bool, width: int
) -> dict[str, np.ndarray]:
    """An everyday batch, repeated until it is large, along its classes too.

    NumPy computes in place of what nobody needs any longer, in arrays from 256 KiB on.
    """
    batch = {}
    for name, array in plain_batch(contract, parameters, rows=6, soft=soft).items():
        space = contract.inputs[name]
        if space.layout in ("class axis", "class") and array.ndim == 2:
            array = np.concatenate([array] * width, axis=1)
            array = array / width if space.name in ("simplex", "classes") else array
        batch[name] = np.concatenate([array] * (2**13 // width))
    return batch


def _memory_cases(contract: Contract) -> Iterator[tuple[str, Any, dict[str, np.ndarray]]]:
    """Every setting of every form, each kind of target and companion: (what, call, inputs)."""
    softness = (False, True) if contract.target and contract.target.layout == "class" else (False,)
    companions = (None, *sorted(contract.accepts - {"references"}))
    for given, soft, width in itertools.product(
        parameter_sets(contract), softness, _widths(contract)
    ):
        batch = _large(contract, given, soft, width)
        many = {
            name: value * width if isinstance(value, tuple) else value
            for name, value in given.items()
        }
        first = contract.predictions[0]
        rows = len(batch[first])
        classes = len(batch[contract.learned[0]]) if contract.learned else batch[first].shape[-1]
        held = {"mask": np.arange(rows) % 3 > 0, "class_weights": np.ones(classes)}
        for form, companion in itertools.product((None, *contract.forms), companions):
            chosen = contract.check_parameters(many)
            if companion is not None:
                chosen[companion] = held[companion]
            arrays = dict(batch)
            if form in ("probabilities", "rates"):
                arrays[first] = 1.0 / (1.0 + np.exp(-batch[first]))
            compute = contract.compute if form is None else contract.forms[form]
            what = f"{chosen}, {form or 'as defined'}, {'soft' if soft else 'plain'} targets"
            yield what, functools.partial(compute, **chosen), arrays


@pytest.mark.parametrize(
    "contract", [each for each in LOSSES if _counts_memory(each)], ids=lambda each: each.name
)
def test_holds_at_most_six_times_its_input(contract: Contract) -> None:
    for what, call, arrays in _memory_cases(contract):
        size = sum(array.nbytes for array in arrays.values())
        with np.errstate(all="ignore"):
            call(*arrays.values())  # imports what it imports
            tracemalloc.start()
            call(*arrays.values())
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak <= MOST * size, (
            f"{contract.name} holds {peak / size:.1f} times its input: {what}"
        )
