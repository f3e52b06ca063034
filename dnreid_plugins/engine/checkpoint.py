"""Checkpoints that survive a kill, a full disk and a damaged file, and that say what they restored."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastreid.utils.checkpoint import Checkpointer
from torch import Tensor, nn

from ..modeling.parts import Part, names_of_parts
from ..modeling.pretrained import best_prefix, single_stream_name
from ..modeling.weight_files import WeightFileError, read_weight_file, unwrap
from .files import plain, remove_leftovers, write_atomically

logger = logging.getLogger(__name__)

# What is kept for ever; every other checkpoint of the folder is periodic.
FINAL, BEST = "model_final", "model_best"
POINTER = "last_checkpoint"


class AtomicCheckpointer(Checkpointer):
    """fast-reid's checkpointer with complete files, safe loading, a way back and no silent misfit.

    A file is written beside its final name, forced to the disk and renamed. What PyTorch's safe loader would
    not take back is converted or refused when saving. Loading compares checksums and never runs a pickle.

    Args:
        model, save_dir, save_to_disk, checkpointables: as in fast-reid; several processes share ``save_dir``
            and only the one with ``save_to_disk`` writes.
        keep: number of newest periodic checkpoints that stay; ``model_final`` and ``model_best`` always do.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool = True,
        keep: int = 2,
        **checkpointables: Any,
    ) -> None:
        if keep < 1:
            raise ValueError(f"SOLVER.CHECKPOINT_KEEP is {keep}; at least 1 checkpoint must be kept.")
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.keep = keep
        self._restored: list[str] = []
        self._path = ""
        if save_dir and save_to_disk:
            Path(save_dir).mkdir(parents=True, exist_ok=True)
            remove_leftovers(save_dir)

    # ------------------------------------------------------------------ saving

    def save(self, name: str, **kwargs: Any) -> bool:
        """Write ``<name>.pth`` with the model, all checkpointables and ``kwargs``, then forget old ones.

        Returns whether the state is kept, by this process or by the one that writes for all.

        A failure (a full disk, say) leaves every older file as it was. It is logged and training may go on,
        except for the final checkpoint.

        Raises:
            TypeError: a value could not be loaded again.
            OSError: ``model_final`` could not be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return bool(self.save_dir)
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data.update({key: item.state_dict() for key, item in self.checkpointables.items()})
        data.update(kwargs)
        data = plain(data, name)
        path = Path(self.save_dir) / f"{name}.pth"
        try:
            write_atomically(path, lambda file: torch.save(data, file))
            if name != BEST:
                self.tag_last_checkpoint(path.name)
        except (OSError, RuntimeError) as error:
            text = (
                f"{path} could not be written ({error}); all older checkpoints are intact, free some space."
            )
            if name == FINAL:
                raise OSError(text) from error
            logger.error(text)
            return False
        logger.info("Saved %s", path)
        self._forget_old()
        return True

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        content = last_filename_basename.encode()
        write_atomically(Path(self.save_dir) / POINTER, lambda file: file.write(content))

    def periodic(self) -> list[Path]:
        """The periodic checkpoints of the folder, newest first."""
        kept = (f"{FINAL}.pth", f"{BEST}.pth")
        found = [path for path in Path(self.save_dir).glob("model_*.pth") if path.name not in kept]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)

    def _forget_old(self) -> None:
        for path in self.periodic()[self.keep :]:
            path.unlink(missing_ok=True)

    # ------------------------------------------------------------------ resuming

    def has_checkpoint(self) -> bool:
        return bool(self.resume_candidates())

    def get_checkpoint_file(self) -> str:
        """The file that a resume tries first; an empty string where there is none."""
        candidates = self.resume_candidates()
        return str(candidates[0]) if candidates else ""

    def resume_candidates(self) -> list[Path]:
        """Where a resume may go on from: the file that ``last_checkpoint`` names, then the others by age."""
        if not self.save_dir or not Path(self.save_dir).is_dir():
            return []
        final = Path(self.save_dir) / f"{FINAL}.pth"
        found = self.periodic() + ([final] if final.is_file() else [])
        pointer = Path(self.save_dir) / POINTER
        named = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
        return sorted(found, key=lambda path: path.name != named)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Go on from the newest undamaged checkpoint of the folder, else load only the weights in ``path``.

        Raises:
            WeightFileError: no checkpoint can be read, or the one found belongs to another configuration.
        """
        if resume and self.has_checkpoint():
            content = self.load_newest()
            self.load_model(content.pop("model"))
            return self._load_parts(content, list(self.checkpointables), exact=True)
        if resume:
            logger.warning("There is no checkpoint to resume in %s; starting afresh.", self.save_dir)
        return self.load(path, checkpointables=[])

    def load_newest(self) -> dict[str, Any]:
        """The content of the newest checkpoint that is undamaged; each damaged one is named in a warning.

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
            self._path = str(candidate)
            return content
        raise WeightFileError(
            f"None of the {len(candidates)} checkpoints in {self.save_dir} can be read; start afresh without "
            f"--resume."
        )

    def load_model(self, state: Any) -> None:
        """Put back the weights of a checkpoint of this very model; the slightest misfit is an error."""
        self._load_weights(unwrap(state, self._path), exact=True)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights (and ``checkpointables``, None = all that the file has) from ``path``.

        Returns what else the file holds. An empty ``path`` loads nothing.

        Raises:
            WeightFileError: the file cannot be read or lacks a part of the backbone.
        """
        self._restored, self._path = [], path
        if not path:
            logger.info("No weights given; the model keeps its start.")
            return {}
        content = read_weight_file(path)
        if not isinstance(content, dict) or "model" not in content:
            content = {"model": unwrap(content, path)}
        self._load_weights(unwrap(content.pop("model"), path), exact=False)
        wanted = list(self.checkpointables) if checkpointables is None else checkpointables
        return self._load_parts(content, wanted, exact=False)

    @property
    def current(self) -> str:
        """The file that was read last."""
        return self._path

    def restored_summary(self) -> str:
        """One sentence on what the last load brought back; empty when nothing was loaded."""
        return ", ".join(self._restored)

    # ------------------------------------------------------------------ restoring

    def _load_parts(self, content: dict[str, Any], names: list[str], *, exact: bool) -> dict[str, Any]:
        """Hand each named part to its object; returns what is left of ``content``."""
        for name in names:
            if name not in content and exact:
                raise WeightFileError(
                    f"{self._path} holds no {name}, so the run cannot go on as it was; pass the file as "
                    f"MODEL.WEIGHTS to start a new run from its weights."
                )
            if name not in content:
                continue
            try:
                self.checkpointables[name].load_state_dict(content.pop(name))
            except (KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
                raise WeightFileError(
                    f"The {name} in {self._path} does not fit this configuration ({error}); resume with the "
                    f"keys it was made with."
                ) from error
            self._restored.append(name)
        return content

    def _load_weights(self, state: dict[str, Tensor], *, exact: bool) -> None:
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
        self._check_fit(own, chosen, wrong=wrong, missing=missing, exact=exact)
        self.model.load_state_dict({k: v for k, v in chosen.items() if k not in wrong}, strict=False)
        for name, part in self._parts():
            if not any(key.startswith(name) for key in chosen):
                part.forget()  # a teacher, say, that the file knows nothing of
        self._restored = [f"{self._path}: {len(chosen) - len(wrong)} of {len(own)} tensors"]

    def _parts(self) -> list[tuple[str, Part]]:
        return [(f"{name}.", part) for name, part in self.model.named_modules() if isinstance(part, Part)]

    def _check_fit(
        self,
        own: Mapping[str, Tensor],
        chosen: Mapping[str, Tensor],
        *,
        wrong: set[str],
        missing: set[str],
        exact: bool,
    ) -> None:
        """Refuse a file that lacks a part of the backbone (or, for a resume, anything); warn of the rest."""
        required = {key for key in own if key.startswith("backbone.")} or set(own)
        bad = sorted(wrong | missing if exact else (wrong | missing) & required)
        shapes = [
            f"{k} is {tuple(chosen[k].shape)} there and {tuple(own[k].shape)} here" for k in sorted(wrong)
        ]
        if bad:
            raise WeightFileError(
                f"{self._path} does not fit the model: {len(bad)} of {len(own)} tensors are missing or have "
                f"another shape ({'; '.join(shapes[:3]) or ', '.join(bad[:3])}); check MODEL.BACKBONE and "
                f"MODEL.HEADS, or give a file with a bare backbone as MODEL.BACKBONE.PRETRAIN_PATH."
            )
        for text in shapes:
            logger.warning("%s: %s; it keeps its start.", self._path, text)
        if missing:
            logger.warning(
                "%s: %d tensors keep their start, e.g. %s.", self._path, len(missing), min(missing)
            )
