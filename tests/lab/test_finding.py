"""Findings tell the published sign, the measured difference, its interval and the probability."""

import numpy as np
import pytest

from lossary.lab.finding import against, show

SCORES = 0.9 + np.random.default_rng(0).normal(0, 0.01, 20)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_claim_of_the_right_sign_holds_and_its_opposite_does_not(sign, capsys):
    right = against("t", "a is better", "s", SCORES + sign * 0.02, SCORES, sign=sign)
    assert right.difference == pytest.approx(sign * 0.02)
    assert right.low <= right.difference <= right.high
    assert (right.holds, right.probability) == (True, 1.0)
    wrong = against("t", "a is better", "s", SCORES, SCORES + sign * 0.02, sign=sign)
    assert (wrong.holds, wrong.probability) == (False, 0.0)
    show(right)
    show(wrong)
    said = capsys.readouterr().out
    assert "t: a is better: holds" in said
    assert "t: a is better: DOES NOT HOLD HERE" in said
    word = "above 0" if sign > 0 else "below 0"
    assert f"published {word}; measured {sign * 0.02:+.3g}, 95 % interval" in said
    assert "probability 1.000 (" in said


def test_slack_moves_the_bound_not_the_difference():
    found = against("t", "not far below", "s", SCORES - 0.005, SCORES, slack=0.01)
    assert found.difference == pytest.approx(-0.005)
    assert (found.published, found.holds) == ("above -0.01", True)
