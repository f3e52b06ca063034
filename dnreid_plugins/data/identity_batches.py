"""Refuse a batch shape on which fast-reid's own identity samplers would loop forever."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def check_identity_batch(items: Sequence[tuple[Any, ...]], batch_size: int, num_instances: int) -> None:
    """Check that a batch of ``batch_size // num_instances`` identities can be drawn from ``items``.

    ``NaiveIdentitySampler`` and ``BalancedIdentitySampler`` otherwise loop without a message.

    Args:
        items: ``(path, pid, camid)`` training items.
        batch_size: images per process and step.
        num_instances: images per identity (``DATALOADER.NUM_INSTANCE``).

    Raises:
        ValueError: ``num_instances`` exceeds or does not divide the batch, or there are too few identities.
    """
    if batch_size < 1 or num_instances < 1:
        raise ValueError(f"batch size {batch_size} and NUM_INSTANCE {num_instances} must be at least 1")
    if num_instances > batch_size:
        raise ValueError(
            f"DATALOADER.NUM_INSTANCE {num_instances} exceeds the batch of {batch_size} images per process; "
            "lower it or raise SOLVER.IMS_PER_BATCH"
        )
    if batch_size % num_instances:
        raise ValueError(
            f"a batch of {batch_size} images per process is not a multiple of DATALOADER.NUM_INSTANCE "
            f"{num_instances}; set SOLVER.IMS_PER_BATCH to a multiple of it"
        )
    wanted, present = batch_size // num_instances, len({item[1] for item in items})
    if present < wanted:
        raise ValueError(
            f"a batch needs {wanted} identities, the training set has {present}; "
            f"lower SOLVER.IMS_PER_BATCH to {present * num_instances} images per process or raise "
            "DATALOADER.NUM_INSTANCE"
        )
