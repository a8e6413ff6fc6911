"""The house's own rules, as tests: where imports point, what definitions may use, what loads what."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lossary
from lossary.contract import contracts
from lossary.xp import vocabulary

SOURCE = Path(lossary.__file__).parent
FRAMEWORKS = {"torch", "jax", "tensorflow", "keras", "numba", "triton"}
# A room may import the rooms below it. `kernels` hang on strings: nothing imports them at the top.
FLOORS = [
    {"spaces"},
    {"contract"},
    {"xp"},
    {"numerics"},
    {"special"},
    {"losses", "cost"},
    {"inputs", "kernels"},
    {"choose"},
    {"call"},
    {"gradient"},
    {"evaluate"},
    {"torch", "keras", "boosting", "show", "testing", "advice"},
    {"lab", "doctor"},
    {"pytest_plugin"},
    {"cli"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, top: bool) -> list[str]:
    """Modules imported: at the top of a module only, or anywhere in it."""
    found = []
    nodes = ast.walk(tree) if not top else _top(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "lossary":
                found += [f"lossary.{alias.name}" for alias in node.names]
            else:
                found.append(node.module)
    return found


def _top(tree: ast.AST):
    """Statements that run on import; not those behind TYPE_CHECKING."""
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down(file):
    room = room_of(file)
    if room == "__init__":
        return  # it is lazy: the fresh process below shows that it loads nothing
    tree = ast.parse(file.read_text())
    for name in imports(tree, top=True):
        parts = name.split(".")
        if parts[0] != "lossary" or len(parts) == 1 or parts[1] == room:
            continue
        assert parts[1] in FLOOR, f"{file.name} imports {name}: no such room"
        assert FLOOR[parts[1]] <= FLOOR[room], (
            f"{room} may not import {parts[1]}, which is above it"
        )
    if room == "kernels":
        below = {name.split(".")[1] for name in imports(tree, top=False) if name[:8] == "lossary."}
        assert not below & {"losses", "evaluate"}, "kernels know no definitions"
    if room == "losses":
        allowed = {"contract", "spaces", "xp", "numerics", "special", "losses"}
        used = {name.split(".")[1] for name in imports(tree, top=False) if name[:8] == "lossary."}
        assert used <= allowed


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_frameworks_are_imported_in_their_own_rooms_only(file):
    path = file.relative_to(SOURCE)
    if path.parts[0] in ("xp", "kernels", "torch", "keras", "torch.py", "keras.py"):
        return
    for name in imports(ast.parse(file.read_text()), top=True):
        if name.partition(".")[0] in FRAMEWORKS:
            # The lab trains with PyTorch, and so does the doctor's table of correct trainings; a
            # host's callback is a class of the host.
            own = path.parts[0] == "lab" or path.stem == "training" or path.stem.endswith(name)
            assert own, f"{path} imports {name} at the top"


@pytest.mark.parametrize(
    "file",
    [*sorted((SOURCE / "losses").glob("*.py")), SOURCE / "numerics.py", SOURCE / "special.py"],
    ids=lambda file: file.name,
)
def test_definitions_use_the_vocabulary_only(file):
    used = {
        node.attr
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "xp"
    }
    assert used <= vocabulary.VOCABULARY


@pytest.mark.parametrize("contract", contracts(), ids=lambda contract: contract.name)
def test_a_definition_is_short_mathematics(contract):
    file = Path(sys.modules[contract.compute.__module__].__file__)
    tree = ast.parse(file.read_text())
    node = next(
        item
        for item in tree.body
        if isinstance(item, ast.FunctionDef) and item.name == contract.name
    )
    lines = node.body[-1].end_lineno - node.body[1].lineno + 1
    assert lines <= 25, f"{lines} lines"
    for part in ast.walk(node):
        assert not isinstance(part, (ast.ClassDef, ast.Try, ast.With, ast.AugAssign, ast.Delete))
        if isinstance(part, ast.Assign):
            assert not any(isinstance(target, ast.Subscript) for target in part.targets)


@pytest.mark.parametrize("home", ["numpy", "torch", "jax", "tensorflow", "array_api_strict"])
def test_every_library_supplies_the_vocabulary(home):
    from lossary.testing.libraries import LIBRARIES
    from lossary.xp import namespace

    library = next(item for item in LIBRARIES.values() if item.package == home)
    xp = namespace(library.array(np.ones(2)))
    missing = [name for name in sorted(vocabulary.VOCABULARY) if not hasattr(xp, name)]
    assert not missing


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_import_loads_nothing():
    """60 ms is the promise; what keeps it is that nothing of weight is imported."""
    loaded = run(
        "import sys, numpy; before = set(sys.modules); import lossary;"
        "print(*sorted(set(sys.modules) - before))"
    ).split()
    assert [name for name in loaded if not name.startswith("lossary")] == []


def test_the_numpy_path_imports_no_framework():
    names = " ".join(contract.name for contract in contracts())
    program = f"""
import sys
import numpy as np
from lossary.show import curve
from lossary.evaluate import Loss
from lossary.contract import contract_of
for name in "{names}".split():
    required = [key for key, item in contract_of(name).parameters.items() if item.required]
    given = dict.fromkeys(required, (10, 1))
    curve(Loss(name, implementation="definition", **given), 11)
print(*sorted(set(sys.modules) & {FRAMEWORKS | {"scipy", "array_api_strict"}!r}))
"""
    assert run(program).split() == []


def test_no_list_of_losses_is_kept_by_hand():
    """More than four names of losses in one literal collection is a list that will drift."""
    names = {contract.name for contract in contracts()}
    for file in FILES:
        if "cases" in file.parts or file.name == "evidence.py":  # cases choose their losses
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict)):
                continue
            items = node.keys if isinstance(node, ast.Dict) else node.elts
            held = {item.value for item in items if isinstance(item, ast.Constant)} & names
            assert len(held) <= 4, f"{file.relative_to(SOURCE)}:{node.lineno} keeps {sorted(held)}"
