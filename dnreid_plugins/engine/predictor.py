"""fast-reid's predictor, which leaves its input alone and never answers from random weights."""

from __future__ import annotations

import numpy as np
import torch
from fastreid.config import CfgNode
from fastreid.engine.defaults import DefaultPredictor
from fastreid.modeling.meta_arch import build_model
from torch import Tensor

from .checkpoint import AtomicCheckpointer
from .config_merge import ConfigError


class Predictor(DefaultPredictor):
    """Features of images by a trained model; takes the place of fast-reid's ``DefaultPredictor``.

    Args:
        cfg: the config of the run; ``MODEL.WEIGHTS`` is the checkpoint.

    Raises:
        ConfigError: ``MODEL.WEIGHTS`` is empty.
        WeightFileError: the file does not fit the model.
    """

    def __init__(self, cfg: CfgNode) -> None:
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError(
                "MODEL.WEIGHTS is empty, so features would be random; give the path of a checkpoint."
            )
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.BACKBONE.PRETRAIN = False
        self.model = build_model(self.cfg).eval()
        AtomicCheckpointer(self.model).load(cfg.MODEL.WEIGHTS)

    @torch.no_grad()
    def __call__(self, image: Tensor | np.ndarray) -> Tensor:
        """Features ``(B, D)`` on the CPU.

        Args:
            image: ``(B, 3, H, W)`` or ``(3, H, W)`` with values 0..255, or one RGB array ``(H, W, 3)``.

        Raises:
            ValueError: another shape.
        """
        images = torch.from_numpy(image).permute(2, 0, 1) if isinstance(image, np.ndarray) else image
        images = images[None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(
                f"The predictor got shape {tuple(image.shape)}; it takes (B, 3, H, W) or (H, W, 3)."
            )
        return self.model({"images": images.float()}).cpu()
