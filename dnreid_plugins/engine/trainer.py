"""The trainer: fast-reid's DefaultTrainer on today's machines, with a label phase before each epoch."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from fastreid.data import build_reid_train_loader
from fastreid.engine import hooks as fastreid_hooks
from fastreid.engine.defaults import DefaultTrainer
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from fastreid.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from torch import Tensor, nn

from ..data import sample_stream
from ..data.datasets import configure as configure_datasets
from ..data.loaders import build_test_loader
from ..data.train_data import TrainData, build_train_data, read_dataset
from ..evaluation.extraction import extract_features
from ..evaluation.results import read_results, update_results, write_results
from ..functional.types import Epoch
from ..labels import build_labels
from ..labels.guard import Guard
from ..modeling.meta_arch import StudentFeatures
from ..modeling.parts import Parts
from ..runtime.devices import use_device
from ..runtime.logs import quiet_screen, setup_logs
from ..runtime.run_folder import STAGE_FILES, forget_before, set_aside
from ..runtime.sections import construct
from . import overrides, preflight
from .bad_batch import KeepBadBatch
from .checkpoints import Checkpoints
from .cluster_file import ClusterFile
from .data_parallel import SameBuffers, needs_same_buffers, wrap_model
from .epoch_state import choose_repeatable_kernels
from .evaluate import by_set, log_run, run_test
from .hooks import Evaluate, FollowStep, Writers, evaluates_after
from .identity import TRAINING_IMAGES, RunIdentity, begin_job, training_of
from .label_phase import LabelPhase
from .loss_audit import LossAudit
from .option_hooks import BestKeeper, build_extra_hooks
from .preflight.model import needs_clusters
from .preflight.resources import check_resources
from .solver.optimizer import build_lr_scheduler, build_optimizer
from .stages import build_stages
from .step import AMP_IGNORED, StepTrainer, amp_dtype
from .time_left import TimeLeft, TrainingLine

logger = logging.getLogger(__name__)


class CrossDomainTrainer(DefaultTrainer):
    """Trains any meta-architecture of fast-reid's registry; those with ``needs_clusters`` get a label phase.

    The life cycle is fast-reid's: construct, `resume_or_load`, `train`. Differences: one `SEED` determines all
    randomness, learning rates are a function of the iteration, checkpoints hold everything a bit-exact resume
    needs, ``results.json`` in ``OUTPUT_DIR`` holds the metrics before and after training. A subclass may override the
    same methods as of fast-reid's trainer; an override that would have no effect is refused.
    """

    def __init__(self, cfg: Any) -> None:
        self._hooks: list[HookBase] = []
        begin_job(cfg)
        setup_logs(cfg.OUTPUT_DIR)
        preflight.check(cfg)
        use_device(cfg.MODEL.DEVICE)
        configure_datasets(cfg)
        if cfg.DETERMINISTIC and torch.device(cfg.MODEL.DEVICE).type == "cuda":
            choose_repeatable_kernels()
        seed_all_rng(cfg.SEED)
        self.needs_clusters = needs_clusters(cfg)
        self.train_data: TrainData | None = None
        if self.needs_clusters:
            overrides.refuse_unused(type(self), CrossDomainTrainer, cfg)
            self.train_data = build_train_data(cfg)
            self.iters_per_epoch = self.train_data.iterations
            loader = self.train_data.first_loader
        else:
            loader = self.build_train_loader(cfg)
            preflight.check_supervised_data(cfg, loader.dataset)
            cfg = self.auto_scale_hyperparams(cfg, loader.dataset.num_classes)
            self.iters_per_epoch = cfg.DATALOADER.ITERS_PER_EPOCH or max(
                len(loader.dataset) // cfg.SOLVER.IMS_PER_BATCH, 1
            )
            ranks = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
            loader = sample_stream.repeatable(loader, seed=cfg.SEED, **ranks)
        self.identity = RunIdentity(cfg)
        items = self.train_data.items if self.train_data else getattr(loader.dataset, "img_items", ())
        self.identity.see(TRAINING_IMAGES, items)
        seed_all_rng(cfg.SEED)
        model = self.build_model(cfg)
        optimizer = overrides.only_optimizer(type(self), self.build_optimizer(cfg, model))
        self.bare_model = model
        if self.train_data is not None:
            check_resources(cfg, model, torch.bincount(self.train_data.images.domains).tolist())
        amp = amp_dtype(cfg)
        if cfg.SOLVER.AMP.ENABLED and amp is None:
            logger.warning(AMP_IGNORED)
        wrapped = wrap_model(model, sync_bn=cfg.MODEL.SYNC_BN)
        self.step_trainer = self._trainer = StepTrainer(
            wrapped, loader, optimizer, amp_dtype=amp, observer=self
        )
        self.step_trainer.streams = self.train_data.loaders if self.train_data else {"": loader}
        self.scheduler = self.build_lr_scheduler(cfg, optimizer, self.iters_per_epoch)
        self.start_epoch = self.start_iter = self.iter = 0
        self.max_epoch = cfg.SOLVER.MAX_EPOCH
        self.max_iter = self.max_epoch * self.iters_per_epoch
        self.cfg = cfg
        self.time_left = TimeLeft(lambda done: evaluates_after(done, cfg.TEST.EVAL_PERIOD, self.max_epoch))
        # Under the names that fast-reid's hooks use.
        self.warmup_iters, self.delay_epochs = cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.DELAY_EPOCHS
        self.checkpoints = Checkpoints(self)
        self.checkpointer = self.checkpoints.files
        self._last_eval_results: dict[str, Any] = {}
        hooks = self.build_hooks()
        if self.needs_clusters:
            overrides.refuse_lost_hooks(type(self), hooks, (LabelPhase, FollowStep))
        self.register_hooks(hooks)

    @property
    def parts(self) -> Parts:
        """The parts of the model's method."""
        model: Any = self.bare_model
        return model.parts

    # ------------------------------------------------------------------ builders

    @classmethod
    def build_model(cls, cfg: Any) -> nn.Module:
        with quiet_screen():
            model = super().build_model(cfg)
        parameters = sum(p.numel() for p in model.parameters())
        logger.info("%s with %.2f M parameters", type(model).__name__, parameters / 1e6)
        return model

    @classmethod
    def build_optimizer(cls, cfg: Any, model: nn.Module) -> tuple[torch.optim.Optimizer, None]:
        """The optimizer and, as scripts expect it of fast-reid, a wrapper, which is always None."""
        return build_optimizer(cfg, model), None

    @classmethod
    def build_lr_scheduler(cls, cfg: Any, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> Any:
        return build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> Any:
        return build_reid_train_loader(cfg, combineall=cfg.DATASETS.COMBINEALL)

    @classmethod
    def build_test_loader(cls, cfg: Any, dataset_name: str) -> tuple[Any, int]:
        """Queries, then gallery, and the number of queries; only used with a script's own ``build_evaluator``."""
        return build_test_loader(cfg, dataset_name, read_dataset(dataset_name))

    def build_hooks(self) -> list[HookBase]:
        cfg = self.cfg
        result: list[HookBase] = [self.time_left, fastreid_hooks.IterationTimer(), KeepBadBatch()]
        if needs_same_buffers(self.bare_model, sync_bn=cfg.MODEL.SYNC_BN):
            result.append(SameBuffers())
        if self.train_data is not None:
            result += [*build_stages(self), self.build_label_phase(), FollowStep()]
            if cfg.OUTPUT_DIR:
                result.append(ClusterFile(cfg.OUTPUT_DIR, [item[0] for item in self.train_data.items]))
            if cfg.AUDIT.PERIOD > 0:
                result.append(LossAudit(cfg.AUDIT.PERIOD))
        result += [overrides.schedule_hook(self.optimizer, self.scheduler), *build_extra_hooks(self)]
        result.append(Evaluate(cfg.TEST.EVAL_PERIOD, self._evaluate))
        # With a single evaluation, at the end, the best would be a copy of the final state.
        if cfg.TEST.KEEP_BEST and cfg.TEST.EVAL_PERIOD > 0 and cfg.OUTPUT_DIR and cfg.DATASETS.TESTS:
            result.append(
                BestKeeper(lambda: self._last_eval_results, self.checkpoints.save_best, cfg.OUTPUT_DIR)
            )
        if comm.is_main_process():
            result.append(Writers(self.build_writers))
        return [*result, self.checkpoints]

    def build_label_phase(self) -> LabelPhase:
        cfg, data = self.cfg, self.train_data
        assert data is not None
        model = StudentFeatures(self.bare_model, feature=cfg.CLUSTER.FEATURE)

        def extract() -> Tensor:
            return extract_features(model, data.inference_loader, flip=cfg.CLUSTER.FLIP, progress="extract")

        labels = build_labels(cfg)
        self.identity.see_files("files of the labels", labels.files())
        return LabelPhase(extract=extract, labels=labels, images=data.images, guard=construct(Guard, cfg))

    def build_writers(self) -> list[Any]:
        line, folder = TrainingLine(self.max_iter, self.time_left.seconds), self.cfg.OUTPUT_DIR
        if not folder:
            return [line]
        return [line, JSONWriter(os.path.join(folder, "metrics.json")), TensorboardXWriter(folder)]

    # ------------------------------------------------------------------ training

    def use_labels(self, epoch: Epoch) -> None:
        """Train on the pseudo labels of this epoch from the next batch on."""
        assert self.train_data is not None
        streams, paired = self.parts.streams_now, self.cfg.DATALOADER.PAIRED
        done = self.iter - self.epoch * self.iters_per_epoch
        labels = self.train_data.use(epoch, batches_done=done, paired=paired, streams=streams)
        self.step_trainer.pseudo_labels = labels
        self.step_trainer.start_iterator(streams)

    def losses_ready(self, losses: dict[str, Tensor]) -> None:
        """Pass the losses of a step, while their graph exists, to the hooks that need them."""
        for hook in self._hooks:
            if hasattr(hook, "losses_ready"):
                hook.losses_ready(losses)

    def stream_done(self) -> None:
        """Update the parts between two steps of an iteration; `FollowStep` does it after the last one."""
        self.parts.after_step(self.bare_model.last_batch)  # type: ignore[arg-type]

    def step_failed(self, batch: dict[str, Any], losses: dict[str, Tensor], reason: str) -> str:
        """Tell the hooks that a loss or gradient is NaN or infinite; returns their messages."""
        said = [h.step_failed(batch, losses, reason) for h in self._hooks if hasattr(h, "step_failed")]
        return "; ".join(text for text in said if text)

    def resume_or_load(self, resume: bool = False) -> None:
        """Resume from the newest checkpoint of ``OUTPUT_DIR``, or load ``MODEL.WEIGHTS`` if there is none."""
        folder = self.cfg.OUTPUT_DIR
        if resume and self.checkpoints.resume():
            forget_before(folder)
            return
        if resume:
            text = "--resume: there is no checkpoint in %s, so the run starts from the beginning."
            logger.warning(text, folder or "''")
        self.checkpoints.load_weights(self.cfg.MODEL.WEIGHTS)
        if self.cfg.MODEL.WEIGHTS and self.train_data is not None:
            self.parts.forget()
        comm.synchronize()  # the weights may be in the folder that is cleared now
        if comm.is_main_process() and folder:
            # A run without a checkpoint may have been stopped in a stage before the first epoch.
            set_aside(folder, keep=(STAGE_FILES,) if resume else ())

    def train(self) -> dict[str, Any]:
        """Run the remaining epochs; returns the last evaluation."""
        text = "%d epochs of %d iterations, starting at iteration %d"
        logger.info(text, self.max_epoch, self.iters_per_epoch, self.iter)
        self.start_iter = self.iter
        if self.train_data is None:
            sample_stream.begin_at(self.step_trainer.data_loader, self.iter)
            self.step_trainer.start_iterator()
        with training_of(self.identity), EventStorage(self.start_iter) as self.storage:
            with self.time_left.evaluating_the_start():
                self._evaluate_start()
            self.before_train()
            try:
                for epoch in range(self.iter // self.iters_per_epoch, self.max_epoch):
                    self.epoch = epoch
                    self._train_epoch()
            finally:
                self.after_train()
        if self.start_iter >= self.max_iter and comm.is_main_process():
            log_run(self.cfg, self._last_eval_results)
        return self._last_eval_results

    def _train_epoch(self) -> None:
        self.before_epoch()
        self.checkpoints.epoch_begun()
        for _ in range(self.iter - self.epoch * self.iters_per_epoch, self.iters_per_epoch):
            self.before_step()
            self.run_step()
            self.after_step()
            self.iter += 1
        self.after_epoch()

    # ------------------------------------------------------------------ evaluation

    def _evaluate_start(self) -> None:
        results = read_results(self.cfg.OUTPUT_DIR)
        self._last_eval_results = {k: v for k, v in results.items() if k in self.cfg.DATASETS.TESTS}
        if self.iter == 0 and self.cfg.TEST.EVAL_START and self.cfg.DATASETS.TESTS:
            logger.info("Evaluating the start")
            results["start"] = by_set(self.test(self.cfg, self.bare_model), self.cfg.DATASETS.TESTS)
        if comm.is_main_process():
            # In place of what `test` has written, which is no result of the training.
            entries = {"seed": self.cfg.SEED, "epochs": 0, "finished": False, **results}
            write_results(self.cfg.OUTPUT_DIR, {**entries, **self.identity.summary()})

    def _evaluate(self) -> dict[str, Any]:
        found = by_set(self.test(self.cfg, self.bare_model), self.cfg.DATASETS.TESTS)
        self._last_eval_results, done = found, self.epoch + 1
        if comm.is_main_process():
            entries = {"epochs": done, "finished": done == self.max_epoch, **self.identity.summary()}
            update_results(self.cfg.OUTPUT_DIR, **found, **entries)
        return found

    @classmethod
    def test(cls, cfg: Any, model: nn.Module) -> dict[str, Any]:
        """Evaluate on every set of ``DATASETS.TESTS``, log the table, keep the figures; see `run_test`."""
        return run_test(cls, cfg, model, base=CrossDomainTrainer)
