"""The batch on which training failed: saved with everything that its losses depend on, and replayed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from fastreid.config import CfgNode, get_cfg
from fastreid.engine.train_loop import HookBase
from fastreid.modeling.meta_arch import build_model
from fastreid.utils import comm
from torch import Tensor, nn

from ..data.collate import on_device
from ..runtime.files import plain, write_atomically
from ..runtime.weight_files import WeightFileError, read_weight_file
from .epoch_state import epoch_from_state, epoch_to_state, set_generator_state
from .loss_audit import gradient_norm

logger = logging.getLogger(__name__)

FILE = "bad_batch.pt"


class KeepBadBatch(HookBase):
    """Writes ``OUTPUT_DIR/bad_batch.pt`` when a loss or gradient is not finite (``.rank1.pt`` in process 1 ...)."""

    def step_failed(self, batch: dict[str, Any], losses: dict[str, Tensor], reason: str) -> str:
        """Save; returns a text for the error message, empty without ``OUTPUT_DIR``. Called by the trainer."""
        trainer, rank = self.trainer, comm.get_rank()
        if not trainer.cfg.OUTPUT_DIR:
            return ""
        name = FILE if rank == 0 else FILE.replace(".pt", f".rank{rank}.pt")
        path = Path(trainer.cfg.OUTPUT_DIR) / name
        content = plain(self._content(batch, losses, reason), name)
        try:
            write_atomically(path, lambda file: torch.save(content, file))
        except (OSError, RuntimeError) as error:
            return f"the batch could not be saved ({error})"
        return f"{_features_text(trainer.bare_model, batch)}all is in {path} for tools/replay_batch.py"

    def _content(self, batch: dict[str, Any], losses: dict[str, Tensor], reason: str) -> dict[str, Any]:
        trainer, model = self.trainer, self.trainer.bare_model
        content = {
            "reason": reason,
            "iteration": trainer.iter,
            "losses": {name: float(value.detach()) for name, value in losses.items()},
            "batch": dict(batch),
            "model": model.state_dict(),
            "generators": trainer.step_trainer.generators,
            "config": trainer.cfg.dump(),
        }
        if trainer.train_data is not None:
            content["epoch"] = epoch_to_state(model.parts.epoch)
            content["parts"] = {n: part.replay_state(batch["indices"]) for n, part in model.parts.named()}
        return content


def _features_text(model: Any, batch: dict[str, Any]) -> str:
    features = getattr(model, "last_batch", None)
    if features is None:
        return ""
    bad = torch.nonzero(~torch.isfinite(features.features).all(dim=1)).flatten().tolist()
    if not bad:
        return "the features themselves are finite; "
    return f"{len(bad)} of {len(features.features)} features are already NaN or infinite; "


@dataclass(frozen=True)
class HeadReport:
    """One loss head on the replayed batch: its weighted loss and the norms of its gradient."""

    name: str
    loss: float
    gradient_at_features: float
    gradient_at_weights: float


def load_bad_batch(paths: Sequence[str | Path]) -> dict[str, Any]:
    """The saved batch; the files of several processes are joined to the global batch.

    Raises:
        WeightFileError: a file cannot be read or is something else.
    """
    contents = [read_weight_file(Path(path)) for path in paths]
    for path, content in zip(paths, contents, strict=True):
        if not isinstance(content, dict) or not {"batch", "model", "config", "reason"} <= content.keys():
            raise WeightFileError(f"{path} is not a saved batch; give the bad_batch.pt of a run.")
    whole = contents[0]
    parts = [content["batch"] for content in contents]
    joined = {key: _joined([part[key] for part in parts]) for key in parts[0]}
    if "domains" in joined:
        order = torch.argsort(joined["domains"], stable=True)
        joined = {
            key: value if isinstance(value, str) else _in_order(value, order) for key, value in joined.items()
        }
    replays = {name: [content["parts"][name] for content in contents] for name in whole.get("parts", {})}
    return {**whole, "batch": joined, "parts": replays}


def _in_order(value: Any, order: Tensor) -> Any:
    return value[order] if isinstance(value, Tensor) else [value[i] for i in order.tolist()]


def _joined(values: list[Any]) -> Any:
    if isinstance(values[0], str):  # the same in every process
        return values[0]
    return (
        torch.cat(values) if isinstance(values[0], Tensor) else [item for value in values for item in value]
    )


def rebuild_model(content: dict[str, Any], device: str = "") -> nn.Module:
    """The model as it was before the step, in train mode, with memory and loss heads of that epoch."""
    cfg = get_cfg()
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(content["config"])))
    cfg.MODEL.DEVICE = device or cfg.MODEL.DEVICE
    pretrained, cfg.MODEL.BACKBONE.PRETRAIN = cfg.MODEL.BACKBONE.PRETRAIN, False
    model = build_model(cfg)
    # What an epoch's start makes, the bank of a further clustering for instance, is not there yet.
    model.load_state_dict(content["model"], strict="epoch" not in content)
    model.train()
    if "epoch" in content:
        cfg.MODEL.BACKBONE.PRETRAIN = pretrained
        model.parts.begin_epoch(epoch_from_state(content["epoch"]))
        model.load_state_dict(
            content["model"]
        )  # the start of an epoch resets some state, which has changed since
        for name, part in model.parts.named():
            part.load_replay_state(content["parts"][name], cfg)
    return model


def replay(content: dict[str, Any], device: str = "") -> list[HeadReport]:
    """Forward and backward of the saved batch, one head after the other, in full precision."""
    model = rebuild_model(content, device)
    batch = on_device(content["batch"], next(model.parameters()).device)
    set_generator_state(content["generators"])
    losses = model(batch)
    outputs = getattr(model, "last_outputs", None)
    parameters = [p for p in model.parameters() if p.requires_grad]
    reports = []
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        found: list[Tensor | None] = list(gradients)
        norms = torch.stack([g.float().norm() for g in found if g is not None] or [torch.zeros(())])
        at_features = float("nan") if outputs is None else gradient_norm(loss, outputs)
        reports.append(HeadReport(name, float(loss.detach()), at_features, float(norms.norm())))
    return reports
