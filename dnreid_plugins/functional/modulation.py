"""Light and attention on feature maps: a mask of glare, an enhanced structure, a map of the identity's own pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

#: Shares of red, green and blue in the luminance (ITU-R BT.601).
LUMINANCE = (0.299, 0.587, 0.114)


def glare_mask(
    images: Tensor, *, threshold: float = 220.0, weights: tuple[float, float, float] = LUMINANCE
) -> Tensor:
    """Pixels in a bright spot of at least 3 x 3 pixels: luminance above ``threshold``, opened by a 3 x 3 square.

    What lies outside the image counts as dark, so a spot that the border cuts to less than 3 x 3 is none.

    Args:
        images: ``(B, 3, H, W)`` RGB in 0..255.
        threshold: a pixel is bright above it.
        weights: of red, green and blue.

    Returns:
        ``(B, 1, H, W)`` of the images' dtype, 1 = glare.
    """
    shares = images.new_tensor(weights).view(1, 3, 1, 1)
    dark = ((images * shares).sum(dim=1, keepdim=True) <= threshold).to(images.dtype)
    eroded = 1 - F.max_pool2d(F.pad(dark, (1, 1, 1, 1), value=1.0), 3, stride=1)
    return F.max_pool2d(eroded, 3, stride=1, padding=1)


def pooled_to(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """``(B, 1, H, W)`` -> ``(B, 1, *size)``: a 3 x 3 maximum with stride 2 for each time that a map halved its height.

    Where the map's layers round in another way, the maximum of adaptive windows makes up for the rest.
    """
    for _ in range(max(round(math.log2(mask.shape[2] / size[0])), 0)):
        mask = F.max_pool2d(mask, 3, stride=2, padding=1)
    return mask if tuple(mask.shape[2:]) == tuple(size) else F.adaptive_max_pool2d(mask, size)


def enhance_structure(maps: Tensor, *, keep: float = 0.9, gain: float = 0.25) -> Tensor:
    """``keep x + gain relu(mean of the 24 neighbours of x in a 5 x 5 window - x)``; outside the map is 0.

    Args:
        maps: ``(B, C, h, w)`` of any size.
        keep, gain: shares of the map and of what its neighbours have more.
    """
    # 25 times the mean of the window is x and its 24 neighbours.
    above = (F.avg_pool2d(maps, 5, stride=1, padding=2) - maps) * (25 / 24)
    return keep * maps + gain * torch.relu(above)


def class_attention(maps: Tensor, projection: Tensor, classifier: Tensor) -> Tensor:
    """``sigmoid(relu(r))``, where r is a pixel's logit of the class whose mean logit over the image is largest.

    The logits are linear in the pixel, so the mean pixel names the class, and only that class's logits are computed:
    the map of all classes, ``(B, C, h, w)``, never exists.

    Args:
        maps: ``(B, K, h, w)``.
        projection: ``(D, K)``, from a pixel to the classifier's input.
        classifier: ``(C, D)``; without a class all logits are 0.

    Returns:
        ``(B, h, w)`` in [0.5, 1), 0.5 without a class. The gradient flows to all three arguments.
    """
    if len(classifier) == 0:
        return maps.new_full((len(maps), *maps.shape[2:]), 0.5)
    chosen = (maps.mean(dim=(2, 3)) @ projection.T @ classifier.T).argmax(dim=1)
    rows = classifier[chosen] @ projection
    return torch.sigmoid(torch.relu(torch.einsum("bk,bkhw->bhw", rows, maps)))


def partner_attention(
    labels: Tensor, domains: Tensor, all_labels: Tensor, all_domains: Tensor, attention: Tensor
) -> Tensor:
    """Mean attention of the images with the same label in the other domain; 0 for an image that has none.

    Args:
        labels, domains: ``(B,)`` int64; label -1 has no partner.
        all_labels, all_domains: ``(A,)`` int64, where partners are looked for.
        attention: ``(A, h, w)``; carries the gradient.

    Returns:
        ``(B, h, w)``.
    """
    partner = (labels[:, None] == all_labels) & (domains[:, None] != all_domains) & (labels[:, None] >= 0)
    share = partner.to(attention.dtype) / partner.sum(dim=1, keepdim=True).clamp(min=1)
    return (share @ attention.flatten(1)).view(len(labels), *attention.shape[1:])
