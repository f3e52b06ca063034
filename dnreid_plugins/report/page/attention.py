"""Grad-CAM of pairs of images: where an image is looked at when it is compared with another one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...data.images import read_image
from ...data.loaders import build_inference_loader
from ...evaluation.extraction import evaluating
from .pictures import jpeg

#: Longest side of a picture in pixels.
SIZE = 144


class Pair(NamedTuple):
    """Two images to compare: items of a data set, and what to say of them."""

    one: tuple[Any, ...]
    other: tuple[Any, ...]
    caption: str
    correct: bool | None


class Attended(NamedTuple):
    """A pair with its pictures as data URIs: each image as it is and with its map of heat."""

    caption: str
    correct: bool | None
    similarity: float
    pictures: list[str]


class NoMapError(ValueError):
    """The encoder has neither a feature map nor tokens."""


def attended(model: nn.Module, cfg: Any, pairs: Sequence[Pair]) -> list[Attended]:
    """Grad-CAM of the cosine of each pair, on both of its images.

    Selvaraju et al., ICCV 2017. A backbone that gives a feature map is looked at there; of one with tokens those that
    go into its last block are put back into the grid of their patches.

    Raises:
        NoMapError: the backbone has neither.
        DataError: an image cannot be read.
    """
    items = [item for pair in pairs for item in (pair.one, pair.other)]
    loader = build_inference_loader(cfg, items)
    batches = list(loader)
    images = torch.cat([batch["images"].float() for batch in batches])
    domains = torch.cat([batch["domains"] for batch in batches])
    partner = torch.arange(len(items)).view(-1, 2).flip(1).flatten()
    with evaluating(model):
        device = next(iter(model.parameters())).device
        images, domains = images.to(device), domains.to(device)
        with torch.no_grad():
            unit = F.normalize(model({"images": images, "domains": domains}).float(), dim=1)
        heat = grad_cam(model, images, domains, unit[partner]).cpu()
    cosine = (unit * unit[partner]).sum(dim=1).cpu()
    return [
        Attended(
            pair.caption,
            pair.correct,
            float(cosine[2 * number]),
            [
                picture
                for place in (2 * number, 2 * number + 1)
                for picture in _pictures(read_image(items[place][0]), heat[place])
            ],
        )
        for number, pair in enumerate(pairs)
    ]


def grad_cam(model: nn.Module, images: Tensor, domains: Tensor, targets: Tensor) -> Tensor:
    """``(B, h, w)`` in [0, 1]: what raises the cosine of each image's feature with its row of ``targets``.

    Args:
        model: in eval mode.
        images: ``(B, 3, H, W)`` float, 0..255.
        domains: ``(B,)`` int64.
        targets: ``(B, D)`` unit rows.

    Raises:
        NoMapError: the backbone has neither a feature map nor tokens.
    """
    from captum.attr import LayerGradCam

    def cosine(images: Tensor) -> Tensor:
        features = model({"images": images, "domains": domains}).float()
        return (F.normalize(features, dim=1) * targets).sum(dim=1)

    with _map_of(model, images, domains) as layer:
        # One domain at a time: a backbone of two streams takes day before night, the maps would be in that order.
        order = torch.argsort(domains, stable=True)
        images, domains, targets = images[order], domains[order], targets[order]
        heat = LayerGradCam(cosine, layer).attribute(images, relu_attributions=True)[:, 0].detach().float()
    heat = heat / heat.flatten(1).amax(dim=1).clamp(min=1e-12)[:, None, None]
    return heat[torch.argsort(order)]


@contextmanager
def _map_of(model: nn.Module, images: Tensor, domains: Tensor) -> Iterator[nn.Module]:
    """The module whose output is a map ``(B, C, h, w)``; inside only, where it must be put into the model."""
    answering: Callable[[], tuple[nn.Module, nn.Module]] | None = getattr(model, "answering", None)
    backbone = answering()[0] if answering else getattr(model, "backbone", None)
    if backbone is None:
        raise NoMapError(f"{type(model).__name__} has no backbone")
    shapes: list[torch.Size] = []
    hook = backbone.register_forward_hook(lambda module, args, output: shapes.append(output.shape))
    try:
        with torch.no_grad():
            model({"images": images[:1], "domains": domains[:1]})
    finally:
        hook.remove()
    if len(shapes[0]) == 4 and shapes[0][2] * shapes[0][3] > 1:
        yield backbone
        return
    blocks = next((m for name, m in backbone.named_modules() if name.rpartition(".")[2] == "blocks"), None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise NoMapError(f"{type(model).__name__} has neither a feature map nor blocks of tokens")
    tap = _Grid((images.shape[2], images.shape[3]))
    hook = blocks[-1].register_forward_pre_hook(lambda module, args: (tap(args[0]), *args[1:]))
    try:
        yield tap.map
    finally:
        hook.remove()


class _Grid(nn.Module):
    """Gives tokens ``(B, 1 + h * w, C)`` on as they are; on the way they pass ``map`` as ``(B, C, h, w)``."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.map = nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        rows, columns = grid_of(tokens.shape[1] - 1, self.size)
        patches = tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, rows, columns)
        return torch.cat([tokens[:, :1], self.map(patches).flatten(2).transpose(1, 2)], dim=1)


def grid_of(patches: int, size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of ``patches``, in the ratio that is nearest to that of the image ``(H, W)``.

    Raises:
        NoMapError: there is no patch.
    """
    if patches < 1:
        raise NoMapError("the backbone has no token beside that of the class")
    wanted = math.log(size[0] / size[1])
    pairs = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[0] / pair[1]) - wanted))


def _pictures(image: Image.Image, heat: Tensor) -> list[str]:
    """The image, and under its heat ``(h, w)``."""
    from matplotlib import colormaps

    image = image.copy()
    image.thumbnail((SIZE, SIZE))
    size = (image.height, image.width)
    large = F.interpolate(heat[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    colour = colormaps["inferno"](large.numpy())[..., :3] * 255.0
    share = (0.15 + 0.6 * large.numpy())[..., None]
    mixed = (1.0 - share) * np.asarray(image, dtype=np.float64) + share * colour
    return [jpeg(image, SIZE), jpeg(Image.fromarray(mixed.round().clip(0, 255).astype(np.uint8)), SIZE)]
