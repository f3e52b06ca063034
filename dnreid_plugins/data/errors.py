"""The one error of the data room: something on disk is not as it must be, said in one sentence."""

from __future__ import annotations


class DataError(ValueError):
    """A missing root, list or image, an unreadable image, a malformed line. The message names the way out."""
