"""``Loss`` takes the sliced kernels by itself from a size on: same numbers, every derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lossary import Loss, LossError, kernels
from lossary.kernels.chunked import contrast_torch, linear_torch, on_jax, sliced_torch

ROWS, CLASSES = 150, 40
REDUCTIONS = ["none", "mean", "mean_over_batch", "sum"]
CASES = [
    ("linear_cross_entropy", {}),
    ("linear_cross_entropy", {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0}),
    ("info_nce", {"temperature": 0.2}),
    ("info_nce", {"temperature": 0.01}),  # exponentials beyond float32
    ("info_nce", {"symmetric": True}),
    ("siglip", {}),
    ("supervised_contrastive", {"temperature": 0.3}),
]
every_case = pytest.mark.parametrize(
    ("name", "options"), CASES, ids=[f"{name}-{'-'.join(o) or 'plain'}" for name, o in CASES]
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Slices from the first score on, several of them."""
    monkeypatch.setattr(sliced_torch, "FROM_SCORES", 1)
    monkeypatch.setattr(on_jax, "FROM_SCORES", 1)
    monkeypatch.setattr(linear_torch, "_ROWS", 1)
    monkeypatch.setattr(contrast_torch, "BUDGET", 0)


def arrays_of(name):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(ROWS, 6))
    if name == "linear_cross_entropy":
        return rows, generator.normal(size=(CLASSES, 6)), generator.integers(0, CLASSES, ROWS)
    if name == "supervised_contrastive":
        return rows, np.append(generator.integers(0, 60, ROWS - 1), 99)
    return rows, rows + generator.normal(size=rows.shape)


def torch_arrays(name, dtype=torch.float64):
    tensors = [torch.tensor(array) for array in arrays_of(name)]
    return [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in tensors]


def both(name, options, **more):
    whole = Loss(name, implementation="definition", **options, **more)
    return Loss(name, **options, **more), whole


@every_case
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_torch(name, options, reduction, weighted):
    results = []
    weights = torch.rand(ROWS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights[3] = 0
    for loss in both(name, options, reduction=reduction):
        arrays = torch_arrays(name)
        value = loss(*arrays, weights=weights if weighted else None)
        (value * torch.linspace(1, 2, value.numel() or 1).reshape(value.shape)).sum().backward()
        results.append((value.detach(), *(x.grad for x in arrays if x.requires_grad)))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("options", [{}, CASES[1][1]], ids=["plain", "options"])
def test_class_weights(options):
    """As torch's own: a mean over the weights of the targets that count."""
    classes = torch.linspace(0.2, 2, CLASSES, dtype=torch.float64)

    def slopes(loss, h, w):
        def of_both(h, w):
            value = loss(h, w, labels, class_weights=jnp.asarray(classes.numpy()))
            return value.sum(), value

        (_, value), gradients = jax.value_and_grad(of_both, (0, 1), has_aux=True)(h, w)
        return value, *gradients

    pairs = {r: both("linear_cross_entropy", options, reduction=r, ignore=3) for r in REDUCTIONS}
    with jax.enable_x64(True):
        hidden, weight, labels = map(jnp.asarray, arrays_of("linear_cross_entropy"))
        # One program for all.
        step = jax.jit(lambda h, w: {r: [slopes(loss, h, w) for loss in pairs[r]] for r in pairs})
        on_jax = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), step(hidden, weight))
    for reduction, pair in pairs.items():
        found = on_jax[reduction]
        for loss in pair:
            hidden, weight, target = torch_arrays("linear_cross_entropy")
            value = loss(hidden, weight, target, class_weights=classes)
            value.sum().backward()
            found.append((value.detach(), hidden.grad, weight.grad))
        for other in found[1:]:
            for mine, theirs in zip(found[0], other, strict=True):
                torch.testing.assert_close(
                    mine, theirs, rtol=1e-9, atol=1e-13, msg=lambda m, r=reduction: f"{r}: {m}"
                )
        if not options and reduction != "mean_over_batch":
            right = torch.nn.functional.cross_entropy(
                hidden @ weight.T, target, weight=classes, ignore_index=3, reduction=reduction
            )
            torch.testing.assert_close(found[0][0], right.detach(), rtol=1e-12, atol=1e-13)


@every_case
def test_it_is_the_kernel_that_runs(name, options, monkeypatch):
    arrays = torch_arrays(name)
    assert Loss(name, **options).explain(*arrays) == f"{name} on torch: chunked"
    assert "ScaledSum" in type(Loss(name, **options)(*arrays).grad_fn).__name__
    seen, run = [], sliced_torch._Values.apply

    def values(*arguments):
        seen.append(name)
        return run(*arguments)

    monkeypatch.setattr(sliced_torch._Values, "apply", values)
    unreduced = Loss(name, reduction="none", **options)
    unreduced(*arrays), unreduced.values(*arrays), unreduced.total(*arrays)
    assert len(seen) == 3
    with pytest.raises(LossError, match="chunked"):
        Loss(name, implementation="chunked", **options)(*(np.asarray(a) for a in arrays_of(name)))


@every_case
def test_second_derivatives_and_transformations_of_torch(name, options):
    found = []
    for loss in both(name, options):
        arrays = torch_arrays(name)
        wanted = [x for x in arrays if x.requires_grad]
        slopes = torch.autograd.grad(loss(*arrays), wanted, create_graph=True)
        curved = torch.autograd.grad(sum((s**2).sum() for s in slopes), wanted)
        first, *rest = (x.detach() for x in arrays)

        def of_first(x, loss=loss, rest=rest):
            return loss(x, *rest)

        forward = torch.func.jvp(of_first, (first,), (first.flip(0),))[1]
        mapped = torch.func.vmap(of_first)(torch.stack([first, 2 * first]))
        found.append((*curved, forward, mapped))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12)


def test_a_second_backward_computes_again():
    loss, arrays = Loss("info_nce"), torch_arrays("info_nce")
    value = 3.0 * loss(*arrays)
    once = torch.autograd.grad(value, arrays, retain_graph=True)
    again = torch.autograd.grad(value, arrays)
    for one, other in zip(once, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_statistics_in_single(dtype):
    for name in ("linear_cross_entropy", "info_nce", "siglip"):
        arrays = torch_arrays(name, dtype)
        value = Loss(name)(*arrays)
        value.backward()
        exact = [x.detach().double() if x.is_floating_point() else x for x in arrays]
        exact = [x.requires_grad_() if x.is_floating_point() else x for x in exact]
        truth = Loss(name, implementation="definition")(*exact)
        truth.backward()
        assert value.dtype == dtype and value.item() == pytest.approx(
            truth.item(), rel=torch.finfo(dtype).eps
        )
        for mine, theirs in zip(arrays, exact, strict=True):
            if mine.grad is not None:
                error = (mine.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max()
                assert error < torch.finfo(dtype).eps


def test_ignored_masked_and_wrong_targets():
    hidden, weight, target = torch_arrays("linear_cross_entropy")
    loss, whole = both("linear_cross_entropy", {}, ignore=-1)
    target[5:9] = -1
    with torch.no_grad():
        hidden[5:9] = float("nan")
    value = loss(hidden, weight, target)
    torch.testing.assert_close(value, whole(hidden, weight, target), rtol=1e-12, atol=0)
    value.backward()
    assert torch.isfinite(weight.grad).all() and not hidden.grad[5:9].any()
    nothing = loss(hidden, weight, torch.full_like(target, -1))
    assert nothing.item() == 0
    target[0] = CLASSES
    with pytest.raises(LossError, match=rf"target {CLASSES} is not a class of 0\.\.{CLASSES - 1}"):
        loss(hidden, weight, target)


@every_case
def test_jax_compiled(name, options):
    """Value, gradient and the derivative of its square, in one graph, beside torch's."""
    loss, whole = both(name, options)
    with jax.enable_x64(True):
        first, *rest = map(jnp.asarray, arrays_of(name))
        weights = jnp.linspace(0, 1, ROWS)

        def twice(x):
            value, slopes = jax.value_and_grad(lambda x: loss(x, *rest, weights=weights))(x)
            return (slopes**2).sum(), (value, slopes)

        (_, found), curved = jax.jit(jax.value_and_grad(twice, has_aux=True))(first)
        assert loss.explain(first, *rest) == f"{name} on jax: chunked"
    leaf, *others = torch_arrays(name)
    value = whole(leaf, *others, weights=torch.from_numpy(np.array(weights)))
    (slopes,) = torch.autograd.grad(value, leaf, create_graph=True)
    expected = value, slopes, *torch.autograd.grad((slopes**2).sum(), leaf)
    for mine, theirs in zip((*found, curved), expected, strict=True):
        np.testing.assert_allclose(mine, theirs.detach(), rtol=1e-8, atol=1e-12)


def test_jax_forward_mode():
    first, second = (jnp.asarray(x, jnp.float32) for x in arrays_of("siglip"))

    def forward(loss):
        return lambda x, by: jax.jvp(lambda x: loss(x, second), (x,), (by,))[1]

    mine, whole = map(forward, both("siglip", {}))
    np.testing.assert_allclose(
        mine(first, first[::-1]), jax.jit(whole)(first, first[::-1]), rtol=1e-4
    )


def test_a_scale_to_be_learned_is_not_frozen():
    for frozen in (
        lambda: Loss("siglip", scale=torch.ones((), requires_grad=True)),
        lambda: jax.jit(lambda s: Loss("siglip", scale=s)(jnp.eye(3), jnp.eye(3)))(1.0),
    ):
        with pytest.raises(LossError, match=r"siglip: scale .*contract_of\('siglip'\)\.compute"):
            frozen()


def test_small_ones_are_left_to_the_definition(monkeypatch):
    monkeypatch.setattr(sliced_torch, "FROM_SCORES", ROWS * CLASSES + 1)
    arrays = torch_arrays("linear_cross_entropy")
    text = Loss("linear_cross_entropy").explain(*arrays)
    assert "the definition" in text and f"{ROWS * CLASSES} scores; it pays from" in text
    assert "Sum" not in type(Loss("linear_cross_entropy")(*arrays).grad_fn).__name__


def test_every_row_of_the_manifest_is_there():
    for name in kernels.CHUNKED:
        for library in ("torch", "jax"):
            (kernel,) = kernels.find(name, library)
            assert (kernel.name, kernel.loss, kernel.library) == ("chunked", name, library)
