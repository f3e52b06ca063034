"""Products of row blocks: float32 by oneDNN on packed rows where this PyTorch has it, else torch's own BLAS; int8."""

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

    On CPUs where torch's BLAS stays below the vector width of the machine, oneDNN is up to twice as fast. The choice
    must not depend on a measured time: their results differ in the last bits, which can swap near ties of a ranking,
    so two runs of the same command would differ.
    """
    if not right.is_cuda and right.shape[0] > 0 and _has_packed():
        return _packed(right)

    def multiply(left: Tensor) -> Tensor:
        with full_precision(right.is_cuda):
            return torch.mm(left, right.t())

    return multiply


def product_rate(size: int = 1024) -> float:
    """Measured float32 operations per second of the faster product; the upper limit for a k-NN search."""
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
def _has_packed() -> bool:
    """Whether the operator, which is private to PyTorch, exists and gives correct results."""
    a = torch.arange(12.0).reshape(4, 3)
    try:
        return torch.allclose(_packed(a)(a), a @ a.t())
    except (AttributeError, NotImplementedError, RuntimeError):
        return False


@functools.cache
def has_int8() -> bool:
    """Whether this processor multiplies int8 fast, and exactly: without VNNI sums of pairs may saturate."""
    if not torch.cpu._is_vnni_supported():
        return False
    codes = torch.arange(70 * 130).mul(37).remainder(255).sub(127).reshape(70, 130).to(torch.int8)
    codes[:2] = 127
    codes[2] = -127
    try:
        exact = torch.equal(torch._int_mm(codes, codes.t()).long(), codes.long() @ codes.long().t())
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    return exact


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextlib.contextmanager
def full_precision(cuda: bool) -> Iterator[None]:
    """Float32 products without reduced precision (TF32, bfloat16) inside, whatever the training's own setting."""
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


def squared_norms(matrix: Tensor) -> Tensor:
    """``(N,)`` squared lengths, without a second matrix."""
    return torch.cat([part.square().sum(dim=1) for part in matrix.split(4096)])
