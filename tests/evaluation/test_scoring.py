"""One direction's score: equal to fast-reid's, and refusing what cannot be ranked."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.evaluation.rank import evaluate_rank
from fastreid.utils.compute_dist import build_dist, compute_jaccard_distance

from dnreid_plugins.evaluation import scoring
from dnreid_plugins.evaluation.scoring import ScoreOptions, Side, check_features, check_rerank_memory, score


def sides(seed: int = 0, *, queries: int = 60, gallery: int = 200, ids: int = 12) -> tuple[Side, Side]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(ids, 16))
    parts = []
    for number in (queries, gallery):
        identity = rng.integers(0, ids, number)
        features = torch.from_numpy(centres[identity] + 1.5 * rng.normal(size=(number, 16))).float()
        parts.append(Side(features, identity, rng.integers(0, 3, number)))
    return parts[0], parts[1]


def fastreid_scores(distances: np.ndarray, query: Side, gallery: Side) -> dict[str, float]:
    cmc, ap, inp = evaluate_rank(
        distances, query.ids, gallery.ids, query.cams, gallery.cams, use_cython=False
    )
    result = {f"Rank-{k}": 100 * float(cmc[k - 1]) for k in (1, 5, 10)}
    return {**result, "mAP": 100 * float(np.mean(ap)), "mINP": 100 * float(np.mean(inp))}


@pytest.mark.filterwarnings("ignore:This overload of addmm_")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_fastreid(metric: str, seed: int) -> None:
    query, gallery = sides(seed)
    expected = fastreid_scores(build_dist(query.features, gallery.features, metric), query, gallery)
    result = score(query, gallery, options=ScoreOptions(metric=metric))
    assert result == pytest.approx(expected, abs=1e-6 * 100)
    assert all(type(value) is float for value in result.values())


def test_reranking_equals_fastreids_recipe_on_unit_features() -> None:
    query, gallery = sides(4)
    unit = [torch.nn.functional.normalize(side.features, dim=1) for side in (query, gallery)]
    jaccard = compute_jaccard_distance(torch.cat(unit), k1=10, k2=3, search_option=3)[:60, 60:]
    mixed = jaccard * 0.7 + build_dist(*unit, "cosine") * 0.3
    result = score(query, gallery, options=ScoreOptions(rerank=(10, 3, 0.3)))
    assert result == pytest.approx(fastreid_scores(mixed, query, gallery), abs=0.05)
    assert result["mAP"] > score(query, gallery, options=ScoreOptions())["mAP"]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_reranking_changes_the_result_under_either_metric(metric: str) -> None:
    query, gallery = sides(5)
    scaled = (
        Side(query.features * 30, query.ids, query.cams),
        Side(gallery.features * 30, gallery.ids, gallery.cams),
    )
    plain = score(*scaled, options=ScoreOptions(metric=metric))
    again = score(*scaled, options=ScoreOptions(metric=metric, rerank=(10, 3, 0.3)))
    assert again["mAP"] > plain["mAP"] + 1
    # normalised first: the scale of the features says nothing
    assert again == pytest.approx(
        score(query, gallery, options=ScoreOptions(metric=metric, rerank=(10, 3, 0.3)))
    )


def test_aqe_and_roc_add_up() -> None:
    query, gallery = sides(6)
    result = score(query, gallery, options=ScoreOptions(aqe=(5, 3.0, 1), roc=True))
    assert result["mAP"] > score(query, gallery, options=ScoreOptions())["mAP"]
    rates = [value for name, value in result.items() if name.startswith("TPR@FPR")]
    assert len(rates) == 3 and 0 <= rates[0] <= rates[1] <= rates[2] <= 100


@pytest.mark.parametrize("gallery", [1, 2, 9, 40, 55])
def test_small_galleries_work(gallery: int) -> None:
    query, side = sides(7, queries=20, gallery=gallery, ids=2)
    query = Side(query.features, np.full(20, side.ids[0]), None)
    result = score(query, Side(side.features, side.ids, None), options=ScoreOptions())
    assert 0 < result["Rank-1"] <= result["Rank-5"] <= result["Rank-10"] <= 100
    if gallery == 1:
        assert set(result.values()) == {100.0}


def test_perfect_and_reversed_rankings() -> None:
    features, ids = torch.eye(4), np.arange(4)
    perfect = score(Side(features, ids), Side(features, ids), options=ScoreOptions())
    assert set(perfect.values()) == {100.0}
    worst = score(Side(features, ids), Side(-features, ids), options=ScoreOptions(), topk=(1, 3, 4))
    assert worst == {"Rank-1": 0.0, "Rank-3": 0.0, "Rank-4": 100.0, "mAP": 25.0, "mINP": 25.0}


def test_queries_without_a_match_are_counted_not_averaged(caplog: pytest.LogCaptureFixture) -> None:
    query, gallery = sides(8)
    matched = score(query, gallery, options=ScoreOptions())
    more = Side(
        torch.cat([query.features, query.features[:5]]),
        np.concatenate([query.ids, np.full(5, 99)]),
        np.concatenate([query.cams, np.zeros(5, dtype=int)]),
    )
    with caplog.at_level(logging.WARNING):
        result = score(more, gallery, options=ScoreOptions())
    assert "5 of 65 queries have no correct gallery image" in caplog.text
    assert result.pop("queries_without_match") == 5
    assert result == pytest.approx(matched)


def test_collapsed_or_broken_features_are_refused() -> None:
    query, gallery = sides(9)
    same = torch.ones(60, 16) * 3
    with pytest.raises(ValueError, match="features are the same, so every ranking is the order of the list"):
        score(Side(same, query.ids), Side(same[:1].expand(200, 16), gallery.ids), options=ScoreOptions())
    with pytest.raises(ValueError, match="the same"):
        check_features(torch.zeros(4, 2))
    query.features[3, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinity"):
        score(query, gallery, options=ScoreOptions())
    check_features(torch.ones(1, 2))


def test_options_come_from_the_config() -> None:
    cfg = get_cfg()
    assert ScoreOptions.from_config(cfg) == ScoreOptions()
    for key in ("RERANK", "AQE", "ROC"):
        cfg.TEST[key].ENABLED = True
    cfg.TEST.METRIC = "euclidean"
    assert ScoreOptions.from_config(cfg) == ScoreOptions("euclidean", (20, 6, 0.3), (5, 3.0, 1), True)
    with pytest.raises(ValueError, match="TEST.METRIC is 'jaccard'"):
        ScoreOptions(metric="jaccard")


def test_a_reranking_that_does_not_fit_says_what_would(monkeypatch: pytest.MonkeyPatch) -> None:
    check_rerank_memory(1000, 2000, 64, k1=20, available=None)
    check_rerank_memory(1000, 2000, 64, k1=20, available=2**31)
    with pytest.raises(ValueError, match=r"Re-ranking 100000 queries .* 20000 needs about 9\.\d GiB, and"):
        check_rerank_memory(100_000, 20_000, 64, k1=20, available=2**31)
    with pytest.raises(
        ValueError, match=r"8\.0 GiB are free; \d+ queries would fit. .*TEST.RERANK.ENABLED False"
    ):
        check_rerank_memory(100_000, 20_000, 64, k1=20, available=2**33)
    with pytest.raises(ValueError, match="not even one query would fit"):
        check_rerank_memory(100_000, 20_000, 64, k1=20, available=2**20)
    monkeypatch.setattr(scoring, "available_memory", lambda: 1000)
    query, gallery = sides(10)
    with pytest.raises(ValueError, match="Re-ranking 60 queries in a gallery of 200"):
        score(query, gallery, options=ScoreOptions(rerank=(10, 3, 0.3)))
