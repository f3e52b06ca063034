"""Readers of the DN-348 layout: ``day/<id>/<image>``, ``night/<id>/<image>`` and list files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from ..protocols import Protocol, dn348_protocol, dnwild_protocol
from ...functional.types import Domain
from ..errors import DataError
from ..items import DomainItem
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .settings import SETTINGS

_FOLDER_OF_LISTS = "train_test_split"


class DayNightListDataset(CrossDomainDataset):
    """Lists of paths relative to the domain's folder; the first part of a path is the identity.

    Both released layouts and list names are supported; the first that exists is used and logged. Only field 0 of a
    line is used, blank lines are skipped. Test identities stay raw integers.
    """

    folders: tuple[str, ...] = ()
    has_query_list = False

    def find_root(self, root: Path) -> Path:
        return files.find_folder(type(self).__name__, root, self.folders, (_FOLDER_OF_LISTS,))

    def load_train(self) -> list[DomainItem]:
        images = {domain: self._read("train", domain) for domain in Domain}
        return canonical(
            self.train_item(path, identity, domain)
            for domain, found in images.items()
            for path, identity in found.items()
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        gallery = {domain: self._read("test", domain) for domain in Domain}
        query = {domain: self._read_query(domain, gallery[domain]) for domain in Domain}
        items = canonical(
            DomainItem(path, identity, int(domain), domain)
            for domain in Domain
            for path, identity in {**gallery[domain], **query[domain]}.items()
        )
        return items, self._protocol(items, query, gallery)

    def _protocol(
        self,
        items: list[DomainItem],
        query: dict[Domain, dict[str, int]],
        gallery: dict[Domain, dict[str, int]],
    ) -> Protocol:
        return dn348_protocol([item.domain for item in items], name=type(self).__name__)

    def _read_query(self, domain: Domain, gallery: dict[str, int]) -> dict[str, int]:
        return self._read("query", domain) if self.has_query_list else gallery

    def _read(self, split: str, domain: Domain) -> dict[str, int]:
        """Full path -> identity of one list."""
        name, word = type(self).__name__, domain.name.lower()
        candidates = (f"{split}_list_{word}.txt", f"{word}_{split}.txt", f"{split}_{word}.txt")
        list_path = files.find_list(
            name, f"{word} {split}", (self.root / _FOLDER_OF_LISTS, self.root), candidates
        )
        identities = files.unique_paths(
            list_path,
            ((fields[0], _identity(list_path, n, fields[0])) for n, fields in files.read_lines(list_path)),
        )
        refuse_empty(name, domain, len(identities), list_path)
        bases = [self.root / word, self.root / f"{split}_{word}"]
        if split == "query":
            bases.append(self.root / f"test_{word}")
        base = files.locate_images(name, list_path, bases, list(identities))
        return {os.path.join(base, path): identity for path, identity in identities.items()}


def _identity(list_path: Path, line: int, path: str) -> int:
    identity, slash, image = path.partition("/")
    if not slash or not image:
        raise DataError(
            f"list {str(list_path)!r}, line {line}: {files.shortened(path)!r} is not '<identity>/<image>'; "
            "correct the line"
        )
    return files.parse_identity(list_path, line, identity)


@DATASET_REGISTRY.register()
class DN348(DayNightListDataset):
    """DN-348: 200 training and 148 test identities, 34 077 vehicle images by day and night."""

    dataset_name = "dn348"
    folders = ("dn348", "DN348", "DN-348")
    expected = {
        "train day images": 9962,
        "train night images": 10022,
        "train day identities": 200,
        "train night identities": 200,
        "train identities": 200,
        "test day images": 10121,
        "test night images": 3972,
        "test day identities": 148,
        "test night identities": 148,
        "test identities": 148,
    }


@DATASET_REGISTRY.register()
class DNWild(DayNightListDataset):
    """DN-Wild: 1 574 training and 712 test identities, 140 897 images; it has separate query lists."""

    dataset_name = "dnwild"
    folders = ("dnwild", "DNWild", "DN-Wild")
    has_query_list = True
    protocol_name = "DN-Wild"
    expected = {
        "train day images": 70981,
        "train night images": 35384,
        "train day identities": 1574,
        "train night identities": 1574,
        "train identities": 1574,
        "test day images": 14964,
        "test night images": 19568,
        "test day identities": 712,
        "test night identities": 712,
        "test identities": 712,
        "D2N queries": 2617,
        "N2D queries": 2610,
    }

    def _protocol(
        self,
        items: list[DomainItem],
        query: dict[Domain, dict[str, int]],
        gallery: dict[Domain, dict[str, int]],
    ) -> Protocol:
        asking = gallery if SETTINGS.dnwild_all_queries else query
        return dnwild_protocol(
            [item.domain for item in items],
            is_query=[item.path in asking[item.domain] for item in items],
            is_gallery=[item.path in gallery[item.domain] for item in items],
            every_image=SETTINGS.dnwild_all_queries,
            name=self.protocol_name,
        )
