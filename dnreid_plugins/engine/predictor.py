"""fast-reid's predictor, which does not change its input and refuses to use random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.engine.defaults import DefaultPredictor
from fastreid.modeling.meta_arch import build_model
from PIL import Image
from torch import Tensor

from ..data.domain_images import as_domains
from ..data.transforms import build_domain_transform
from ..runtime.config_files import ConfigError
from .evaluation_file import Evaluation


class Predictor(DefaultPredictor):
    """Features of images from a trained model; replaces fast-reid's ``DefaultPredictor``.

    Args:
        cfg: the config of the run; ``MODEL.WEIGHTS`` is the checkpoint.

    Raises:
        ConfigError: ``MODEL.WEIGHTS`` is empty, or of a run whose config makes other features; see
            ``TEST.SET_ANYWAY``.
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
        evaluation = Evaluation(self.cfg)  # refuses another config than that of the run
        self.model = build_model(self.cfg).eval()
        evaluation.load(self.model)
        # The test pipelines of both domains are the same.
        self._transform = build_domain_transform(self.cfg, is_train=False).day
        trials = [self._transform(Image.new("RGB", size)).shape for size in ((16, 64), (64, 16))]
        #: Height and width of every transformed image; None where they depend on the image.
        self.size = (trials[0][1], trials[0][2]) if trials[0] == trials[1] else None

    @torch.no_grad()
    def __call__(
        self,
        image: Tensor | np.ndarray,
        domain: str | int | Sequence[str | int] | Tensor | None = None,
    ) -> Tensor:
        """Features ``(B, D)`` on the CPU.

        Args:
            image: ``(B, 3, H, W)`` or ``(3, H, W)``, or one RGB array ``(H, W, 3)``. uint8 images go through the
                transform of the evaluation, so they may have any size; floats in 0..255 are used as transformed
                images.
            domain: ``"day"`` (0) or ``"night"`` (1), or one per image. A model with two streams needs it, unless the
                images carry it (`DomainImages`) or ``MODEL.DUAL_STREAM.ASSUME_DOMAIN`` sets it for all.

        Raises:
            ValueError: another shape or size, or no domain for a model with two streams.
        """
        images = self._transformed(image)
        domain = getattr(image, "domains", None) if domain is None else domain
        known = {} if domain is None else {"domains": as_domains(domain, len(images))}
        return self.model({"images": images, **known}).cpu()

    def _transformed(self, image: Tensor | np.ndarray) -> Tensor:
        images = image
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.array(images)).movedim(-1, 0)
        images = images[None] if images.ndim == 3 else images
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise ValueError(
                f"The predictor got shape {tuple(image.shape)}; it takes (B, 3, H, W) or (H, W, 3)."
            )
        if images.dtype == torch.uint8:
            pixels = images.permute(0, 2, 3, 1).cpu().numpy()
            return torch.stack([self._transform(Image.fromarray(one)) for one in pixels])
        if self.size not in (None, tuple(images.shape[2:])):
            raise ValueError(
                f"The predictor got float images of {tuple(images.shape[2:])} (height, width), while INPUT makes "
                f"them {self.size}; give them that size, or give uint8 images, which it resizes itself."
            )
        return images.float()


class UnitPredictor(Predictor):
    """A `Predictor` whose features have length 1 where ``TEST.METRIC`` is cosine.

    fast-reid's ``visualize_result.py`` uses dot products of ``DefaultPredictor``'s features as cosines.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        features = super().__call__(*args, **kwargs)
        return F.normalize(features, dim=1) if self.cfg.TEST.METRIC == "cosine" else features
