"""The prompts of a kept batch: of the table of all training images only the rows that the batch needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.prompts import PromptLearner, build_prompt_learner
from ..modeling.text import ClipTextTower, build_text_tower

HEAD = "ImageText"


def kept_prompts(model: Any, indices: Tensor) -> dict[str, Any]:
    """What the prompts of the images ``indices`` ``(B,)`` are; empty where the model has none.

    ``indices`` ``(U,)`` int64, rising; ``domains`` ``(U,)`` int64; ``tokens`` ``(U, M * D)``; ``bias_net``, a state
    dict. The text tower is not kept: `prepare_prompts` builds it from the config again.
    """
    heads = getattr(model, "loss_heads", {})
    if HEAD not in heads or not heads[HEAD]._stage_1:
        return {}
    prompts, _ = heads[HEAD]._stage_1[0]
    rows = indices.unique().cpu()
    table = prompts.tokens.weight.detach()
    return {
        "indices": rows,
        "domains": prompts.domains[rows],
        "tokens": table[rows.to(table.device)],
        "bias_net": {} if prompts.bias_net is None else prompts.bias_net.state_dict(),
    }


def join_prompts(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The prompts that several processes have kept of one global batch; empty if there are none."""
    if not parts:
        return {}
    indices = torch.cat([part["indices"] for part in parts])
    # The place of each image's first row.
    rising, which = indices.unique(return_inverse=True)
    first = torch.full_like(rising, len(indices)).scatter_reduce(
        0, which, torch.arange(len(indices)), reduce="amin"
    )
    rows = {key: torch.cat([part[key] for part in parts])[first] for key in ("indices", "domains", "tokens")}
    return {**rows, "bias_net": parts[0]["bias_net"]}


class _KeptRows(nn.Module):
    """Stands for the prompts of all images, of which it has some."""

    def __init__(self, prompts: PromptLearner, indices: Tensor) -> None:
        super().__init__()
        self.prompts = prompts
        self.indices = indices

    def text_features(self, text: ClipTextTower, indices: Tensor, features: Tensor) -> Tensor:
        return self.prompts.text_features(text, torch.searchsorted(self.indices, indices), features)


def prepare_prompts(model: Any, kept: dict[str, Any], cfg: Any) -> None:
    """Hand the kept prompts and a text tower as ``cfg`` describes it to the model's head."""
    text = build_text_tower(cfg)
    prompts = build_prompt_learner(cfg, text, kept["domains"])
    prompts.tokens.weight.data.copy_(kept["tokens"])
    if prompts.bias_net is not None:
        prompts.bias_net.load_state_dict(kept["bias_net"])
    rows: Any = _KeptRows(prompts.to(model.device), kept["indices"].to(model.device))
    model.loss_heads[HEAD].prepare(rows, text.to(model.device))
