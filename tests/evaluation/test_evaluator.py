"""Both directions from one extraction, within-domain figures, fast-reid's own data sets."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastreid.evaluation.rank import evaluate_rank
from fastreid.utils.compute_dist import build_dist

from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.data.protocols import (
    Direction,
    Protocol,
    dn348_protocol,
    dnwild_protocol,
    nothing,
    same_identity_and_camera,
)
from dnreid_plugins.evaluation.evaluator import (
    chooses_a_model,
    evaluate,
    in_words,
    score_protocol,
    within_domain_directions,
)
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.evaluation.scoring import ScoreOptions


def dataset_of(items, protocol=None):
    return SimpleNamespace(test=items, protocol=protocol or dn348_protocol([item.domain for item in items]))


def test_both_directions_equal_fastreids_numbers(model, items, cfg) -> None:
    features = extract_features(model, build_inference_loader(cfg, items), normalize=False)
    ids = np.array([item.pid for item in items])
    results = evaluate(model, dataset_of(items), cfg)
    assert list(results) == ["D2N", "N2D"]
    for name, query, gallery in (("D2N", slice(0, 10), slice(10, 20)), ("N2D", slice(10, 20), slice(0, 10))):
        distances = build_dist(features[query], features[gallery], "cosine")
        cmc, ap, inp = evaluate_rank(
            distances, ids[query], ids[gallery], np.zeros(10), np.ones(10), use_cython=False
        )
        expected = {f"Rank-{k}": 100 * cmc[k - 1] for k in (1, 5, 10)}
        expected.update(mAP=100 * np.mean(ap), mINP=100 * np.mean(inp))
        assert results[name] == pytest.approx(expected, abs=1e-4)
        assert all(type(value) is float for value in results[name].values())


def test_every_image_is_encoded_once(model, items, cfg) -> None:
    cfg.TEST.WITHIN_DOMAIN = True
    results = evaluate(model, dataset_of(items), cfg)
    assert model.batches == 5  # 20 images in batches of 4
    assert list(results) == ["D2N", "N2D", "D2D", "N2N"]


def test_within_domain_removes_the_image_itself(items) -> None:
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    results = score_protocol(features, items, dataset_of(items).protocol, within_domain=True)
    ids = np.array([item.pid for item in items])
    for name, part in (("D2D", slice(0, 10)), ("N2N", slice(10, 20))):
        distances = build_dist(features[part], features[part], "cosine")
        precisions = []
        for row in range(10):
            order = [column for column in np.argsort(distances[row]) if column != row]
            hits = ids[part][order] == ids[part][row]
            precisions.append(np.mean([hits[: rank + 1].mean() for rank in np.flatnonzero(hits)]))
        assert results[name]["mAP"] == pytest.approx(100 * np.mean(precisions))


def test_within_domain_sets_follow_the_query_lists(items) -> None:
    is_query = [number % 5 == 0 for number in range(20)]
    is_gallery = [number % 3 != 0 for number in range(20)]
    protocol = dnwild_protocol([item.domain for item in items], is_query, is_gallery)
    day, night = within_domain_directions(items, protocol)
    assert day.query.tolist() == [0, 5] and night.query.tolist() == [10, 15]
    assert day.gallery.tolist() == [1, 2, 4, 5, 7, 8] and night.gallery.tolist() == [
        10,
        11,
        13,
        14,
        16,
        17,
        19,
    ]


def test_a_camera_rule_removes_and_none_does_not(items) -> None:
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    everything = np.arange(20)
    direction = Direction("ALL", everything, everything)
    free, ruled = (
        score_protocol(features, items, Protocol("x", (direction,), removal=removal))["ALL"]
        for removal in (nothing, same_identity_and_camera)
    )
    assert free["Rank-1"] == 100.0 and ruled["Rank-1"] < 100.0


def test_fastreids_own_sets_have_one_direction(model, items, cfg) -> None:
    stock = SimpleNamespace(
        query=[tuple(item) for item in items[:6]], gallery=[tuple(item) for item in items[6:]]
    )
    results = evaluate(model, stock, cfg)
    features = extract_features(model, build_inference_loader(cfg, items), normalize=False)
    ids, cams = (np.array([item[place] for item in items]) for place in (1, 2))
    cmc, ap, _ = evaluate_rank(
        build_dist(features[:6], features[6:], "cosine"),
        ids[:6],
        ids[6:],
        cams[:6],
        cams[6:],
        use_cython=False,
    )
    assert list(results) == ["Q2G"]
    assert results["Q2G"]["Rank-1"] == pytest.approx(100 * cmc[0])
    assert results["Q2G"]["mAP"] == pytest.approx(100 * np.mean(ap), abs=1e-4)


def test_a_set_without_identities_cannot_be_scored(model, cfg) -> None:
    with pytest.raises(ValueError, match="no identities, so it cannot be scored; leave it out"):
        evaluate(model, SimpleNamespace(test=[], protocol=None), cfg)


def test_flip_is_used(model, items, cfg) -> None:
    evaluate(model, dataset_of(items), cfg)
    cfg.TEST.FLIP.ENABLED = True
    evaluate(model, dataset_of(items), cfg)
    assert model.batches == 5 + 10


def test_reranking_stands_beside_the_plain_figures(items) -> None:
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(2))
    protocol = dataset_of(items).protocol
    plain = score_protocol(features, items, protocol)
    both = score_protocol(
        features, items, protocol, options=ScoreOptions(rerank=(5, 2, 0.3)), within_domain=True
    )
    assert list(both) == ["D2N", "D2N re-ranked", "N2D", "N2D re-ranked", "D2D", "N2N"]
    assert both["D2N"] == plain["D2N"] != both["D2N re-ranked"]
    assert [name for name in both if chooses_a_model(name)] == ["D2N", "N2D"]


def test_a_result_says_how_it_was_measured(items, cfg) -> None:
    protocol = replace(dataset_of(items).protocol, note="a stand-in, not the real set")
    cfg.TEST.FLIP.ENABLED = cfg.TEST.RERANK.ENABLED = True
    cfg.TEST.METRIC = "euclidean"
    words = in_words(protocol, cfg).split("; ")
    assert words[-4:] == [
        "a stand-in, not the real set",
        "euclidean distances",
        "also re-ranked with k1 20, k2 6, lambda 0.3",
        "features of image and mirror image averaged",
    ]


def test_with_drawn_galleries_a_domain_is_searched_whole(items) -> None:
    day, night = np.arange(10), np.arange(10, 20)
    protocol = Protocol("x", (Direction("N2D", night, day[:5], (day[1:6],)),))
    within = {one.name: one for one in within_domain_directions(items, protocol)}
    assert within["D2D"].query.tolist() == within["D2D"].gallery.tolist() == day.tolist()
    assert within["N2N"].query.tolist() == within["N2N"].gallery.tolist() == night.tolist()
