"""The drop-in table, argument by argument: torch.nn and lossary.torch over every combination.

For each loss module of PyTorch, each combination of its arguments and each shape that it takes:
equal numbers, and equal gradients under a random cotangent.
"""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import log_softmax

import lossary.torch
from lossary import contract_of
from lossary.contract import key_of
from lossary.torch import TorchLossError

C = 4  # classes, features
SIMPLE = ("mean", "sum", "none")
ANY = ((), (C,), (3, C), (3, C, 2))
CLASSES = ((C,), (3, C), (3, C, 2), (3, C, 2, 2))
ROWS = ((C,), (3, C))


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def real(*shape, seed=0):
    return torch.randn(shape, generator=draw(seed), dtype=torch.float64)


def share(*shape, seed=0):
    return torch.rand(shape, generator=draw(seed), dtype=torch.float64) * 0.9 + 0.05


def sign(*shape):
    return torch.where(share(*shape, seed=9) > 0.5, 1.0, -1.0).double()


def without_classes(shape):
    """The shape of class indices: no axis 1 (no axis 0 where there is no batch)."""
    return shape[:1] + shape[2:] if len(shape) > 1 else ()


def indices(shape, ignored):
    """Class indices, some of them ignored, never all."""
    target = torch.randint(0, C, without_classes(shape), generator=draw(3))
    if target.ndim == 0:
        return target * 0 + 2
    target.flatten()[0] = 2
    if ignored is not None:
        target[-1] = ignored
    return target


def classes(shape, options):
    """Logits with class indices, and with probabilities where nothing is ignored."""
    yield real(*shape), indices(shape, options["ignore_index"])
    if options["ignore_index"] < 0 and "label_smoothing" in options:
        axis = min(1, len(shape) - 1)
        yield real(*shape), real(*shape, seed=5).softmax(axis)


def log_shares(shape, options):
    axis = min(1, len(shape) - 1)
    yield log_softmax(real(*shape), axis), indices(shape, options["ignore_index"])


def pairs(shape, options):
    yield real(*shape), real(*shape, seed=1)


def divergences(shape, options):
    target = log_softmax(real(*shape, seed=1), -1) if shape else real() - 1
    yield (
        log_softmax(real(*shape), -1) if shape else real() - 1,
        target if options["log_target"] else target.exp(),
    )


def counts(shape, options):
    # With 0 and 1 alone Stirling's approximation, which PyTorch adds from 2 on, has no part.
    target = (share(*shape, seed=1) > 0.5).double() * (1 if options["full"] else 3)
    yield (real(*shape) if options["log_input"] else share(*shape) + 1), target


def variances(shape, options):
    yield real(*shape), real(*shape, seed=1), share(*shape, seed=2)
    if shape:
        yield real(*shape), real(*shape, seed=1), share(*shape[:-1], 1, seed=2)


def triplets(shape, options):
    yield tuple(real(*shape, seed=seed) for seed in range(3))


def sequences(shape, options):
    """Steps before the batch: padded, end to end, alone, and targets too long for their steps."""
    steps = log_softmax(real(7, 3, C + 1), -1)
    labels = torch.tensor([[1, 2, 2], [3, 1, 1], [2, 1, 3]])
    if options["blank"] == C:
        labels = labels - 1
    input_lengths, target_lengths = torch.tensor([7, 5, 6]), torch.tensor([3, 2, 1])
    yield steps, labels, input_lengths, target_lengths
    yield steps, labels.flatten()[:6], (7, 6, 6), (1, 2, 3)
    yield steps[:, 0], labels[0], torch.tensor(7), torch.tensor(3)
    if options["zero_infinity"]:
        yield steps, labels, torch.tensor([7, 2, 3]), torch.tensor([3, 3, 3])


def index_sets(shape, options):
    target = torch.tensor([[1, 3, -1, 0], [0, 2, 3, -1], [-1, 1, 2, 3]])
    yield real(*shape), target if len(shape) > 1 else target[0]


WEIGHT = (None, share(C, seed=7))
# Of each module: its arguments' values, its shapes, and what it is called with.
GRID = {
    "BCELoss": (
        {"weight": (None, share(C), share(1))},
        ((C,), (3, C)),
        lambda shape, options: [(share(*shape), share(*shape, seed=1))],
    ),
    "BCEWithLogitsLoss": (
        {"weight": (None, share(C), share(1)), "pos_weight": (None, share(C, seed=4) * 3)},
        ((C,), (3, C), (2, 3, C)),
        lambda shape, options: [(real(*shape), share(*shape, seed=1))],
    ),
    "CTCLoss": ({"blank": (0, C), "zero_infinity": (False, True)}, (None,), sequences),
    "CosineEmbeddingLoss": (
        {"margin": (0.0, 0.5, -0.5)},
        ROWS,
        lambda shape, options: [(real(*shape), real(*shape, seed=1), sign(*shape[:-1]))],
    ),
    "CrossEntropyLoss": (
        {"weight": WEIGHT, "ignore_index": (-100, 1), "label_smoothing": (0.0, 0.2)},
        CLASSES,
        classes,
    ),
    "GaussianNLLLoss": ({"full": (False, True), "eps": (1e-6, 0.3)}, ((C,), (3, C)), variances),
    "HingeEmbeddingLoss": (
        {"margin": (1.0, 0.25)},
        ANY,
        lambda shape, options: [(real(*shape), sign(*shape))],
    ),
    "HuberLoss": ({"delta": (1.0, 0.3)}, ANY, pairs),
    "KLDivLoss": ({"reduction": (*SIMPLE, "batchmean"), "log_target": (False, True)}, ANY[1:],
                  divergences),
    "L1Loss": ({}, ANY, pairs),
    "MSELoss": ({}, ANY, pairs),
    "MarginRankingLoss": (
        {"margin": (0.0, 0.5)},
        ANY,
        lambda shape, options: [(real(*shape), real(*shape, seed=1), sign(*shape))],
    ),
    "MultiLabelMarginLoss": ({}, ROWS, index_sets),
    "MultiLabelSoftMarginLoss": (
        {"weight": WEIGHT},
        ROWS,
        lambda shape, options: [(real(*shape), (share(*shape, seed=1) > 0.5).double())],
    ),
    "MultiMarginLoss": (
        {"p": (1, 2), "margin": (1.0, 0.25), "weight": WEIGHT},
        ROWS,
        lambda shape, options: [(real(*shape), indices(shape, None))],
    ),
    "NLLLoss": ({"weight": WEIGHT, "ignore_index": (-100, 1)}, CLASSES, log_shares),
    "PoissonNLLLoss": (
        {"log_input": (True, False), "full": (False, True), "eps": (1e-13,)},
        ANY,
        counts,
    ),
    "SmoothL1Loss": ({"beta": (1.0, 0.3)}, ANY, pairs),
    "SoftMarginLoss": ({}, ANY, lambda shape, options: [(real(*shape), sign(*shape))]),
    "TripletMarginLoss": (
        {"margin": (1.0, 0.25), "p": (1.0, 2.0), "eps": (0.0,), "swap": (False, True)},
        ROWS,
        triplets,
    ),
    "TripletMarginWithDistanceLoss": (
        {
            "distance_function": (
                nn.PairwiseDistance(p=3, eps=0.0),
                lambda a, b: 1.0 - nn.functional.cosine_similarity(a, b, dim=-1),
            ),
            "margin": (1.0, 0.25),
            "swap": (False, True),
        },
        ROWS,
        triplets,
    ),
}  # fmt: skip
OWN_LAYER = {"AdaptiveLogSoftmaxWithLoss", "LinearCrossEntropyLoss"}


def combinations(arguments):
    arguments = {"reduction": SIMPLE, **arguments}
    for values in itertools.product(*arguments.values()):
        yield dict(zip(arguments, values, strict=True))


def result(module, tensors, predicted):
    """The value, and the gradients of what is predicted under a cotangent of odd weights."""
    leaves = [
        x.clone().requires_grad_() if known else x
        for x, known in zip(tensors, predicted, strict=True)
    ]
    value = module(*leaves)
    cotangent = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    wanted = [x for x, known in zip(leaves, predicted, strict=True) if known]
    return value, torch.autograd.grad(value, wanted, cotangent)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", GRID)
def test_every_combination(name):
    arguments, shapes, inputs = GRID[name]
    contract = contract_of(key_of(name))
    predicted = [part in contract.predictions for part in contract.inputs]
    tried = 0
    for options in combinations(arguments):
        theirs = getattr(nn, name)(**options).double()
        ours = getattr(lossary.torch, name)(**options).double()
        for shape in shapes:
            for tensors in inputs(shape, options):
                if name == "CTCLoss" and tensors[0].ndim == 2 and options["reduction"] == "none":
                    continue  # PyTorch keeps an axis of size 1 there
                expected, slopes = result(theirs, tensors, predicted)
                value, gradients = result(ours, tensors, predicted)
                told = f"{options} at {shape}: ".__add__
                torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12, msg=told)
                torch.testing.assert_close(gradients, slopes, rtol=1e-9, atol=1e-11, msg=told)
                tried += 1
    assert tried >= 3 * len(shapes) - 1


def test_the_grid_holds_every_loss_of_pytorch():
    assert {name for name in dir(nn) if name.endswith("Loss")} - OWN_LAYER == set(GRID)


@pytest.mark.parametrize("name", GRID)
@pytest.mark.parametrize("word", ["size_average", "reduce"])
def test_retired_arguments_say_what_to_write(name, word):
    """One line; a TypeError where PyTorch does not take them either."""
    with pytest.raises(
        (TorchLossError, TypeError), match=f"{word}=False.*instead|{word}'"
    ) as caught:
        getattr(lossary.torch, name)(**{word: False})
    assert "\n" not in str(caught.value)
