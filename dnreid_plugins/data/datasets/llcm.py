"""LLCM: persons in low light, under nine visible and eight near-infrared cameras."""

from __future__ import annotations

import os
import re
from pathlib import Path

from fastreid.data.datasets import DATASET_REGISTRY

from ..drawn_galleries import GALLERIES, llcm_protocol
from ..items import DomainItem
from ..protocols import Protocol
from ...functional.types import Domain
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .camera_folders import camera_images, read_identities

_SHORT = {Domain.DAY: "vis", Domain.NIGHT: "nir"}
#: There is no near-infrared camera 3.
CAMERAS = {Domain.DAY: tuple(range(1, 10)), Domain.NIGHT: (1, 2, 4, 5, 6, 7, 8, 9)}
# A camera in a path relative to the set's folder: a folder cam7, or a file name such as 0003_c07_s185734_f3195_nir.jpg.
_CAMERA = re.compile(r"(?:^|/)cam(\d+)/|_c(\d+)_[^/]*$")


@DATASET_REGISTRY.register()
class LLCM(CrossDomainDataset):
    """LLCM: 713 training and 351 test identities under nine cameras, visible and near-infrared, ten galleries.

    ``idx/train_{vis,nir}.txt`` with lines ``<path> <label>``, ``idx/test_id.txt`` with a line of identities,
    ``test_{vis,nir}/cam<number>/<identity>/<image>``. Visible counts as day, near-infrared as night.
    """

    dataset_name = "llcm"
    folders = ("LLCM", "llcm")
    words = {Domain.DAY: "visible", Domain.NIGHT: "near-infrared"}
    galleries = GALLERIES
    expected = {
        "train visible images": 16946,
        "train near-infrared images": 13975,
        "train identities": 713,
        "test visible images": 8680,
        "test near-infrared images": 7166,
        "test identities": 351,
    }

    def find_root(self, root: Path) -> Path:
        return files.find_folder("LLCM", root, self.folders, ("idx",))

    def load_train(self) -> list[DomainItem]:
        return canonical(
            self.train_item(os.path.join(self.root, path), label, domain, _camera_of(path))
            for domain in Domain
            for path, label in self._read_train(domain).items()
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        ids, items = read_identities("LLCM", self.root / "idx" / "test_id.txt"), []
        for domain in Domain:
            images = camera_images("LLCM", self.root / f"test_{_SHORT[domain]}", CAMERAS[domain], ids)
            refuse_empty("LLCM", domain, len(images), self.root)
            items += [DomainItem(*image, domain) for image in images]
        items = canonical(items)
        return items, llcm_protocol(items)

    def _read_train(self, domain: Domain) -> dict[str, int]:
        """Path relative to the set's folder -> label."""
        role, names = f"{self.words[domain]} train", (f"train_{_SHORT[domain]}.txt",)
        list_path = files.find_list("LLCM", role, (self.root / "idx",), names)
        labels = files.labelled_paths(list_path)
        refuse_empty("LLCM", domain, len(labels), list_path)
        files.locate_images("LLCM", list_path, (self.root,), list(labels))
        return labels

    def _warn_of_shared_ids(self) -> None:
        """The training lists number their identities by themselves, so an equal number means nothing."""


def _camera_of(path: str) -> int | None:
    """The camera of a training image; None where its path does not say it: then a domain is one camera."""
    found = _CAMERA.search(path)
    return int(found[1] or found[2]) if found else None
