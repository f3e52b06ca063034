"""Labels that a person has corrected: a table of images, and the refiner that applies it to every clustering."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..data.digest import short_path
from ..functional.corrections import Corrections as Said
from ..functional.corrections import corrected_labels, known_pairs
from ..functional.types import Clusters, Domain, Epoch
from ..runtime.sections import Count
from .base import Refiner, TrainImages, make_clusters, refiner, with_clusters, without_gaps

logger = logging.getLogger(__name__)

PATH, SAME, APART = "path", "same", "apart"
#: In the column ``same``: the image belongs to no cluster.
LEFT_OUT = -1
CORRECTED = ("day", "night", "joint")


@dataclass(frozen=True)
class CorrectionRow:
    """What is said of one image.

    Attributes:
        path: of the image.
        same: number of its group, all of one vehicle; -1 = belongs to no cluster; None = nothing is said.
        apart: groups whose vehicle it does not show.
    """

    path: str
    same: int | None
    apart: tuple[int, ...]


def read_corrections(file: str | Path) -> list[CorrectionRow]:
    """The rows of a CSV file that say something; it has the columns ``path`` and ``same``, and may have ``apart``.

    Raises:
        ValueError: it cannot be read, or a row contradicts itself or an earlier one, with its line.
    """
    rows: dict[str, CorrectionRow] = {}
    try:
        with Path(file).open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
            table = csv.DictReader(lines, strict=True)
            missing = [name for name in (PATH, SAME) if name not in (table.fieldnames or ())]
            if missing:
                raise ValueError(f"it has no column {missing[0]!r}")
            for row in table:
                said = _row(row, table.line_num)
                if rows.setdefault(said.path, said) != said:
                    raise ValueError(f"line {table.line_num} says something else of {said.path!r}")
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ValueError(
            f"LABELS.CORRECTIONS.FILE {str(file)!r} cannot be used: {reason}; export it again with `dnreid serve`."
        ) from None
    return [row for row in rows.values() if row.same is not None or row.apart]


def _row(row: dict[str, str], line: int) -> CorrectionRow:
    try:
        same = int(row[SAME]) if (row[SAME] or "").strip() else None
        apart = tuple(sorted({int(one) for one in (row.get(APART) or "").split()}))
    except ValueError:
        raise ValueError(f"line {line} has a group that is no whole number") from None
    if not row[PATH]:
        raise ValueError(f"line {line} has no path")
    if (same is not None and same < LEFT_OUT) or any(one < 0 for one in apart):
        raise ValueError(f"line {line} has a negative group")
    if same in apart:
        raise ValueError(f"line {line} says that the image is, and is not, of group {same}")
    return CorrectionRow(row[PATH], same, apart)


def said_of(rows: Sequence[CorrectionRow], paths: Sequence[str]) -> tuple[Said, int]:
    """What ``rows`` say of the images ``paths``, and how many of the rows are of none of them.

    An image is known by its path, else by the last parts of it where no other image has the same ones, so that the
    images may have moved.
    """
    place = {path: number for number, path in enumerate(paths)}
    if any(row.path not in place for row in rows):
        place = {**_short_places(paths), **place}
    found = [(place.get(row.path, place.get(short_path(row.path), -1)), row) for row in rows]
    known = [(number, row) for number, row in found if number >= 0]
    groups = sorted(
        {one for _, row in known for one in (*row.apart, row.same) if one is not None and one >= 0}
    )
    number_of = {group: number for number, group in enumerate(groups)}
    same = torch.full((len(paths),), -1, dtype=torch.int64)
    left_out = torch.zeros(len(paths), dtype=torch.bool)
    apart = []
    for number, row in known:
        left_out[number] = row.same == LEFT_OUT
        same[number] = number_of.get(-1 if row.same is None else row.same, -1)
        apart += [(number_of[group], number) for group in row.apart]
    return Said(same, torch.tensor(apart, dtype=torch.int64).reshape(-1, 2), left_out), len(found) - len(
        known
    )


def _short_places(paths: Sequence[str]) -> dict[str, int]:
    """Place of each image by the last parts of its path; -1 where two images have the same ones."""
    seen: dict[str, int] = {}
    for number, path in enumerate(paths):
        name = short_path(path)
        seen[name] = -1 if name in seen else number
    return seen


@refiner
class Corrections(Refiner):
    """What a person has said of images holds in every epoch: same vehicle, not the same, belongs to no cluster.

    It changes the clusters "day", "night" and, where there are any, "joint" (`corrected_labels`), each with the plain
    mean of its images as centroid, and every matching of day and night clusters (`Assignment.with_known`). Images that
    the training set does not have are counted and left aside. `dnreid serve` makes the file.

    Args:
        start: First epoch in which it works.
        file: CSV file with a row per image: "path"; "same", a number that images of one vehicle share, -1 for an image
            that belongs to no cluster, empty where nothing is known; "apart", numbers of groups of other vehicles.
    """

    def __init__(self, *, start: Count = 1, file: str = "") -> None:
        if not file:
            raise ValueError(
                "LABELS.CORRECTIONS.FILE is empty; give the CSV file that `dnreid serve` exports."
            )
        self.start, self.file = start, file
        self.rows = read_corrections(file)

    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def check(self, images: TrainImages) -> None:
        missing = said_of(self.rows, images.paths)[1]
        if self.rows and missing == len(self.rows):
            other, first = self.rows[0].path, images.paths[0] if images.paths else ""
            raise ValueError(
                f"None of the {missing} images of LABELS.CORRECTIONS.FILE {self.file!r}, such as {other!r}, "
                f"is a training image, such as {first!r}; give the corrections of these images."
            )
        if missing:
            text = "%d of the %d images that %s speaks of are no training images; they are left aside."
            logger.warning(text, missing, len(self.rows), self.file)

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        said, missing = said_of(self.rows, images.paths)
        changed = {
            name: _corrected(epoch.clusters[name], said) for name in CORRECTED if name in epoch.clusters
        }
        epoch = with_clusters(epoch, {name: clusters for name, (clusters, _) in changed.items()})
        everyone = torch.arange(len(images))
        known = known_pairs(epoch.targets("day", everyone), epoch.targets("night", everyone), said)
        figures = {
            "corrections/same": float((said.same >= 0).sum()),
            "corrections/left_out": float(said.left_out.sum()),
            "corrections/changed": float(sum(changed[domain.word][1] for domain in Domain)),
            "corrections/pairs": float(len(known.same)),
            "corrections/missing": float(missing),
        }
        return replace(epoch, known=known, figures={**epoch.figures, **figures})


def _corrected(part: Clusters, said: Said) -> tuple[Clusters, int]:
    """The corrected clusters, and how many images have changed to another one."""
    labels = corrected_labels(part.labels, said.of(part.indices))
    changed = int((labels != part.labels).sum())
    return make_clusters(without_gaps(labels), part.features, part.indices) if changed else part, changed
