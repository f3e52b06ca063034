"""An evaluation by itself: of which model under which config it is, checked, and kept in a file of its own."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

from torch import nn

from ..data.digest import DataDigest, short_hash
from ..evaluation.results import write_json
from ..runtime.agreement import fingerprint
from ..runtime.config_files import ConfigError
from ..runtime.files import hash_of
from ..runtime.weight_files import read_weight_file
from .checkpoint_files import AtomicCheckpointer
from .identity import TRAINING_IMAGES, RunIdentity, config_items

logger = logging.getLogger(__name__)

FOLDER = "evaluations"
#: Sections that decide the features of an image ...
DECIDES = ("MODEL.", "INPUT.SIZE_TEST", "INPUT.CROP.ENABLED", "INPUT.CROP.SIZE", "TEST.FLIP.")
#: ... but for what only training, a start or the speed depends on.
NOT = (
    *("MODEL.LOSSES", "MODEL.MEMORY", "MODEL.PROMPT", "MODEL.FREEZE_LAYERS", "MODEL.QUEUE_SIZE"),
    *("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.SYNC_BN", "MODEL.CHANNELS_LAST", "MODEL.TEACHER.DECAY"),
    *("MODEL.DUAL_STREAM.SHARED_BN", "MODEL.DUAL_STREAM.ASSUME_DOMAIN", "MODEL.BACKBONE.PRETRAIN"),
    *(
        "MODEL.BACKBONE.CLIP.PRETRAINED",
        "MODEL.BACKBONE.CLIP.FREEZE_PATCH",
        "MODEL.BACKBONE.CLIP.GRAD_CHECKPOINT",
    ),
    *(f"MODEL.BACKBONE.{key}" for key in ("DROP", "ATT_DROP")),
    *(f"MODEL.HEADS.{key}" for key in ("NUM_CLASSES", "CLS_LAYER", "SCALE", "MARGIN", "NECK_FEAT")),
)


class Evaluation:
    """One evaluation outside a training.

    The checkpoint in ``MODEL.WEIGHTS`` knows the config and the data of its run, if a run of ours wrote it. It is
    read once, here; `load` takes the weights from what was read.

    Raises:
        ConfigError: the config makes other features than that of the run, and ``TEST.SET_ANYWAY`` is off.
    """

    def __init__(self, cfg: Any) -> None:
        self.cfg, self.identity, self.folder = cfg, RunIdentity(cfg), log_folder(cfg)
        path = cfg.MODEL.WEIGHTS
        self._content = read_weight_file(path) if path and Path(path).is_file() else None
        stored = _of_the_run(self._content, path)
        self.differences = feature_differences(stored.get("config", {}), config_items(cfg))
        self._object(self.differences)
        data = stored.get("data", {}).items()
        self.data = {name: DataDigest.from_text(text) for name, text in data if name != TRAINING_IMAGES}

    def load(self, model: nn.Module) -> None:
        """Give ``model`` the weights, and keep them no longer."""
        content, self._content = self._content, None
        AtomicCheckpointer(model).load(self.cfg.MODEL.WEIGHTS, content=content, to_evaluate=True)

    def see(self, name: str, items: list[tuple[Any, ...]]) -> None:
        """Take down a set that is scored.

        Raises:
            ConfigError: the run of the checkpoint was scored on other images of this name.
        """
        self.identity.see(name, items)
        if name in self.data:
            difference = self.identity.data[name].difference(self.data[name])
            self._object({name: difference} if difference else {})
            self.differences |= {name: difference} if difference else {}

    def _object(self, differences: Mapping[str, str]) -> None:
        if not differences:
            return
        text = "; ".join(f"{key}: {value}" for key, value in differences.items())
        if not self.cfg.TEST.SET_ANYWAY:
            raise ConfigError(
                f"{self.cfg.MODEL.WEIGHTS} comes from a run with another setting ({text}); evaluate with the "
                "config.yaml of that run, or set TEST.SET_ANYWAY True if the difference is meant."
            )
        logger.warning(
            "TEST.SET_ANYWAY: %s comes from a run with another setting: %s", self.cfg.MODEL.WEIGHTS, text
        )

    def keep(self, model: nn.Module, protocols: Mapping[str, str], results: Mapping[str, Any]) -> str:
        """Write ``evaluations/<name>.json``; of the same model, data and config again it is the same file.

        For the main process. Returns the file's name, "" without ``OUTPUT_DIR``.
        """
        if not self.folder:
            return ""
        file = Path(self.cfg.MODEL.WEIGHTS or "model")
        what = {
            "model": str(self.cfg.MODEL.WEIGHTS),
            "model_sha256": _sha256(file) if file.is_file() else "",
            "weights": fingerprint(model.state_dict().values()),
            "protocol": dict(protocols),
            "differences": self.differences,
            **self.identity.summary(),
        }
        name = hashlib.sha256(repr(sorted(what.items())).encode()).hexdigest()[:8]
        time = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        path = Path(self.folder) / f"{file.stem}-{name}.json"
        write_json(path, {**what, "time": time, "results": dict(results)})
        return str(path)


def log_folder(cfg: Any) -> str:
    """Where the evaluations of ``OUTPUT_DIR`` and their log lie; "" without one."""
    return str(Path(cfg.OUTPUT_DIR) / FOLDER) if cfg.OUTPUT_DIR else ""


def feature_differences(stored: Mapping[str, str], here: Mapping[str, str]) -> dict[str, str]:
    """What decides the features but has another value in ``stored``: ``{key: both}``; keys of one do not count."""
    keys = [k for k in sorted(stored.keys() & here.keys()) if k.startswith(DECIDES) and not k.startswith(NOT)]
    return {k: f"{stored[k]} there, {here[k]} here" for k in keys if stored[k] != here[k]}


def feature_fingerprint(cfg: Any, model: nn.Module) -> str:
    """Twelve hex digits that name what makes features: the tensors of the encoder and the settings that decide them.

    What only training uses (memories, losses, classifiers) has no part in it, so a file with the bare encoder has the
    fingerprint of its checkpoint.
    """
    items = {k: v for k, v in config_items(cfg).items() if k.startswith(DECIDES) and not k.startswith(NOT)}
    state = model.state_dict()
    tensors = {name: state[name] for name in AtomicCheckpointer(model).names_of_features()}
    parts: Any = getattr(model, "parts", None)
    if parts is not None and parts.teacher is not None and parts.teacher.evaluate:
        tensors |= parts.teacher.state_dict()
    if parts is not None and cast(Any, model).backbone.has_blocks:
        tensors |= parts.for_encoder()
    text = json.dumps([sorted(items.items()), list(tensors), fingerprint(tensors.values())])
    return short_hash(text)


_RUNNING: ContextVar[Evaluation | None] = ContextVar("evaluation", default=None)


@contextlib.contextmanager
def evaluating_alone(evaluation: Evaluation) -> Iterator[None]:
    """Inside, whatever is scored outside a training belongs to this evaluation."""
    token = _RUNNING.set(evaluation)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def evaluation_of(cfg: Any) -> Evaluation:
    """The evaluation that has begun, or a new one where a script, which loads the weights itself, evaluates."""
    evaluation = _RUNNING.get()
    if evaluation is None:
        evaluation = Evaluation(cfg)
        evaluation._content = None
    return evaluation


def _of_the_run(content: Any, path: str) -> dict[str, Any]:
    """Config and data in the content of a checkpoint of ours; nothing for any other file."""
    if not isinstance(content, Mapping) or not isinstance(content.get("config"), Mapping):
        if path:
            logger.info("%s does not say with which config it was trained, so nothing is compared.", path)
        return {}
    return {"config": dict(content["config"]), "data": dict(content.get("data", {}))}


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hash_of(stream, hashlib.sha256())
