"""A key that takes a number or a word, such as "auto", also through yacs' own merging, which compares types."""

from __future__ import annotations

import functools
from typing import Any

import yacs.config

from ..runtime.sections import number_or_word


def install() -> None:
    """Let yacs accept either for such keys. Calling it twice is harmless."""
    check = yacs.config._check_and_coerce_cfg_value_type
    if hasattr(check, "__wrapped__"):
        return

    @functools.wraps(check)
    def checked(replacement: Any, original: Any, key: str, full_key: str) -> Any:
        either = number_or_word(full_key, replacement)
        return check(replacement, original, key, full_key) if either is None else either

    yacs.config._check_and_coerce_cfg_value_type = checked
