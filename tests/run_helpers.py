"""What tests of whole runs share: train to the end, cut a run, compare weights bit for bit, and look at losses."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import dnreid_plugins  # noqa: F401  (patches fast-reid before anything of it is imported)

# isort: split
from fastreid.config import CfgNode
from fastreid.engine.train_loop import HookBase

from dnreid_plugins.engine.bad_batch import load_bad_batch, replay
from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.label_phase import LabelPhase
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer

PROJECTS = Path(__file__).resolve().parents[1] / "projects"


def miniature(cfg: CfgNode, config: str, *, border: int = 6) -> CfgNode:
    """``cfg`` with what a shipped config adds to its base, such as ``"PCLHD/configs/dnmini"``.

    What begins in the epoch ``border`` begins in the second one; neighbours of a clustering are those of ``cfg``.
    """
    text = (PROJECTS / f"{config}.yml").read_text()
    added = yaml.safe_load(re.sub(rf"(\[\[|START: ){border}\b", r"\g<1>2", text))
    del added["_BASE_"], added["OUTPUT_DIR"]
    for section in added.get("LABELS", {}).values():
        if isinstance(section, dict) and "K1" in section:
            section.update(K1=cfg.CLUSTER.K1, K2=cfg.CLUSTER.K2, EPS=cfg.CLUSTER.EPS)
    cfg.merge_from_other_cfg(CfgNode(added))
    return cfg


def train(cfg: CfgNode, *, resume: bool = False) -> CrossDomainTrainer:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def weights(trainer: CrossDomainTrainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.bare_model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class SeenLosses(HookBase):
    """Keeps the losses of every step."""

    def __init__(self) -> None:
        self.losses: list[dict[str, torch.Tensor]] = []

    def losses_ready(self, losses: dict[str, torch.Tensor]) -> None:
        self.losses.append({name: loss.detach().clone() for name, loss in losses.items()})


class StoppedError(RuntimeError):
    """Ends a run as a power cut would."""


def stop_at(trainer: CrossDomainTrainer, iteration: int) -> None:
    """The power goes off before the step ``iteration``."""
    run_step = trainer.run_step

    def step() -> None:
        if trainer.iter == iteration:
            raise StoppedError
        run_step()

    trainer.run_step = step  # type: ignore[method-assign]


def cut_and_resumed(cfg: CfgNode, iteration: int) -> CrossDomainTrainer:
    """A run with a checkpoint after every step that is cut before the step ``iteration`` and resumed to its end."""
    cfg.SOLVER.CHECKPOINT_MINUTES = 1e-9
    cut = CrossDomainTrainer(cfg)
    cut.resume_or_load(resume=False)
    stop_at(cut, iteration)
    try:
        cut.train()
    except StoppedError:
        pass
    else:
        raise AssertionError(f"the run had no step {iteration}")
    resumed = CrossDomainTrainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.iter == iteration
    resumed.train()
    return resumed


def label_phase(trainer: CrossDomainTrainer) -> LabelPhase:
    """The hook that makes the labels of the trainer."""
    return next(hook for hook in trainer._hooks if isinstance(hook, LabelPhase))


def resumed(checkpointer: AtomicCheckpointer) -> dict[str, Any]:
    """Put the newest weights of its folder back, as a run does; what else the file holds."""
    content = checkpointer.load_newest()
    checkpointer.load_model(content.pop("model"))
    return content


def replays_a_bad_batch(cfg: CfgNode, name: str, iteration: int) -> None:
    """Breaks a loss head in a step inside an epoch; the kept batch must give the losses of that step again."""
    cfg.OUTPUT_DIR += "-broken"
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    head = trainer.parts.losses[name]
    forward = head.forward
    head.forward = lambda *args: forward(*args) * (float("nan") if trainer.iter == iteration else 1.0)
    with pytest.raises(NonFiniteLossError, match=f"loss_{name.lower()} is nan at iteration {iteration}"):
        trainer.train()
    reports = replay(load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"]))
    assert [report.name for report in reports] == list(seen.losses[-1])
    for report in reports:
        assert report.gradient_at_features > 0
        if report.name != f"loss_{name.lower()}":
            assert report.loss == seen.losses[-1][report.name].item()


def all_bytes(root: Path) -> str:
    """A digest of every file below a folder, names included."""
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
