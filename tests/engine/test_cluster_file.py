"""clusters.csv of a run: every training image once, with its cluster and the partner across domains."""

from __future__ import annotations

import csv
import dataclasses
import io
import logging
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import train

from dnreid_plugins.engine.cluster_file import write_clusters
from dnreid_plugins.functional.types import Assignment, Clusters, Domain, Epoch


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_the_labels_of_its_last_epoch(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "DGM")
    tiny_cfg.MODEL.LOSSES.DGM.WEIGHT = ((2, 1.0),)
    tiny_cfg.MODEL.LOSSES.DGM.THRESHOLD_START = tiny_cfg.MODEL.LOSSES.DGM.THRESHOLD_FINAL = 0.1
    with caplog.at_level(logging.INFO):
        trainer = train(tiny_cfg)
    assert f"The cluster of each of the 72 images is in {tiny_cfg.OUTPUT_DIR}/clusters.csv" in caplog.text
    rows = rows_of(Path(tiny_cfg.OUTPUT_DIR) / "clusters.csv")
    clusters = trainer.parts.epoch
    matching = clusters.matchings["DGM"]
    assert clusters.number == 2 and len(matching.pairs()) > 0
    assert [row["path"] for row in rows] == [item[0] for item in trainer.train_data.items]
    for index, row in enumerate(rows):
        domain = Domain[row["domain"].upper()]
        place = clusters[domain].indices.tolist().index(index)
        label = int(clusters[domain].labels[place])
        partner, score = matching.partner(domain)
        assert int(row["cluster"]) == label
        if label >= 0 and partner[label] >= 0:
            assert int(row["matched_cluster"]) == partner[label]
            assert float(row["score"]) == pytest.approx(float(score[label]), rel=1e-4)
        else:
            assert row["matched_cluster"] == row["score"] == ""


def test_any_path_comes_back(tmp_path: Path) -> None:
    paths = ['a "b", c.jpg', "line\nbreak.jpg", "Wagen grün.jpg", "bytes\udcff.jpg"]
    part = {d: torch.tensor([0, -1]) for d in Domain}
    sides = [Clusters(part[d], torch.ones(2, 1), torch.ones(1, 1), torch.tensor([d, 2 + d])) for d in Domain]
    matching = Assignment.from_pairs(torch.tensor([[0, 0]]), torch.tensor([0.25]), 1, 1)
    file = io.BytesIO()
    epoch = dataclasses.replace(Epoch.of(*sides, 1, 1), matchings={"DGM": matching})
    write_clusters(file, paths, epoch)
    text = file.getvalue().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in rows[1:]] == paths
    assert rows[1][1:] == ["day", "0", "0", "0.25"] and rows[3][1:] == ["day", "-1", "", ""]


def test_an_earlier_runs_labels_are_set_aside(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.SOLVER.STEPS, tiny_cfg.TEST.EVAL_START = 1, (), False
    train(tiny_cfg)
    first = (Path(tiny_cfg.OUTPUT_DIR) / "clusters.csv").read_bytes()
    train(tiny_cfg)
    assert (Path(tiny_cfg.OUTPUT_DIR) / "previous-001" / "clusters.csv").read_bytes() == first
