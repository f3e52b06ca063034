"""Base of all day/night readers: lazy train and test halves, canonical order, checks, fast-reid's interface."""

from __future__ import annotations

import logging
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from fastreid.data.datasets.bases import ImageDataset

from ..protocols import Protocol
from ...functional.types import Domain
from ..errors import DataError
from ..items import DomainItem
from ..readable import readable_items
from .counts import STAND_IN, STAND_IN_NOTE, count_items, count_protocol, differences
from .files import datasets_root
from .settings import SETTINGS

logger = logging.getLogger(__name__)


class CrossDomainDataset(ImageDataset):
    """A data set with two domains, in fast-reid's registry and interface.

    ``train``, and ``test`` with its ``protocol``, are read on first use, so that the test half alone is enough to
    evaluate. All training images that cannot be read are listed at once (``DATASETS.SKIP_BAD``). Order is canonical:
    day before night, each sorted by path; it depends neither on the file system nor on the order of the lists.
    ``query`` and ``gallery`` are the D2N direction with camera 0 and 1, for which fast-reid's own evaluator applies
    the correct rule; ``test`` holds every distinct test image once and ``protocol`` indexes it for both directions.

    Args:
        root: folder that holds the data sets; None, or fast-reid's default, reads ``$FASTREID_DATASETS``.
        mode: which half ``len()`` counts (fast-reid's argument).
        combineall: train on the test half as well (fast-reid's argument).

    Raises:
        DataError: something on disk is missing, malformed or cannot be read.
    """

    dataset_name = "unnamed"
    #: What the set calls the two domains.
    words: ClassVar[Mapping[Domain, str]] = {Domain.DAY: "day", Domain.NIGHT: "night"}
    #: Published numbers by the names of `counts.count_items` and `counts.count_protocol`.
    expected: ClassVar[Mapping[str, int]] = {}
    #: Where the field reports a mean over several splits, one model each: the key that chooses one, and how many.
    trials: ClassVar[tuple[str, int] | None] = None
    #: Galleries that are drawn for one model.
    galleries: ClassVar[int] = 1

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        mode: str = "train",
        combineall: bool = False,
        transform: Any = None,
        verbose: bool = True,
    ) -> None:
        if mode not in ("train", "query", "gallery"):
            raise ValueError(f"mode is {mode!r}; choose 'train', 'query' or 'gallery'")
        self.transform, self.mode, self.combineall, self.verbose = transform, mode, combineall, verbose
        self._train: list[DomainItem] | None = None
        self._test: tuple[list[DomainItem], Protocol | None] | None = None
        self.root = self.find_root(datasets_root(root))

    @abstractmethod
    def find_root(self, root: Path) -> Path:
        """The data set's own folder inside the folder of all data sets."""

    @abstractmethod
    def load_train(self) -> list[DomainItem]:
        """The training images in canonical order."""

    def load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        """The distinct test images in canonical order, and the protocol over them; none by default."""
        return [], None

    @property
    def train(self) -> list[DomainItem]:
        if self._train is None:
            name = type(self).__name__
            self._train = readable_items(self.load_train(), name=name, skip_bad=SETTINGS.skip_bad)
            self._compare(count_items("train", self._train, self.words))
            self._warn_of_shared_ids()
            if self.combineall:
                self.combine_all()
        return self._train

    def train_on(self, items: list[DomainItem]) -> None:
        """Take these for the training images, e.g. those of `load_train` that are known to be readable."""
        self._train = items

    @property
    def test(self) -> list[DomainItem]:
        return self._load_test()[0]

    @property
    def protocol(self) -> Protocol | None:
        return self._load_test()[1]

    @property
    def query(self) -> list[DomainItem]:
        return self._half("query")

    @property
    def gallery(self) -> list[DomainItem]:
        return self._half("gallery")

    @property
    def data(self) -> list[DomainItem]:
        return getattr(self, self.mode)

    def combine_all(self) -> None:
        """Add the test images to ``train`` with their own identities (fast-reid's COMBINEALL)."""
        extra = [
            DomainItem(
                item.path,
                f"{self.dataset_name}_test_{item.pid}",
                f"{self.dataset_name}_{item.camid}",
                item.domain,
            )
            for item in self.test
        ]
        self._train = canonical([*(self._train or []), *extra])

    def train_item(
        self, path: str, identity: int | str, domain: Domain, camera: int | None = None
    ) -> DomainItem:
        """A training item: identity and camera (None: one per domain) carry the data set's name, as in fast-reid."""
        camera = int(domain) if camera is None else camera
        return DomainItem(path, f"{self.dataset_name}_{identity}", f"{self.dataset_name}_{camera}", domain)

    def _half(self, part: str) -> list[DomainItem]:
        test, protocol = self._load_test()
        if protocol is None:
            return []
        return [test[i] for i in getattr(protocol.directions[0], part)]

    def _load_test(self) -> tuple[list[DomainItem], Protocol | None]:
        if self._test is None:
            items, protocol = self.load_test()
            counts = count_items("test", items, self.words)
            counts |= count_protocol(protocol) if protocol is not None else {}
            note = self._compare(counts)
            self._test = items, replace(protocol, note=note) if protocol is not None else None
            self._warn_of_shared_ids()
        return self._test

    @property
    def is_stand_in(self) -> bool:
        """Whether the folder is marked as rendered in the layout of the real set."""
        return (self.root / STAND_IN).is_file()

    def _compare(self, counts: Mapping[str, int]) -> str:
        """Warn of what is not the published set; returns the note that every result bears."""
        name = type(self).__name__
        if self.is_stand_in:
            logger.warning("%s in %s is %s; no figure on it says anything of the real one.", name, self.root, STAND_IN_NOTE)
            return STAND_IN_NOTE
        found = differences(counts, self.expected)
        if found:
            logger.warning("%s differs from the published data set: %s", name, "; ".join(found))
        return f"differs from the published data set in {found[0]}" if found else ""

    def _warn_of_shared_ids(self) -> None:
        """Check that train and test identities are disjoint. RegDB numbers both from 0 and overrides this."""
        if self._train is None or self._test is None or self.combineall:
            return
        shared = {item.pid for item in self._train} & {
            f"{self.dataset_name}_{item.pid}" for item in self._test[0]
        }
        if shared:
            logger.warning(
                "%s: %d identities are in the training and the test list (one is %s); results are too good",
                type(self).__name__,
                len(shared),
                min(shared),
            )


def canonical(items: Iterable[DomainItem]) -> list[DomainItem]:
    """Day before night, each sorted by path, each path once."""
    unique = {(item.domain, item.path): item for item in items}
    return [unique[key] for key in sorted(unique)]


def refuse_empty(name: str, domain: Domain, count: int, where: Path) -> None:
    """Raise :class:`DataError` if a domain has no image."""
    if count == 0:
        raise DataError(
            f"{name}: {str(where)!r} names no {domain.name.lower()} image; both domains need at least one"
        )
