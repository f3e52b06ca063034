"""Heads on hybrid memories, the fused bank and relaxed contrast: what they contrast, and degenerate cases."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import World, build, plant, turned_world, world

from dnreid_plugins.functional.losses.hybrid import hybrid_nce
from dnreid_plugins.functional.losses.relaxed_contrast import relaxed_contrast
from dnreid_plugins.functional.types import Assignment, Domain
from dnreid_plugins.modeling.loss_heads import LossHead, build_loss_heads
from dnreid_plugins.modeling.loss_heads.hybrid_nce import FusedContrast, HybridNCE
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts

HYBRID = (("hard", "hardest_of_own"),)
#: A temperature at which the far clusters of this world cost something.
SOFT = {"TEMPERATURE": 1.0, "FLOOR": 0.01}
TURNED = Assignment.from_pairs(torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.ones(3), 3, 4)


def hybrid(name: str, **options: Any) -> LossHead:
    """The head as the config builds it, over a memory with a bank of hard rows."""
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (name,)
    cfg.MODEL.MEMORY.EXTRA_BANKS = HYBRID
    for key, value in {"WEIGHT": ((1, 1.0),), **options}.items():
        cfg.MODEL.LOSSES[name.upper()][key] = value
    return build_loss_heads(cfg)[name]


def moved(here: World, *heads: LossHead) -> Parts:
    """Parts after one step, so that mean rows and hard rows differ."""
    parts = here.parts(*heads, memory=ClusterMemory(update="mean", extra_banks=HYBRID))
    parts.memory.after_step(here.batch.detach(), parts)
    assert parts.epoch is not None
    for domain in Domain:
        pair = parts.memory.rows(domain), parts.memory.rows(domain, "hard")
        assert len(pair[0]) == 0 or not torch.equal(*pair)
    return parts


@pytest.mark.parametrize(("mean", "expected"), [((2.0, 0.0), 0.15663), ((1.0, 0.0), 0.21326)])
def test_the_hybrid_loss_of_two_logits(mean: tuple[float, float], expected: float) -> None:
    """One day image of cluster 0, logits ``mean`` and (1, 0); no night image."""
    here = world([0, 1], [])
    head = hybrid("HybridNCE", TEMPERATURE=1.0)
    parts = here.parts(head, memory=ClusterMemory(extra_banks=HYBRID))
    image = here.batch.where(here.batch.targets == 0)
    for bank, logits in (("own", mean), ("hard", (1.0, 0.0))):
        parts.memory.set_rows(Domain.DAY, torch.tensor(logits)[:, None] * image.unit, bank)
    loss = head(image, parts)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert float(torch.autograd.grad(loss, here.batch.features)[0].norm()) > 0


@pytest.mark.parametrize("options", [{"TEMPERATURE": 0.5}, {"TEMPERATURE": 1.0, "FLOOR": 0.05}])
def test_the_hybrid_head_sums_over_the_domains(options: dict[str, float]) -> None:
    here, head = turned_world(), hybrid("HybridNCE", **options)
    parts, expected = moved(here, head), torch.zeros(())
    keys = {"temperature": 0.05, "floor": 0.2} | {key.lower(): value for key, value in options.items()}
    for domain in Domain:
        part = here.batch.of(domain)
        banks = [parts.memory.rows(domain, bank) for bank in ("own", "hard")]
        expected = expected + hybrid_nce(part.unit, part.targets, *banks, **keys)
    assert expected.item() > 0.1
    torch.testing.assert_close(head(here.batch, parts), expected)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("floor", [0.01, 50.0])
def test_the_fused_head_contrasts_night_images_in_odd_epochs_and_day_images_in_even_ones(
    number: int, floor: float
) -> None:
    """Against the mean of each night row and its partner's, live ones of both kinds."""
    here, head = turned_world(number), hybrid("FusedContrast", TEMPERATURE=1.0, FLOOR=floor)
    parts = moved(here, head)
    plant(parts, TURNED)
    banks = []
    for bank in ("own", "hard"):
        day, night = (parts.memory.rows(domain, bank) for domain in Domain)
        fused = [night[c] if c == 3 else (night[c] + day[[2, 0, 1][c]]) / 2 for c in range(4)]
        banks.append(F.normalize(torch.stack(fused), dim=1))
    domain = Domain.NIGHT if number == 1 else Domain.DAY
    part = here.batch.of(domain)
    targets = part.targets if number == 1 else torch.tensor([1, 1, 2, 2, 0, 0, -1])
    loss = head(here.batch, parts)
    torch.testing.assert_close(loss, hybrid_nce(part.unit, targets, *banks, temperature=1.0, floor=floor))
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert loss.item() > 0.1
    for one in Domain:
        assert bool(gradient[here.batch.domains == one].norm() > 0) == (one == domain)


def test_the_fused_rows_follow_the_memory() -> None:
    here, head = turned_world(), hybrid("FusedContrast", **SOFT)
    parts = moved(here, head)
    plant(parts, TURNED)
    before = head(here.batch, parts).item()
    parts.memory.after_step(here.batch.detach(), parts)
    assert head(here.batch, parts).item() != before
    assert not head.state_dict()


def test_a_day_cluster_without_a_partner_has_no_fused_loss_and_no_matching_none_at_all() -> None:
    here, head = turned_world(2), hybrid("FusedContrast", **SOFT)
    parts = moved(here, head)
    for matching in (None, Assignment.empty(3, 4)):
        plant(parts, matching)
        loss = head(here.batch, parts)
        assert loss.item() == 0 and loss.requires_grad
    plant(parts, Assignment.from_pairs(torch.tensor([[0, 1]]), torch.ones(1), 3, 4))
    (gradient,) = torch.autograd.grad(head(here.batch, parts), here.batch.features)
    assert (gradient.norm(dim=1) > 0).tolist() == [True, True] + 13 * [False]


DEGENERATE = {
    "one cluster each": ([0, 0], [0, 0]),
    "no night cluster": ([0, 0, 1, 1], [-1, -1]),
    "no day cluster": ([-1, -1], [0, 0, 1, 1]),
    "outliers in the batch": ([0, 0, -1], [0, -1, 0]),
    "more night clusters": ([0, 0], [0, 0, 1, 1, 2, 2]),
    "no night image in the batch": ([0, 0, 1, 1], []),
}


@pytest.mark.parametrize("name", ["HybridNCE", "FusedContrast"])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_cases_stay_finite_and_connected(name: str, case: str, number: int) -> None:
    here = world(*DEGENERATE[case], number)
    head, cross = hybrid(name), build("CrossContrast", MATCHER="SinkhornMatcher")
    loss = head(here.batch, moved(here, head, cross))
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", ["HybridNCE", "FusedContrast"])
@pytest.mark.parametrize("banks", [(), (("hard", "hardest"),), (("other", "hardest_of_own"),)])
def test_without_the_hard_bank_they_are_refused(name: str, banks: tuple) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME, cfg.MODEL.MEMORY.EXTRA_BANKS = (name,), banks
    with pytest.raises(
        ValueError, match=rf"{name} contrasts with a bank called 'hard', but MODEL.MEMORY.EXTRA_BANKS is \("
    ):
        build_loss_heads(cfg)


def test_the_defaults_of_the_heads() -> None:
    assert (HybridNCE().weight_at(1), FusedContrast().weight_at(50), FusedContrast().weight_at(51)) == (
        1,
        0,
        0.5,
    )


@pytest.mark.parametrize("as_released", [False, True])
def test_relaxed_contrast_per_domain_on_unit_rows_or_as_released_on_long_ones(as_released: bool) -> None:
    here, head = turned_world(), build("RelaxedContrast", AS_RELEASED=as_released)
    parts = [here.batch.of(domain).features for domain in Domain]
    rows = parts if as_released else [F.normalize(part, dim=1) for part in parts]
    expected = sum(relaxed_contrast(part, normalise=False) for part in rows)
    loss = here.loss(head)
    torch.testing.assert_close(loss, expected)
    alone = here.batch.where(torch.tensor([0, 8]))
    assert head(alone, here.parts(head)).item() == 0.0  # one image of each domain has no pair
