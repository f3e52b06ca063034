"""A run of the tiny model without its training: weights whose streams differ, in a folder as a run leaves it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model


def trained_run(cfg: CfgNode, *, seed: int = 0) -> Path:
    """``OUTPUT_DIR`` of ``cfg`` with ``config.yaml`` and ``model_final.pth``."""
    torch.manual_seed(seed)
    model: Any = build_model(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".night." in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    run = Path(cfg.OUTPUT_DIR)
    run.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, run / "model_final.pth")
    (run / "config.yaml").write_text(cfg.dump())
    return run


def pick(domain: str, count: int) -> list[str]:
    """The first test images of a domain of the tiny DN-348."""
    folder = Path(os.environ["FASTREID_DATASETS"]) / "dn348" / domain
    return sorted(map(str, folder.glob("*/*.png")))[-24:][:count]
