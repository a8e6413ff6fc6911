"""What people do with losses: the doctor sees the fault and leaves the correct twin alone."""

import pytest
import situations_classes
import situations_values
import torch
from situations_values import Balanced, estimate, t, truth
from torch import nn

from lossary import LossError, examine

BROKEN = {**situations_classes.BROKEN, **situations_values.BROKEN}
CORRECT = {**situations_classes.CORRECT, **situations_values.CORRECT}


@pytest.mark.parametrize("label", BROKEN)
def test_broken(label: str) -> None:
    check, make = BROKEN[label]
    report = examine(**make())
    assert report.named(check), report


@pytest.mark.parametrize("label", CORRECT)
def test_correct(label: str) -> None:
    report = examine(**CORRECT[label]())
    assert report.exit_code == 0, report


@pytest.mark.parametrize("kind", ["BROKEN", "CORRECT"])
def test_no_label_hides_another(kind: str) -> None:
    parts = [getattr(module, kind) for module in (situations_classes, situations_values)]
    assert len(globals()[kind]) == sum(map(len, parts))


def test_a_loss_keeps_its_state_and_chance_its_own() -> None:
    loss = Balanced()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    examine(t(estimate), t(truth), loss=loss)
    assert loss.calls == 0
    assert float(loss.center) == 0
    assert torch.equal(torch.rand(3), expected)


def test_a_class_is_no_loss_yet() -> None:
    with pytest.raises(LossError, match=r"MSELoss is a class; make one"):
        examine(t(estimate), t(truth), loss=nn.MSELoss)
