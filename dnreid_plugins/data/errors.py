"""The error of this package: something on disk is wrong, in one sentence."""

from __future__ import annotations


class DataError(ValueError):
    """A missing root, list or image, an unreadable image, a malformed line. The message says what to do."""
