"""CTC against the forward-backward algorithm at 100 digits and against the definition."""

import mpmath
import numpy as np
import pytest
import torch

from lossary import Loss, kernels
from lossary.contract import LossError, contract_of
from lossary.kernels.numba.program import NoSuchClassError

mp = mpmath.mp.clone()
mp.dps = 100
GIVEN = {"blank": 0, "zero_infinity": False}


def _follows(classes, state):
    """The states after which this one may come."""
    skip = state > 1 and state % 2 and classes[state] != classes[state - 2]
    return [state, state - 1, state - 2][: 3 if skip else min(state + 1, 2)]


def _textbook(logits, labels):
    """(value, probabilities, how often each step is in each class)."""
    steps, many = logits.shape
    powers = [[mp.exp(mp.mpf(float(z)) - float(max(row))) for z in row] for row in logits]
    p = [[power / mp.fsum(row) for power in row] for row in powers]
    classes = [0, *(k for label in labels for k in (label, 0))]
    states = range(len(classes))
    ends = [s for s in states if s >= 2 * len(labels) - 1]
    ahead = [[p[0][k] if s < 2 else mp.zero for s, k in enumerate(classes)]]
    for row in p[1:]:
        last = ahead[-1]
        ahead.append(
            [row[classes[s]] * mp.fsum(last[r] for r in _follows(classes, s)) for s in states]
        )
    total = mp.fsum(ahead[-1][s] for s in ends)
    back = [mp.one if s in ends else mp.zero for s in states]
    spent = [[mp.zero] * many for _ in p]
    for t in reversed(range(steps)):
        for s in states:
            spent[t][classes[s]] += ahead[t][s] * back[s] / total
        before = [mp.zero for _ in states]
        for s in states:
            for r in _follows(classes, s):
                before[r] += back[s] * p[t][classes[s]]
        back = before
    return -mp.log(total), p, spent


def _logits(kind, steps, classes, labels, generator):
    z = generator.normal(size=(steps, classes))
    if kind == "peaked":
        z *= 40
    if kind == "blank":  # 60 labels, of which each costs e^-2000
        z[:, 0] += 2000
    if kind == "fight":  # what is likely at first is impossible in the end
        z[: steps // 2, 0] += 500
        z[steps // 2 :, 3] += 700
    if kind == "impossible":
        z[: steps // 6, labels[0]] = -np.inf
        z[steps // 2, 0] = -np.inf
    if kind.startswith("sure"):
        reading = np.zeros(steps, int)
        reading[np.linspace(0, steps - 1, len(labels)).astype(int)] = labels
        z[np.arange(steps), reading] += float(kind.removeprefix("sure"))
    return z.astype(np.float32)


@pytest.mark.parametrize(
    "kind", ["plain", "peaked", "blank", "fight", "impossible", "sure8", "sure35"]
)
@pytest.mark.parametrize("size", [(3, 3, 1), (40, 7, 12), (16, 260, 6)])
def test_value_and_slope(kind, size):
    steps, classes, count = size
    generator = np.random.default_rng(6)
    labels = generator.integers(1, classes, count)
    labels[1::2] = np.where(labels[1::2] == labels[: count - 1 : 2], 1, labels[1::2])
    if kind == "fight" and classes < 4:
        classes = 4
    single = _logits(kind, steps, classes, labels, generator)
    value, p, spent = _textbook(single, [int(k) for k in labels])
    rows = (labels[None], np.array([steps]), np.array([count]))
    kernel = kernels.find("ctc", "numpy")[0]
    for z in (single, single.astype(np.float64)):
        eps, floor = np.finfo(z.dtype).eps, max(np.finfo(z.dtype).smallest_normal, 1e-90)
        found = mp.mpf(float(kernel.values(z[None], *rows, **GIVEN)[0]))
        assert abs(found - value) <= 4 * eps * value + floor
        total, (slopes,) = kernel.value_and_grad(z[None], *rows, factor=0.5, **GIVEN)
        assert abs(mp.mpf(float(total)) - value / 2) <= 4 * eps * value + floor
        for t in range(steps):
            terms = [a + b for a, b in zip(p[t], spent[t], strict=True)]
            for k, term in enumerate(terms):
                # Beside a likely class all others are few: nothing may cancel in its slope.
                size_of = min(term, mp.fsum(terms) - term)
                error = abs(mp.mpf(float(slopes[t, k])) - (p[t][k] - spent[t][k]) / 2)
                rounded = min(float(max(z[t]) - z[t, k]), 100)  # the distance to the largest logit
                assert error <= (16 + rounded) * eps * size_of + floor


def _batch(generator, batch, steps, classes, length, blank=0):
    z = generator.normal(0, 3, (batch, steps, classes))
    y = generator.integers(0, classes - 1, (batch, length))
    y += y >= blank
    n, m = generator.integers(1, steps + 1, batch), generator.integers(0, length + 1, batch)
    n[:4], m[:4] = [steps, steps, 0, 2], [length, 0, 0, length]
    return z, y, n, m


@pytest.mark.parametrize("size", [(9, 30, 5, 14), (6, 70, 400, 8), (5, 9, 2, 4), (6, 12, 20, 0)])
@pytest.mark.parametrize("given", [GIVEN, {"blank": 1, "zero_infinity": True}])
def test_definition(size, given):
    """Targets too long, steps beyond the end, NaN and infinities."""
    generator = np.random.default_rng(7)
    z, y, n, m = _batch(generator, *size, blank=given["blank"])
    z[4, 0, 1], n[4], m[4] = np.nan, size[1] - 1, 1
    if size[3] == 0:
        m[:] = 0
    z[0, 2, -1], z[-1, n[-1] :] = -np.inf, np.nan
    if size[0] > 6:
        z[5, 1], n[5] = -np.inf, 2
        z[6, 1, 0], n[6] = np.inf, 4
        z[7, 1, :2], n[7] = np.inf, 4
    weights = generator.uniform(0.5, 2, size[0])
    p = torch.tensor(z, requires_grad=True)
    rows = [torch.from_numpy(x) for x in (y, n, m)]
    values = contract_of("ctc").compute(p, *rows, **given)
    (values * torch.from_numpy(weights)).sum().mul(0.3).backward()
    kernel = kernels.find("ctc", "numpy")[0]
    for dtype, index, rtol in ((np.float64, np.int64, 1e-11), (np.float32, np.int32, 3e-5)):
        arrays = (z.astype(dtype), y.astype(index), n, m.astype(index))
        found = kernel.values(*arrays, **given)
        np.testing.assert_allclose(found, values.detach(), rtol=rtol, atol=1e-12)
        total, slopes = kernel.value_and_grad(*arrays, factor=0.3, weights=weights, **given)
        np.testing.assert_allclose(slopes, p.grad, rtol=rtol, atol=rtol / 10)
        np.testing.assert_array_equal(total, kernel.scaled_sum(
            *arrays, factor=0.3, weights=weights, **given
        ))  # fmt: skip


def test_absent_rows_and_wrong_targets():
    generator = np.random.default_rng(8)
    z, y, n, m = _batch(generator, 8, 20, 6, 5)
    kernel = kernels.find("ctc", "numpy")[0]
    weights = np.array([1.0, 0.0, 2.0, 0.0, 1.0, 0.0, 3.0, 1.0])
    m[3] = 1
    whole, slopes = kernel.value_and_grad(z, y, n, m, factor=2.0, weights=weights, **GIVEN)
    z[1], y[3], m[5], n[5] = np.nan, 99, 77, -4
    again, same = kernel.value_and_grad(z, y, n, m, factor=2.0, weights=weights, **GIVEN)
    assert again == whole and not same[[1, 3, 5]].any()
    np.testing.assert_array_equal(same, slopes)
    with pytest.raises(NoSuchClassError, match=r"position 15 .*; give such samples weight 0$"):
        kernel.values(z, y, n, m, weights=weights + np.eye(8)[3], **GIVEN)
    assert kernel.supports(z, y, n, m, blank=6) == "the blank is not among the classes"


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("wrong", ["blank", (0, 21), (0, -1), (1, 6), (1, -1)])
def test_what_the_definition_refuses(wrong, index):
    """With the same words."""
    z, y, n, m = _batch(np.random.default_rng(8), 8, 20, 6, 5)
    n, m = np.full(8, 20), np.full(8, 5)
    if wrong == "blank":
        y[6, 2] = 0
    else:
        (n, m)[wrong[0]][6] = wrong[1]
    arrays = (z, y.astype(index), n.astype(index), m.astype(index))
    with pytest.raises(LossError) as expected:
        Loss("ctc", implementation="definition")(*arrays)
    with pytest.raises(LossError) as found:
        Loss("ctc", implementation="numba")(*arrays)
    assert str(found.value) == str(expected.value)


def test_threads_and_transposed_steps():
    """The sum, to its last bit, is the same on any number of threads."""
    generator = np.random.default_rng(9)
    z, y, n, m = (torch.from_numpy(x) for x in _batch(generator, 40, 90, 50, 9))
    kernel = kernels.find("ctc", "torch")[0]
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            p = z.transpose(0, 1).contiguous().requires_grad_()
            given = {"blank": 0, "zero_infinity": True}
            total = kernel.scaled_sum(p.transpose(0, 1), y, n, m, factor=1.0, **given)
            total.backward()
            found.append((total.detach(), p.grad))
    finally:
        torch.set_num_threads(threads)
    for total, slopes in found[1:]:
        assert torch.equal(total, found[0][0]) and torch.equal(slopes, found[0][1])
    p = z.clone().requires_grad_()
    contract_of("ctc").compute(p, y, n, m, blank=0, zero_infinity=True).sum().backward()
    torch.testing.assert_close(found[0][1].transpose(0, 1), p.grad, rtol=1e-10, atol=1e-11)
