"""Pictures in memory go the way of files: the same transform, the same loader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode
from PIL import Image

from ..data.dataset import DomainDataset
from ..data.images import as_rgb, read_image
from ..data.items import DomainItem, domain_of
from ..data.loaders import InferenceSlice, SentenceLoader
from ..data.transforms import build_domain_transform

Picture = str | Path | Image.Image


class Pictures(DomainDataset):
    """A `DomainDataset` some of whose images are pictures in memory."""

    def __init__(self, cfg: CfgNode, images: Sequence[Picture], domains: Sequence[int]) -> None:
        self.images = list(images)
        pictures = [isinstance(image, Image.Image) for image in self.images]
        names = [f"picture {n}" if pictures[n] else str(image) for n, image in enumerate(self.images)]
        items = [DomainItem(name, 0, domain, domain) for name, domain in zip(names, domains)]
        super().__init__(items, build_domain_transform(cfg, is_train=False))

    def read(self, index: int, view: int = 0) -> dict[str, Any]:
        """The sample of `DomainDataset`, from the picture where there is one."""
        image, item = self.images[index], self.items[index]
        picture = as_rgb(image) if isinstance(image, Image.Image) else read_image(str(image))
        pixels = self.transform(picture, domain_of(item))
        return {"images": pixels, "domains": int(domain_of(item)), "img_paths": item[0], "indices": index}


class PictureLoader(SentenceLoader):
    """Batches of `Pictures`, made in this process."""

    def __init__(self, cfg: CfgNode, images: Sequence[Picture], domains: Sequence[int]) -> None:
        super().__init__(
            Pictures(cfg, images, domains), batch_sampler=InferenceSlice(len(images), cfg.TEST.IMS_PER_BATCH)
        )
