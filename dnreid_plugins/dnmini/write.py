"""Write a rendered set as JPEGs in DN-348's or DN-Wild's layout: atomically, and with the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..data.datasets.files import ENVIRONMENT, domain_folders
from ..data.errors import DataError
from ..functional.types import Domain
from ..runtime.files import temporary_folder
from ..runtime.progress import with_progress
from .parallel import map_in_processes
from .worlds import WORLDS

MANIFEST, LISTS = "dnmini.json", "train_test_split"
FOLDERS = {Domain.DAY: "day", Domain.NIGHT: "night"}

#: Sizes by the name of the folder, where they are not those of `write_dnmini`. Many test identities and few images of
#: each make a mean over queries that depends little on which vehicles a rendering happens to hold.
SIZES: dict[str, dict[str, Any]] = {
    "dnmini": {},
    "dnmini2": {"num_test_ids": 200, "test_images_per_domain": 8},
    # The shares of DN-Wild: twice as many images by day as by night for training, 3 : 4 for testing.
    "dnminiwild": {
        "num_train_ids": 300,
        "num_test_ids": 200,
        "images_per_domain": 16,
        "night_images": 8,
        "test_images_per_domain": 6,
        "test_night_images": 8,
        "queries_per_domain": 4,
        "world": "wild",
    },
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parameters:
    """Everything that determines the bytes of a DNMini set."""

    seed: int = 0
    num_train_ids: int = 100
    num_test_ids: int = 60
    images_per_domain: int = 20
    test_images_per_domain: int | None = None  # None: as many as of a training identity
    night_images: int | None = None  # None: as many as by day; likewise of a test identity
    test_night_images: int | None = None
    queries_per_domain: int | None = None  # None: no query lists
    world: str | None = None  # None: the first one, whose older manifests do not name it

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        if self.renderer not in WORLDS:
            raise ValueError(f"world is {self.world!r}; choose one of {', '.join(WORLDS)}")
        numbers = {
            name: value for name, value in vars(self).items() if isinstance(value, int) or value is None
        }
        for name, value in numbers.items():
            if name == "seed":
                continue
            if value is not None and value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}; a set needs both splits and images")

    @property
    def renderer(self) -> str:
        """The name in ``WORLDS``."""
        return self.world or "dnmini"

    def described(self) -> dict[str, int | str]:
        """What the manifest holds; without what is left out, so that older manifests stay as they are."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {**given, "renderer_version": WORLDS[self.renderer].version}

    def views(self, split: str, domain: Domain) -> range:
        """The numbers of the images of one identity of ``"train"`` or ``"test"`` in a domain; ``"query"``: those of
        the test images that are in the query list."""
        if split == "query":
            return self.views("test", domain)[: self.queries_per_domain or 0]
        test = split == "test"
        fewer = self.test_night_images if test else self.night_images
        if domain == Domain.NIGHT and fewer is not None:
            return range(fewer)
        return range((self.test_images_per_domain if test else None) or self.images_per_domain)


def write_dnmini(root: Path, *, workers: int | None = None, **sizes: Any) -> None:
    """Render a set into ``root``: ``day/<id>/<image>``, ``night/<id>/<image>``, ``train_test_split/*.txt``.

    The bytes are a function of ``sizes``. Written next to ``root`` first and renamed when complete, so a killed writer
    leaves no incomplete set. If ``root`` already holds the set, nothing happens.

    Args:
        root: the folder to create; its parents are created too.
        workers: processes; None = one per core that this process may use.
        sizes: of `Parameters`. ``seed`` chooses the identities and every view; calibration must not use the seed of
            the reported results.

    Raises:
        ValueError: a size below 1, or ``root`` holds anything else than this set.
    """
    parameters = Parameters(**sizes)
    root = Path(root)
    if _is_complete(root, parameters):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"{root} holds something else than DNMini with {parameters}; delete it or give another root"
        )
    logger.info("rendering %d identities into %s", len(_views(parameters)), root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(root) as folder:
        _write_all(folder, parameters, workers=workers)
        try:
            folder.rename(root)
        except OSError:  # another process finished first; its set is equally good if its manifest matches
            if not _is_complete(root, parameters):
                raise


def ensure_dnmini(root: Path, seed: int = 0, *, name: str = "dnmini") -> Path:
    """Write a set of the sizes ``SIZES[name]`` below the data root ``root`` unless it is there; return its folder.

    The folder is ``<name>`` for seed 0 (for ``dnmini`` the set that the demo shows), ``<name>-seed<N>`` for others.

    Raises:
        DataError: it does not exist, and ``root`` is the user's own set of day and night images.
    """
    folder = Path(root) / (name if seed == 0 else f"{name}-seed{seed}")
    if not folder.exists() and domain_folders(Path(root)) is not None:
        raise DataError(
            f"DNMini is not rendered into {str(root)!r}, which holds your own day/ and night/; train and test on "
            f"them (DATASETS.NAMES and TESTS \"('DayNightFolder',)\") or set ${ENVIRONMENT} to another folder"
        )
    write_dnmini(folder, seed=seed, **SIZES[name])
    return folder


def raw_ids(parameters: Parameters) -> tuple[list[int], list[int]]:
    """``(train ids, test ids)``: disjoint, together 1..N, in random order as in a real set."""
    count = parameters.num_train_ids + parameters.num_test_ids
    order = np.random.default_rng([parameters.seed, 1]).permutation(count) + 1
    train, test = order[: parameters.num_train_ids], order[parameters.num_train_ids :]
    return sorted(train.tolist()), sorted(test.tolist())


def dnmini_identities(parameters: Parameters) -> dict[int, Any]:
    """Raw id -> vehicle, for captions and for the analysis of errors."""
    count = parameters.num_train_ids + parameters.num_test_ids
    world = WORLDS[parameters.renderer]
    identities = world.identities(count=count, seed=parameters.seed, half=0)
    return dict(enumerate(identities, start=1))


def _is_complete(root: Path, parameters: Parameters) -> bool:
    """Whether ``root`` is this set.

    Raises:
        DataError: it says so, and its lists or images are others than those that were written.
    """
    try:
        text = (root / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text)
    except (OSError, ValueError):
        return False
    if not isinstance(manifest, dict) or manifest.get("parameters") != parameters.described():
        return False
    _verify(root.absolute(), parameters, str(manifest.get("content_sha256")))
    return True


@cache
def _verify(root: Path, parameters: Parameters, content_sha256: str) -> None:
    """Read the whole set, once in this process: some 0.2 s for the default one."""
    try:
        wrong = [
            name
            for name, text in _lists(parameters).items()
            if (root / name).read_text(encoding="utf-8") != text
        ]
        found = _content(_digest_of_identity(root, *one) for one in sorted(_views(parameters).items()))
        problem = (
            f"{wrong[0]} was changed" if wrong else "images were changed" if found != content_sha256 else ""
        )
    except (OSError, ValueError) as error:
        problem = f"{getattr(error, 'filename', None) or root} cannot be read"
    if problem:
        raise DataError(
            f"{root} is not DNMini as it was rendered: {problem}; delete the folder, and it is rendered again"
        )


Views = dict[Domain, range]


def _views(parameters: Parameters) -> dict[int, Views]:
    """Raw id -> the numbers of its images in each domain."""
    splits = zip(("train", "test"), raw_ids(parameters), strict=True)
    return {
        raw_id: {domain: parameters.views(split, domain) for domain in Domain}
        for split, ids in splits
        for raw_id in ids
    }


def _digest_of_identity(root: Path, raw_id: int, views: Views) -> str:
    digest = hashlib.sha256()
    for domain, name in FOLDERS.items():
        for view in views[domain]:
            digest.update((root / name / f"{raw_id:05d}" / f"{view:03d}.jpg").read_bytes())
    return digest.hexdigest()


def _content(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _write_all(folder: Path, parameters: Parameters, *, workers: int | None) -> None:
    identities = dnmini_identities(parameters)
    views = _views(parameters)
    tasks = [
        (folder, parameters.renderer, parameters.seed, i, views[i], identity)
        for i, identity in identities.items()
    ]
    # Closed on an error too: nobody may write into the folder any more when it is deleted.
    with closing(map_in_processes(_write_identity, tasks, workers=workers)) as written:
        content = _content(with_progress(written, "Rendering DNMini", len(tasks)))
    (folder / LISTS).mkdir()
    for name, text in _lists(parameters).items():
        (folder / name).write_text(text, encoding="utf-8")
    manifest = {"parameters": parameters.described(), "content_sha256": content}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _write_identity(folder: Path, world: str, seed: int, raw_id: int, views: Views, identity: Any) -> str:
    """All images of one vehicle; returns the SHA-256 of their bytes."""
    digest, file = hashlib.sha256(), WORLDS[world].file
    for domain, name in FOLDERS.items():
        place = folder / name / f"{raw_id:05d}"
        place.mkdir(parents=True)
        for view in views[domain]:
            data = file(identity, seed, domain, raw_id, view)
            digest.update(data)
            (place / f"{view:03d}.jpg").write_bytes(data)
    return digest.hexdigest()


def _lists(parameters: Parameters) -> dict[str, str]:
    """File -> content of ``train_test_split/{train,test}_list_{day,night}.txt``, an image's path per line; also
    ``query_list_{day,night}.txt`` where there are queries."""
    lists = {}
    train, test = raw_ids(parameters)
    splits = {"train": train, "test": test, **({"query": test} if parameters.queries_per_domain else {})}
    for split, ids in splits.items():
        for domain, name in FOLDERS.items():
            lines = [f"{i:05d}/{view:03d}.jpg\n" for i in ids for view in parameters.views(split, domain)]
            lists[f"{LISTS}/{split}_list_{name}.txt"] = "".join(lines)
    return lists
