"""Misuse of the generated modules ends in the kind of error that PyTorch raises, in our words."""

import pytest
import torch

import lossary.torch
from lossary import LossError
from lossary.torch import TorchLossError


@pytest.mark.parametrize(
    ("make", "inputs", "message"),
    [
        (
            lambda: lossary.torch.CrossEntropyLoss(weight=torch.ones(3)),
            (torch.randn(4, 5), torch.zeros(4, dtype=torch.int64)),
            r"weight has shape \(3,\), expected \(5,\)",
        ),
        (
            lambda: lossary.torch.CrossEntropyLoss(weight=torch.ones(5, device="meta")),
            (torch.randn(4, 5), torch.zeros(4, dtype=torch.int64)),
            r"weight is on meta, the input on cpu; move the module",
        ),
        (
            lossary.torch.CrossEntropyLoss,
            (torch.randn(4, 6, 5), torch.zeros(4, 6, dtype=torch.int64)),
            r"if the classes are on axis 2, say axis=2",
        ),
        (
            lossary.torch.CrossEntropyLoss,
            (torch.zeros(4, dtype=torch.int64), torch.randn(4, 5)),
            "were prediction and target exchanged",
        ),
        (
            lossary.torch.CrossEntropyLoss,
            (torch.randn(2, 5), torch.tensor([0, 5])),
            "holds class 5, but the prediction has 5 classes",
        ),
        (
            lossary.torch.CTCLoss,
            (torch.randn(7, 2, 4), torch.tensor([[1, 0], [1, 2]]), (7, 7), (2, 2)),
            "target holds 0 within target_lengths, expected classes from 0 to 3 without the blank",
        ),
        (
            lossary.torch.CTCLoss,
            (torch.randn(7, 2, 4), torch.tensor([[1, 3], [1, 2]]), (7, 9), (2, 2)),
            "input_lengths holds 9, expected lengths from 0 to 7",
        ),
        (
            lambda: lossary.torch.ArcFace(3, 5),
            (torch.randn(2, 3), torch.tensor([0, 5])),
            "holds class 5, but the prediction has 5 classes",
        ),
        (lossary.torch.MSELoss, (torch.randn(4, 1), torch.randn(4)), "nothing is broadcast"),
        (lossary.torch.MSELoss, (torch.randn(4),), "takes prediction, target; got 1"),
        (
            lambda: lossary.torch.BCELoss(weight=torch.ones(3)),
            (torch.rand(4, 5), torch.rand(4, 5)),
            r"weight has shape \(3,\), which does not broadcast",
        ),
        (lambda: lossary.torch.HuberLoss(delta=-1.0), (), "delta=-1.0 is outside"),
        (lambda: lossary.torch.HuberLoss(reduction="avg"), (), "reduction='avg' is not known"),
        (lambda: lossary.torch.get("crossentropi"), (), "did you mean"),
    ],
)
def test_misuse_raises_what_pytorch_raises(make, inputs, message):
    with pytest.raises(TorchLossError, match=message) as caught:
        make()(*inputs)
    assert isinstance(caught.value, (LossError, RuntimeError, IndexError, ValueError))


def test_unknown_arguments_are_type_errors():
    with pytest.raises(TypeError, match="unexpected keyword argument 'detla'"):
        lossary.torch.HuberLoss(detla=1.0)
    with pytest.raises(AttributeError, match="no attribute 'CrossEntropiLoss'"):
        lossary.torch.CrossEntropiLoss
