"""DNMiniWild's protocol: what its config changes, and that the rows of the first world can be measured by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from run_helpers import train
from safetensors import safe_open

from dnreid_plugins.dnmini import write as write_module
from dnreid_plugins.dnmini.pretrain import PretrainOptions, build_plain_backbone, weights_path
from dnreid_plugins.modeling.narrow_resnet import NarrowResNet
from dnreid_plugins.modeling.pretrained import load_backbone_weights
from dnreid_plugins.report.runs import plan, protocol_changes
from dnreid_plugins.report.tables import Row, load_table
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.shipped import find_config

ROOT = Path(__file__).resolve().parents[2]
PROTOCOL = "DNMiniWild/protocol"
CHANGES = {
    "MODEL.BACKBONE.NAME": "build_narrow_resnet_backbone",
    "MODEL.BACKBONE.DEPTH": "10x",
    "MODEL.BACKBONE.FEAT_DIM": "256",
    "MODEL.BACKBONE.PRETRAIN_PATH": "shipped:narrow_resnet_10x_wild",
    "DATASETS.NAMES": "('DNMiniWild',)",
    "DATASETS.TESTS": "('DNMiniWild',)",
    "DATASETS.DNMINI_SEED": "1",
    "DATALOADER.ITERS_PER_EPOCH": "45",
    "SOLVER.BASE_LR": "0.0006",
}


def read(path: Path, *opts: str) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), list(opts))
    return cfg


def test_what_it_changes_of_the_first_worlds_rows() -> None:
    for name in ("base", "supervised"):
        words = protocol_changes(read(ROOT / "configs" / "DNMini" / f"{name}.yml"), find_config(PROTOCOL))
        assert dict(zip(words[::2], words[1::2], strict=True)) == CHANGES
        other = read(ROOT / "configs" / "DNMiniWild" / f"{name}.yml")
        changed = read(ROOT / "configs" / "DNMini" / f"{name}.yml", *words, "OUTPUT_DIR", other.OUTPUT_DIR)
        assert changed == other  # this world's own configs are the same runs


def test_every_row_of_the_table_of_systems_is_measured_in_this_world() -> None:
    table = replace(load_table(ROOT, "DNMini", "systems"), protocol=PROTOCOL)
    assert table.marker == "systems protocol"
    first = {
        run.row.name: run.key
        for run in plan(ROOT, load_table(ROOT, "DNMini", "systems"), data_seeds=[1], seeds=[0])
    }
    runs = plan(ROOT, table, data_seeds=[1, 2], seeds=[0])
    assert len(runs) == 2 * len(table.rows) and {run.dataset for run in runs} == {"DNMiniWild"}
    for run in runs:
        opts = dict(zip(run.opts[::2], run.opts[1::2], strict=True))
        assert opts["DATASETS.NAMES"] == opts["DATASETS.TESTS"] == "('DNMiniWild',)"
        assert opts["MODEL.BACKBONE.PRETRAIN_PATH"] == "shipped:narrow_resnet_10x_wild"
        own = "DATALOADER.ITERS_PER_EPOCH" in run.row.overrides
        assert opts["DATALOADER.ITERS_PER_EPOCH"] == ("60" if own else "45")
        assert run.key != first[run.row.name]


def test_a_row_trains_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Base as the table tool plans it, on a rendering of six vehicles."""
    sizes = {**write_module.SIZES["dnminiwild"], "num_train_ids": 4, "num_test_ids": 2}
    sizes |= {"images_per_domain": 6, "night_images": 4, "test_images_per_domain": 2, "test_night_images": 2}
    monkeypatch.setitem(write_module.SIZES, "dnminiwild", {**sizes, "queries_per_domain": 1})
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    table = replace(load_table(ROOT, "DNMini", "base"), protocol=PROTOCOL)
    table = replace(table, rows=(Row("Base", "configs/DNMini/base.yml"),))
    short = ["SOLVER.MAX_EPOCH", "1", "SOLVER.STEPS", "()", "DATALOADER.ITERS_PER_EPOCH", "2"]
    short += ["SOLVER.IMS_PER_BATCH", "16", "CLUSTER.K1", "4", "CLUSTER.EPS", "0.7"]
    (run,) = plan(ROOT, table, data_seeds=[1007], seeds=[3], overrides=short)
    trainer = train(read(ROOT / run.row.config, *run.opts, "OUTPUT_DIR", str(tmp_path / "out")))
    assert isinstance(trainer.bare_model.backbone.backbone, NarrowResNet)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["finished"] and set(results["DNMiniWild"]) == {"D2N", "N2D", "D2D", "N2N"}
    assert results["config_hash"] == run.key
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dnminiwild-seed1007"]


def test_its_network_ships_with_a_start_of_its_own() -> None:
    options = PretrainOptions(backbone="build_narrow_resnet_backbone", depth="10x", world="wild")
    path = weights_path(options)
    assert path.name == "narrow_resnet_10x_wild.safetensors" and path.stat().st_size < 3e6
    backbone = build_plain_backbone(options)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    load_backbone_weights(backbone, path)
    assert all(not torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["world"] == "wild" and file.metadata()["half"] == "True"
