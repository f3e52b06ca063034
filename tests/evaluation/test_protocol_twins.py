"""Every protocol on random data against a naive twin: sort, drop, look; equal distances keep the gallery's order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnreid_plugins.data.drawn_galleries import llcm_protocol, sysu_protocol
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.protocols import Protocol, dn348_protocol, dnwild_protocol, regdb_protocol
from dnreid_plugins.evaluation.evaluator import score_protocol
from dnreid_plugins.evaluation.scoring import ScoreOptions

#: Cameras of a set by domain; one for each domain where the set has none.
CAMERAS = {"sysu": ((1, 2, 4, 5), (3, 6)), "llcm": ((1, 2, 3), (1, 2)), "": ((0,), (1,))}


class Data:
    """Images with few places, so that equal distances are common, and exact in float32."""

    def __init__(self, draw: st.DrawFn, kind: str) -> None:
        rows = draw(
            st.lists(
                st.tuples(*[st.integers(0, 3)] * 4, st.booleans(), st.booleans()), min_size=2, max_size=14
            )
        )
        cameras = CAMERAS.get(kind, CAMERAS[""])
        images = [
            (
                domain % 2,
                pid,
                cameras[domain % 2][(domain + x + y) % len(cameras[domain % 2])],
                x,
                y,
                asks,
                shown,
            )
            for domain, pid, x, y, asks, shown in rows
        ]
        images.sort(key=lambda image: (image[0], image[1], image[2]))
        self.features = torch.tensor([[float(x), float(y)] for *_, x, y, _, _ in images])
        self.items = [
            DomainItem(f"{n:02d}", pid, cam, domain) for n, (domain, pid, cam, *_) in enumerate(images)
        ]
        self.asks, self.shown = ([image[place] for image in images] for place in (5, 6))
        self.domains = [item.domain for item in self.items]

    def of(self, domain: int, among: list[bool] | None = None) -> list[int]:
        return [n for n, d in enumerate(self.domains) if d == domain and (among is None or among[n])]


datas = {
    kind: st.composite(lambda draw, kind=kind: Data(draw, kind))() for kind in ("dn", "wild", "sysu", "llcm")
}
Plan = list[tuple[str, list[int], list[list[int]]]]


def drawn(data: Data, cameras: tuple[int, ...], domain: int, shots: int = 1) -> list[list[int]]:
    """Ten galleries by Python's global generator, as the released code draws them."""
    kept, found = random.getstate(), []
    for trial in range(10):
        random.seed(trial)
        gallery: list[int] = []
        for pid in range(4):
            for camera in cameras:
                group = [n for n in data.of(domain) if data.items[n][1:] == (pid, camera)]
                if group:
                    some = min(shots, len(group))
                    gallery += [random.choice(group)] if shots == 1 else random.sample(group, some)
        found.append(gallery)
    random.setstate(kept)
    return found


def naive(
    data: Data, plan: Plan, removed: Callable[[DomainItem, DomainItem], bool], *, by_identity: bool
) -> dict[str, dict[str, float]]:
    """One query and one gallery after another, percent; the mean over galleries."""
    result = {}
    for name, queries, galleries in plan:
        rows = []
        for gallery in galleries:
            firsts, precisions, penalties = [], [], []
            for q in queries:
                distance = [int((data.features[q] - data.features[g]).square().sum()) for g in gallery]
                order = [gallery[i] for _, i in sorted(zip(distance, range(len(gallery))))]
                order = [g for g in order if not removed(data.items[q], data.items[g])]
                pids = [data.items[g].pid for g in order]
                own = data.items[q].pid
                if own not in pids:
                    continue
                hits = [place for place, pid in enumerate(pids, start=1) if pid == own]
                firsts.append((list(dict.fromkeys(pids)) if by_identity else pids).index(own))
                precisions.append(sum(n / place for n, place in enumerate(hits, start=1)) / len(hits))
                penalties.append(len(hits) / hits[-1])
            if not firsts:
                raise ValueError
            ranks = {f"Rank-{k}": float(np.mean([first < k for first in firsts])) for k in (1, 5, 10)}
            rows.append({**ranks, "mAP": float(np.mean(precisions)), "mINP": float(np.mean(penalties))})
        result[name] = {key: 100 * float(np.mean([row[key] for row in rows])) for key in rows[0]}
        if len(rows) > 1:
            stds = {f"std/{key}": 100 * float(np.std([row[key] for row in rows], ddof=1)) for key in rows[0]}
            result[name] |= stds
    return result


def compare(
    data: Data,
    protocol: Callable[[], Protocol],
    plan: Plan,
    removed: Callable[[DomainItem, DomainItem], bool] = lambda query, shown: False,
    *,
    by_identity: bool = False,
) -> None:
    """Ours and the twin's figures are the same, or both refuse."""
    if any(not queries or not all(galleries) for _, queries, galleries in plan):
        with pytest.raises(ValueError, match="give at least one position"):
            protocol()
        return
    options = ScoreOptions(metric="euclidean")
    if len(set(map(tuple, data.features.tolist()))) == 1:
        return  # refused as collapsed features
    try:
        expected = naive(data, plan, removed, by_identity=by_identity)
    except ValueError:
        with pytest.raises(ValueError, match=r"has a correct image left|features are the same"):
            score_protocol(data.features, data.items, protocol(), options=options)
        return
    try:
        found: dict[str, Any] = score_protocol(data.features, data.items, protocol(), options=options)
    except ValueError as error:
        assert "features are the same" in str(error)
        return
    assert list(found) == list(expected)
    for name, figures in expected.items():
        for key, value in figures.items():
            assert found[name][key] == pytest.approx(value, abs=1e-9), (name, key)


def check_dn(data: Data) -> None:
    plan = [("D2N", data.of(0), [data.of(1)]), ("N2D", data.of(1), [data.of(0)])]
    compare(data, lambda: dn348_protocol(data.domains), plan)
    compare(data, lambda: regdb_protocol(data.domains, 3), plan)


def check_wild(data: Data) -> None:
    plan = [
        ("D2N", data.of(0, data.asks), [data.of(1, data.shown)]),
        ("N2D", data.of(1, data.asks), [data.of(0, data.shown)]),
    ]
    compare(data, lambda: dnwild_protocol(data.domains, data.asks, data.shown), plan)


def check_sysu(data: Data) -> None:
    plan = [
        (f"N2D{search}{shot}", data.of(1), drawn(data, cameras, 0, shots))
        for shot, shots in (("", 1), (" multi-shot", 10))
        for search, cameras in (("", (1, 2, 4, 5)), (" indoor", (1, 2)))
    ]
    compare(
        data,
        lambda: sysu_protocol(data.items),
        plan,
        lambda query, shown: query.camid == 3 and shown.camid == 2,
        by_identity=True,
    )


def check_llcm(data: Data) -> None:
    plan = [
        ("D2N", data.of(0), drawn(data, (1, 2, 3), 1)),
        ("N2D", data.of(1), drawn(data, (1, 2, 3), 0)),
    ]
    compare(
        data,
        lambda: llcm_protocol(data.items),
        plan,
        lambda query, shown: query[1:] == shown[1:],
        by_identity=True,
    )


CHECKS = {"dn": check_dn, "wild": check_wild, "sysu": check_sysu, "llcm": check_llcm}


def run(kind: str, examples: int) -> None:
    check = settings(max_examples=examples, suppress_health_check=list(HealthCheck))(
        given(datas[kind])(CHECKS[kind])
    )
    check()


@pytest.mark.parametrize("kind", CHECKS)
def test_equal_to_the_twin(kind: str) -> None:
    run(kind, 50)


@pytest.mark.stress
@pytest.mark.parametrize("kind", CHECKS)
def test_equal_to_the_twin_ten_thousand_times(kind: str) -> None:
    run(kind, 2500)
