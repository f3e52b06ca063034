"""The user's own two folders of crops, ``day/`` and ``night/``, with or without a sub-folder per identity."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils.logger import log_first_n

from ..protocols import Protocol, both_directions
from ..errors import DataError
from ...functional.types import Domain
from ..items import DomainItem
from . import files
from .base import CrossDomainDataset, canonical, refuse_empty
from .settings import SETTINGS

UNKNOWN = -1


@DATASET_REGISTRY.register()
class DayNightFolder(CrossDomainDataset):
    """Every image below ``day`` and ``night`` (in any case), sub-folders included; no lists.

    The two folders are in ``$FASTREID_DATASETS`` or in the only folder there that contains both, or are given by
    ``DATASETS.DAY_DIR`` and ``DATASETS.NIGHT_DIR``. Identities are the sub-folders ``day/<id>/...`` if every image is
    in one and both domains share some (``DATASETS.FOLDER_IDS`` auto); then the set is also scored, on the same images
    that it trains on. Otherwise each identity is -1 and nothing is scored.
    """

    dataset_name = "daynightfolder"

    def find_root(self, root: Path) -> Path:
        home, self.folder_of = _folders(root)
        return home

    def load_train(self) -> list[DomainItem]:
        paths = {domain: files.list_images(self.folder_of[domain]) for domain in Domain}
        for domain in Domain:
            refuse_empty("DayNightFolder", domain, len(paths[domain]), self.folder_of[domain])
        names = self._identities(paths)
        numbers = {name: number for number, name in enumerate(sorted(set(names.values())))}
        return canonical(
            self.train_item(path, numbers[names[path]] if names else UNKNOWN, domain)
            for domain in Domain
            for path in paths[domain]
        )

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        numbers = [int(str(item.pid).rpartition("_")[2]) for item in self.train]
        ids = {domain: {n for n, i in zip(numbers, self.train) if i.domain == domain} for domain in Domain}
        shared = (ids[Domain.DAY] & ids[Domain.NIGHT]) - {UNKNOWN}
        if not shared:
            return [], None
        items = [DomainItem(i.path, n, int(i.domain), i.domain) for n, i in zip(numbers, self.train)]
        domains = [item.domain for item in items]
        return items, both_directions("DayNightFolder", domains, is_query=[n in shared for n in numbers])

    def _identities(self, paths: dict[Domain, list[str]]) -> dict[str, str]:
        """Path -> name of its identity, or an empty dict; logs which of the two applies."""
        names, in_both, lacking = _sub_folders(paths, self.folder_of)
        images = " and ".join(f"{len(paths[d])} {d.name.lower()} images" for d in Domain)
        if lacking:
            obstacle = f"{len(lacking)} images are not in a sub-folder, such as {lacking[0]!r}"
        else:
            obstacle = "" if in_both else "no sub-folder is in both domains"
        if SETTINGS.folder_ids == "folders" and obstacle:
            raise DataError(
                f"DayNightFolder: DATASETS.FOLDER_IDS is 'folders', but {obstacle}; "
                "sort the images as day/<id>/<image> and night/<id>/<image> or set it to 'none'"
            )
        if SETTINGS.folder_ids == "none" or obstacle:
            reason = obstacle or "DATASETS.FOLDER_IDS is 'none'"
            text = f"without identities ({reason}): it is trained on and nothing is scored"
        else:
            count = len(set(names.values()))
            text = (
                f"the sub-folders are used as {count} identities, {in_both} of them in both domains; they are "
                "scored on the training images. Set DATASETS.FOLDER_IDS none if they are something else"
            )
        where = ", ".join(str(self.folder_of[domain]) for domain in Domain)
        message = f"DayNightFolder ({where}): {images}; {text}."
        log_first_n(logging.INFO, message, name=__name__, key="message")
        return {} if SETTINGS.folder_ids == "none" or obstacle else names

    def _warn_of_shared_ids(self) -> None:
        """Training and test images are the same on purpose, which the log line about the identities says."""


def _folders(root: Path) -> tuple[Path, dict[Domain, Path]]:
    """The set's own folder and the folder of each domain."""
    if SETTINGS.day_dir or SETTINGS.night_dir:
        given = {Domain.DAY: SETTINGS.day_dir, Domain.NIGHT: SETTINGS.night_dir}
        return root, {domain: _given(domain, path) for domain, path in given.items()}
    if (found := files.domain_folders(root)) is not None:
        return root, found
    homes = {}
    for child in sorted(root.iterdir()) if root.is_dir() else ():
        # DN-348, DN-Wild and DNMini have the same two folders, and lists next to them.
        if (found := files.domain_folders(child)) is not None and not (child / "train_test_split").exists():
            homes[child] = found
    if len(homes) == 1:
        return next(iter(homes.items()))
    several = ", ".join(repr(home.name) for home in homes)
    problem = f"holds several such sets ({several})" if homes else "and the folders in it hold no day/ and night/"
    raise DataError(
        f"DayNightFolder: the data root {str(root)!r} {problem if root.is_dir() else 'does not exist'}; set "
        f"${files.ENVIRONMENT} to the folder that holds day/ and night/, or DATASETS.DAY_DIR and DATASETS.NIGHT_DIR"
    )


def _given(domain: Domain, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"DATASETS.{domain.name}_DIR is {path!r}, which is not a folder; correct the path")
    return folder


def _sub_folders(
    paths: dict[Domain, list[str]], folder_of: dict[Domain, Path]
) -> tuple[dict[str, str], int, list[str]]:
    """Path -> first sub-folder, number of sub-folders that both domains have, images that are in none."""
    names: dict[str, str] = {}
    lacking: list[str] = []
    found: dict[Domain, set[str]] = {domain: set() for domain in Domain}
    for domain in Domain:
        for path in paths[domain]:
            parts = Path(os.path.relpath(path, folder_of[domain])).parts
            if len(parts) < 2:
                lacking.append(path)
            else:
                names[path] = parts[0]
                found[domain].add(parts[0])
    return names, len(found[Domain.DAY] & found[Domain.NIGHT]), lacking
