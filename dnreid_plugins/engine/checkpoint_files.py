"""Checkpoints that survive a kill, a full disk and a damaged file."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..modeling.parts import Part, names_of_parts
from ..modeling.pretrained import best_prefix, single_stream_name
from ..runtime.files import plain, remove_leftovers, write_atomically
from ..runtime.run_folder import PERIODIC, POINTER
from ..runtime.weight_files import WeightFileError, read_weight_file, unwrap

logger = logging.getLogger(__name__)

# Names that are always kept; every other checkpoint of the folder is periodic.
FINAL, BEST = "model_final", "model_best"
# What only training asks for in fast-reid's heads.
CLASSIFIER = re.compile(r"heads\.(weight\w*$|cls_layer\.|classifier)")


class AtomicCheckpointer:
    """Replaces fast-reid's checkpointer: complete files, safe loading, a fallback and no silent mismatch.

    A file is written next to its final name, flushed to the disk and renamed. What PyTorch's safe loader would not
    accept is converted or refused when saving. Loading compares checksums and never runs a pickle.

    Args:
        model: whose weights are saved and loaded.
        save_dir: folder of the checkpoints; empty = nothing is saved.
        save_to_disk: several processes share ``save_dir``, and only the one with ``save_to_disk`` writes.
        keep: number of periodic checkpoints of the highest iterations that stay; the one just written,
            ``model_final`` and ``model_best`` always do, and no clock is asked.
        iters_per_epoch: ``model_0002`` is written after so many iterations twice.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool = True,
        keep: int = 2,
        iters_per_epoch: int = 1,
    ) -> None:
        if keep < 1:
            raise ValueError(f"SOLVER.CHECKPOINT_KEEP is {keep}; at least 1 checkpoint must be kept.")
        self.model, self.save_dir, self.save_to_disk = model, save_dir, save_to_disk
        self.keep, self.iters_per_epoch = keep, iters_per_epoch
        #: The file that was read last.
        self.current = ""
        if save_dir and save_to_disk:
            Path(save_dir).mkdir(parents=True, exist_ok=True)
            remove_leftovers(save_dir)

    # ------------------------------------------------------------------ saving

    def save(self, name: str, **kwargs: Any) -> bool:
        """Write ``<name>.pth`` with the model and ``kwargs``, then delete old ones.

        Returns whether the state was saved, by this process or by the one that writes for all.

        A failure (a full disk, say) leaves every older file as it was. It is logged and training may go on, except
        for the final checkpoint and where a resume would find no older one.

        Raises:
            TypeError: a value could not be loaded again.
            OSError: ``model_final`` could not be written, or nothing that a resume could use.
        """
        if not self.save_dir or not self.save_to_disk:
            return bool(self.save_dir)
        data = plain({"model": self.model.state_dict(), **kwargs}, name)
        path = Path(self.save_dir) / f"{name}.pth"
        try:
            write_atomically(path, lambda file: torch.save(data, file))
            if name != BEST:
                pointer = Path(self.save_dir) / POINTER
                write_atomically(pointer, lambda file: file.write(path.name.encode()))
        except (OSError, RuntimeError) as error:
            older = self.resume_candidates()
            what = "all older checkpoints are intact" if older else "there is no older one to go on from"
            reason = " ".join(str(error).split())[:200]
            text = f"{path} could not be written ({reason}); {what}. Free some space or raise the limit (ulimit -f)."
            if name == FINAL or (name != BEST and not older):
                raise OSError(text) from error
            logger.error(text)
            return False
        logger.info("Saved %s", path)
        self._forget_old(path)
        return True

    def periodic(self) -> list[Path]:
        """The periodic checkpoints of the folder, those of the highest iteration first."""
        found = [path for path in Path(self.save_dir).iterdir() if PERIODIC.fullmatch(path.name)]
        return sorted(found, key=lambda path: (self._iteration(path), path.name), reverse=True)

    def _iteration(self, path: Path) -> int:
        name = PERIODIC.fullmatch(path.name)
        assert name is not None
        return int(name["iteration"] or int(name["epoch"]) * self.iters_per_epoch)

    def _forget_old(self, written: Path) -> None:
        others = [path for path in self.periodic() if path != written]
        for path in others[self.keep - bool(PERIODIC.fullmatch(written.name)) :]:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ resuming

    def resume_candidates(self) -> list[Path]:
        """Where a resume may go on from: the file that ``last_checkpoint`` names, then the others by iteration."""
        if not self.save_dir or not Path(self.save_dir).is_dir():
            return []
        final = Path(self.save_dir) / f"{FINAL}.pth"
        found = ([final] if final.is_file() else []) + self.periodic()
        pointer = Path(self.save_dir) / POINTER
        named = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
        return sorted(found, key=lambda path: path.name != named)

    def load_newest(self) -> dict[str, Any]:
        """The content of the newest undamaged checkpoint; each damaged one is named in a warning.

        Raises:
            WeightFileError: there is none.
        """
        candidates = self.resume_candidates()
        for candidate in candidates:
            try:
                content = read_weight_file(candidate)
                if not isinstance(content, dict) or "model" not in content:
                    raise WeightFileError(f"{candidate} is not a checkpoint of a run.")
            except WeightFileError as error:
                logger.warning("%s Falling back to the checkpoint before it.", error)
                continue
            self.current = str(candidate)
            return content
        raise WeightFileError(
            f"None of the {len(candidates)} checkpoints in {self.save_dir} can be read; start again without "
            f"--resume."
        )

    def load_model(self, state: Any) -> None:
        """Restore the weights of a checkpoint of this same model; any mismatch is an error."""
        self._load_weights(unwrap(state, self.current), exact=True)

    def load(self, path: str, *, content: Any = None, to_evaluate: bool = False) -> None:
        """Load weights from ``path``, or its ``content`` where it was read; an empty ``path`` loads nothing.

        Raises:
            WeightFileError: the file cannot be read or lacks a part of the backbone; ``to_evaluate``: it lacks
                anything that makes features.
        """
        self.current = path
        if not path:
            logger.info("No weights given; the model keeps its initial weights.")
            return
        state = unwrap(read_weight_file(path) if content is None else content, path)
        self._load_weights(state, exact=False, needed=self.names_of_features() if to_evaluate else ())

    def names_of_features(self) -> list[str]:
        """The tensors that make features: all but those of the parts and of fast-reid's classifiers."""
        parts = names_of_parts(self.model)
        return [k for k in self.model.state_dict() if k not in parts and not CLASSIFIER.match(k)]

    # ------------------------------------------------------------------ restoring

    def _load_weights(self, state: dict[str, Tensor], *, exact: bool, needed: Collection[str] = ()) -> None:
        """A file of a plain single-stream encoder fits a dual-stream one: both streams get its weights."""
        own = self.model.state_dict()
        single = {key: single_stream_name(key) for key in own}
        prefix = best_prefix(state, {*own, *single.values()})
        sources = {
            key: next((n for n in (prefix + key, prefix + plain_key, key, plain_key) if n in state), None)
            for key, plain_key in single.items()
        }
        chosen = {key: state[name] for key, name in sources.items() if name is not None}
        free = names_of_parts(self.model)
        wrong = {key for key, value in chosen.items() if value.shape != own[key].shape and key not in free}
        missing = {key for key in own if key not in chosen and not key.endswith("num_batches_tracked")}
        needed = set(own) if exact else needed or {k for k in own if k.startswith("backbone.")} or set(own)
        self._check_fit(own, chosen, wrong=wrong, missing=missing, needed=needed)
        self.model.load_state_dict({k: v for k, v in chosen.items() if k not in wrong}, strict=False)
        for name, part in self._parts():
            if not any(key.startswith(name) for key in chosen):
                part.forget()  # e.g. a teacher that is not in the file

    def _parts(self) -> list[tuple[str, Part]]:
        return [(f"{name}.", part) for name, part in self.model.named_modules() if isinstance(part, Part)]

    def _check_fit(
        self,
        own: Mapping[str, Tensor],
        chosen: Mapping[str, Tensor],
        *,
        wrong: set[str],
        missing: set[str],
        needed: Collection[str],
    ) -> None:
        """Refuse a file that lacks some of ``needed``; warn of the rest."""
        bad = sorted((wrong | missing).intersection(needed))
        shapes = [
            f"{k} is {tuple(chosen[k].shape)} in the file, {tuple(own[k].shape)} here" for k in sorted(wrong)
        ]
        if bad:
            raise WeightFileError(
                f"{self.current} does not fit the model: {len(bad)} of {len(own)} tensors are missing or have "
                f"another shape ({'; '.join(shapes[:3]) or ', '.join(bad[:3])}); check MODEL.BACKBONE and "
                f"MODEL.HEADS, or give a file with a bare backbone as MODEL.BACKBONE.PRETRAIN_PATH."
            )
        for text in shapes:
            logger.warning("%s: %s; it keeps its initial values.", self.current, text)
        if missing:
            logger.warning(
                "%s: %d tensors keep their initial values, e.g. %s.", self.current, len(missing), min(missing)
            )
