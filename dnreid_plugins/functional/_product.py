"""Float32 products of row blocks, by whichever library is faster on this machine."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]


def multiplier(right: Tensor) -> Multiply:
    """A function that maps ``left (B, D)`` to ``left @ right.T (B, N)`` in full float32, never TF32.

    On CPUs where torch's BLAS stays below the vector width of the machine, oneDNN on packed rows is up to
    twice as fast; both round like any float32 product and only the last bits differ.
    """
    if not right.is_cuda and right.shape[0] > 0 and _packed_is_faster(torch.get_num_threads()):
        return _packed(right)

    def multiply(left: Tensor) -> Tensor:
        with full_precision(right.is_cuda):
            return torch.mm(left, right.t())

    return multiply


def product_rate(size: int = 1024) -> float:
    """Measured float32 operations per second of the faster product; what a k-NN search can hope for."""
    a = torch.ones(size, size)
    fast = multiplier(a)
    return 2 * size**3 / min(_seconds(lambda: fast(a)) for _ in range(3))


def _packed(right: Tensor) -> Multiply:
    with full_precision(cuda=False):
        weight = torch.ops.mkldnn._reorder_linear_weight(right.contiguous())

    def multiply(left: Tensor) -> Tensor:
        with full_precision(cuda=False):
            product: Tensor = torch.ops.mkldnn._linear_pointwise(left, weight, None, "none", [], "")
        return product

    return multiply


@functools.cache
def _packed_is_faster(threads: int) -> bool:
    """One short race per process and thread count; a private operator that is gone or fails has lost."""
    a = torch.ones(1024, 1024)
    try:
        packed = _packed(a)
        if not torch.allclose(packed(a[:8]), a[:8] @ a.t()):
            return False
        rival = min(_seconds(lambda: packed(a)) for _ in range(5))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return rival < 0.8 * min(_seconds(lambda: torch.mm(a, a.t())) for _ in range(5))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def full_precision(cuda: bool) -> Iterator[None]:
    """Float32 products with nothing reduced (TF32, bfloat16) inside, whatever the training has allowed."""
    setting: Any = torch.backends.cuda if cuda else torch.backends.mkldnn
    name, exact = "fp32_precision", cast(object, "ieee")
    if not hasattr(torch.backends.cuda.matmul, name):  # torch < 2.9 has one switch, and only for the GPU
        setting, name, exact = torch.backends.cuda, "allow_tf32", False
    setting = setting.matmul
    before = getattr(setting, name)
    setattr(setting, name, exact)
    try:
        yield
    finally:
        setattr(setting, name, before)
