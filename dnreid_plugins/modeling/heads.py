"""A pooling and batch-norm neck without a classifier, for contrast with prototypes."""

from __future__ import annotations

from typing import Any

from fastreid.config import configurable
from fastreid.layers import get_norm, pooling
from fastreid.layers.weight_init import weights_init_kaiming
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from torch import Tensor, nn


@REID_HEADS_REGISTRY.register()
class NeckHead(nn.Module):
    """Pooling, optional reduction and batch-norm neck (bias frozen) of fast-reid's EmbeddingHead, nothing else.

    In eval mode returns the neck feature ``(B, D)``; in train mode ``{"features": (B, D), "pooled": (B, P)}``.
    """

    @configurable
    def __init__(
        self, *, feat_dim: int, embedding_dim: int, pool_type: str, norm_type: str, with_bnneck: bool
    ) -> None:
        super().__init__()
        if not hasattr(pooling, pool_type):
            raise ValueError(f"MODEL.HEADS.POOL_LAYER is {pool_type!r}; known layers: {pooling.__all__}.")
        self.pool_layer = getattr(pooling, pool_type)()
        neck: list[nn.Module] = []
        if embedding_dim > 0:
            neck.append(nn.Conv2d(feat_dim, embedding_dim, 1, bias=False))
            feat_dim = embedding_dim
        if with_bnneck:
            neck.append(get_norm(norm_type, feat_dim, bias_freeze=True))
        self.bottleneck = nn.Sequential(*neck)
        self.bottleneck.apply(weights_init_kaiming)

    @classmethod
    def from_config(cls, cfg: Any) -> dict[str, Any]:
        return {
            "feat_dim": cfg.MODEL.BACKBONE.FEAT_DIM,
            "embedding_dim": cfg.MODEL.HEADS.EMBEDDING_DIM,
            "pool_type": cfg.MODEL.HEADS.POOL_LAYER,
            "norm_type": cfg.MODEL.HEADS.NORM,
            "with_bnneck": cfg.MODEL.HEADS.WITH_BNNECK,
        }

    def forward(self, features: Tensor, targets: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """``features``: the backbone's map (B, C, h, w); ``targets`` is not used."""
        pooled = self.pool_layer(features)
        neck = self.bottleneck(pooled)[..., 0, 0]
        if not self.training:
            return neck
        return {"features": neck, "pooled": pooled[..., 0, 0]}
