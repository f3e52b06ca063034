"""Stages: what a method does before the first epoch; resumable at any moment, each with its own file."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.registry import Registry

from ...data.digest import short_hash, short_path
from ...runtime.agreement import any_process, computed_once
from ...runtime.files import plain, write_atomically
from ...runtime.signals import StopSignals
from ...runtime.weight_files import WeightFileError, read_weight_file
from ..epoch_state import generator_state, set_generator_state

logger = logging.getLogger(__name__)

STAGE_REGISTRY = Registry("STAGE")
STAGE_REGISTRY.__doc__ = "Stages by their name in `Part.stages`."
FORMAT = 3


class Stage(HookBase):
    """Runs once, before the first epoch of a run, and passes its result to the parts that need it.

    The result comes from, in this order: the file of another run that the config names (`reuse_from`); the stage's own
    ``file_name`` in the output folder, if the run that is resumed has left it there; else the stage runs now, in the
    main process, and saves its state every `period` epochs and on a graceful shutdown.

    A subclass defines what its result depends on, and how it is built, trained, passed on and saved.

    Args:
        trainer: of the run; ``cfg``, ``bare_model`` and ``train_data`` are used.
    """

    #: The stage's file in the output folder; it matches `run_folder.STAGE_FILES`.
    file_name: ClassVar[str]

    def __init__(self, trainer: Any) -> None:
        self.run = trainer
        self.cfg = trainer.cfg
        self.file = Path(self.cfg.OUTPUT_DIR) / self.file_name if self.cfg.OUTPUT_DIR else None
        self.made_for: dict[str, str] = {}
        self.signals = StopSignals(lambda: self._saved, lambda: self.file is not None and self.file.is_file())
        self._saved = True
        self._last_time = time.monotonic()

    # ------------------------------------------------------------------ what a subclass defines

    #: File of a finished stage of another run; empty = none.
    reuse_from: str = ""
    #: Config key of `reuse_from`, for error messages.
    reuse_key: str = ""
    #: Epochs between two saved states; 0 = only the finished one.
    period: int = 0

    @classmethod
    def check(cls, cfg: Any) -> None:
        """Refuse keys that cannot be used, before anything is read.

        Raises:
            ValueError: there are such keys.
        """

    @abstractmethod
    def prepare(self) -> dict[str, str]:
        """Build what is learned; returns by name what its result depends on, for a check before it is reused."""

    @abstractmethod
    def begin(self) -> bool:
        """Prepare the training; return False if the config says that nothing is to be learned."""

    @abstractmethod
    def run_epoch(self) -> None:
        """Train to the end of the stage's running epoch, or until `stop_wanted` is true."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the training is finished."""

    @property
    @abstractmethod
    def epoch(self) -> int:
        """The running epoch of the stage, from 1."""

    @abstractmethod
    def place(self) -> str:
        """The present position of the stage, as text."""

    @abstractmethod
    def state(self, *, finished: bool) -> dict[str, Any]:
        """The content of the file: a finished stage's result, or everything that a running one needs to resume."""

    @abstractmethod
    def load_running(self, state: dict[str, Any]) -> None:
        """Resume from the `state` of a running stage."""

    @abstractmethod
    def load_result(self, state: dict[str, Any], file: Path) -> None:
        """Load the result of a finished stage."""

    @abstractmethod
    def tensors(self) -> Sequence[torch.Tensor]:
        """The result, for the other processes."""

    @abstractmethod
    def hand_over(self) -> None:
        """Pass the result to the parts that need the stage."""

    # ------------------------------------------------------------------ the life cycle

    def before_train(self) -> None:
        before = generator_state()  # whether a stage runs, is resumed or skipped does not change what follows
        self.made_for = self.prepare()
        if self.reuse_from:
            self._reuse(Path(self.reuse_from))
        else:
            self._learn()
        set_generator_state(before)
        self.hand_over()

    def stop_wanted(self) -> bool:
        """Whether the run was asked to shut down."""
        return self.signals.wanted != 0

    def _reuse(self, file: Path) -> None:
        content = computed_once(lambda: self._read(file))
        self._compare(content, file)
        if not content["finished"]:
            raise ValueError(
                f"The stage in {file} is not finished; resume that run or empty {self.reuse_key}."
            )
        self.run.identity.compare_data(content)
        self.load_result(content["stage"], file)
        logger.info("%s: loaded from %s", type(self).__name__, file)

    def _learn(self) -> None:
        file = self.file
        content = computed_once(lambda: self._read(file) if file is not None and file.is_file() else None)
        if content is not None and file is not None:
            self.run.identity.compare(content)
            self._compare(content, file)
        if content is not None and file is not None and content["finished"]:
            self.load_result(content["stage"], file)
            logger.info("%s is finished: loaded from %s", type(self).__name__, file)
            return
        if self.run.iter > 0:
            raise ValueError(
                f"The run is at iteration {self.run.iter}, but {self.file} of the stage before it is missing; "
                f"put it back, name it in {self.reuse_key} or start in another OUTPUT_DIR."
            )
        if not self.begin():
            return
        if content is not None:
            self.load_running(content["stage"])
            logger.info("%s resumes at %s.", type(self).__name__, self.place())
        self._run()
        for tensor in self.tensors() if comm.get_world_size() > 1 else ():
            torch.distributed.broadcast(tensor.data, src=0)

    def _run(self) -> None:
        self.signals.install()
        try:
            finished = self.finished
            while not finished:
                self._saved = False
                finished = computed_once(self._run_epoch)
                (stop,) = any_process(self.stop_wanted())
                if finished or stop or self._due(self.epoch - 1):
                    self._save(finished=finished)
                if stop:
                    self.signals.leave(f"the stage is saved at {self.place()}")
        finally:
            self.signals.remove()

    def _run_epoch(self) -> bool:
        self.run_epoch()
        return self.finished

    def _due(self, epochs: int) -> bool:
        minutes = self.cfg.SOLVER.CHECKPOINT_MINUTES
        late = minutes > 0 and time.monotonic() - self._last_time > 60 * minutes
        return late or (self.period > 0 and epochs % self.period == 0)

    def _save(self, *, finished: bool) -> None:
        self._last_time, self._saved = time.monotonic(), True
        if self.file is None or not comm.is_main_process():
            return
        content = {
            "format": FORMAT,
            "name": type(self).__name__,
            "finished": finished,
            "made_for": self.made_for,
            "stage": self.state(finished=finished),
            **self.run.identity.state(),
        }
        write_atomically(self.file, lambda file: torch.save(plain(content, self.file_name), file))

    def _read(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            raise FileNotFoundError(f"{self.reuse_key} {file} does not exist; correct the path.")
        content = read_weight_file(file)
        mine = isinstance(content, dict) and content.get("format") == FORMAT
        if not mine or content.get("name") != type(self).__name__:
            raise WeightFileError(
                f"{file} does not hold a stage {type(self).__name__}; name a {self.file_name} that a run has written."
            )
        return content

    def _compare(self, content: dict[str, Any], file: Path) -> None:
        for what, here in self.made_for.items():
            if content["made_for"].get(what) != here:
                raise ValueError(
                    f"The result in {file} was made with different {what} "
                    f"({content['made_for'].get(what)}, not {here}); use the former or run the stage again, "
                    "in another OUTPUT_DIR."
                )


def build_stages(trainer: Any) -> list[Stage]:
    """The stages that the parts of the trainer's model ask for."""
    return [STAGE_REGISTRY.get(name)(trainer) for name in trainer.bare_model.parts.stages()]


def name_of_images(paths: Sequence[str]) -> str:
    """Number of images and twelve hex digits of their names; independent of where the data set is stored."""
    names = "\n".join(map(short_path, paths))
    return f"{len(paths)}-{short_hash(names)}"
