"""Run image transforms and samplers under their own seeds without touching other users' random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def seed_generators(seed: int) -> None:
    """Seed the CPU generators that transforms draw from (Python, NumPy, torch): about 8 microseconds."""
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002 (third-party transforms draw from it)
    # torch.manual_seed would also seed every accelerator, which costs 100 microseconds and changes the training
    torch.default_generator.manual_seed(seed)


def image_seeds(entropy: tuple[int, ...], count: int) -> npt.NDArray[np.uint64]:
    """``(count,)`` 63-bit seeds, a function of ``entropy`` alone."""
    return np.random.SeedSequence(entropy).generate_state(count, np.uint64) >> np.uint64(1)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Restore the three global generators at the end, also after an exception."""
    before = _states()
    try:
        yield
    finally:
        _set_states(before)


class PrivateGenerators:
    """A private state of the global generators: seeded once, active only inside ``with in_force()``.

    For code that draws from the global generators over a long time, such as fast-reid's samplers: it is not affected
    by what others draw or seed in between, nor does it affect them.
    """

    def __init__(self, seed: int) -> None:
        with generators_kept():
            seed_generators(seed)
            self._states = _states()

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Draws inside continue where the last ``with`` ended."""
        with generators_kept():
            _set_states(self._states)
            try:
                yield
            finally:
                self._states = _states()


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002


def _set_states(states: tuple[Any, Any, torch.Tensor]) -> None:
    python, numpy, of_torch = states
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002
    torch.default_generator.set_state(of_torch)
