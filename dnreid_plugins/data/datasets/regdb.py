"""RegDB: visible and thermal persons, ten train/test splits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastreid.data.datasets import DATASET_REGISTRY

from ..protocols import Protocol, regdb_protocol
from ...functional.types import Domain
from ..items import DomainItem
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .settings import SETTINGS

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
    words = {Domain.DAY: "visible", Domain.NIGHT: "thermal"}
    expected = {
        "train visible images": 2060,
        "train thermal images": 2060,
        "train identities": 206,
        "test visible images": 2060,
        "test thermal images": 2060,
        "test identities": 206,
    }
    trials = ("DATASETS.REGDB_TRIAL", 10)

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
        return {domain: self._read_list(split, domain) for domain in Domain}

    def _read_list(self, split: str, domain: Domain) -> dict[str, int]:
        """Full path -> label of one list."""
        word = self.words[domain]
        list_path = files.find_list(
            "RegDB", f"{word} {split}", (self.root / "idx",), (f"{split}_{word}_{self.trial}.txt",)
        )
        labels = files.labelled_paths(list_path)
        refuse_empty("RegDB", domain, len(labels), list_path)
        base = files.locate_images("RegDB", list_path, (self.root,), list(labels))
        return {os.path.join(base, path): label for path, label in labels.items()}

    def _warn_of_shared_ids(self) -> None:
        """Train and test labels both count from 0, so equal numbers mean nothing."""
