"""An engineer's two folders of unlabelled crops: ``day/`` and ``night/``."""

from __future__ import annotations

import os
from pathlib import Path

from fastreid.data.datasets import DATASET_REGISTRY

from ...functional.types import Domain
from ..items import DomainItem
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)


@DATASET_REGISTRY.register()
class DayNightFolder(CrossDomainDataset):
    """Every image below ``<root>/day`` and ``<root>/night``, sub-folders included; no identities (-1), no lists.

    For training only: without identities nothing can be scored. Point ``$FASTREID_DATASETS`` at the folder
    that holds ``day`` and ``night``.
    """

    dataset_name = "daynightfolder"
    has_ids = False

    def find_root(self, root: Path) -> Path:
        if (root / "day").is_dir() and (root / "night").is_dir():
            return root
        return files.find_folder("DayNightFolder", root, ("daynight", "DayNightFolder"), ())

    def load_train(self) -> list[DomainItem]:
        items = []
        for domain in Domain:
            folder = self.root / domain.name.lower()
            paths = list_images(folder)
            refuse_empty("DayNightFolder", domain, len(paths), folder)
            items += [self.train_item(path, -1, domain) for path in paths]
        return canonical(items)


def list_images(folder: Path) -> list[str]:
    """Paths of all image files below ``folder``, sorted; hidden files and other types are left out."""
    found = []
    for parent, _, names in os.walk(folder):
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                found.append(os.path.join(parent, name))
    return sorted(found)
