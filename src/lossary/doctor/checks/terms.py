"""Combined losses: does every term take part?"""

from __future__ import annotations

from lossary.doctor.case import Case
from lossary.doctor.registry import check, need
from lossary.doctor.report import Finding
from lossary.doctor.terms import terms_of


@check("dead-term", severity="warning")
def dead_term(case: Case) -> Finding | None:
    """A term of a combined loss has no influence.

    Symptom: removing the term changes nothing; its curve is flat.
    Cause: softmax over one channel, a weight many times too small, detached inputs, different
    reductions.
    Fix: repair the term, or rescale its weight.
    People type: combined loss one term ignored; loss term has no effect; multi task loss weights;
    dice ce loss ce zero; loss weights balance

    Wrong::

        examine(terms={"dice": Term(0.4, gradient=0.2), "ce": Term(0.0, gradient=0.0)})

    Right::

        examine(terms={"dice": Term(0.4, gradient=0.2), "ce": Term(0.7, gradient=0.3)})
    """
    need(case.terms is not None, "terms=")
    terms = terms_of(case.terms)
    need(len(terms) > 1, "two or more terms")
    gradients = {name: term.gradient for name, term in terms.items() if term.gradient is not None}
    by_gradient = len(gradients) == len(terms)
    sizes = gradients if by_gradient else {name: abs(term.value) for name, term in terms.items()}
    total = sum(sizes.values())
    if total == 0:
        return Finding(
            "Every term is 0.",
            "Nothing is learnt.",
            "examine(prediction, target, loss=term)  # each term alone",
            severity="error",
        )
    name = min(sizes, key=lambda key: sizes[key])
    share = sizes[name] / total
    if share >= 1e-3:
        return None
    others = ", ".join(f"{key} {sizes[key] / total:.1%}" for key in sizes if key != name)
    kind = "gradient" if by_gradient else "value"
    return Finding(
        f"{name} contributes {share:.2%} of the {kind} (its value is {terms[name].value:.4g}); "
        f"{others}.",
        "The optimiser does not see this term: the combination is the other loss alone.",
        f"total = total + {_factor(share):.0f} * {name}  # or another factor of this order"
        if share
        else f"examine(prediction, target, loss={name})  # alone: one channel under softmax, a "
        "detached tensor, a factor of 0",
        severity=None if by_gradient or share == 0 else "note",
    )


def _factor(share: float) -> float:
    return max(10.0, 0.1 / share)
