"""Every generated module inside PyTorch's machinery: compilers, transforms, precisions, workers."""

import copy
import inspect
import io
import pickle

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import lossary.torch
from lossary import Loss, contracts
from lossary.contract import key_of, resolve
from lossary.testing.everyday import plain_batch
from lossary.testing.settings import parameter_sets
from lossary.torch.conventions import host_of

CONTRACTS = [contract for contract in contracts() if contract.predictions]
every_loss = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)


def arrays_of(contract, rows=6, seed=0, dtype=torch.float64):
    """Tensors of an everyday batch, in the order of forward, and the module's options."""
    parameters = parameter_sets(contract)[0]
    batch = plain_batch(contract, parameters, rows, seed)
    tensors = {}
    for name, value in batch.items():
        tensor = torch.from_numpy(np.ascontiguousarray(value))
        tensors[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    needed = {name: parameters[name] for name, item in contract.parameters.items() if item.required}
    return tensors, needed


def plain_name(contract):
    """A name that takes (batch, steps, classes): PyTorch's own puts the steps first."""
    if contract.inputs[contract.predictions[0]].layout != "steps":
        return contract.name
    return next(alias.name for alias in contract.aliases if host_of(key_of(alias.name)) is None)


def module_of(contract, tensors, needed, **options):
    """The module, and the tensors that forward takes; learned weights are set from the batch."""
    kind = lossary.torch.get(plain_name(contract))
    own = contract.learned
    if own:
        rows, columns = tensors[own[0]].shape
        options |= {"num_classes": rows, "in_features": columns}
    module = kind(**needed, **options)
    for name in own:
        getattr(module, name).data = tensors[name].clone()
    return module, tuple(tensor for name, tensor in tensors.items() if name not in own)


def differentiable(contract, tensors):
    names = [name for name in contract.predictions if name not in contract.learned]
    for name in names:
        tensors[name].requires_grad_()
    return [tensors[name] for name in names]


def prepared(contract, **options):
    tensors, needed = arrays_of(contract)
    wanted = differentiable(contract, tensors)
    module, inputs = module_of(contract, tensors, needed, **options)
    return module, inputs, wanted


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_equals_loss(contract, reduction):
    module, inputs, wanted = prepared(contract, reduction=reduction)
    tensors, needed = arrays_of(contract)
    leaves = differentiable(contract, tensors)
    expected = Loss(contract, reduction=reduction, **needed)(**tensors)
    value = module(*inputs)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-300)
    ours = torch.autograd.grad(value.sum(), wanted)
    theirs = torch.autograd.grad(expected.sum(), leaves)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-300)


@every_loss
def test_totals_add_up_to_the_mean(contract):
    module, inputs, _ = prepared(contract)
    total = module.total(*inputs)
    torch.testing.assert_close(total.mean, module(*inputs), rtol=1e-12, atol=1e-300)


def shortest(among):
    """Compiling takes seconds: of alike losses, the one of the shortest definition."""
    return min(among, key=lambda contract: len(inspect.getsource(contract.compute)))


def kind(contract):
    return contract.family, contract.unit, tuple(x.layout for x in contract.inputs.values())


# Of families with like inputs one. Not images and steps: windows and a loop over time take long.
UNLIKE = {
    (contract.unit, tuple(contract.inputs.values())): contract
    for contract in (
        shortest(c for c in CONTRACTS if c.family == family)
        for family in sorted({contract.family for contract in CONTRACTS})
    )
    if not {space.layout for space in contract.inputs.values()} & {"image", "steps"}
}
# One for each family and kind of inputs. The battery has every loss compiled in one graph.
KINDS = [
    shortest(c for c in CONTRACTS if kind(c) == one) for one in dict.fromkeys(map(kind, CONTRACTS))
]
OTHERS = [contract for contract in KINDS if contract not in UNLIKE.values()]


@pytest.mark.parametrize("contract", OTHERS, ids=lambda contract: contract.name)
def test_compiles_without_graph_breaks(contract):
    """One graph; a second batch size makes its shapes dynamic."""
    torch.compiler.reset()
    module, inputs, _ = prepared(contract)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), module(*inputs), rtol=1e-10, atol=1e-12)
    tensors, needed = arrays_of(contract, rows=8)
    module_of(contract, tensors, needed)
    more = [x for name, x in tensors.items() if name not in contract.learned]
    torch.testing.assert_close(compiled(*more), module(*more), rtol=1e-10, atol=1e-12)


def compiles_with_its_backward_pass(contract, backend):
    """Once for any batch size; an eager call first fills caches that guards see."""
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    counts = []
    for rows in (6, 9):
        tensors, needed = arrays_of(contract, rows)
        wanted = differentiable(contract, tensors)
        if not counts:
            module, inputs = module_of(contract, tensors, needed)
            compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
        inputs = [x for name, x in tensors.items() if name not in contract.learned]
        expected = module(*inputs)
        value = compiled(*inputs)
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)
        ours, theirs = (torch.autograd.grad(result, wanted) for result in (value, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("contract", UNLIKE.values(), ids=lambda contract: contract.family)
def test_compiles_with_its_backward_pass(contract):
    compiles_with_its_backward_pass(contract, "aot_eager")


@pytest.mark.parametrize("name", ["huber", "cross_entropy"])
def test_inductor(name):
    """The same as a user has it. The battery has Inductor compile every loss, at a fixed size."""
    compiles_with_its_backward_pass(resolve(name)[0], "inductor")


def test_images_of_any_size_compile_once():
    torch.compiler.reset()
    module = lossary.torch.Ssim(window=2)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for shape in ((2, 3, 24, 20), (4, 3, 27, 21)):
        one, other = torch.rand(shape), torch.rand(shape)
        expected = module(one, other)  # first, for an eager call fills caches that guards see
        torch.testing.assert_close(compiled(one, other), expected)
        counts.append(counter.frame_count)
    assert counts[0] == counts[1] > 0


def test_dynamic_shapes_compile_once():
    """Once compiled (and once more after the first eager call), other batch sizes are served."""
    torch.compiler.reset()
    module = lossary.torch.CrossEntropyLoss()
    module(torch.randn(3, 4), torch.tensor([0, 1, 2]))  # an eager call fills caches that guards see
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend=counter)
    counts = []
    for rows in (5, 7, 9, 12):
        logits, target = torch.randn(rows, 4), torch.randint(0, 4, (rows,))
        torch.testing.assert_close(compiled(logits, target), module(logits, target))
        counts.append(counter.frame_count)
    assert counts[1:] == counts[1:2] * 3, counts


@every_loss
def test_exports(contract):
    module, inputs, _ = prepared(contract)
    inputs = tuple(x.detach() for x in inputs)
    exported = torch.export.export(module, inputs).module()
    torch.testing.assert_close(exported(*inputs), module(*inputs), rtol=1e-10, atol=1e-12)


@every_loss
def test_functional_transforms(contract):
    """grad, jvp and hessian agree with autograd and with each other."""
    module, inputs, wanted = prepared(contract)
    position = next(i for i, x in enumerate(inputs) if x is wanted[0])
    plain = [x.detach() for x in inputs]

    def function(x):
        return module(*plain[:position], x, *plain[position + 1 :])

    point = plain[position]
    gradient = torch.func.grad(function)(point)
    (expected,) = torch.autograd.grad(module(*inputs), wanted[:1])
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(tuple(point.shape)))
    value, slope = torch.func.jvp(function, (point,), (direction,))
    torch.testing.assert_close(value, module(*plain), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(slope, (gradient * direction).sum(), rtol=1e-8, atol=1e-11)
    if point.numel() <= 64:
        hessian = torch.func.hessian(function)(point).reshape(point.numel(), -1)
        torch.testing.assert_close(hessian, hessian.T, rtol=1e-6, atol=1e-9)


SAMPLEWISE = [c for c in CONTRACTS if c.unit and c.unit.name in ("element", "sample")]


@pytest.mark.parametrize("contract", SAMPLEWISE, ids=lambda contract: contract.name)
def test_vmap_gives_gradients_per_sample(contract):
    tensors, needed = arrays_of(contract)
    name = contract.predictions[0]
    module, _ = module_of(contract, tensors, needed, reduction="sum")
    inputs = {key: x for key, x in tensors.items() if key not in contract.learned}
    names = list(inputs)

    def one(*row):
        return module(*(x.unsqueeze(0) for x in row))

    where = names.index(name)
    each = torch.func.vmap(torch.func.grad(one, argnums=where))(*inputs.values())
    inputs[name].requires_grad_()
    (whole,) = torch.autograd.grad(module(*inputs.values()), inputs[name])
    torch.testing.assert_close(each, whole, rtol=1e-9, atol=1e-12)


SMOOTH = [contract for contract in CONTRACTS if contract.has("smooth")]


@pytest.mark.parametrize("contract", SMOOTH, ids=lambda contract: contract.name)
def test_derivatives_against_differences(contract):
    tensors, needed = arrays_of(contract, rows=3)
    differentiable(contract, tensors)
    module, inputs = module_of(contract, tensors, needed)
    assert torch.autograd.gradcheck(module, inputs)
    if not contract.has("lipschitz") and sum(x.numel() for x in inputs) <= 40:
        # A Lipschitz loss such as Huber may have a corner in its first derivative.
        assert torch.autograd.gradgradcheck(module, inputs, atol=1e-4)


@every_loss
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_autocast_computes_in_float32(contract, half):
    tensors, needed = arrays_of(contract, dtype=half)
    module, inputs = module_of(contract, tensors, needed)
    wide = tuple(x.float() if x.is_floating_point() else x for x in inputs)
    module = module.float()
    with torch.autocast("cpu", dtype=half):
        value = module(*inputs)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, module(*wide), rtol=1e-6, atol=1e-6, equal_nan=True)


@every_loss
def test_checkpoint(contract):
    module, inputs, wanted = prepared(contract)
    value = checkpoint(module, *inputs, use_reentrant=False)
    ours = torch.autograd.grad(value, wanted)
    theirs = torch.autograd.grad(module(*inputs), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@every_loss
def test_copies(contract):
    module, inputs, _ = prepared(contract)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert type(other) is type(module)
        assert repr(other) == repr(module)
        assert torch.equal(other(*inputs), module(*inputs))
    stored = io.BytesIO()
    torch.save(module.state_dict(), stored)
    stored.seek(0)
    module.load_state_dict(torch.load(stored, weights_only=True))


@every_loss
def test_meta_and_fake_tensors(contract):
    module, inputs, _ = prepared(contract)
    expected = module(*inputs)
    on_meta = copy.deepcopy(module).to("meta")
    shape = on_meta(*(x.detach().to("meta") for x in inputs))
    assert (shape.shape, shape.dtype, shape.device.type) == (expected.shape, expected.dtype, "meta")
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = module(*(mode.from_tensor(x.detach()) for x in inputs))
    assert fake.shape == expected.shape


class Losses(Dataset):
    """Items that are losses, computed in a worker."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        logits = torch.arange(6, dtype=torch.float32).reshape(2, 3) + index
        return lossary.torch.CrossEntropyLoss(weight=torch.ones(3))(logits, torch.tensor([0, 2]))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_data_loader_workers(start):
    items = Losses()
    loader = DataLoader(items, num_workers=1, multiprocessing_context=start)
    assert torch.equal(torch.cat(list(loader)), torch.stack([items[i] for i in range(4)]))


def test_buffers_follow_the_module():
    module = lossary.torch.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    assert module.half().weight.dtype == torch.float16
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    expected = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))(logits, target)
    torch.testing.assert_close(module(logits, target), expected)
    assert list(module.state_dict()) == ["weight"]


def test_weights_and_masks_per_call():
    module = lossary.torch.HuberLoss()
    x, y = torch.tensor([0.0, 3.0, float("nan")]), torch.tensor([1.0, 1.0, 0.0])
    mask, weights = torch.tensor([True, True, False]), torch.tensor([1.0, 3.0, 1.0])
    assert module(x, y, weights=weights, mask=mask) == pytest.approx((0.5 + 3 * 1.5) / 4)


@pytest.mark.parametrize("name", ["ArcFace", "CosFace"])
def test_learned_weights_train(name):
    """They are parameters, move with the module, and lower the loss."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (60,), generator=generator)
    x = torch.nn.functional.one_hot(labels, 3) + 0.3 * torch.randn(60, 3, generator=generator)
    network = torch.nn.Linear(3, 2)
    module = getattr(lossary.torch, name)(2, 3, scale=8.0)
    assert [(key, tuple(p.shape)) for key, p in module.named_parameters()] == [("centers", (3, 2))]
    optimizer = torch.optim.Adam([*network.parameters(), *module.parameters()], 0.05)
    course = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = module(network(x), labels)
        loss.backward()
        optimizer.step()
        course.append(loss.item())
    assert course[-1] < 0.7 * course[0]
    assert module.to(torch.float64).centers.dtype == torch.float64
