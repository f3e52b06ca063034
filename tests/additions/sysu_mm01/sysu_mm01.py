"""SYSU-MM01: persons under four visible and two infrared cameras."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY

from dnreid_plugins.data.datasets import files
from dnreid_plugins.data.datasets.base import CrossDomainDataset, canonical, refuse_empty
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.protocols import Direction, ImageLabels, Mask, Protocol
from dnreid_plugins.functional.types import Domain

CAMERAS = {Domain.DAY: (1, 2, 4, 5), Domain.NIGHT: (3, 6)}


def camera_2_for_queries_of_camera_3(query: ImageLabels, gallery: ImageLabels) -> Mask:
    """Both stand in the same room."""
    return (query.cams[:, None] == 3) & (gallery.cams == 2)


def ten_galleries(items: list[DomainItem]) -> tuple[np.ndarray, ...]:
    """One visible image per identity and camera, drawn by ``Random(trial)``, identities and cameras ascending."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(items):
        if item.domain == Domain.DAY:
            groups.setdefault((int(item.pid), int(item.camid)), []).append(place)
    found = []
    for trial in range(10):
        drawn = random.Random(trial)
        found.append(np.array([drawn.choice(groups[key]) for key in sorted(groups)]))
    return tuple(found)


@DATASET_REGISTRY.register()
class SYSUMM01(CrossDomainDataset):
    """``cam{1..6}/{id:04d}/*.jpg`` and ``exp/{train,val,test}_id.txt``, a line of identities; train is train + val."""

    dataset_name = "sysu"
    folders = ("SYSU-MM01", "sysu")

    def find_root(self, root: Path) -> Path:
        return files.find_folder("SYSUMM01", root, self.folders, ("exp",))

    def load_train(self) -> list[DomainItem]:
        found = self._images("train", "val")
        return canonical(self.train_item(path, pid, domain, camera) for path, pid, camera, domain in found)

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        items = canonical(DomainItem(*one) for one in self._images("test"))
        first, *more = ten_galleries(items)
        infrared = np.flatnonzero([item.domain == Domain.NIGHT for item in items])
        return items, Protocol(
            "SYSU-MM01 all search",
            (Direction("N2D", infrared, first, tuple(more)),),
            removal=camera_2_for_queries_of_camera_3,
            cmc="identity",
            topk=(1, 10, 20),
        )

    def _images(self, *splits: str) -> list[tuple[str, int, int, Domain]]:
        """``(path, identity, camera, domain)`` of the images of some splits."""
        found = []
        for pid in (pid for split in splits for pid in self._identities(split)):
            for domain, cameras in CAMERAS.items():
                for camera in cameras:
                    folder = self.root / f"cam{camera}" / f"{pid:04d}"
                    paths = sorted(folder.glob("*")) if folder.is_dir() else []
                    found += [
                        (str(path), pid, camera, domain)
                        for path in paths
                        if path.suffix.lower() in files.IMAGE_SUFFIXES
                    ]
        for domain in Domain:
            refuse_empty("SYSUMM01", domain, sum(one[3] == domain for one in found), self.root)
        return found

    def _identities(self, split: str) -> list[int]:
        path = files.find_list("SYSUMM01", split, (self.root / "exp",), (f"{split}_id.txt",))
        words = path.read_text().replace(",", " ").split()
        if not words or not all(word.isdigit() for word in words):
            raise DataError(f"SYSUMM01: {str(path)!r} is no line of identities; put another copy there")
        return [int(word) for word in words]
