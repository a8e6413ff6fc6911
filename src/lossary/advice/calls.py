"""The lines to paste that train with a loss, in each framework."""

from __future__ import annotations

from lossary.contract import Contract
from lossary.evaluate import Loss
from lossary.inputs import arrivals


def calls(loss: Loss) -> dict[str, str]:
    """The lines to paste, by framework, for outputs of the head: logits stay logits.

    Keras' own convention is probabilities, so its line says how the predictions arrive.
    """
    contract = loss.contract
    given = {
        key: value
        for key, value in loss.parameters.items()
        if contract.parameters[key].required or value != contract.parameters[key].default
    }
    inner = [f"{key}={value!r}" for key, value in given.items()]
    title = "".join(part.title() for part in contract.name.split("_"))
    arguments = ", ".join(contract.inputs)
    places = [list(contract.inputs).index(name) for name in contract.predictions]
    by = "" if places == [0] else f", argnums={tuple(places)}"
    return {
        "Keras": f"import lossary.keras; "
        f"model.compile(loss=lossary.keras.{title}({', '.join(inner + _arrival(contract))}))",
        "PyTorch": f"import lossary.torch; loss = lossary.torch.{title}Loss({', '.join(inner)})",
        "JAX": f"import jax, lossary; "
        f"step = jax.value_and_grad(lambda {arguments}: lossary.{loss!r}({arguments}){by})",
    }


def _arrival(contract: Contract) -> list[str]:
    """The argument of a Keras loss that says that predictions are as the definition takes them."""
    ways = arrivals(contract)
    if len(ways) < 2 or contract.family == "margin":  # margins compare scores, whatever they are
        return []
    return ["from_logits=True"] if ways[0] == "logits" else [f"predictions={ways[0]!r}"]
