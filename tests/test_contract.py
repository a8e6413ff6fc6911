"""Names find their losses, parameters are refused, functions of users get everything ours get."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import lossary
from lossary import Loss, LossError, contract_of, contracts
from lossary.contract import Contract, PerElement, Positive, Real, key_of, nearest_names
from lossary.xp import namespace

NAMES = list(csv.DictReader((Path(__file__).parent / "required_names.csv").open()))


@pytest.mark.parametrize("row", NAMES, ids=lambda row: row["name"])
def test_every_name_of_the_field_finds_its_loss(row: dict[str, str]) -> None:
    assert contract_of(row["name"]).name == row["loss"]


def test_spellings_are_one_name() -> None:
    spellings = ["MSELoss", "mse_loss", "mse", "MSE", " mse "]
    assert {contract_of(name).name for name in spellings} == {"squared_error"}
    assert key_of("KLDivLoss") == "kl_div"


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(LossError, match="cross_entropy"):
        Loss("cros_entropy")
    assert "huber" in nearest_names("hubr")


def test_every_loss_is_told_apart_by_name_and_page() -> None:
    found = contracts()
    assert len({contract.name for contract in found}) == len(found)
    assert len({contract.summary for contract in found}) == len(found)
    assert [contract.name for contract in found] == sorted(contract.name for contract in found)


def test_plain_function_of_a_user() -> None:
    def gap(prediction, target):  # type: ignore[no-untyped-def]
        return abs(prediction - target) ** 3

    prediction, target = np.array([1.0, 4.0]), np.array([0.0, 2.0])
    loss = Loss(gap)
    assert loss(prediction, target) == pytest.approx(4.5)
    assert loss(prediction, target, mask=np.array([True, False])) == pytest.approx(1.0)
    assert loss(prediction, target, weights=np.array([1.0, 3.0])) == pytest.approx(25 / 4)
    value, gradient = loss.value_and_grad(prediction, target)
    assert value == pytest.approx(4.5)
    np.testing.assert_allclose(gradient, [1.5, 6.0])


def test_annotated_function_of_a_user_has_a_contract() -> None:
    def scaled(prediction: Real, target: Real, *, scale: Positive = 2.0) -> PerElement:
        """The distance in units of ``scale``."""
        return namespace(prediction).abs(prediction - target) / scale

    contract = contract_of(scaled)
    assert isinstance(contract, Contract)
    assert contract.unit is not None
    assert contract.unit.name == "element"
    assert list(contract.inputs) == ["prediction", "target"]
    with pytest.raises(LossError, match=r"scale=-1\.0 is outside"):
        Loss(scaled, scale=-1.0)


def test_a_name_is_given_once() -> None:
    with pytest.raises(LossError, match="taken by squared_error"):

        @lossary.loss(aliases=("mse",))
        def another(prediction: Real, target: Real) -> PerElement:
            return prediction - target

    lossary.contract.REGISTRY.pop("another", None)


def test_accuracy_points_that_peers_lose() -> None:
    single = np.float32
    certain = np.array([[20.0, 0.0]], single)
    value, gradient = Loss("cross_entropy").value_and_grad(certain, np.array([0]))
    assert value == pytest.approx(2.0611537e-9, rel=3e-7)
    np.testing.assert_allclose(gradient, [[-2.0611537e-9, 2.0611537e-9]], rtol=3e-7)
    zero = np.zeros(1, single)
    assert Loss("log_cosh")(np.array([1e-4], single), zero) == pytest.approx(5e-9, rel=3e-7)
    binary = Loss("binary_cross_entropy")
    for logit, answer in ((40.0, 1.0), (-40.0, 0.0)):
        cost, slope = binary.value_and_grad(np.array([logit], single), np.array([answer], single))
        assert cost == pytest.approx(4.2483543e-18, rel=3e-6)
        assert abs(slope[0]) == pytest.approx(4.2483543e-18, rel=3e-6)


def test_certain_wrong_probability_has_a_gradient() -> None:
    for name, target in (("binary_crossentropy", np.array([1.0], np.float32)),):
        value, gradient = Loss(name).value_and_grad(np.array([0.0], np.float32), target)
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert gradient[0] < 0


def test_one_number_each():
    """A loss of arrays without axes, whatever library differentiates it."""
    value, gradient = Loss("huber").value_and_grad(np.array(3.0), np.array(1.0))
    assert (value, gradient) == (1.5, 1.0)
    value, gradient = Loss("cross_entropy").value_and_grad(np.zeros(4), np.int64(1))
    np.testing.assert_allclose(gradient, [0.25, -0.75, 0.25, 0.25])
