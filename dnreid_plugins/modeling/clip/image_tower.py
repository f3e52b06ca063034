"""CLIP's image tower as a fast-reid backbone: ``MODEL.BACKBONE.NAME: build_clip_vit_backbone``.

The output is the class token after the last layer norm (768 numbers for ViT-B/16) followed by its projection
into the space shared with text (512 numbers), as a ``(B, 1280, 1, 1)`` map, so that every fast-reid head with
the pooling ``Identity`` or ``GlobalAvgPool`` accepts it. The parts ``embed``, ``ln_pre``, ``blocks.0`` ...
``blocks.11``, ``ln_post`` and ``project`` are called as modules, which ``DualStream`` needs to copy some of
them per domain.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.backbones.build import BACKBONE_REGISTRY
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...runtime.sections import CountOrNone, configured, construct
from .weights import build_open_clip, describe, find_weights

logger = logging.getLogger(__name__)


@configured("MODEL.BACKBONE.CLIP")
@dataclass(frozen=True, kw_only=True)
class ClipOptions:
    """CLIP's towers and how the image tower is used.

    Args:
        model: A ViT of open_clip by name, "miniclip" (shipped for DNMini) or the path of an open_clip_config.json. For
            OpenAI's weights in a plain file take the name ending in "-quickgelu"; with the tag "openai" this is
            automatic.
        pretrained: Weights of both towers: "" (random), an open_clip tag (looked up in the local cache, never
            fetched), a file or "miniclip". They are loaded only where MODEL.BACKBONE.PRETRAIN is True.
        stride: Distance of neighbouring patches in pixels; 0 = patch size, smaller = overlapping patches.
        freeze_patch: Keep the patch projection of the weights fixed, as the released code does.
        pos_resize: Resize of the position embedding to the input: "bilinear" (as released) or "bicubic" (open_clip's
            own).
        grad_checkpoint: Recompute each block in the backward pass: about a third more time for much less memory.
    """

    model: str = "ViT-B-16"
    pretrained: str = ""
    stride: CountOrNone = 0
    freeze_patch: bool = True
    pos_resize: Literal["bilinear", "bicubic"] = "bilinear"
    grad_checkpoint: bool = False


def resize_position_embedding(
    embedding: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], mode: str = "bilinear"
) -> Tensor:
    """Position embedding resized to another grid of patches; the row of the class token is unchanged.

    Args:
        embedding: ``(1 + h * w, W)``, class token first, then the grid row by row.
        old_grid: ``(h, w)``.
        new_grid: ``(h', w')``. The same grid gives the same tensor back, as in open_clip.
        mode: ``"bilinear"`` as in CLIP-ReID and the methods built on it; ``"bicubic"`` is open_clip's anti-aliased
            resize.

    Returns:
        ``(1 + h' * w', W)``.
    """
    if mode not in ("bilinear", "bicubic"):
        raise ValueError(f"POS_RESIZE is {mode!r}; choose 'bilinear' or 'bicubic'.")
    if tuple(old_grid) == tuple(new_grid):
        return embedding
    token, grid = embedding[:1], embedding[1:]
    grid = grid.reshape(1, *old_grid, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid, size=tuple(new_grid), mode=mode, antialias=mode == "bicubic", align_corners=False
    )
    return torch.cat([token, grid.permute(0, 2, 3, 1).reshape(new_grid[0] * new_grid[1], -1)], dim=0)


class ClipEmbedding(nn.Module):
    """Image to tokens: patch projection, class token in front, position embedding added.

    The position embedding is stored for ``input_size``; an image of another size uses a resized one.
    """

    def __init__(
        self, *, visual: Any, input_size: tuple[int, int], stride: int = 0, mode: str = "bilinear"
    ) -> None:
        super().__init__()
        self.conv1: Any = visual.conv1
        self.patch_size: tuple[int, int] = tuple(visual.patch_size)
        self.step: tuple[int, int] = (stride, stride) if stride else self.patch_size
        self.mode = mode
        if stride and not isinstance(self.conv1, nn.Conv2d):
            raise ValueError(
                f"STRIDE is {stride}, but a convolutional stem has no overlapping patches; set 0."
            )
        if stride:
            self.conv1.stride = self.step
        self.grid = self.grid_of(input_size)
        self.class_embedding = visual.class_embedding
        position = resize_position_embedding(
            visual.positional_embedding.detach(), tuple(visual.grid_size), self.grid, mode
        )
        self.positional_embedding = nn.Parameter(position.clone(), visual.positional_embedding.requires_grad)

    def grid_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches in an image of ``size`` (height, width) pixels."""
        if size[0] < self.patch_size[0] or size[1] < self.patch_size[1]:
            raise ValueError(
                f"An image of {tuple(size)} pixels is smaller than a patch of {self.patch_size}; enlarge it."
            )
        rows, columns = ((n - p) // s + 1 for n, p, s in zip(size, self.patch_size, self.step, strict=True))
        return rows, columns

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, 1 + h * w, W)``."""
        patches = self.conv1(images)
        grid = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)
        first = self.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        position = resize_position_embedding(self.positional_embedding, self.grid, grid, self.mode)
        return torch.cat([first, tokens], dim=1) + position.to(tokens.dtype)


class ClipProjection(nn.Module):
    """``(B, W)`` -> ``(B, P)``: into the space shared with text."""

    def __init__(self, *, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, features: Tensor) -> Tensor:
        return features @ self.weight.to(features.dtype)


class ClipVitBackbone(nn.Module):
    """An open_clip ``VisionTransformer`` that returns the class token and its projection.

    Args:
        visual: the tower. Its parameters are used, not copied.
        input_size: height and width in pixels that the position embedding is stored for.
        stride: see `ClipOptions`, as are the other options.

    Attributes:
        split: ``(W, P)``, the widths of the class token and of its projection: ``(768, 512)`` for ViT-B/16.
        feat_dim: their sum.
    """

    def __init__(
        self,
        *,
        visual: Any,
        input_size: tuple[int, int],
        stride: int = 0,
        freeze_patch: bool = True,
        pos_resize: str = "bilinear",
        grad_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if visual.attn_pool is not None or visual.pool_type != "tok" or not visual.transformer.batch_first:
            raise ValueError(
                "This image tower does not pool at the class token; take a ViT such as ViT-B-16."
            )
        self.embed = ClipEmbedding(visual=visual, input_size=input_size, stride=stride, mode=pos_resize)
        self.patch_dropout: nn.Module = visual.patch_dropout
        self.ln_pre: nn.Module = visual.ln_pre
        self.blocks: nn.ModuleList = visual.transformer.resblocks
        self.ln_post: nn.Module = visual.ln_post
        self.project = ClipProjection(weight=visual.proj)
        self.split: tuple[int, int] = tuple(visual.proj.shape)
        self.feat_dim = sum(self.split)
        self.grad_checkpoint = grad_checkpoint
        if freeze_patch:
            self.embed.conv1.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, W + P, 1, 1)``."""
        tokens = self.ln_pre(self.patch_dropout(self.embed(images)))
        for block in self.blocks:
            if self.grad_checkpoint and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False)
            else:
                tokens = block(tokens)
        token = self.ln_post(tokens[:, 0])
        return torch.cat([token, self.project(token)], dim=1)[:, :, None, None]


def unit_parts(features: Tensor, split: Sequence[int]) -> Tensor:
    """``norm([norm(v); norm(p)])``, the feature that stage 1 of Bridging Day and Night uses.

    Args:
        features: ``(B, W + P)``, class token and projection, before the batch-norm necks.
        split: ``(W, P)``, or the widths of other parts.
    """
    parts = [F.normalize(part, dim=1) for part in features.split(list(split), dim=1)]
    return F.normalize(torch.cat(parts, dim=1), dim=1)


@BACKBONE_REGISTRY.register()
def build_clip_vit_backbone(cfg: CfgNode) -> ClipVitBackbone:
    """The backbone that ``cfg`` describes. Weights are loaded where ``MODEL.BACKBONE.PRETRAIN`` is on.

    Raises:
        ValueError: ``MODEL.BACKBONE.FEAT_DIM`` is not the width of the output.
        FileNotFoundError: the weights are not on this machine.
    """
    clip = construct(ClipOptions, cfg)
    weights = clip.pretrained if cfg.MODEL.BACKBONE.PRETRAIN else ""
    size = tuple(int(n) for n in cfg.INPUT.SIZE_TRAIN)
    backbone = ClipVitBackbone(
        visual=build_open_clip(describe(clip.model), weights).visual,
        input_size=(size[0], size[-1]),
        stride=clip.stride,
        freeze_patch=clip.freeze_patch,
        pos_resize=clip.pos_resize,
        grad_checkpoint=clip.grad_checkpoint,
    )
    activation = type(backbone.blocks[0].get_submodule("mlp.gelu")).__name__
    logger.info("CLIP %s, weights %s, activation %s", clip.model, weights or "random", activation)
    if backbone.feat_dim != cfg.MODEL.BACKBONE.FEAT_DIM:
        raise ValueError(
            f"MODEL.BACKBONE.FEAT_DIM is {cfg.MODEL.BACKBONE.FEAT_DIM}, but {clip.model} gives "
            f"{backbone.split[0]} + {backbone.split[1]}: set it to {backbone.feat_dim}."
        )
    return backbone


def clip_objection(cfg: CfgNode) -> str | None:
    """What is wrong with the keys of this backbone, asked before anything is built; None if nothing is.

    Raises:
        ValueError, OSError: so is what looking for model and weights finds.
    """
    backbone = cfg.MODEL.BACKBONE
    clip = construct(ClipOptions, cfg)
    name = describe(clip.model).name
    if not backbone.PRETRAIN:
        return None
    if backbone.PRETRAIN_PATH:
        return (
            f"MODEL.BACKBONE.PRETRAIN_PATH is {backbone.PRETRAIN_PATH!r}, which {backbone.NAME} does not read; name "
            "file or tag in MODEL.BACKBONE.CLIP.PRETRAINED and leave PRETRAIN_PATH empty."
        )
    if not clip.pretrained:
        return (
            "MODEL.BACKBONE.PRETRAIN is True and CLIP.PRETRAINED is empty; name an open_clip tag or a weight file "
            "there or set PRETRAIN False."
        )
    find_weights(name, clip.pretrained)
    return None


#: Called by the pre-flight check for every backbone that has one; such a backbone loads its weights itself.
build_clip_vit_backbone.objection = clip_objection
