"""RegDB: visible and thermal persons, ten train/test splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from ..protocols import Protocol, regdb_protocol
from ...functional.types import Domain
from ..errors import DataError
from ..items import DomainItem
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .settings import SETTINGS

_WORDS = {Domain.DAY: "visible", Domain.NIGHT: "thermal"}


@DATASET_REGISTRY.register()
class RegDB(CrossDomainDataset):
    """RegDB: 412 identities, 10 visible and 10 thermal images each; 206 train and 206 test in each trial.

    ``idx/{train,test}_{visible,thermal}_<trial>.txt``, a line is ``<path> <label>``. Labels are local to
    the trial and to the split. Visible counts as day, thermal as night.

    Args:
        trial: 1-10; None uses ``DATASETS.REGDB_TRIAL``.

    Raises:
        ValueError: ``trial`` is not in 1-10.
    """

    dataset_name = "regdb"
    folders = ("RegDB", "regdb", "RegDB_01")
    images_per_domain, num_identities = 2060, 206

    def __init__(
        self, root: str | os.PathLike[str] | None = None, *, trial: int | None = None, **kwargs: Any
    ):
        self.trial = SETTINGS.regdb_trial if trial is None else trial
        if not 1 <= self.trial <= 10:
            raise ValueError(f"RegDB's trial is {self.trial}; set DATASETS.REGDB_TRIAL to one of 1-10")
        super().__init__(root, **kwargs)

    def find_root(self, root: Path) -> Path:
        return files.find_folder("RegDB", root, self.folders, ("idx",))

    def load_train(self) -> list[DomainItem]:
        images = self._read("train")
        return canonical(
            self.train_item(path, label, domain)
            for domain in Domain
            for path, label in images[domain].items()
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        images = self._read("test")
        items = canonical(
            DomainItem(path, label, int(domain), domain)
            for domain in Domain
            for path, label in images[domain].items()
        )
        return items, regdb_protocol([item.domain for item in items], self.trial)

    def _read(self, split: str) -> dict[Domain, dict[str, int]]:
        images = {domain: self._read_list(split, domain) for domain in Domain}
        counts = {f"{split} {_WORDS[domain]} images": len(found) for domain, found in images.items()}
        expected = dict.fromkeys(counts, self.images_per_domain)
        counts[f"{split} identities"] = len({label for found in images.values() for label in found.values()})
        expected[f"{split} identities"] = self.num_identities
        files.warn_if_unexpected(f"RegDB trial {self.trial}", counts, expected)
        return images

    def _read_list(self, split: str, domain: Domain) -> dict[str, int]:
        """Full path -> label of one list."""
        word = _WORDS[domain]
        list_path = files.find_list(
            "RegDB", f"{word} {split}", (self.root / "idx",), (f"{split}_{word}_{self.trial}.txt",)
        )
        labels = files.unique_paths(
            list_path, (_parse(list_path, number, fields) for number, fields in files.read_lines(list_path))
        )
        refuse_empty("RegDB", domain, len(labels), list_path)
        base = files.locate_images("RegDB", list_path, (self.root,), list(labels))
        return {os.path.join(base, path): label for path, label in labels.items()}

    def _warn_of_shared_ids(self) -> None:
        """Train and test labels both count from 0, so equal numbers mean nothing."""


def _parse(list_path: Path, line: int, fields: list[str]) -> tuple[str, int]:
    if len(fields) != 2:
        raise DataError(
            f"list {str(list_path)!r}, line {line}: {files.shortened(' '.join(fields))!r} is not '<path> <label>'; "
            "correct it"
        )
    return fields[0], files.parse_identity(list_path, line, fields[1])
