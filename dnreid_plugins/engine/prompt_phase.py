"""Stage 1 of "Bridging Day and Night" inside a run: before the first epoch, resumable, reusable by other runs."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from torch import Tensor

from ..modeling.prompts import PromptLearner, build_prompt_learner
from ..modeling.text import ClipTextTower, build_text_tower
from ..modeling.weight_files import WeightFileError, read_weight_file
from .agreement import any_process, computed_once
from .checkpointing import config_items
from .files import plain, write_atomically
from .prompt_options import PromptStageOptions
from .prompt_stage import PromptStage
from .run_folder import STAGE_1
from .state import generator_state, set_generator_state
from .stop import StopSignals

logger = logging.getLogger(__name__)

FORMAT = 2


class PromptPhase(HookBase):
    """Learns the prompts once and hands them to the loss head ``ImageText``.

    Where they come from, in this order: the file ``PROMPT_STAGE.WEIGHTS``; ``stage1.pth`` of the output folder,
    if it was left there by the run that is resumed; else stage 1 runs now. Several processes: the main one learns,
    all get the result.

    Args:
        cfg: sections ``MODEL.PROMPT`` and ``PROMPT_STAGE``.
        extract: returns ``(N, F)`` features of all training images, `features_before_neck` of the start model.
        domains: ``(N,)`` int64.
        paths: of the training images in canonical order.
    """

    def __init__(
        self, cfg: Any, *, extract: Callable[[], Tensor], domains: Tensor, paths: Sequence[str]
    ) -> None:
        self.cfg = cfg
        self.extract = extract
        self.domains = domains
        self.images = name_of_images(paths)
        self.made_for: dict[str, str] = {}
        self.file = Path(cfg.OUTPUT_DIR) / STAGE_1 if cfg.OUTPUT_DIR else None
        self.signals = StopSignals(lambda: self._saved, lambda: self.file is not None and self.file.is_file())
        self._saved = True
        self._last_time = time.monotonic()

    def before_train(self) -> None:
        before = generator_state()  # stage 1, whole, resumed or skipped, leaves no trace in stage 2
        device = self.trainer.bare_model.device
        text = build_text_tower(self.cfg)
        self.made_for = made_for(self.cfg, text, self.images)
        text = text.to(device)
        prompts = build_prompt_learner(self.cfg, text, self.domains).to(device)
        if self.cfg.PROMPT_STAGE.WEIGHTS:
            self._reuse(prompts, Path(self.cfg.PROMPT_STAGE.WEIGHTS))
        elif self.cfg.PROMPT_STAGE.EPOCHS > 0:
            self._learn(prompts, text)
        set_generator_state(before)
        self.trainer.bare_model.loss_heads["ImageText"].prepare(prompts, text)

    def _reuse(self, prompts: PromptLearner, file: Path) -> None:
        content = computed_once(lambda: self._read(file))
        if not content["finished"]:
            raise ValueError(
                f"Stage 1 in {file} is not finished; resume that run or empty PROMPT_STAGE.WEIGHTS."
            )
        _load_prompts(prompts, content, file)
        logger.info("Stage 1: %d prompts taken from %s", prompts.num_images, file)

    def _learn(self, prompts: PromptLearner, text: ClipTextTower) -> None:
        file = self.file
        content = computed_once(lambda: self._read(file) if file is not None and file.is_file() else None)
        if content is not None:
            self.trainer.checkpoints.check_config(content["config"])
        if content is not None and content["finished"]:
            assert file is not None
            _load_prompts(prompts, content, file)
            logger.info("Stage 1 is finished: %d prompts taken from %s", prompts.num_images, file)
            return
        if self.trainer.iter > 0:
            raise ValueError(
                f"Stage 2 stands at iteration {self.trainer.iter}, but {self.file} with the prompts of stage 1 is "
                "not there; put it back, name it in PROMPT_STAGE.WEIGHTS or start in another OUTPUT_DIR."
            )
        stage = PromptStage(
            prompts=prompts,
            text=text,
            features=self.extract(),
            options=PromptStageOptions.from_config(self.cfg),
            autocast=self._autocast(),
        )
        if content is not None:
            stage.load_state_dict(content["stage"])
            logger.info("Stage 1 goes on at epoch %d, step %d.", stage.epoch, stage.step)
        self._run(stage)
        for tensor in [*prompts.parameters()] if comm.get_world_size() > 1 else []:
            dist.broadcast(tensor.data, src=0)

    def _run(self, stage: PromptStage) -> None:
        options = stage.options
        text = "Stage 1: %d prompts of %d day and %d night images, %d epochs of %d steps"
        counts = torch.bincount(self.domains, minlength=2).tolist()
        logger.info(text, sum(counts), *counts, options.epochs, stage.steps_per_epoch)
        self.signals.install()
        try:
            finished = stage.finished
            while not finished:
                self._saved = False
                finished = computed_once(lambda: self._epoch(stage))
                (stop,) = any_process(self.signals.wanted != 0)
                if finished or stop or self._due(stage.epoch - 1):
                    self._save(stage, finished=finished)
                if stop:
                    self.signals.leave(f"stage 1 is kept in epoch {stage.epoch} after step {stage.step}")
        finally:
            self.signals.remove()

    def _epoch(self, stage: PromptStage) -> bool:
        stage.run_epoch(stop=lambda: self.signals.wanted != 0)
        return stage.finished

    def _due(self, epochs: int) -> bool:
        period, minutes = self.cfg.PROMPT_STAGE.CHECKPOINT_PERIOD, self.cfg.SOLVER.CHECKPOINT_MINUTES
        late = minutes > 0 and time.monotonic() - self._last_time > 60 * minutes
        return late or (period > 0 and epochs % period == 0)

    def _save(self, stage: PromptStage, *, finished: bool) -> None:
        """A finished stage keeps its prompts only, a running one everything that it needs to go on."""
        self._last_time, self._saved = time.monotonic(), True
        if self.file is None or not comm.is_main_process():
            return
        state = stage.state_dict()
        if finished:
            state = {"prompts": state["prompts"]}
        content = {"format": FORMAT, "finished": finished, "made_for": self.made_for, "stage": state}
        content["config"] = config_items(self.cfg)
        write_atomically(self.file, lambda file: torch.save(plain(content, STAGE_1), file))

    def _read(self, file: Path) -> dict[str, Any]:
        if not file.is_file():
            raise FileNotFoundError(f"PROMPT_STAGE.WEIGHTS {file} does not exist; correct the path.")
        content = read_weight_file(file)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise WeightFileError(
                f"{file} holds no stage 1 of ours; name a stage1.pth that a run has written."
            )
        for what, here in self.made_for.items():
            if content["made_for"][what] != here:
                raise ValueError(
                    f"The prompts in {file} were made for other {what} ({content['made_for'][what]} there, {here} "
                    "here); go back to those or run stage 1 again, in another OUTPUT_DIR."
                )
        return content

    def _autocast(self) -> torch.dtype | None:
        on_gpu = self.trainer.bare_model.device.type == "cuda"
        return torch.bfloat16 if on_gpu and self.cfg.SOLVER.AMP.ENABLED else None


def made_for(cfg: Any, text: ClipTextTower, images: str) -> dict[str, str]:
    """What prompts belong to: with another text tower, template or image list they would say nothing."""
    digest = hashlib.sha256()
    for name, tensor in sorted(text.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "training images": images,
        "text-tower weights": digest.hexdigest()[:12],
        "MODEL.PROMPT.TEMPLATES": repr(list(cfg.MODEL.PROMPT.TEMPLATES)),
    }


def name_of_images(paths: Sequence[str]) -> str:
    """Number of images and twelve hex digits of their names; the same wherever the data set lies."""
    digest = hashlib.sha256("\n".join("/".join(Path(path).parts[-3:]) for path in paths).encode())
    return f"{len(paths)}-{digest.hexdigest()[:12]}"


def _load_prompts(prompts: PromptLearner, content: dict[str, Any], file: Path) -> None:
    try:
        prompts.load_state_dict(content["stage"]["prompts"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"The prompts in {file} do not fit MODEL.PROMPT ({reason}); use the keys they were made with."
        ) from error
