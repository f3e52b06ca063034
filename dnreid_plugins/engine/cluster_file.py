"""clusters.csv: the cluster of each training image, for users who need the labels and not the model."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path
from typing import IO, Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ..functional.types import Domain, Epoch
from ..runtime.files import write_atomically

logger = logging.getLogger(__name__)

NAME = "clusters.csv"
COLUMNS = ("path", "domain", "cluster", "matched_cluster", "score")


class ClusterFile(HookBase):
    """Write the labels of each epoch, replacing those of the previous one; runs after the label phase.

    One row per training image in canonical order. ``cluster``: number within the domain, -1 = none.
    ``matched_cluster`` and ``score``: the partner in the other domain and the score of the matching, empty if there is
    none.
    """

    def __init__(self, folder: str, paths: list[str]) -> None:
        self.file = Path(folder) / NAME
        self.paths = paths

    def before_epoch(self) -> None:
        if comm.is_main_process():
            epoch = self.trainer.bare_model.parts.epoch
            write_atomically(self.file, lambda file: write_clusters(file, self.paths, epoch))

    def after_epoch(self) -> None:
        if self.trainer.epoch + 1 == self.trainer.max_epoch:
            logger.info("The cluster of each of the %d images is in %s.", len(self.paths), self.file)


def write_clusters(file: IO[bytes], paths: list[str], epoch: Epoch) -> None:
    """The table as CSV in UTF-8; a file name that is not valid text keeps its bytes."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    table: dict[int, tuple[Any, ...]] = {}
    for domain in Domain:
        part, matching = epoch[domain], epoch.matching
        partner, score = (t.tolist() for t in matching.partner(domain)) if matching else ([], [])
        for index, cluster in zip(part.indices.tolist(), part.labels.tolist(), strict=True):
            matched = matching is not None and cluster >= 0 and partner[cluster] >= 0
            pair = (partner[cluster], f"{score[cluster]:.6g}") if matched else ("", "")
            table[index] = (domain.name.lower(), cluster, *pair)
    rows.writerows((path, *table[index]) for index, path in enumerate(paths))
    text.flush()
    text.detach()
