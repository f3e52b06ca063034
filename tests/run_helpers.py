"""What tests of whole runs share: train to the end, and compare weights bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from fastreid.config import CfgNode

from dnreid_plugins.engine.checkpoint import AtomicCheckpointer
from dnreid_plugins.engine.trainer import CrossDomainTrainer


def train(cfg: CfgNode, *, resume: bool = False) -> CrossDomainTrainer:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def weights(trainer: CrossDomainTrainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.bare_model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def resumed(checkpointer: AtomicCheckpointer) -> dict[str, Any]:
    """Put the newest weights of its folder back, as a run does; what else the file holds."""
    content = checkpointer.load_newest()
    checkpointer.load_model(content.pop("model"))
    return content
