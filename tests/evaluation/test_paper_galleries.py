"""Small galleries whose CMC, mAP and mINP were computed on paper, one for each rule.

Features are places on a line and distances are Euclidean, so the order of a gallery can be read off.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dnreid_plugins.data.drawn_galleries import llcm_protocol, sysu_protocol
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.protocols import Protocol, dn348_protocol, dnwild_protocol, regdb_protocol
from dnreid_plugins.evaluation.evaluator import Results, score_protocol
from dnreid_plugins.evaluation.scoring import ScoreOptions

LINE = ScoreOptions(metric="euclidean")
Image = tuple[float, int, int, int]


def items_of(images: list[Image]) -> list[DomainItem]:
    """``(place, identity, camera, domain)``, already in canonical order."""
    return [
        DomainItem(f"{number:02d}", pid, cam, domain) for number, (_, pid, cam, domain) in enumerate(images)
    ]


def scored(images: list[Image], protocol: Protocol, *, within: bool = False) -> Results:
    features = torch.tensor([[place] for place, *_ in images])
    return score_protocol(features, items_of(images), protocol, options=LINE, within_domain=within)


# Two vehicles. Night images at 1 (B), 2 (A), 3 (B), 4 (A); day images of A at 0 and of B at 0.9.
A, B = 7, 9
DAY_NIGHT: list[Image] = [
    (0.0, A, 0, 0),
    (0.9, B, 0, 0),
    (1.0, B, 1, 1),
    (2.0, A, 1, 1),
    (3.0, B, 1, 1),
    (4.0, A, 1, 1),
]
DOMAINS = [domain for *_, domain in DAY_NIGHT]


@pytest.mark.parametrize(
    "protocol", [dn348_protocol(DOMAINS), regdb_protocol(DOMAINS, 1)], ids=["dn348", "regdb"]
)
def test_all_against_all_of_the_other_domain(protocol: Protocol) -> None:
    found = scored(DAY_NIGHT, replace(protocol, topk=(1, 2)))
    # D2N. A at 0 sees B A B A: correct at 2 and 4, AP (1/2 + 2/4) / 2 = 1/2, INP 2/4.
    #      B at 0.9 sees B A B A: correct at 1 and 3, AP (1 + 2/3) / 2 = 5/6, INP 2/3.
    assert found["D2N"] == pytest.approx(
        {"Rank-1": 50, "Rank-2": 100, "mAP": 100 * (1 / 2 + 5 / 6) / 2, "mINP": 100 * (1 / 2 + 2 / 3) / 2}
    )
    # N2D. From every night place the day image B at 0.9 is nearer than A at 0: both B are right at once (AP 1),
    #      both A at the second place (AP 1/2, INP 1/2).
    assert found["N2D"] == pytest.approx({"Rank-1": 50, "Rank-2": 100, "mAP": 75, "mINP": 75})


def test_only_listed_images_ask() -> None:
    asks = [True, False, True, True, False, False]
    protocol = replace(dnwild_protocol(DOMAINS, asks, [True] * 6), topk=(1, 2))
    found = scored(DAY_NIGHT, protocol)
    assert found["D2N"] == pytest.approx({"Rank-1": 0, "Rank-2": 100, "mAP": 50, "mINP": 50})  # A alone
    assert found["N2D"] == pytest.approx(
        {"Rank-1": 50, "Rank-2": 100, "mAP": 75, "mINP": 75}
    )  # B at 1, A at 2


def test_within_a_domain_the_image_itself_is_removed() -> None:
    found = scored(DAY_NIGHT, replace(dn348_protocol(DOMAINS), topk=(1, 2)), within=True)
    # Night places 1 B, 2 A, 3 B, 4 A; equal distances in the order of the list.
    # 1: A2 B3 A4 -> 1/2.  2: B1 B3 A4 -> 1/3.  3: A2 A4 B1 -> 1/3.  4: B3 A2 B1 -> 1/2.
    expected = 100 * (1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 4
    assert found["N2N"] == pytest.approx({"Rank-1": 0, "Rank-2": 50, "mAP": expected, "mINP": expected})
    assert "D2D" not in found  # no day image has another one of its vehicle


# Queries at 0; the gallery from near to far, one image for each identity and camera, so every draw is the same.
SIX_CAMERAS: list[Image] = [
    (1.0, 2, 2, 0),
    (2.0, 2, 1, 0),
    (3.0, 2, 4, 0),
    (4.0, 1, 2, 0),
    (5.0, 1, 5, 0),
    (6.0, 3, 1, 0),
    (7.0, 1, 1, 0),
    (0.0, 1, 3, 1),
    (0.0, 1, 6, 1),
]


def test_camera_3_does_not_see_camera_2_and_ranks_count_identities() -> None:
    found = scored(SIX_CAMERAS, replace(sysu_protocol(items_of(SIX_CAMERAS)), topk=(1, 2, 3)))
    # All search. Camera 3 sees 2 2 1 3 1: AP (1/3 + 2/5) / 2, INP 2/5; identities 2 1 3: rank 2.
    #             Camera 6 sees 2 2 2 1 1 3 1: AP (1/4 + 2/5 + 3/7) / 3, INP 3/7; identities 2 1 3: rank 2.
    means = {
        "Rank-1": 0,
        "Rank-2": 100,
        "Rank-3": 100,
        "mAP": 100 * ((1 / 3 + 2 / 5) / 2 + (1 / 4 + 2 / 5 + 3 / 7) / 3) / 2,
        "mINP": 100 * (2 / 5 + 3 / 7) / 2,
    }
    same = {f"std/{key}": 0 for key in means}
    assert found["N2D"] == pytest.approx({**means, **same, "galleries": 10}) == found["N2D multi-shot"]
    # Indoor: cameras 1 and 2. Camera 3 sees 2 3 1: AP 1/3, INP 1/3; rank 3.
    #         Camera 6 sees 2 2 1 3 1: AP (1/3 + 2/5) / 2, INP 2/5; identities 2 1 3: rank 2.
    means = {
        "Rank-1": 0,
        "Rank-2": 50,
        "Rank-3": 100,
        "mAP": 100 * (1 / 3 + (1 / 3 + 2 / 5) / 2) / 2,
        "mINP": 100 * (1 / 3 + 2 / 5) / 2,
    }
    assert found["N2D indoor"] == pytest.approx({**means, **same, "galleries": 10})


NINE_CAMERAS: list[Image] = [
    (0.0, 1, 1, 0),
    (0.0, 2, 4, 0),
    (0.0, 3, 1, 0),
    (1.0, 1, 1, 1),
    (2.0, 2, 1, 1),
    (3.0, 2, 7, 1),
    (4.0, 1, 2, 1),
    (5.0, 3, 1, 1),
]


def test_the_same_identity_under_the_same_camera_is_removed() -> None:
    found = scored(NINE_CAMERAS, replace(llcm_protocol(items_of(NINE_CAMERAS)), topk=(1, 2)))["D2N"]
    # 1 under camera 1 does not see itself there: 2 2 1 3, AP 1/3, INP 1/3; identities 2 1 3: rank 2.
    # 2 under camera 4 sees all: 1 2 2 1 3, AP (1/2 + 2/3) / 2, INP 2/3; identities 1 2 3: rank 2.
    # 3 under camera 1 has its only image removed and counts in no average.
    assert found["queries_without_match"] == 1
    assert {key: found[key] for key in ("Rank-1", "Rank-2", "mAP", "mINP")} == pytest.approx(
        {
            "Rank-1": 0,
            "Rank-2": 100,
            "mAP": 100 * (1 / 3 + (1 / 2 + 2 / 3) / 2) / 2,
            "mINP": 100 * (1 / 3 + 2 / 3) / 2,
        }
    )
