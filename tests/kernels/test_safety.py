"""Kernels under forks, threads, DataLoader workers, and every way torch and JAX differentiate."""

import concurrent.futures
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from lossary import Loss, kernels
from lossary.contract import contract_of

LARGE = 1 << 18  # elements: more than one thread's share


def _numbers():
    generator = np.random.default_rng(0)
    return generator.normal(size=LARGE).astype(np.float32), generator.uniform(size=LARGE).astype(
        np.float32
    )


def _answer(_=None):
    p, t = _numbers()
    value, gradient = kernels.find("binary_cross_entropy", "numpy")[0].value_and_grad(
        p, t, factor=1.0, label_smoothing=0.0, pos_weight=1.0
    )
    return float(value), float(gradient.astype(np.float64).sum())


class _Answers(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor(_answer(), dtype=torch.float64)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_computes_the_same(two_threads):
    expected = _answer()  # the pool's threads run now, and do not survive the fork
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, repr(_answer()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    assert os.waitpid(child, 0)[1] == 0
    assert answer == repr(expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_kernels_run_on_torchs_threads_and_a_forked_child_may_use_them():
    code = """
import os, threading, torch
from lossary import Loss
torch.set_num_threads(2)
x, y = torch.randn(2, 1 << 18)
loss = Loss("binary_cross_entropy", implementation="numba")
before = len(os.listdir("/proc/self/task"))
value = float(loss(x, y.sigmoid()))
assert not [t for t in threading.enumerate() if t.name == "lossary"]
assert len(os.listdir("/proc/self/task")) == before + 1, "torch's second thread"
child = os.fork()
if child == 0:
    same = float(loss(x, y.sigmoid())) == value and torch.equal(x + y, y + x)
    os._exit(0 if same else 1)
print(os.waitpid(child, 0)[1], float(loss(x, y.sigmoid())) == value)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["0", "True"], done.stderr


def test_four_threads_at_once_compute_the_same(two_threads):
    expected = _answer()
    with concurrent.futures.ThreadPoolExecutor(4) as executor:
        assert set(executor.map(_answer, range(16))) == {expected}


def test_two_dataloader_workers_compute_the_same(two_threads):
    expected = torch.tensor(_answer(), dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loader = DataLoader(_Answers(), batch_size=1, num_workers=2, multiprocessing_context="fork")
        answers = [batch[0] for batch in loader]
    assert len(answers) == 4
    for answer in answers:
        assert torch.equal(answer, expected)


@pytest.mark.parametrize("torch_s_threads", [True, False])
def test_each_block_is_done_once_and_scratch_that_is_refused_is_an_error(
    torch_s_threads, monkeypatch
):
    import numba

    from lossary.kernels.numba import openmp, pool
    from lossary.kernels.numba.machine import POINTER, borrow, give_back

    assert openmp.ready(), "torch computes with libgomp here"
    monkeypatch.setattr(openmp, "ready", lambda: torch_s_threads)
    doubles_at = POINTER[np.float64]

    @numba.njit("void(intp, intp, intp, float64, intp)", nogil=True)
    def mark(first, last, at, number, size):
        borrowed = borrow(size)
        for block in range(first, last):
            doubles_at(at)[block] += number
        give_back(borrowed)

    marks = np.zeros(1001)
    pool.run(mark, 1001, 2, marks.ctypes.data, 2, 64)  # a whole number where a float is meant
    assert (marks == 2.0).all()
    with pytest.raises(MemoryError):
        pool.run(mark, 1001, 2, marks.ctypes.data, 1.0, 1 << 60)
    assert (marks == 2.0).all()


def test_a_first_call_finds_its_kernel_on_disk():
    """The second process loads what the first compiled: Numba's cache reports a hit."""
    program = (
        "import numpy as np\n"
        "from lossary.kernels.numba import pointwise, softmax\n"
        "kernels = [pointwise.kernel('huber', np.float32, False, True, False, ()),\n"
        "    softmax.compiled('rows', 'float32', 'int64', ('GRADIENT',))]\n"
        "print(*[sum(kernel.stats.cache_hits.values()) for kernel in kernels])\n"
    )
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["1", "1"]


# -- torch ----------------------------------------------------------------------------------------

CASES = ["huber", "log_cosh", "binary_cross_entropy", "binary_focal", "cross_entropy"]
FORMS = ["log_loss", "poisson", "kl_div"]  # of probabilities, rates, log-probabilities


def _torch_case(name):
    torch.manual_seed(0)
    if name == "cross_entropy":
        return torch.randn(40, 7, dtype=torch.float64), torch.randint(0, 7, (40,))
    if name == "kl_div":
        spread = torch.randn(2, 40, 7, dtype=torch.float64).softmax(-1)
        return spread[0].log(), spread[1]
    if name in FORMS:
        return torch.rand(40, dtype=torch.float64), torch.rand(40, dtype=torch.float64).round()
    return torch.randn(40, dtype=torch.float64), torch.rand(40, dtype=torch.float64).round()


def _pair(name, **given):
    return Loss(name, implementation="numba", **given), Loss(
        name, implementation="definition", **given
    )


@pytest.mark.parametrize("name", CASES + FORMS)
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_gradients_and_second_derivatives(name, reduction):
    prediction, target = _torch_case(name)
    ours, definition = _pair(name, reduction=reduction)
    weights = torch.rand(40, dtype=torch.float64)
    weights[3] = 0

    def derivatives(loss):
        leaf = prediction.clone().requires_grad_()
        value = loss(leaf, target, weights=weights)
        upstream = torch.linspace(0.5, 2, value.numel(), dtype=torch.float64).reshape(value.shape)
        (gradient,) = torch.autograd.grad((value * upstream).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(((gradient + leaf) ** 2).sum(), leaf)
        plain = prediction.clone().requires_grad_()
        output = loss(plain, target, weights=weights)
        (output * upstream).sum().backward(retain_graph=True)
        once = plain.grad.clone()
        (output * upstream).sum().backward()
        torch.testing.assert_close(plain.grad, 2 * once)  # kept, and given again
        return value, gradient, second, once

    for mine, theirs in zip(derivatives(ours), derivatives(definition), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_transformations_fall_back_to_the_definition(name):
    prediction, target = _torch_case(name)
    automatic, definition = Loss(name), Loss(name, implementation="definition")
    for transform in (torch.func.grad, torch.func.hessian):
        torch.testing.assert_close(
            transform(lambda p: automatic(p, target))(
                prediction[:5].repeat(80, *[1] * (prediction.ndim - 1))[:40]
            ),
            transform(lambda p: definition(p, target))(
                prediction[:5].repeat(80, *[1] * (prediction.ndim - 1))[:40]
            ),
        )
    tangent = torch.ones_like(prediction)
    for mine, theirs in zip(
        *(
            torch.func.jvp(lambda p, loss=loss: loss(p, target), (prediction,), (tangent,))
            for loss in (automatic, definition)
        ),
        strict=False,
    ):
        torch.testing.assert_close(mine, theirs)
    kernel = kernels.find(name, "torch", "numba")[0]
    reasons = []

    def probe(p, t):
        reasons.append(kernel.supports(p, t, **automatic.parameters))
        return definition(p, t)

    torch.func.vmap(probe)(prediction, target)
    assert "transformation" in reasons[0]


def test_what_a_kernel_declines():
    kernel = kernels.find("huber", "torch", "numba")[0]
    x = torch.randn(300, 4)
    for prediction, target, word in [
        (x.to(torch.complex64), x, "complex64"),
        (x, x.double(), "float64"),
        (x.half(), x.double(), "float64"),
        (x, x[:2], "shape"),
        (x, x.clone().requires_grad_(), "gradient"),
        (x.to("meta"), x, "meta"),
    ]:
        assert word in kernel.supports(prediction, target, delta=1.0)
    for prediction in (x.half(), x.t(), x[:, :1].expand(300, 4)):
        assert kernel.supports(prediction, prediction, delta=1.0) is None
    numpy_kernel = kernels.find("huber", "numpy")[0]
    a = np.ones((300, 4), np.float32)
    assert "float16" in numpy_kernel.supports(a.astype("f2"), a, delta=1.0)
    assert numpy_kernel.supports(a[:, ::2], a[:, ::2], delta=1.0) is None
    assert "byte order" in numpy_kernel.supports(a.astype(">f4"), a, delta=1.0)
    frozen = a.copy()
    frozen.flags.writeable = False
    assert numpy_kernel.supports(frozen, frozen, delta=1.0) is None
    assert numpy_kernel.values(frozen, frozen, delta=1.0).sum() == 0
    overlapping = np.arange(1001, dtype=np.float32)
    values = numpy_kernel.values(overlapping[1:], overlapping[:-1], delta=1.0)
    assert (values == 0.5).all()
    assert numpy_kernel.values(a[:0], a[:0], delta=1.0).shape == (0, 4)


def test_without_numba_the_definition_runs_and_says_why(monkeypatch):
    from lossary.contract import LossError
    from lossary.kernels.numba import available

    monkeypatch.setattr(available, "why_not", lambda: "numba is not installed")
    x = torch.randn(100_000, requires_grad=True)
    automatic = Loss("log_cosh")
    assert "numba is not installed" in automatic.explain(x, x.detach())
    automatic(x, x.detach()).backward()
    with pytest.raises(LossError, match="numba is not installed"):
        Loss("log_cosh", implementation="numba")(x, x.detach())


def test_a_cache_that_cannot_be_written_is_seen(tmp_path):
    from lossary.kernels.numba import available

    file = tmp_path / "file"
    file.write_text("")
    assert available._writable(tmp_path / "new")
    assert not available._writable(file / "below")


def test_a_cache_that_cannot_be_written_leaves_the_definition(tmp_path):
    """In a process of its own: no place for compiled code, and an old Numba."""
    program = (
        "import numpy as np, importlib.metadata as m, sys\n"
        "if sys.argv[1] == 'old': m.version = lambda name: '0.41.0'\n"
        "from lossary import Loss\n"
        "from lossary.contract import LossError\n"
        "x = np.ones(5000, np.float32)\n"
        "print(Loss('huber').explain(x, x), float(Loss('huber')(x, x)))\n"
        "try: Loss('huber', implementation='numba')(x, x)\n"
        "except LossError as error: print('LossError', error)\n"
        "print('numba' in sys.modules)\n"
    )
    file = tmp_path / "file"
    file.write_text("")
    for case, word in (("unwritable", "cannot be written"), ("old", "0.41.0 is older than")):
        places = {"NUMBA_CACHE_DIR": str(file / "below")} if case == "unwritable" else {}
        run = subprocess.run(
            [sys.executable, "-c", program, case], capture_output=True, text=True,
            env=os.environ | places,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert "not numba: numba" in run.stdout and word in run.stdout
        assert "LossError huber" in run.stdout and run.stdout.endswith("False\n")


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
def test_places_beyond_2_to_the_31_are_reached(name, tmp_path):
    """The last of 2^31 + 2^16 numbers."""
    from lossary.kernels.numba import pointwise, softmax
    from lossary.kernels.numba.memory import address

    classes = 1 << 16
    size = (1 << 31) + classes
    # A file with a hole: zeros that take no place.
    numbers = np.memmap(tmp_path / "numbers", np.float32, "w+", shape=(size,))
    numbers[-1] = 3.0
    at = address(numbers)
    if name == "huber":
        width = pointwise.BLOCK[np.float32]
        last = size // width
        partial = np.zeros(last + 1)
        run = pointwise.kernel("huber", np.float32, False, False, False, ())
        # Prediction and target are the same memory, so the distances are 0; then not.
        assert run(last - 2, last, size, at, at, 0, 0, 0, address(partial), 1.0, 1.0) == 0
        shifted = at - 4  # each number beside its neighbour
        total = run(last - 2, last, size, at, shifted, 0, 0, 0, address(partial), 1.0, 1.0)
        assert total == 2.5
    else:
        samples = size // classes
        targets = np.full(samples, classes - 1)
        partial = np.zeros(samples)
        run = softmax.compiled("rows", "float32", "int64", ())
        places = (at, address(targets), 0, 0, 0, address(partial), 0)
        run(samples - 1, samples, classes, *places, 0.0, 1.0)
        expected = np.log(np.exp(3.0) + classes - 1) - 3.0
        np.testing.assert_allclose(partial[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, x: torch.func.jvp(f, (x,), (x,)),
        lambda f, x: torch.func.functionalize(f)(x),
        lambda f, x: torch.func.grad(lambda x: f(x).sum())(x),
    ],
    ids=["jvp", "functionalize", "grad"],
)
def test_a_tensor_that_outlived_its_transformation_is_read(transformed, shortcut):
    """torch.func leaves shells without memory behind: reading there would end the process."""
    loss, left = Loss("log_cosh"), []
    prediction, target = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    transformed(lambda x: left.append(1 * x) or 2 * x, prediction)
    wanted = Loss("log_cosh", implementation="definition")(prediction, target)
    if shortcut:
        loss(prediction, target)
    torch.testing.assert_close(float(loss(left[0], target)), float(wanted))


# -- JAX ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
def test_jax_eager_runs_the_kernel_and_jit_the_definition(name):
    import jax
    import jax.numpy as jnp

    generator = np.random.default_rng(0)
    if name == "huber":
        p, t = generator.normal(size=(2, 5000)).astype(np.float32)
    else:
        p, t = generator.normal(size=(500, 10)).astype(np.float32), generator.integers(0, 10, 500)
    p, t = jnp.asarray(p), jnp.asarray(t)
    loss = Loss(name)
    assert "numba" in loss.explain(p, t)
    value, gradient = loss.value_and_grad(p, t)
    definition = jax.value_and_grad(lambda x: jnp.mean(contract_of(name).compute(x, t)))
    expected = jax.jit(definition)(p)
    np.testing.assert_allclose(value, expected[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, expected[1], rtol=1e-5, atol=1e-9)
    assert isinstance(gradient, jax.Array)
    np.testing.assert_allclose(jax.jit(loss)(p, t), expected[0], rtol=1e-6)
    np.testing.assert_allclose(jax.grad(loss)(p, t), expected[1], rtol=1e-5, atol=1e-9)
