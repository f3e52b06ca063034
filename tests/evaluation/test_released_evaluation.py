"""The released evaluation of the visible/infrared systems, written down again from its description, and ours.

What it does: sort a row of distances, keep what the query may see, collapse repeated identities to the first for the
ranks (SYSU-MM01, LLCM), average precision at the places of correct images, correct images through the last one's rank.
"""

from __future__ import annotations

import numpy as np
import pytest

from dnreid_plugins.data.protocols import (
    ImageLabels,
    Removal,
    camera_2_for_queries_of_camera_3,
    nothing,
    same_identity_and_camera,
)
from dnreid_plugins.functional.ranking.metrics import rank_distances, summarize

QUERIES, GALLERY, IDENTITIES = 90, 240, 25
RULES = {
    "regdb": (nothing, "image"),
    "sysu": (camera_2_for_queries_of_camera_3, "identity"),
    "llcm": (same_identity_and_camera, "identity"),
}


def released(kind: str, distances: np.ndarray, query: ImageLabels, gallery: ImageLabels) -> dict[str, float]:
    order = np.argsort(distances, axis=1)
    curves, precisions, penalties = [], [], []
    for q in range(len(distances)):
        predicted, cams = gallery.ids[order[q]], gallery.cams[order[q]]
        if kind == "sysu":
            seen = ~((query.cams[q] == 3) & (cams == 2))
        elif kind == "llcm":
            seen = ~((predicted == query.ids[q]) & (cams == query.cams[q]))
        else:
            seen = np.ones(len(cams), dtype=bool)
        predicted = predicted[seen]
        matches = predicted == query.ids[q]
        if not matches.any():
            continue
        ranked = predicted
        if kind != "regdb":
            ranked = predicted[np.sort(np.unique(predicted, return_index=True)[1])]
        curve = np.zeros(max(len(gallery.ids), 20))
        curve[: len(ranked)] = (ranked == query.ids[q]).cumsum()
        curve[len(ranked) :] = curve[len(ranked) - 1]
        curves.append(np.minimum(curve, 1))
        cumulative = matches.cumsum()
        precisions.append(((cumulative / np.arange(1, len(matches) + 1)) * matches).sum() / matches.sum())
        last = np.flatnonzero(matches).max()
        penalties.append(cumulative[last] / (last + 1.0))
    mean = np.mean(curves, axis=0)
    ranks = {f"Rank-{k}": 100 * float(mean[k - 1]) for k in (1, 5, 10, 20)}
    return {**ranks, "mAP": 100 * float(np.mean(precisions)), "mINP": 100 * float(np.mean(penalties))}


@pytest.mark.parametrize("kind", RULES)
def test_equal_on_one_random_distance_matrix(kind: str) -> None:
    rng = np.random.default_rng(7)
    distances = rng.random((QUERIES, GALLERY))
    query = ImageLabels(rng.integers(0, IDENTITIES, QUERIES), rng.choice([3, 6, 1], QUERIES))
    gallery = ImageLabels(rng.integers(0, IDENTITIES, GALLERY), rng.choice([1, 2, 4, 5], GALLERY))
    rule: Removal
    rule, cmc = RULES[kind]

    def remove(rows: np.ndarray) -> np.ndarray:
        return rule(ImageLabels(query.ids[rows], query.cams[rows]), gallery)

    ranks = rank_distances(distances, query.ids, gallery.ids, remove=remove, cmc=cmc)  # type: ignore[arg-type]
    found = summarize(ranks, topk=(1, 5, 10, 20))
    expected = released(kind, distances, query, gallery)
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-10)
    assert 0 < expected["Rank-1"] < expected["Rank-20"] <= 100  # the matrix tells the rules apart
    others = [released(other, distances, query, gallery) for other in RULES if other != kind]
    assert all(other["Rank-1"] != expected["Rank-1"] or other["mAP"] != expected["mAP"] for other in others)
