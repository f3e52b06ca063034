"""SYSU-MM01: persons under four visible and two infrared cameras."""

from __future__ import annotations

from pathlib import Path

from fastreid.data.datasets import DATASET_REGISTRY

from ..drawn_galleries import GALLERIES, sysu_protocol
from ..errors import DataError
from ..items import DomainItem
from ..protocols import Protocol
from ...functional.types import Domain
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .camera_folders import camera_images, read_identities

CAMERAS = {Domain.DAY: (1, 2, 4, 5), Domain.NIGHT: (3, 6)}


@DATASET_REGISTRY.register()
class SYSUMM01(CrossDomainDataset):
    """SYSU-MM01: 395 training and 96 test identities under six cameras, ten galleries, all and indoor search.

    ``cam{1..6}/<identity>/<image>`` and ``exp/{train,val,test}_id.txt``, a line of identities; the published training
    set is train + val. Visible (cameras 1, 2, 4, 5) counts as day, infrared (3, 6) as night.
    """

    dataset_name = "sysu"
    folders = ("SYSU-MM01", "SYSUMM01", "sysu")
    words = {Domain.DAY: "visible", Domain.NIGHT: "infrared"}
    galleries = GALLERIES
    expected = {
        "train visible images": 22258,
        "train infrared images": 11909,
        "train identities": 395,
        "test identities": 96,
        "N2D queries": 3803,
        "N2D gallery": 301,
        "N2D indoor gallery": 112,
    }

    def find_root(self, root: Path) -> Path:
        return files.find_folder("SYSUMM01", root, self.folders, ("exp",))

    def load_train(self) -> list[DomainItem]:
        return canonical(
            self.train_item(path, pid, domain, camera)
            for path, pid, camera, domain in self._images("train", "val")
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        items = canonical(DomainItem(*image) for image in self._images("test"))
        return items, sysu_protocol(items)

    def _images(self, *splits: str) -> list[tuple[str, int, int, Domain]]:
        """``(path, identity, camera, domain)`` of the images of some splits."""
        arrays = "train_rgb_resized_img.npy"
        if (self.root / arrays).exists() and not (self.root / "cam1").is_dir():
            raise DataError(
                f"SYSUMM01: {str(self.root)!r} holds prepared arrays ({arrays}), which are not read; put the "
                "original images there, cam1/0001/0001.jpg and so on"
            )
        ids = [pid for split in splits for pid in read_identities("SYSUMM01", self.root / "exp" / f"{split}_id.txt")]
        found = []
        for domain, cameras in CAMERAS.items():
            images = camera_images("SYSUMM01", self.root, cameras, dict.fromkeys(ids))
            refuse_empty("SYSUMM01", domain, len(images), self.root)
            found += [(*image, domain) for image in images]
        return found
