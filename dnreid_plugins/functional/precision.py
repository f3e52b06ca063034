"""One rule for every loss here: half-precision inputs, computed in float32. A softmax at temperature 0.05 needs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")

_HALF = (torch.float16, torch.bfloat16)


def _raised(value: object) -> object:
    return value.float() if isinstance(value, Tensor) and value.dtype in _HALF else value


def in_full_precision(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run ``function`` with its float16/bfloat16 tensor arguments as float32 and with autocast off.

    float32 and float64 arguments pass unchanged, so a test in float64 stays in float64. Gradients flow
    back to the half-precision arguments in their own dtype.
    """

    @wraps(function)
    def wrapper(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        device_type = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device_type, enabled=False):
            raised = [_raised(value) for value in args]
            return function(*raised, **{name: _raised(v) for name, v in kwargs.items()})  # type: ignore[arg-type]

    return wrapper
