"""Objectives of several losses: terms share one output layer, and each one's share is told."""

import re

import numpy as np
import pytest
import torch

from lossary import Loss, Objective
from lossary.contract import LossError
from lossary.lab import compare
from lossary.lab.choose import fitted, fitted_all, split_names
from lossary.lab.data import read
from lossary.lab.heads import head_for
from lossary.lab.objective import (
    config_of,
    from_config,
    head_of,
    meaning,
    objective_of,
    term_shares,
    terms_of,
    text_of,
)
from lossary.lab.saved import judge_saved
from lossary.lab.sections import saved_sections, sections
from lossary.lab.terminal import terms_in_words

torch.set_num_threads(1)
DRAW = torch.Generator().manual_seed(0)


def head(item, data):
    (loss,) = fitted_all([item], data.target).values()
    return head_of(loss, data.target)


def batch(data, width, rows=9):
    truth = torch.from_numpy(data.target.values[:: len(data.target.values) // rows][:rows])
    return torch.randn(2, rows, width, generator=DRAW), torch.stack([truth, truth])


def test_texts_are_cut_into_terms():
    assert terms_of("a+0.5*b") == [(1.0, "a"), (0.5, "b")]
    assert terms_of("huber:delta=1e+5 + 1e-3 * b:x=2") == [
        (1.0, "huber:delta=1e+5"),
        (1e-3, "b:x=2"),
    ]
    assert terms_of("a:prior=(1,2)+.5*b")[1] == (0.5, "b")
    assert split_names("a+0.5*b:x=1,y=2+2*c:z=3,d") == ["a+0.5*b:x=1,y=2+2*c:z=3", "d"]
    made = objective_of(["huber", "huber"], [(1.0, Loss("huber")), (2.0, Loss("huber", delta=3.0))])
    assert list(made.terms) == ["huber (1)", "huber (2)"]
    assert text_of(made) == "huber+2*huber:delta=3.0"
    assert terms_of(text_of(made)) == [(1.0, "huber"), (2.0, "huber:delta=3.0")]


def test_an_objective_survives_json():
    made = Objective(near=(1.0, Loss("huber", delta=2.0)), far=(0.1, Loss("squared_error")))
    again = from_config(config_of(made))
    assert repr(again) == repr(made)
    assert config_of(again) == config_of(made)


def test_probabilities_reach_losses_of_plain_numbers():
    """Squared error beside cross-entropy is that of the probabilities: Brier's score."""
    wine = read("wine")
    outputs, truth = batch(wine, 3)
    joint = head("cross_entropy+0.5*squared_error", wine)
    hot = torch.nn.functional.one_hot(truth, 3)
    brier = ((torch.softmax(outputs, -1) - hot) ** 2).mean((1, 2))
    flat = torch.nn.functional.cross_entropy
    entropy = torch.stack([flat(o, t) for o, t in zip(outputs, truth, strict=True)])
    torch.testing.assert_close(joint.values(outputs, truth), entropy + 0.5 * brier)


def test_one_logit_serves_losses_of_logits_probabilities_and_margins():
    data = read("breast-cancer")
    outputs, truth = batch(data, 1)
    parts = ["binary_cross_entropy", "hinge", "dice"]
    joint = head("+".join(parts), data)
    assert joint.width == 1
    alone = [head_for(fitted(name, data.target), data.target) for name in parts]
    wanted = sum(one.values(outputs, one.encode(truth)) for one in alone)
    torch.testing.assert_close(joint.values(outputs, joint.encode(truth)), wanted)
    values, slopes = joint.values_and_slopes(outputs, truth)
    parted = sum(one.values_and_slopes(outputs, one.encode(truth))[1] for one in alone)
    torch.testing.assert_close(values, wanted)
    torch.testing.assert_close(slopes, parted)


def test_two_logits_and_one_meet_in_their_difference():
    data = read("breast-cancer")
    outputs, truth = batch(data, 2)
    joint = head("cross_entropy+2*binary_cross_entropy+squared_error", data)
    assert joint.width == 2
    yes = torch.softmax(outputs, -1)[..., 1]
    entropy = torch.nn.functional.binary_cross_entropy(yes, truth.float(), reduction="none")
    wanted = 3 * entropy.mean(1) + ((yes - truth) ** 2).mean(1)
    torch.testing.assert_close(joint.values(outputs, truth), wanted)


def test_quantities_of_one_meaning_are_shared():
    data = read("diabetes")
    outputs, truth = batch(data, 1)
    joint = head("huber+squared_error", data)
    alone = [
        head_for(fitted(name, data.target), data.target) for name in ("huber", "squared_error")
    ]
    wanted = sum(one.values(outputs, one.encode(truth)) for one in alone)
    torch.testing.assert_close(joint.values(outputs, truth), wanted)
    counts = head("squared_error+poisson_nll", data)  # the rate leads, whatever comes first
    assert counts.spaces[0].name == "log rate"
    rate = torch.exp(outputs[..., 0] + counts.offset)
    squared = ((rate - truth) ** 2).mean(1)
    found = counts.contributions(outputs, truth)["squared_error"]
    torch.testing.assert_close(found.double(), squared.double(), rtol=1e-5, atol=1e-3)


def test_shares_are_of_the_whole():
    data = read("diabetes")
    outputs, truth = batch(data, 1)
    found = term_shares(head("squared_error+3*squared_error:reduction=mean", data), outputs, truth)
    assert [list(item.values()) for item in found.values()] == [
        pytest.approx([0.25, 0.25]),
        pytest.approx([0.75, 0.75]),
    ]
    assert term_shares(head("huber", data), outputs, truth) == {}


def test_an_objective_estimates_what_its_terms_agree_on():
    losses = fitted_all(
        ["cross_entropy+squared_error", "cross_entropy+categorical_hinge"], read("wine").target
    )
    assert [meaning(loss) for loss in losses.values()] == [
        "calibrated probabilities",
        "not a named statistic",
    ]


@pytest.mark.parametrize(
    ("item", "pattern"),
    [
        ("poisson_nll+0.5*gamma_deviance", "terms share one output layer"),
        ("huber+nonsense", "nonsense: no loss of this name"),
        ("huber+0.5*cross_entropy", "cross_entropy: compares class logits"),
        ("0*huber+squared_error", "huber has the factor 0; expected one above 0"),
        ("1.2.3*huber+squared_error", r"1\.2\.3 is no number"),
        (Objective(a=(-1.0, Loss("huber"))), "a has the factor -1"),
        (
            Objective(a=(1.0, max)),
            r"a is a builtin.*the lab trains",
        ),
        (3, "losses: 3 is a int; expected a name, a Loss or an Objective"),
    ],
)
def test_objectives_that_cannot_be_trained_get_one_line(item, pattern):
    with pytest.raises(LossError) as caught:
        head(item, read("diabetes"))
    assert "\n" not in str(caught.value)
    assert re.search(pattern, str(caught.value)), str(caught.value)


def test_objectives_are_compared_and_their_shares_shown(tmp_path):
    mine = Objective(entropy=(1.0, Loss("cross_entropy")), overlap=(0.1, Loss("dice")))
    text = "cross_entropy+0.5*squared_error"
    account = compare(
        "wine", losses=["cross_entropy", text, mine], seeds=2, epochs=3, rate=0.01,
        output=tmp_path,
    )  # fmt: skip
    (table,) = account["tables"].values()
    rows = table["losses"]
    assert set(rows) == {"cross_entropy", text, "cross_entropy+0.1*dice"}
    assert rows["cross_entropy"]["terms"] == {}
    for name, first in ((text, "cross_entropy"), ("cross_entropy+0.1*dice", "entropy")):
        for when in rows[name]["terms"].values():
            assert sum(item["value"] for item in when.values()) == pytest.approx(1, abs=1e-5)
            assert sum(item["gradient"] for item in when.values()) == pytest.approx(1, abs=1e-5)
            assert when[first]["gradient"] > 0.5
        assert np.mean(rows[name]["best"]["accuracy"]) > 0.6
    shown = {item["title"]: item for item in sections(account)}["Terms of the objectives"]
    assert len(shown["rows"]) == 4
    assert all(len(row) == len(shown["header"]) for row in shown["rows"])
    assert sum(text in line and "% of the gradient" in line for line in terms_in_words(table)) == 1
    assert "Terms of the objectives" in (tmp_path / "report.html").read_text()
    assert "cross_entropy+0.1*dice" in account["command"]


def test_saved_predictions_are_judged_by_objectives_too():
    target = read("wine").target
    chances = np.full((178, 3), 1 / 3)
    text = "cross_entropy+0.5*squared_error"
    account = judge_saved(target, chances, ["cross_entropy", text])
    terms = account["losses"][text]["terms"]
    assert terms["cross_entropy"]["value"] == pytest.approx(
        np.log(3) / (np.log(3) + 1 / 9), rel=1e-3
    )
    titles = [item["title"] for item in saved_sections(account)]
    assert "Terms of the objectives" in titles
