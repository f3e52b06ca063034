"""A run on images without identities: the figures of its labels, and in a sentence why there is no mAP."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from fastreid.config import CfgNode, get_cfg
from run_helpers import train

from dnreid_plugins.data.datasets import configure
from dnreid_plugins.evaluation.unscored import NO_MAP, report_label_quality


def rows(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / "health.jsonl").read_text().splitlines()]


def test_a_run_without_identities_reports_its_first_and_last_epoch(
    tiny_root: Path, tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for key in ("DAY_DIR", "NIGHT_DIR"):
        tiny_cfg.DATASETS[key] = str(tiny_root / "dn348" / key[:-4].lower())
    tiny_cfg.merge_from_list(["DATASETS.NAMES", ("DayNightFolder",), "DATASETS.TESTS", ("DayNightFolder",)])
    tiny_cfg.DATASETS.FOLDER_IDS = "none"
    try:
        train(tiny_cfg)
    finally:
        configure(get_cfg())
    first, last = rows(tiny_cfg.OUTPUT_DIR)
    quality = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())["label_quality"]
    assert quality["reason"] == NO_MAP and list(quality) == ["reason", "epoch 1", "epoch 2"]
    assert quality["epoch 2"]["day/silhouette"] == last["day/silhouette"]
    assert "day/stability" in quality["epoch 2"] and "day/stability" not in quality["epoch 1"]
    assert quality["epoch 1"]["matched"] == first["matched"]
    assert not any(key.startswith("true/") for key in first)
    told = [r.getMessage() for r in caplog.records if "No mAP can be given" in r.getMessage()]
    assert len(told) == 1 and "| silhouette, cosine (-1 to 1)" in told[0] and "epoch 2" in told[0]


def test_a_scored_run_needs_no_such_table(tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train(tiny_cfg)
    assert "label_quality" not in (Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text()
    assert "No mAP can be given" not in caplog.text
    for name in ("day/silhouette", "night/radius", "matched"):
        assert all(name in row for row in rows(tiny_cfg.OUTPUT_DIR))


@pytest.mark.parametrize("content", [None, ""])
def test_before_the_first_epoch_nothing_is_said(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "health.jsonl").write_text(content)
    report_label_quality(str(tmp_path))
    report_label_quality("")
    assert not (tmp_path / "results.json").exists()
