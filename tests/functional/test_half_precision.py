"""Half precision around the functional code, or in its inputs: the arithmetic stays float32."""

from __future__ import annotations

import pytest
import torch
from gpu import checks, functional_cases
from torch import Tensor

#: Cases whose work is the network's own, which autocast may lower.
OF_THE_NETWORK = {
    "losses.confusion.HalvingClassifier",
    "modulation.class_attention",
    "modulation.partner_attention",
}


def answer(name: str, *, half: bool) -> list[Tensor]:
    """Forward with or without autocast, then the gradients."""
    world = functional_cases.World("cpu")
    _ = world.similarity  # an input, so never in half precision
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        found = [torch.as_tensor(one) for one in checks.leaves_of(functional_cases.CASES[name](world))]
    if carrying := [one.double().sum() for one in found if one.requires_grad]:
        torch.stack(carrying).sum().backward()
    gradients = [leaf.grad for leaf in world.leaves if leaf.grad is not None]
    return [one.detach() for one in (*found, *gradients)]


@pytest.mark.parametrize("name", sorted(functional_cases.CASES.keys() - OF_THE_NETWORK))
def test_autocast_changes_no_bit(name: str) -> None:
    for one, other in zip(answer(name, half=True), answer(name, half=False), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
