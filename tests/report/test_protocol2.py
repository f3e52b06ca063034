"""DNMini's protocol 2: what its config changes, and that every system can be measured by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from run_helpers import train
from safetensors import safe_open

from dnreid_plugins.dnmini import write as write_module
from dnreid_plugins.dnmini.pretrain import PretrainOptions, build_plain_backbone, weights_path
from dnreid_plugins.engine import preflight
from dnreid_plugins.modeling.narrow_resnet import NarrowResNet
from dnreid_plugins.modeling.pretrained import load_backbone_weights
from dnreid_plugins.report.runs import plan, protocol_changes
from dnreid_plugins.report.tables import Row, Table
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.shipped import find_config

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {
    "MODEL.BACKBONE.NAME": "build_narrow_resnet_backbone",
    "MODEL.BACKBONE.DEPTH": "10x",
    "MODEL.BACKBONE.FEAT_DIM": "256",
    "MODEL.BACKBONE.PRETRAIN_PATH": "shipped:narrow_resnet_10x",
    "DATASETS.NAMES": "('DNMini2',)",
    "DATASETS.TESTS": "('DNMini2',)",
    "DATASETS.DNMINI_SEED": "1",
    "SOLVER.BASE_LR": "0.0006",
}
SYSTEMS = sorted(ROOT.glob("projects/*/configs/dnmini.yml"))


def read(path: Path, *opts: str) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), list(opts))
    return cfg


def changes(path: Path) -> dict[str, str]:
    words = protocol_changes(read(path), find_config("DNMini/protocol2"))
    return dict(zip(words[::2], words[1::2], strict=True))


def test_what_it_changes_of_base() -> None:
    assert changes(ROOT / "configs" / "DNMini" / "base.yml") == CHANGES
    assert changes(ROOT / "configs" / "DNMini" / "supervised.yml") == CHANGES


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.parts[-3])
def test_every_system_can_be_measured_by_it(path: Path) -> None:
    found = changes(path)
    assert found["DATASETS.NAMES"] == found["DATASETS.TESTS"] == "('DNMini2',)"
    words = [word for pair in found.items() for word in pair]
    cfg = read(path, *words)
    preflight.check(cfg)
    if "MODEL.BACKBONE.NAME" in found:  # a system with an encoder of its own keeps it whole
        assert all(found[key] == value for key, value in CHANGES.items() if key.startswith("MODEL"))


def test_a_row_trains_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base as the table tool plans it, on a rendering of seven vehicles."""
    sizes = {"num_train_ids": 4, "num_test_ids": 3, "images_per_domain": 6, "test_images_per_domain": 2}
    monkeypatch.setitem(write_module.SIZES, "dnmini2", sizes)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    row = Row("Base", "configs/DNMini/base.yml")
    table = Table(
        "t", "T", (row,), tmp_path / "README.md", tmp_path / "store.json", protocol="DNMini/protocol2"
    )
    short = ["SOLVER.MAX_EPOCH", "1", "SOLVER.STEPS", "()", "DATALOADER.ITERS_PER_EPOCH", "2"]
    short += ["SOLVER.IMS_PER_BATCH", "16", "CLUSTER.K1", "4"]
    (run,) = plan(ROOT, table, data_seeds=[1007], seeds=[3], overrides=short)
    trainer = train(read(ROOT / row.config, *run.opts, "OUTPUT_DIR", str(tmp_path / "out")))
    assert isinstance(trainer.bare_model.backbone.backbone, NarrowResNet)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["finished"] and results["seed"] == 3 and run.dataset == "DNMini2"
    assert set(results["DNMini2"]) == {"D2N", "N2D", "D2D", "N2N"}
    assert results["config_hash"] == run.key  # the table's key of a run is the run's own
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dnmini2-seed1007"]


def test_its_network_ships_with_a_start() -> None:
    options = PretrainOptions(backbone="build_narrow_resnet_backbone", depth="10x")
    path = weights_path(options)
    assert path.stat().st_size < 6e6
    backbone = build_plain_backbone(options)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_backbone_weights(backbone, path)
    assert all(not torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["half"] == "True" and metadata["depth"] == "10x"
