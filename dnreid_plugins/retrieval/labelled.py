"""Features of images with identities and domains: of a data set, of labelled folders, of a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import configure as configure_datasets
from ..data.items import domain_of
from ..data.train_data import read_dataset
from ..evaluation.evaluator import evaluation_set
from .index import Index
from .sources import collect

if TYPE_CHECKING:
    from .matcher import Matcher


@dataclass(frozen=True)
class Labelled:
    """``N`` images: paths, identities ("" = unknown), cameras ("" = unknown), domains, and features ``(N, D)``."""

    paths: list[str]
    ids: NDArray[np.str_]
    cameras: list[str]
    domains: NDArray[np.int64]
    features: NDArray[np.float32]


def of_data(matcher: Matcher, name: str) -> Labelled:
    """The test images of a registered data set.

    Raises:
        DataError: it cannot be read.
        ValueError: there is no such set, or it has no identities.
    """
    configure_datasets(matcher.cfg)
    items, _ = evaluation_set(read_dataset(name))
    paths = [item[0] for item in items]
    labels = [str(item[1]) for item in items], [str(item[2]) for item in items]
    return _embedded(matcher, paths, *labels, [int(domain_of(item)) for item in items])


def of_sets(matcher: Matcher, names: Sequence[str]) -> Labelled:
    """The test images of registered data sets; of a set without identities its training images.

    Raises:
        DataError: one cannot be read.
        ValueError: there is no such set.
    """
    configure_datasets(matcher.cfg)
    sets = [read_dataset(name) for name in names]
    items = [
        i for one in sets for i in (evaluation_set(one)[0] if getattr(one, "protocol", True) else one.train)
    ]
    known = [str(item[1]).rpartition("_")[2] != "-1" for item in items]
    ids = [str(item[1]) if there else "" for item, there in zip(items, known)]
    cameras, domains = [str(item[2]) for item in items], [int(domain_of(item)) for item in items]
    return _embedded(matcher, [item[0] for item in items], ids, cameras, domains)


def of_folders(matcher: Matcher, day: str | None, night: str | None) -> Labelled:
    """Images in one sub-folder per identity.

    Raises:
        DataError: a folder or an image cannot be read.
    """
    entries = [
        entry
        for folder, domain in ((day, "day"), (night, "night"))
        if folder is not None
        for entry in collect([folder], domain, folder_ids=True)
    ]
    paths, ids = [one.path for one in entries], [one.id for one in entries]
    return _embedded(matcher, paths, ids, [""] * len(paths), [int(one.domain) for one in entries])


def of_gallery(matcher: Matcher, folder: str | Path) -> Labelled:
    """What is in a gallery of this model; nothing is embedded.

    Raises:
        ValueError: there is none, or it is of another model.
    """
    index = Index.load(folder, matcher)
    return Labelled(
        index.paths, np.array(index.ids, dtype=np.str_), [""] * len(index), index.domains, index.features
    )


def _embedded(
    matcher: Matcher, paths: list[str], ids: Sequence[str], cameras: list[str], domains: list[int]
) -> Labelled:
    features = matcher.embed(paths, domains, progress=True).numpy()
    return Labelled(paths, np.array(ids, dtype=np.str_), cameras, np.array(domains, dtype=np.int64), features)
