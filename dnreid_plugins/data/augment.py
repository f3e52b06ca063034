"""Augmentations that fast-reid lacks, or has in a form that does not run or is not reproducible.

All draw from the global generators, which the data set seeds per image (``seeding.py``).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
import torchvision.transforms as T
from fastreid.data.transforms.transforms import RandomPatch
from PIL import Image
from torch import Tensor


class ToPixels:
    """RGB image or ``(H, W, 3)`` array to ``(3, H, W)`` float32 in 0..255.

    fast-reid's ``ToTensor`` without the storage type that torch is going to remove.
    """

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format)

    def __repr__(self) -> str:
        return "ToPixels()"


class ToBytes:
    """RGB image or ``(H, W, 3)`` array to ``(3, H, W)`` uint8, pixel by pixel in memory; `on_device` makes it float32.

    A quarter of `ToPixels` on its way through workers to the device, with the same values.
    """

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def __repr__(self) -> str:
        return "ToBytes()"


class ErasedBytes:
    """`ToBytes`, and the rectangle that torchvision's ``RandomErasing`` with a constant value would erase then.

    Returns the pixels and ``(7,)`` float32: top, left, height, width (0 = nothing is erased) and the colour that
    `on_device` fills in, which no byte may hold.
    """

    def __init__(self, erasing: T.RandomErasing) -> None:
        value = erasing.value
        colour = [float(one) for one in value] if isinstance(value, (list, tuple)) else [float(value)]
        self.erasing, self.colour = erasing, colour * (3 if len(colour) == 1 else 1)

    def __call__(self, image: Image.Image | np.ndarray) -> tuple[Tensor, Tensor]:
        pixels, erasing = ToBytes()(image), self.erasing
        if torch.rand(1) < erasing.p:
            top, left, height, width, fill = erasing.get_params(
                pixels, scale=erasing.scale, ratio=erasing.ratio, value=self.colour
            )
            if fill is not pixels:  # else no rectangle has been found
                return pixels, torch.tensor([top, left, height, width, *self.colour])
        return pixels, torch.zeros(7)

    def __repr__(self) -> str:
        return f"ErasedBytes({self.erasing})"


class PlaneStep:
    """A step that keeps an RGB image or puts one plane of it, or its grey value, in all three.

    So it can follow a resize as well as precede it, bit for bit, if the grey value of the image before the resize is
    there: as the fourth plane of a picture in mode RGBX (`PixelStore`). It returns RGB or, unchanged, its input.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        raise NotImplementedError

    def grey(self, image: Image.Image) -> Image.Image:
        """The grey plane."""
        return image.getchannel(3) if image.mode == "RGBX" else image.convert("L")

    def everywhere(self, plane: Image.Image) -> Image.Image:
        return Image.merge("RGB", (plane, plane, plane))


class ChannelAugmentation(PlaneStep):
    """With probability ``p`` replace an RGB image by one of its channels, or by its grey value.

    One of red, green, blue, grey with equal probability, in all three channels: colour becomes unreliable, as it is at
    night (channel exchangeable augmentation, Ye et al., ICCV 2021).
    """

    def __init__(self, p: float) -> None:
        self.p = p

    def __call__(self, image: Image.Image) -> Image.Image:
        if torch.rand(()).item() >= self.p:
            return image
        choice = int(torch.randint(4, ()).item())
        return self.everywhere(self.grey(image) if choice == 3 else image.getchannel(choice))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class ChannelExchange(PlaneStep):
    """Replace an RGB image by one of its three channels, with equal probability, in all three channels.

    The second day view of the field's baselines (Ye et al., ICCV 2021). It works on the raw image, before any
    normalisation, so that each channel keeps its own statistics.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.everywhere(image.getchannel(int(torch.randint(3, ()).item())))

    def __repr__(self) -> str:
        return "ChannelExchange()"


class ChannelOrGrey(PlaneStep):
    """Replace an RGB image by one of its channels (1/4 each) or its grey value (1/8), or leave it as it is (1/8).

    The draws of the released ``ChannelAdapGray(0.5)``, whose probability is used within the last quarter only.
    """

    def __call__(self, image: Image.Image) -> Image.Image:
        choice = int(torch.randint(8, ()).item())
        if choice == 7:
            return image
        return self.everywhere(self.grey(image) if choice == 6 else image.getchannel(choice // 2))

    def __repr__(self) -> str:
        return "ChannelOrGrey()"


class Grey(PlaneStep):
    """Replace an RGB image by its grey value, in all three channels."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.everywhere(self.grey(image))

    def __repr__(self) -> str:
        return "Grey()"


class GreyOrColour(PlaneStep):
    """Replace an RGB image by its grey value with probability 1/2: torchvision's ``RandomGrayscale(0.5)``."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return self.everywhere(self.grey(image)) if torch.rand(1) < 0.5 else image

    def __repr__(self) -> str:
        return "GreyOrColour()"


class NoiseErasing(T.RandomErasing):
    """Random erasing whose rectangle is filled with normal noise per pixel and channel.

    The noise has the mean and spread of the normalised image, so ``mean + std * normal`` in 0..255 (timm's
    "pixel" mode).
    """

    def __init__(self, p: float, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__(p=p)
        self._mean = torch.tensor(mean).view(-1, 1, 1)
        self._std = torch.tensor(std).view(-1, 1, 1)

    def forward(self, img: Tensor) -> Tensor:
        if torch.rand(1).item() >= self.p:
            return img
        top, left, height, width, _ = self.get_params(img, scale=self.scale, ratio=self.ratio, value=[0.0])
        noise = torch.randn(img.shape[-3], height, width)
        return T.functional.erase(img, top, left, height, width, self._mean + self._std * noise)


class SmallPoolPatch(RandomPatch):
    """fast-reid's random patch with a small pool of copies.

    fast-reid keeps up to 50 000 views of whole images per worker (18 GiB at 256 x 128). The data set empties
    the pool before each batch, so that results do not depend on what a worker has processed before.
    """

    def __init__(self, p: float, *, capacity: int = 64, min_sample_size: int = 4) -> None:
        super().__init__(prob_happen=p, pool_capacity=capacity, min_sample_size=min_sample_size)

    def reset(self) -> None:
        self.patchpool: deque[Tensor] = deque(maxlen=self.patchpool.maxlen)

    def __call__(self, img: Tensor) -> Tensor:
        height, width = img.shape[-2:]
        w, h = self.generate_wh(width, height)
        if w is not None and h is not None:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            self.patchpool.append(img[..., top : top + h, left : left + w].clone())
        if len(self.patchpool) < self.min_sample_size or random.random() > self.prob_happen:
            return img
        patch = self.transform_patch(random.choice(self.patchpool))
        left = random.randint(0, width - patch.shape[-1])
        top = random.randint(0, height - patch.shape[-2])
        img[..., top : top + patch.shape[-2], left : left + patch.shape[-1]] = patch
        return img
