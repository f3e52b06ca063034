"""Resource checks before the first epoch: memory and time of the label phase, disk space, one batch."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fastreid.utils import comm
from torch import nn

from ...evaluation.shared_rows import can_share
from ...functional.neighbours.clustering import LabelPhaseEstimate, estimate_label_phase
from ...runtime.config_files import ConfigError
from ...runtime.devices import GIB, available_memory
from ..step import amp_dtype

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

#: Memory reserved for everything else on the machine.
SPARE_MEMORY = 0.1
#: The label phase is announced in the log from this number of images on.
WORTH_SAYING = 5000
#: Open files of a run and of each worker in it: pipes, and the tensors of the two batches that it prepares.
FILES, FILES_PER_WORKER = 48, 16
SMALLER_DIMS = (1024, 512, 256, 128, 64)


def label_phase_need(
    counts: Sequence[int], dim: int, *, k1: int, processes: int = 1, rate: float | None = None
) -> LabelPhaseEstimate:
    """Peak memory on one machine and time of clustering both domains, ``counts`` images of ``dim`` floats.

    The processes share one copy of the features where the machine has shared memory; each clusters, domain by domain.
    A list that mixes day and night images costs each of them another copy, which is not counted.
    """
    parts = [estimate_label_phase(count, dim, k1=k1, rate=rate) for count in counts]
    features = 4 * dim * sum(counts)
    copies = 1 if processes == 1 or can_share(features) else processes
    return LabelPhaseEstimate(
        copies * features + processes * max(part.bytes for part in parts), sum(part.seconds for part in parts)
    )


def label_phase_objection(
    counts: Sequence[int], dim: int, available: int | None, *, k1: int, processes: int = 1
) -> str | None:
    """One sentence if the label phase does not fit into memory, with an option that does."""
    rate = None if sum(counts) > WORTH_SAYING else 1e11
    need = label_phase_need(counts, dim, k1=k1, processes=processes, rate=rate)
    if sum(counts) > WORTH_SAYING:
        text = "Label phase: %d images, about %.1f GiB and %.0f s per epoch after the extraction (estimate)."
        logger.info(text, sum(counts), need.bytes / GIB, need.seconds)
    limit = None if available is None else available * (1 - SPARE_MEMORY)
    if limit is None or need.bytes <= limit:
        return None
    fits = [
        small
        for small in SMALLER_DIMS
        if small < dim
        and label_phase_need(counts, small, k1=k1, processes=processes, rate=1e11).bytes <= limit
    ]
    way_out = (
        f"MODEL.HEADS.EMBEDDING_DIM {fits[0]} fits" if fits else "no feature length fits, use fewer images"
    )
    if processes > 1:
        way_out += ", or use fewer processes per machine"
    return (
        f"The label phase needs about {need.bytes / GIB:.1f} GiB for {sum(counts)} images with {dim} floats each, "
        f"this machine has {available / GIB if available else 0:.1f} GiB left; {way_out}."
    )


def checkpoint_bytes(model: nn.Module, optimizer: str, *, cluster_features: int = 0) -> int:
    """Size of one checkpoint: weights, optimizer moments (one for SGD, else two), features of a running epoch."""
    weights = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return weights + trained * (1 if optimizer == "SGD" else 2) + cluster_features


def disk_objection(folder: str, one: int, keep: int) -> str | None:
    """One sentence if ``keep`` checkpoints of ``one`` bytes, the final, the best and a new one do not fit."""
    path = Path(folder).absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    free, need = shutil.disk_usage(existing).free, one * (keep + 3)
    if need <= free:
        return None
    return (
        f"OUTPUT_DIR {folder} has {free / GIB:.2f} GiB left, the checkpoints need {need / GIB:.2f} GiB ({keep + 3} of "
        f"{one / 2**20:.0f} MiB); free some space, choose another OUTPUT_DIR or lower SOLVER.CHECKPOINT_KEEP."
    )


def workers_objection(workers: int) -> str | None:
    """One sentence if the loaders' processes cannot talk to this one; the soft limit of open files is raised.

    torch hands over each tensor of a batch as an open file through a socket in the folder for temporary files, and
    waits for ever where one of the two is missing.
    """
    if not workers:
        return None
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:
        return (
            f"DATALOADER.NUM_WORKERS is {workers}, and their processes need a folder for temporary files "
            f"({error.strerror}); set TMPDIR to one or DATALOADER.NUM_WORKERS 0."
        )
    return _descriptors_objection(workers)


def _descriptors_objection(workers: int) -> str | None:
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = FILES + workers * FILES_PER_WORKER
    if soft == resource.RLIM_INFINITY or soft >= need:
        return None
    if hard == resource.RLIM_INFINITY or hard >= need:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))
        return None
    return (
        f"DATALOADER.NUM_WORKERS is {workers}, for which about {need} files must be open at once, and {hard} may be; "
        f"raise the limit (ulimit -n {need}) or set DATALOADER.NUM_WORKERS 0."
    )


def trial_batch(
    model: Any, batch: int, size: Sequence[int], *, amp_dtype: torch.dtype | None = None
) -> str | None:
    """Run a batch of noise forward and backward through the encoder; weights and statistics are not changed.

    ``amp_dtype``: autocast as in training, which halves the memory of a batch; None = float32.

    Returns one sentence if that fails: too little memory, or parts that do not fit together.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    height, width = (size[0], size[-1])
    try:
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            images = torch.rand(batch, 3, height, width, device=model.device)
            domains = (torch.arange(batch, device=model.device) >= (batch + 1) // 2).long()
            with torch.autocast(model.device.type, dtype=amp_dtype, enabled=amp_dtype is not None):
                context = model.context({"images": 255 * images}, torch.zeros_like(domains))
                outputs = model.train()._encode(images, domains, context)
            sum(value.float().sum() for value in outputs.values()).backward()
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        memory = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in reason
        way_out = (
            "lower SOLVER.IMS_PER_BATCH or INPUT.SIZE_TRAIN"
            if memory
            else "MODEL.BACKBONE.FEAT_DIM, MODEL.HEADS and INPUT.SIZE_TRAIN must fit the backbone"
        )
        return f"A batch of {batch} images of {height} x {width} does not go through the model ({reason}); {way_out}."
    finally:
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for name, value in model.named_buffers():
                value.copy_(buffers[name])
    return None


def check_resources(cfg: Any, model: Any, counts: Sequence[int]) -> None:
    """All of the above for a run with ``counts`` day and night images.

    Raises:
        ConfigError: with the sentence of every check that fails.
    """
    dim = cfg.MODEL.HEADS.EMBEDDING_DIM or cfg.MODEL.BACKBONE.FEAT_DIM
    inside = 4 * dim * sum(counts) if cfg.SOLVER.CHECKPOINT_MINUTES > 0 else 0
    one = checkpoint_bytes(model, cfg.SOLVER.OPT, cluster_features=inside)
    objections = [
        label_phase_objection(
            counts, dim, available_memory(), k1=cfg.CLUSTER.K1, processes=comm.get_local_size()
        ),
        disk_objection(cfg.OUTPUT_DIR, one, cfg.SOLVER.CHECKPOINT_KEEP) if cfg.OUTPUT_DIR else None,
        trial_batch(
            model,
            cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            cfg.INPUT.SIZE_TRAIN,
            amp_dtype=amp_dtype(cfg),
        ),
    ]
    if found := [text for text in objections if text]:
        raise ConfigError("\n".join(found))
