"""When checkpoints are written, what they hold, and how a run is resumed from one."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ..runtime.agreement import any_process, computed_once
from ..runtime.files import force_to_disk
from ..runtime.json_lines import drop_rows
from ..runtime.run_folder import STAGE_FILES
from ..runtime.signals import StopSignals
from ..runtime.weight_files import WeightFileError
from .checkpoint_files import AtomicCheckpointer
from .epoch_state import generator_state, set_generator_state
from .evaluate import see_sets

logger = logging.getLogger(__name__)

FORMAT = 3
# A resume keeps their rows up to the checkpoint, so they reach the disk before it does.
LOGS = ("metrics.json", "health.jsonl")
PLAIN_ITEMS = (
    "format",
    "iteration",
    "epoch",
    "iters_per_epoch",
    "config",
    "config_hash",
    "code_version",
    "data",
)


class Checkpoints(HookBase):
    """Writes a checkpoint every ``SOLVER.CHECKPOINT_PERIOD`` epochs, every ``CHECKPOINT_MINUTES`` and at the end.

    A checkpoint holds the model with its parts, optimizer, loss scaler, iteration, generator states and what the
    hooks store (e.g. the running epoch's labels): a resumed run is bit-identical to one that was not stopped.
    """

    def __init__(self, trainer: Any) -> None:
        cfg = trainer.cfg
        self.owner = trainer
        self.period = cfg.SOLVER.CHECKPOINT_PERIOD
        self.minutes = cfg.SOLVER.CHECKPOINT_MINUTES
        self.files = AtomicCheckpointer(
            trainer.bare_model,
            cfg.OUTPUT_DIR,
            save_to_disk=comm.is_main_process() and bool(cfg.OUTPUT_DIR),
            keep=cfg.SOLVER.CHECKPOINT_KEEP,
            iters_per_epoch=trainer.iters_per_epoch,
        )
        self._pending: dict[str, Any] | None = None
        self._last_time = time.monotonic()
        # The iteration whose state is on disk; the initial state needs no file.
        self._kept = 0
        self.signals = StopSignals(
            lambda: not cfg.OUTPUT_DIR or self._kept == self.owner.iter,
            lambda: bool(cfg.OUTPUT_DIR) and (self._kept > 0 or any(Path(cfg.OUTPUT_DIR).glob(STAGE_FILES))),
        )

    # ------------------------------------------------------------------ writing

    def before_train(self) -> None:
        self._kept, self._last_time = self.owner.iter, time.monotonic()
        self.signals.install()

    def after_train(self) -> None:
        self.signals.remove()

    def after_step(self) -> None:
        done = self.owner.iter + 1
        if done % self.owner.iters_per_epoch == 0:
            return  # the rest of the epoch's work comes first
        due = self.minutes > 0 and time.monotonic() - self._last_time > 60 * self.minutes
        # The clocks and signals of several processes differ, the decision must not.
        due, stop = any_process(due, self.signals.wanted != 0)
        if due or stop:
            self.save(f"model_iter{done:08d}", done)
        if stop:
            self._leave(done)

    def after_epoch(self) -> None:
        done, border = self.owner.epoch + 1, self.owner.iter
        if done == self.owner.max_epoch:
            self.save("model_final", border)
            return
        if self.period > 0 and done % self.period == 0:
            self.save(f"model_{done:04d}", border)
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Between two epochs, also inside the label phase: save the state and shut down if requested."""
        (stop,) = any_process(self.signals.wanted != 0)
        if stop:
            if self._kept != self.owner.iter:
                self.save(f"model_iter{self.owner.iter:08d}", self.owner.iter)
            self._leave(self.owner.iter)

    def _leave(self, iteration: int) -> None:
        kept = self._kept == iteration
        self.signals.leave(f"the state after iteration {iteration} is {'saved' if kept else 'lost'}")

    def save(self, name: str, iteration: int) -> None:
        """Write the state after ``iteration`` steps; all processes must call it together."""
        state = self.capture(iteration)
        for log in LOGS if self.files.save_dir and self.files.save_to_disk else ():
            force_to_disk(Path(self.files.save_dir) / log)
        self._last_time = time.monotonic()
        if self.files.save(name, **state):
            self._kept = iteration

    def capture(self, iteration: int) -> dict[str, Any]:
        """Everything beyond the model's own weights, as plain tensors and numbers."""
        owner = self.owner
        scaler = owner.step_trainer.grad_scaler
        return {
            "format": FORMAT,
            "iteration": iteration,
            "epoch": iteration // owner.iters_per_epoch,
            "iters_per_epoch": owner.iters_per_epoch,
            "optimizer": owner.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            # One per process; they differ if a layer draws random numbers.
            "generators": comm.gather(generator_state()),
            "hooks": {name: hook.state_dict() for name, hook in self._stateful()},
            **owner.identity.state(),
        }

    def save_best(self, name: str, **extra: Any) -> bool:
        """Weights alone, and whose they are."""
        return self.files.save(name, **self.owner.identity.state(), **extra)

    def _stateful(self) -> list[tuple[str, Any]]:
        """The hooks that keep state, by their names; a script's own hook without one by its class."""
        hooks = [hook for hook in self.owner._hooks if hasattr(hook, "state_dict")]
        return [(getattr(hook, "name", type(hook).__name__), hook) for hook in hooks]

    # ------------------------------------------------------------------ reading

    def resume(self) -> bool:
        """Resume from the newest readable checkpoint of the output folder; False if there is none.

        Raises:
            WeightFileError: none can be read, or the newest is no checkpoint of such a run.
            ValueError: it is of a run with another config or other data.
        """
        # Rank 0 reads for all, since several machines may not share a disk.
        state = computed_once(self._newest)
        if state is None:
            return False
        owner = self.owner
        owner.identity.compare(state)
        self._compare_processes(state["generators"])
        if len(state.get("data", ())) > 1:  # it was scored before
            see_sets(owner.cfg, owner.identity.see)
        if state["iters_per_epoch"] != owner.iters_per_epoch:
            raise ValueError(
                f"The checkpoint counts {state['iters_per_epoch']} iterations per epoch, this config "
                f"{owner.iters_per_epoch}; resume with the config of the run or start in another OUTPUT_DIR."
            )
        owner.iter = owner.start_iter = state["iteration"]
        owner.start_epoch = owner.iter // owner.iters_per_epoch
        self._load(state)
        if owner.iter % owner.iters_per_epoch != 0:
            self._pending = state
        self._forget_later_rows()
        logger.info(
            "Resumed %s at iteration %d, epoch %d: %s.",
            self.files.current,
            owner.iter,
            owner.start_epoch + 1,
            ", ".join(key for key in state if key not in PLAIN_ITEMS),
        )
        return True

    @staticmethod
    def _compare_processes(generators: Any) -> None:
        then, now = len(generators) if isinstance(generators, list) else 1, comm.get_world_size()
        if then != now:
            logger.warning(
                "resume: the checkpoint is of a job of %d processes, this one has %d; the rest agrees with that of a "
                "job of %d up to rounding, not bit for bit, and layers that draw random numbers draw others.",
                *(then, now, then),
            )

    def _newest(self) -> dict[str, Any] | None:
        if not self.files.resume_candidates():
            logger.warning(
                "There is no checkpoint to resume in %s; starting at iteration 0.", self.owner.cfg.OUTPUT_DIR
            )
            return None
        state = self.files.load_newest()
        if state.get("format") != FORMAT:
            raise WeightFileError(
                f"{self.files.current} is not a checkpoint that this version can resume from (format "
                f"{state.get('format')}, not {FORMAT}); start in another OUTPUT_DIR with its weights as "
                "MODEL.WEIGHTS."
            )
        return state

    def _forget_later_rows(self) -> None:
        """Remove what a killed run wrote after the checkpoint; it will be written again."""
        owner, folder = self.owner, self.owner.cfg.OUTPUT_DIR
        if folder and comm.is_main_process():
            # A row between two epochs may hold the evaluation of the epoch that ended there.
            inside = owner.iter % owner.iters_per_epoch != 0
            drop_rows(Path(folder) / "metrics.json", "iteration", owner.iter + (not inside))
            drop_rows(Path(folder) / "health.jsonl", "epoch", owner.start_epoch + 1)

    def epoch_begun(self) -> None:
        """Restore the state of a checkpoint again after the label phase has replayed its epoch."""
        if self._pending is not None:
            state, self._pending = self._pending, None
            self._load(state)

    def load_weights(self, path: str) -> None:
        """Start from the weights in ``path`` (nothing to do for an empty name)."""
        if path:
            self.files.load(path)

    def _load(self, state: dict[str, Any]) -> None:
        owner = self.owner
        self.files.load_model(state["model"])
        owner.optimizer.load_state_dict(state["optimizer"])
        if owner.step_trainer.grad_scaler is not None and state["scaler"]:
            owner.step_trainer.grad_scaler.load_state_dict(state["scaler"])
        for name, hook in self._stateful():
            hook.load_state_dict(state["hooks"][name])
        generators = state["generators"]
        if isinstance(generators, list):
            generators = generators[comm.get_rank() if len(generators) == comm.get_world_size() else 0]
        set_generator_state(generators)
