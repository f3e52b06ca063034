"""Names that fast-reid and its projects import and that Python >= 3.10 and PyTorch >= 2 no longer have."""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import sys
import types
from collections.abc import Iterator


def put_in_place() -> None:
    """``torch._six`` and the abstract classes in ``collections``, from now on; existing names are not changed."""
    six = types.ModuleType("torch._six")
    for name, value in (
        ("string_classes", (str, bytes)),
        ("int_classes", int),
        ("container_abcs", collections.abc),
    ):
        setattr(six, name, value)
    six.inf, six.nan = float("inf"), float("nan")  # type: ignore[attr-defined]
    sys.modules.setdefault("torch._six", six)
    for name in collections.abc.__all__:
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))


@contextlib.contextmanager
def in_place() -> Iterator[None]:
    """The same, but only inside the ``with`` block."""
    had_six = "torch._six" in sys.modules
    new = [name for name in collections.abc.__all__ if not hasattr(collections, name)]
    put_in_place()
    try:
        yield
    finally:
        if not had_six:
            del sys.modules["torch._six"]
        for name in new:
            delattr(collections, name)
