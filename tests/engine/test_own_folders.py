"""A run on an engineer's two folders: what is scored, what is left out, and that nothing else is touched."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import fastreid.engine
import pytest
from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.cli import main
from dnreid_plugins.data.datasets import configure
from dnreid_plugins.engine.script_door import take_over

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--config-file", str(ROOT / "tests" / "tiny.yml"), "DATASETS.NAMES", "('DayNightFolder',)"]


@pytest.fixture
def crops(tiny_root: Path, tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A copy of the tiny set's images as ``day/<id>/...`` and ``night/<id>/...``, without its lists."""
    for word in ("day", "night"):
        shutil.copytree(tiny_root / "dn348" / word, tmp_path / "mycrops" / word)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    yield tmp_path / "mycrops"
    configure(get_cfg())


def test_labelled_folders_are_scored(crops: Path, tmp_path: Path) -> None:
    results = main([*TINY, "OUTPUT_DIR", str(tmp_path / "out")])
    assert set(results) == {"DayNightFolder"} and 0 < results["DayNightFolder"]["N2D"]["mAP"] <= 100


def test_without_identities_a_run_trains_and_scores_nothing(
    crops: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(crops.rglob("*"))
    assert main([*TINY, "DATASETS.FOLDER_IDS", "none", "OUTPUT_DIR", str(tmp_path / "out")]) == {
        "DayNightFolder": {}
    }
    said = capsys.readouterr().out
    assert "DATASETS.TESTS ('DayNightFolder',)" in said
    assert "DayNightFolder has no identities, so nothing is scored on it" in said
    assert "Nothing was scored" in said
    assert sorted(crops.rglob("*")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"mycrops", "out"}


def test_bad_images_stop_a_run_before_it_trains_or_are_left_out(
    crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [crops / "day" / "00001" / "bad.png", crops / "night" / "00002" / "worse.png"]
    for path in bad:
        path.write_bytes(b"no picture")
    with pytest.raises(SystemExit, match=r"error: DayNightFolder: 2 of 122 images .*DATASETS.SKIP_BAD True"):
        main([*TINY, "OUTPUT_DIR", str(tmp_path / "out")])
    log = (tmp_path / "out" / "log.txt").read_text()
    assert all(str(path) in log for path in bad) and not (tmp_path / "out" / "results.json").exists()
    assert main([*TINY, "DATASETS.SKIP_BAD", "True", "OUTPUT_DIR", str(tmp_path / "out")])
    table = (tmp_path / "out" / "clusters.csv").read_text()
    assert table.count("\n") == 121 and "worse.png" not in table


def test_a_fastreid_script_takes_the_same_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for module in (fastreid.engine, fastreid.engine.defaults):
        for name in ("DefaultTrainer", "DefaultPredictor"):
            monkeypatch.setattr(module, name, getattr(module, name))
    for module in (sys.modules["fastreid.engine.launch"], fastreid.engine):
        monkeypatch.setattr(module, "launch", module.launch)
    for name in ("merge_from_file", "merge_from_list"):
        monkeypatch.setattr(CfgNode, name, getattr(CfgNode, name))
    monkeypatch.chdir(tmp_path)
    take_over()
    cfg = get_cfg()
    cfg.merge_from_file("CIA/dnmini")
    with caplog.at_level(logging.WARNING):
        cfg.merge_from_list(["DATASETS.NAMES", "('DayNightFolder',)"])
    assert cfg.DATASETS.TESTS == ("DayNightFolder",) and "Only DATASETS.NAMES was changed" in caplog.text
