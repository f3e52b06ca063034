"""The user's own images in a table: a CSV file with a row per image."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils.logger import log_first_n

from ..protocols import Protocol, both_directions
from ..errors import DataError
from ...functional.types import Domain
from ..items import DomainItem
from ..tables import beside, domain_word, read_table
from .base import CrossDomainDataset, canonical, refuse_empty
from .files import shortened
from .settings import SETTINGS

SPLITS = ("train", "test", "query", "gallery")
UNKNOWN = -1


@dataclass(frozen=True)
class Row:
    """An image of the table; ``identity`` and ``camera`` are "" where they are not known."""

    path: str
    domain: Domain
    identity: str = ""
    camera: str = ""
    split: str = "train"


@DATASET_REGISTRY.register()
class DayNightTable(CrossDomainDataset):
    """Images that a CSV file lists (``DATASETS.CSV``): path and domain, if known identity, camera, split.

    A path is relative to the file's folder, or absolute. ``split`` is ``train`` (also where it is empty), ``query``,
    ``gallery``, or ``test`` for both of these. Without any row for testing, the labelled training images are scored if
    both domains share identities. A training image whose identity is not known leaves all of them unlabelled.
    """

    dataset_name = "daynighttable"

    def find_root(self, root: Path) -> Path:
        if not SETTINGS.csv:
            raise DataError(
                "DayNightTable needs a table; set DATASETS.CSV to a CSV file with the columns path and domain"
            )
        self.table = Path(SETTINGS.csv).expanduser()
        self.rows = read_rows(self.table)
        names = sorted({row.identity for row in self.rows} - {""})
        self._numbers = {"": UNKNOWN} | {name: number for number, name in enumerate(names)}
        cameras = sorted({row.camera for row in self.rows})
        self._cameras = {name: number for number, name in enumerate(cameras)} if any(cameras) else {}
        return self.table.parent

    def load_train(self) -> list[DomainItem]:
        rows = [row for row in self.rows if row.split == "train"]
        for domain in Domain:
            refuse_empty("DayNightTable", domain, sum(row.domain == domain for row in rows), self.table)
        labelled = sum(row.identity != "" for row in rows)
        text = f"DayNightTable ({self.table}): {len(rows)} images to train on, {labelled} with an identity"
        log_first_n(logging.INFO, f"{text}; {self._scored_on()}.", name=__name__, key="message")
        return canonical(
            self.train_item(row.path, self._numbers[row.identity], row.domain, self._camera(row))
            for row in rows
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        rows = sorted(self._scored(), key=lambda row: (row.domain, row.path))
        by_domain = {
            domain: {row.identity for row in rows if row.domain == domain and row.split != "query"}
            for domain in Domain
        }
        is_query = [row.split != "gallery" and row.identity in by_domain[row.domain.other] for row in rows]
        for domain in Domain:
            if not any(row.domain == domain and query for row, query in zip(rows, is_query)):
                return [], None
        items = [
            DomainItem(row.path, self._numbers[row.identity], self._camera(row), row.domain) for row in rows
        ]
        protocol = both_directions(
            "DayNightTable",
            [row.domain for row in rows],
            is_query=is_query,
            is_gallery=[row.split != "query" for row in rows],
        )
        return items, protocol

    def _scored(self) -> list[Row]:
        """The rows for testing, else the labelled ones for training."""
        testing = [row for row in self.rows if row.split != "train"]
        if lacking := [row for row in testing if not row.identity]:
            raise DataError(
                f"DayNightTable: {len(lacking)} rows for testing have no id, the first: "
                f"{shortened(lacking[0].path)!r}; give their ids or make them rows for training"
            )
        if gone := [row.path for row in testing if not os.path.isfile(row.path)]:
            raise DataError(
                f"DayNightTable: {len(gone)} test images do not exist, the first: {shortened(gone[0])!r}; restore them "
                "or take them out of the table"
            )
        return testing or [row for row in self.rows if row.identity]

    def _scored_on(self) -> str:
        if self.load_test()[1] is None:
            return "no identity is in both domains of the images for testing, so nothing is scored"
        on = "its rows for testing" if any(row.split != "train" for row in self.rows) else "the training images"
        return f"it is scored on {on}"

    def _camera(self, row: Row) -> int:
        return self._cameras.get(row.camera, int(row.domain))

    def _warn_of_shared_ids(self) -> None:
        """Without rows for testing, training and test images are the same on purpose, which the log says."""
        if any(row.split != "train" for row in self.rows):
            super()._warn_of_shared_ids()


def read_rows(table: Path) -> list[Row]:
    """The rows of a table, each path once.

    Raises:
        DataError: it cannot be read, lacks a column, or a row is not as `Row` says or contradicts another.
    """
    rows: dict[str, Row] = {}
    for line, fields in read_table(table, needed=("path", "domain")):
        domain = Domain.named(domain_word(fields["domain"], table, line) or "")
        split = fields.get("split", "").lower() or "train"
        if split not in SPLITS:
            raise DataError(
                f"table {str(table)!r}, line {line}: the split is {shortened(split)!r}; write one of {', '.join(SPLITS)}"
            )
        identity = fields.get("id", "")
        known = "" if identity == "-1" else identity
        row = Row(beside(table, fields["path"]), domain, known, fields.get("camera", ""), split)
        if rows.setdefault(row.path, row) != row:
            raise DataError(
                f"table {str(table)!r} names {shortened(fields['path'])!r} twice and differently; keep one row"
            )
    return list(rows.values())
