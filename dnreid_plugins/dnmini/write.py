"""Write DNMini as JPEGs in DN-348's on-disk layout: atomically, and with the same bytes every time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..data.datasets.files import ENVIRONMENT, domain_folders
from ..data.errors import DataError
from ..functional.types import Domain
from ..runtime.progress import with_progress
from .identity import Identity, sample_identities
from .imaging import jpeg_bytes
from .parallel import map_in_processes
from .render import render

RENDERER_VERSION = 1
MANIFEST = "dnmini.json"
FOLDERS = {Domain.DAY: "day", Domain.NIGHT: "night"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parameters:
    """Everything that determines the bytes of a DNMini set."""

    seed: int
    num_train_ids: int
    num_test_ids: int
    images_per_domain: int
    renderer_version: int = RENDERER_VERSION

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        for name in ("num_train_ids", "num_test_ids", "images_per_domain"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be >= 1, got {getattr(self, name)}; a set needs both splits and images"
                )


def write_dnmini(
    root: Path,
    *,
    seed: int = 0,
    num_train_ids: int = 100,
    num_test_ids: int = 60,
    images_per_domain: int = 20,
    workers: int | None = None,
) -> None:
    """Render DNMini into ``root``: ``day/<id>/<image>``, ``night/<id>/<image>``, ``train_test_split/*.txt``.

    The bytes are a function of all arguments but ``root`` and ``workers``. Written next to ``root`` first and renamed
    when complete, so a killed writer leaves no incomplete set. If ``root`` already holds the set, nothing happens.

    Args:
        root: the folder to create; its parents are created too.
        seed: chooses the identities and every view. Calibration must not use the seed of the reported results.
        workers: processes; None = one per core that this process may use.

    Raises:
        ValueError: a size below 1, or ``root`` holds anything else than this set.
    """
    parameters = Parameters(
        seed=seed, num_train_ids=num_train_ids, num_test_ids=num_test_ids, images_per_domain=images_per_domain
    )
    root = Path(root)
    if _is_complete(root, parameters):
        return
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"{root} holds something else than DNMini with {parameters}; delete it or give another root"
        )
    logger.info("rendering DNMini (%d identities) into %s", num_train_ids + num_test_ids, root)
    root.parent.mkdir(parents=True, exist_ok=True)
    with _temporary_folder(root) as folder:
        _write_all(folder, parameters, workers=workers)
        try:
            folder.rename(root)
        except OSError:  # another process finished first; its set is equally good if its manifest matches
            if not _is_complete(root, parameters):
                raise


def ensure_dnmini(root: Path, seed: int = 0) -> Path:
    """Write the default DNMini below the data root ``root`` unless it is there; return its folder.

    The folder is ``dnmini`` for seed 0 (the set that results are reported on), ``dnmini-seed<N>`` for others.

    Raises:
        DataError: it does not exist, and ``root`` is the user's own set of day and night images.
    """
    folder = Path(root) / ("dnmini" if seed == 0 else f"dnmini-seed{seed}")
    if not folder.exists() and domain_folders(Path(root)) is not None:
        raise DataError(
            f"DNMini is not rendered into {str(root)!r}, which holds your own day/ and night/; train and test on "
            f"them (DATASETS.NAMES and TESTS \"('DayNightFolder',)\") or set ${ENVIRONMENT} to another folder"
        )
    write_dnmini(folder, seed=seed)
    return folder


def raw_ids(parameters: Parameters) -> tuple[list[int], list[int]]:
    """``(train ids, test ids)``: disjoint, together 1..N, in random order as in a real set."""
    count = parameters.num_train_ids + parameters.num_test_ids
    order = np.random.default_rng([parameters.seed, 1]).permutation(count) + 1
    train, test = order[: parameters.num_train_ids], order[parameters.num_train_ids :]
    return sorted(train.tolist()), sorted(test.tolist())


def dnmini_identities(parameters: Parameters) -> dict[int, Identity]:
    """Raw id -> vehicle, for captions and for the analysis of errors."""
    count = parameters.num_train_ids + parameters.num_test_ids
    identities = sample_identities(count=count, seed=parameters.seed, half=0)
    return dict(enumerate(identities, start=1))


def _is_complete(root: Path, parameters: Parameters) -> bool:
    try:
        manifest = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("parameters") == asdict(parameters)


@contextmanager
def _temporary_folder(root: Path) -> Iterator[Path]:
    folder = root.parent / f".{root.name}.{os.getpid()}.part"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_all(folder: Path, parameters: Parameters, *, workers: int | None) -> None:
    identities = dnmini_identities(parameters)
    tasks = [(folder, parameters, raw_id, identity) for raw_id, identity in identities.items()]
    written = map_in_processes(_write_identity, tasks, workers=workers)
    digests = list(with_progress(written, "Rendering DNMini", len(tasks)))
    _write_lists(folder, parameters)
    content = hashlib.sha256("".join(digests).encode()).hexdigest()
    manifest = {"parameters": asdict(parameters), "content_sha256": content}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _write_identity(folder: Path, parameters: Parameters, raw_id: int, identity: Identity) -> str:
    """All images of one vehicle; returns the SHA-256 of their bytes. Each image has its own generator."""
    digest = hashlib.sha256()
    for domain, name in FOLDERS.items():
        place = folder / name / f"{raw_id:05d}"
        place.mkdir(parents=True)
        for view in range(parameters.images_per_domain):
            rng = np.random.default_rng([parameters.seed, int(domain), raw_id, view])
            data = jpeg_bytes(render(identity, rng, domain), domain=domain, rng=rng)
            digest.update(data)
            (place / f"{view:03d}.jpg").write_bytes(data)
    return digest.hexdigest()


def _write_lists(folder: Path, parameters: Parameters) -> None:
    """``train_test_split/{train,test}_list_{day,night}.txt``, one path below the domain's folder per line."""
    lists = folder / "train_test_split"
    lists.mkdir()
    for split, ids in zip(("train", "test"), raw_ids(parameters), strict=True):
        lines = [f"{i:05d}/{view:03d}.jpg\n" for i in ids for view in range(parameters.images_per_domain)]
        for name in FOLDERS.values():
            (lists / f"{split}_list_{name}.txt").write_text("".join(lines), encoding="utf-8")
