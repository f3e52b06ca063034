"""SYSU-MM01 as an addition: six cameras, a removal rule of its own, ten galleries, CMC over identities."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import cut_and_resumed, same, train, weights
from six_cameras import CAMERAS, write_six_cameras

from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.train_data import read_dataset
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.evaluation.evaluator import score_protocol

ADDITIONS = ("sysu_mm01",)


@pytest.fixture(autouse=True)
def root(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    return write_six_cameras(tmp_path / "data")


def test_the_reader_knows_cameras_and_domains() -> None:
    dataset = read_dataset("SYSUMM01")
    assert len(dataset.train) == 6 * (4 + 2) * 2 and len(dataset.test) == 4 * (4 + 2) * 2
    seen = {(item.camid, int(item.domain)) for item in dataset.train}
    assert seen == {(f"sysu_{camera}", domain) for camera, domain in CAMERAS.items()}
    assert {item.pid for item in dataset.train} == {f"sysu_{n}" for n in range(6)}
    assert {(item.camid, int(item.domain)) for item in dataset.test} == set(CAMERAS.items())


def test_the_protocol_is_the_papers() -> None:
    dataset = read_dataset("SYSUMM01")
    direction, test = dataset.protocol["N2D"], dataset.test
    assert all(test[i].camid in (3, 6) for i in direction.query) and len(direction.query) == 16
    assert len(direction.galleries) == 10 and len({tuple(one) for one in direction.galleries}) == 10
    for gallery in direction.galleries:
        assert [(test[i].pid, test[i].camid) for i in gallery] == [
            (pid, camera) for pid in range(6, 10) for camera in (1, 2, 4, 5)
        ]
    assert str(dataset.protocol) == (
        "SYSU-MM01 all search: N2D 16 queries, 16 in the gallery (mean of 10 galleries); "
        "camera 2 for queries of camera 3 removed; identity-level CMC at 1, 10, 20"
    )


def by_hand(features: np.ndarray, test: list[Any], query: list[int], gallery: list[int]) -> dict[str, float]:
    """One gallery as the released evaluation does it: sort, drop camera 2 for camera 3, collapse identities."""
    first, precisions = [], []
    for q in query:
        order = sorted(gallery, key=lambda g: -features[q] @ features[g])
        order = [g for g in order if not (test[q].camid == 3 and test[g].camid == 2)]
        first.append(list(dict.fromkeys(test[g].pid for g in order)).index(test[q].pid))
        hits = [place for place, g in enumerate(order) if test[g].pid == test[q].pid]
        precisions.append(np.mean([(n + 1) / (place + 1) for n, place in enumerate(hits)]))
    ranks = {f"Rank-{k}": 100 * float(np.mean(np.array(first) < k)) for k in (1, 10, 20)}
    return {**ranks, "mAP": 100 * float(np.mean(precisions))}


def test_the_score_is_the_mean_over_ten_galleries() -> None:
    dataset = read_dataset("SYSUMM01")
    direction, test = dataset.protocol["N2D"], dataset.test
    features = torch.randn(len(test), 8)
    features = features / features.norm(dim=1, keepdim=True)
    scores = score_protocol(features, test, dataset.protocol, within_domain=True)
    assert list(scores) == ["N2D"]  # neither domain has queries and a gallery
    found = scores["N2D"]
    rows = [
        by_hand(features.double().numpy(), test, direction.query.tolist(), gallery.tolist())
        for gallery in direction.galleries
    ]
    assert found["galleries"] == 10
    for key in rows[0]:
        values = [row[key] for row in rows]
        assert found[key] == pytest.approx(np.mean(values)), key
        assert found[f"std/{key}"] == pytest.approx(np.std(values)), key
    assert found["std/mAP"] > 0


def test_a_run_trains_and_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode) -> None:
    whole = train(cfg)
    data = whole.train_data
    assert data is not None and data.images.cams.unique().tolist() == list(range(6))
    batch = whole.bare_model.last_batch
    assert batch is not None and torch.equal(batch.cams, data.images.cams[batch.indices])
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())["SYSUMM01"]
    assert list(results) == ["N2D"] and results["N2D"]["galleries"] == 10

    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


def test_a_broken_copy_is_refused(cfg: CfgNode, root: Path, addition: dict[str, ModuleType]) -> None:
    path = root / "exp" / "val_id.txt"
    path.write_text("1, two")
    with pytest.raises(DataError, match="is no line of identities"):
        CrossDomainTrainer(cfg)
    path.unlink()
    with pytest.raises(DataError, match="no val list in"):
        CrossDomainTrainer(cfg)
