"""Autocast around the functional code: the arithmetic stays float32."""

from __future__ import annotations

import pytest
import torch
from gpu import checks, functional_cases

#: Cases whose work is the network's own, which autocast may lower.
OF_THE_NETWORK = {
    "losses.confusion.HalvingClassifier",
    "modulation.class_attention",
    "modulation.partner_attention",
}


@pytest.mark.parametrize("name", sorted(functional_cases.CASES.keys() - OF_THE_NETWORK))
def test_autocast_changes_no_bit(name: str) -> None:
    case = functional_cases.CASES[name]
    found, wanted = checks.answer(case, "cpu", half=True), checks.answer(case, "cpu")
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
