"""Resized images kept in memory or on the disk, so that a file is decoded once (``DATALOADER.CACHE``)."""

from .opening import kept_pixels, open_pixels
from .store import PixelStore

__all__ = ["PixelStore", "kept_pixels", "open_pixels"]
