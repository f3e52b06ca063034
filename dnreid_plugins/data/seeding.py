"""Run image transforms under a seed of their own, without disturbing anybody else's generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_generators(seed: int) -> None:
    """Seed the CPU generators that transforms draw from (Python, NumPy, torch): about 8 microseconds."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 (third-party transforms draw from it)
    # torch.manual_seed would also seed every accelerator, which costs 100 microseconds and disturbs training
    torch.default_generator.manual_seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the three global generators back as they were, also after an exception."""
    python, state = random.getstate(), torch.default_generator.get_state()
    numpy = np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.default_generator.set_state(state)
