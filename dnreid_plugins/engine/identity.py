"""What identifies a run: config, code version and data, in every file that it writes and compared on every return."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.cache import kept_pixels
from ..data.digest import DataDigest, short_hash
from ..runtime import VERSION
from ..runtime.agreement import texts_of_all
from ..runtime.plugins import KEY, plugins_source
from ..runtime.run_lock import lock_folder, unlock_folder

logger = logging.getLogger(__name__)

#: Keys whose change leaves a run the same run: a test changes each in mid-run and compares the final bits.
FREE_KEYS = (
    "OUTPUT_DIR",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.CACHE",
    "DATASETS.DIGEST",
    "REPORT.ENABLED",
    "AUDIT.PERIOD",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.CHECKPOINT_MINUTES",
    "TEST.EVAL_PERIOD",
    "TEST.EVAL_START",
    "TEST.KEEP_BEST",
    "TEST.METRIC",
    "TEST.WITHIN_DOMAIN",
    "TEST.FLIP.ENABLED",
    "TEST.ROC.ENABLED",
    "TEST.SET_ANYWAY",
    *(f"TEST.AQE.{key}" for key in ("ENABLED", "ALPHA", "QE_K", "QE_TIME")),
    *(f"TEST.RERANK.{key}" for key in ("ENABLED", "K1", "K2", "LAMBDA")),
)
#: Keys of this name are free in every section: a stage has one, too.
FREE_NAME = ".CHECKPOINT_PERIOD"
#: These may change as well, but from there on the run is the same up to rounding only.
ROUNDING_KEYS = ("MODEL.DEVICE",)
#: Beside the keys: digits of what `PLUGINS` names. A change is said on a resume, like one of our own code.
PLUGINS_SOURCE = "the source of PLUGINS"
#: In these the machines of one job may differ.
OF_THE_MACHINE = (
    *("OUTPUT_DIR", "DATALOADER.NUM_WORKERS", "DATALOADER.CACHE"),
    *("DATASETS.DAY_DIR", "DATASETS.NIGHT_DIR"),
    "REPORT.ENABLED",
)
TRAINING_IMAGES = "training images"
#: Distributions beside torch and numpy that touch an image, a feature or a label on its way.
LIBRARIES = ("fastreid", "numba", "pillow", "scikit-learn", "scipy", "torchvision")
#: Rooms that training and evaluation do not import (the contract of the layers in pyproject.toml).
READERS = ("commands", "report", "retrieval")


class RunIdentity:
    """Config, code version and data of a run.

    Attributes:
        data: `DataDigest` of the training images and of each set that was scored, by name.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg
        self.data: dict[str, DataDigest] = {}
        self._before: dict[str, DataDigest] = {}

    def see(self, name: str, items: Iterable[tuple[Any, ...]], *, content: bool = False) -> None:
        """Take down what ``name`` is made of; all processes call it, before anything collective is done with it.

        ``content``: read the files whole even if ``DATASETS.DIGEST`` does not ask for it.

        Raises:
            ValueError: in all processes: they see different data, or it is other data than before a resume.
        """
        if name in self.data:
            return
        digest = DataDigest.of(items, content=content or self.cfg.DATASETS.DIGEST == "content")
        same_in_all(f"see different {name}", digest.name, lambda: digest.text, _data_difference)
        self.data[name] = digest
        self._compare_data(name)

    def see_files(self, name: str, paths: Sequence[str]) -> None:
        """Take down the content of files that the run depends on beside its images; nothing for no files."""
        if paths:
            self.see(name, [(path, "", "") for path in paths], content=True)

    def _compare_data(self, name: str) -> None:
        if name in self.data and name in self._before:
            difference = self.data[name].difference(self._before[name])
            if difference:
                raise ValueError(
                    f"The data changed since this run began, {name}: {difference}; put the old files back or start "
                    "in another OUTPUT_DIR with MODEL.WEIGHTS."
                )

    def state(self) -> dict[str, Any]:
        """For a checkpoint: everything that `compare` needs to name the first difference."""
        return {
            "config": config_items(self.cfg),
            "config_hash": config_hash(self.cfg),
            "code_version": code_version(),
            "data": {name: digest.text for name, digest in self.data.items()},
        }

    def summary(self) -> dict[str, Any]:
        """For a file that people read: the same in short names."""
        names = {name: digest.name for name, digest in self.data.items()}
        return {"config_hash": config_hash(self.cfg), "code_version": code_version(), "data": names}

    def compare(self, state: dict[str, Any]) -> None:
        """Log how this run differs from the one that wrote ``state`` (`RunIdentity.state`).

        Raises:
            ValueError: it is another run, by its config or by its data.
        """
        self.compare_config(state["config"])
        old = state.get("code_version", "unknown")
        if old != code_version():
            logger.warning("resume: the checkpoint is of %s, this is %s.", old, code_version())
        self.compare_data(state)

    def compare_data(self, state: dict[str, Any]) -> None:
        """The part of `compare` that is about data; what was not seen yet is compared by `see`."""
        texts = state.get("data", {})
        if TRAINING_IMAGES not in texts:
            logger.warning("resume: the file says nothing of its data, so whether it changed is not known.")
        self._before = {name: DataDigest.from_text(text) for name, text in texts.items()}
        for name in self._before:
            self._compare_data(name)

    def compare_config(self, old: dict[str, str]) -> None:
        """Log what changed since a file with the config ``old`` was written; refuse what makes another run."""
        new = config_items(self.cfg)
        changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        for key in changed:
            logger.warning("resume: %s was %s and is now %s", key, old.get(key), new.get(key))
        free = {*FREE_KEYS, *ROUNDING_KEYS, PLUGINS_SOURCE}
        binding = [key for key in changed if key not in free and not key.endswith(FREE_NAME)]
        if binding:
            key = binding[0]
            raise ValueError(
                f"The config changed since the checkpoint: {key} was {old.get(key)} and is now {new.get(key)}"
                f"{f' ({len(binding) - 1} more)' if len(binding) > 1 else ''}; resume with the old value or "
                "start in another OUTPUT_DIR with MODEL.WEIGHTS."
            )


# ---------------------------------------------------------------------- one job, one folder, one training

_TRAINING: ContextVar[RunIdentity | None] = ContextVar("training", default=None)


def begin_job(cfg: Any, *, lock: bool = True) -> None:
    """At the very start, in all processes: they have one config and one code, and ``OUTPUT_DIR`` is theirs alone.

    Raises:
        ValueError: in all processes, with what differs, or who works in the folder.
    """
    text = json.dumps({"code version": code_version(), **_of_the_job(cfg)})
    same_in_all("were started differently", short_hash(text), lambda: text, _config_difference)
    if lock:
        lock_folder(cfg.OUTPUT_DIR)


@contextlib.contextmanager
def training_of(identity: RunIdentity) -> Iterator[None]:
    """Inside, whatever is evaluated belongs to this run; at its end the run lets its folder go."""
    token = _TRAINING.set(identity)
    try:
        with kept_pixels():
            yield
    finally:
        _TRAINING.reset(token)
        unlock_folder(identity.cfg.OUTPUT_DIR)


def running() -> RunIdentity | None:
    """The run that trains in this process."""
    return _TRAINING.get()


def same_in_all(
    what: str, short: str, full: Callable[[], str], difference: Callable[[str, str], str | None]
) -> None:
    """Compare ``short`` over all processes, and only where it differs ``full``, to name the first difference.

    Raises:
        ValueError: in all processes.
    """
    shorts = texts_of_all(short)
    other = next((rank for rank, text in enumerate(shorts) if text != shorts[0]), None)
    if other is None:
        return
    texts = texts_of_all(full())
    raise ValueError(
        f"The processes of the job {what}: process {other} differs from process 0, "
        f"{difference(texts[other], texts[0])}; give all the same code, config and files."
    )


def _config_difference(other: str, first: str) -> str:
    a, b = json.loads(first), json.loads(other)
    key = next(key for key in [*a, *b] if a.get(key) != b.get(key))
    return f"{key} is {b.get(key)} there and {a.get(key)} here"


def _data_difference(other: str, first: str) -> str | None:
    return DataDigest.from_text(other).difference(DataDigest.from_text(first))


# ---------------------------------------------------------------------- names


def config_items(cfg: Any, prefix: str = "") -> dict[str, str]:
    """The config as ``{dotted key: printed value}``, and the source of its ``PLUGINS``, if it has any."""
    items: dict[str, str] = {}
    for key, value in cfg.items():
        if hasattr(value, "items"):
            items.update(config_items(value, f"{prefix}{key}."))
        else:
            items[f"{prefix}{key}"] = repr(tuple(value)) if isinstance(value, (list, tuple)) else repr(value)
    if not prefix and (source := plugins_source(cfg.get(KEY, ()))):
        items[PLUGINS_SOURCE] = source
    return items


@functools.cache
def code_version() -> str:
    """Versions of what decides the bits of a run; of the package twelve digits of its source and weights, too."""
    own = f"dnreid_plugins {VERSION} ({source_digest(Path(__file__).resolve().parents[1])})"
    others = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    return ", ".join([own, f"torch {torch.__version__}", f"numpy {np.__version__}", *others])


def source_digest(package: Path) -> str:
    """Twelve hex digits of every module and shipped weight file below ``package``, names included.

    Rooms that only read what a run has left are not counted (`READERS`), so that a change of a report does not make
    measured runs those of other code.
    """
    digest = hashlib.sha256()
    for path in sorted(path for ending in ("*.py", "*.safetensors") for path in package.rglob(ending)):
        place = path.relative_to(package)
        if place.parts[0] not in READERS:
            digest.update(place.as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def config_hash(cfg: Any) -> str:
    """Twelve hex digits that name a config, wherever and with how many workers it runs."""
    return short_hash(json.dumps(_of_the_job(cfg), sort_keys=True))


def _of_the_job(cfg: Any) -> dict[str, str]:
    return {key: value for key, value in config_items(cfg).items() if key not in OF_THE_MACHINE}
