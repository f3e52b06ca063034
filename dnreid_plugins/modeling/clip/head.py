"""The two batch-norm necks of Bridging Day and Night: ``MODEL.HEADS.NAME: ClipNeckHead``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import CfgNode, configurable
from fastreid.layers import get_norm
from fastreid.modeling.heads import REID_HEADS_REGISTRY, EmbeddingHead
from torch import Tensor, nn

from .weights import describe


class TwoNecks(nn.Module):
    """Batch norm of the class token and, separately, of its projection; weights 1, bias frozen at 0."""

    def __init__(self, *, split: tuple[int, int], norm_type: str = "BN") -> None:
        super().__init__()
        self.split = split
        self.token = get_norm(norm_type, split[0], bias_freeze=True)
        self.projection = get_norm(norm_type, split[1], bias_freeze=True)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, W + P, 1, 1)`` -> the same shape."""
        token, projection = features.split(self.split, dim=1)
        return torch.cat([self.token(token), self.projection(projection)], dim=1)


@REID_HEADS_REGISTRY.register()
class ClipNeckHead(EmbeddingHead):
    """``[BN(v); BN_p(p)]`` of the class token v and its projection p: 768 + 512 numbers for ViT-B/16.

    In eval mode returns that feature, ``(B, W + P)``. In train mode without targets (our architectures)
    returns ``features`` ``(B, W + P)`` after the necks, whose last P columns are compared with text, and
    ``pooled`` ``(B, W + P)`` before them. With targets (fast-reid's ``Baseline``) ``features`` obeys
    ``NECK_FEAT``, and ``cls_outputs`` and ``pred_class_logits``, both ``(B, NUM_CLASSES)``, come from
    fast-reid's own classifier on the neck feature.
    """

    @configurable
    def __init__(self, *, split: tuple[int, int], norm_type: str = "BN", **embedding: Any) -> None:
        super().__init__(**embedding, with_bnneck=False, norm_type=norm_type)
        self.bottleneck = TwoNecks(split=split, norm_type=norm_type)
        self.split = split

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        heads = cfg.MODEL.HEADS
        if heads.EMBEDDING_DIM > 0:
            raise ValueError(f"MODEL.HEADS.EMBEDDING_DIM is {heads.EMBEDDING_DIM}; ClipNeckHead needs 0.")
        arguments: dict[str, Any] = EmbeddingHead.from_config(cfg)
        del arguments["with_bnneck"]
        projection = int(describe(cfg.MODEL.BACKBONE.CLIP.MODEL).model_cfg["embed_dim"])
        return {**arguments, "split": (cfg.MODEL.BACKBONE.FEAT_DIM - projection, projection)}

    def reset_parameters(self) -> None:
        """Small random rows for the classifier; batch norm keeps weight 1 and bias 0."""
        if self.weight.numel() > 0:
            nn.init.normal_(self.weight, std=0.01)

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """``features``: the backbone's map ``(B, W + P, 1, 1)``; ``targets``: ``(B,)`` int64 classes."""
        pooled_map = self.pool_layer(features)
        pooled, neck = pooled_map[..., 0, 0], self.bottleneck(pooled_map)[..., 0, 0]
        if not self.training:
            return neck
        outputs = {"features": neck, "pooled": pooled}
        if targets is not None:
            outputs["features"] = pooled if self.neck_feat == "before" else neck
            outputs |= self._classify(neck, targets)
        return outputs

    def _classify(self, neck: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if type(self.cls_layer).__name__ == "Linear":
            logits = F.linear(neck, self.weight)
        else:  # fast-reid's margin layers use cosines
            logits = F.linear(F.normalize(neck), F.normalize(self.weight))
        # The margin layers write into their input, hence the clone.
        classified = self.cls_layer(logits.clone(), targets)
        return {"cls_outputs": classified, "pred_class_logits": logits.mul(self.cls_layer.s)}
