"""Every system is trained by a fast-reid script that knows nothing of it, with the figures of our own command."""

from __future__ import annotations

import json
import runpy
from argparse import Namespace
from pathlib import Path

import pytest
from fastreid.config import CfgNode
from run_helpers import miniature, train

SCRIPT = Path(__file__).resolve().parents[1] / "engine" / "fastreid_script.py"
SYSTEMS = ("ClusterContrast", "GUR", "NULC", "PCA", "PCLHD", "RPNR")
#: Of blocks, in the tests' network.
PLACES = {"GLARESUPPRESSION": ["bn1"], "STRUCTUREENHANCEMENT": ["conv2"], "CLASSATTENTION": ["conv2"]}
WITH_IDENTITIES = ("AGW", "CAJ", "DCLNet", "DNDM")


@pytest.mark.parametrize("name", [*SYSTEMS, *WITH_IDENTITIES])
def test_a_fastreid_script_trains_the_system_like_our_own(
    tiny_cfg: CfgNode, as_fastreid: None, tmp_path: Path, name: str
) -> None:
    cfg = miniature(tiny_cfg, f"{name}/configs/dnmini")
    if name in WITH_IDENTITIES:
        cfg.LABELS.SOURCE, cfg.DATALOADER.PAIRED = "Identities", True
    if cfg.MODEL.BLOCKS.NAME:
        for section, places in PLACES.items():
            cfg.MODEL.BLOCKS[section].AFTER = places
    cfg.TEST.EVAL_START = False
    cfg.OUTPUT_DIR = str(tmp_path / "ours")
    train(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "script")
    file = tmp_path / "config.yml"
    file.write_text(cfg.dump())
    words = Namespace(config_file=str(file), opts=[], eval_only=False, resume=False)
    runpy.run_path(str(SCRIPT))["main"](words)
    ours, script = (
        json.loads((tmp_path / one / "results.json").read_text())["DN348"] for one in ("ours", "script")
    )
    assert ours == script and ours["D2N"]["mAP"] > 0
