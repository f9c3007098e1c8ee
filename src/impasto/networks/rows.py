"""The rows of γ and β of a network, one for each style: made of a code, joined, and taken out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.networks.transform import TransformNet


def with_one_row(network: TransformNet, code: Float[Tensor, "1 n"]) -> TransformNet:
    """Return a network of one style, which paints as `network` paints with `code`.

    Args:
        network: a network of learned styles, or `AnyStyleNet`.
        code: from its `encode_style`.
    """
    state = network.state_dict()
    rows = {key: code @ value for key, value in state.items() if is_row(key)}
    return _of(network, 1, state | rows)


def alike(first: TransformNet, second: TransformNet) -> bool:
    """Whether two networks differ in their rows alone."""
    ours, theirs = first.state_dict(), second.state_dict()
    return {**first.arguments, "num_styles": 0} == {**second.arguments, "num_styles": 0} and all(
        torch.equal(value, theirs[key]) for key, value in ours.items() if not is_row(key)
    )


def joined(first: TransformNet, second: TransformNet) -> TransformNet:
    """Return a network with the styles of two networks that are `alike`."""
    ours, theirs = first.state_dict(), second.state_dict()
    rows = {key: torch.cat([ours[key], theirs[key]]) for key in ours if is_row(key)}
    network = _of(first, first.num_styles + second.num_styles, ours | rows)
    styles = [*first.metadata["styles"], *second.metadata["styles"]]
    network.metadata = {**first.metadata, "styles": styles}
    return network


def of_styles(network: TransformNet, names: Sequence[str]) -> TransformNet:
    """Return a network with some of the styles, in the order given."""
    numbers = [network.styles.index(name) for name in names]
    state = network.state_dict()
    rows = {key: value[numbers] for key, value in state.items() if is_row(key)}
    kept = _of(network, len(numbers), state | rows)
    styles = [network.metadata["styles"][number] for number in numbers]
    kept.metadata = {**network.metadata, "styles": styles}
    return kept


def is_row(key: str) -> bool:
    """Whether a weight of that name holds γ or β, one row for each style."""
    return key.endswith((".gamma", ".beta"))


def _of(network: TransformNet, num_styles: int, state: dict[str, Tensor]) -> TransformNet:
    """Return a network of learned styles with the arguments of another, and with these weights."""
    made = TransformNet(**{**network.arguments, "num_styles": num_styles})
    made.load_state_dict({key: state[key] for key in made.state_dict()})
    return made.eval().requires_grad_(False)
