"""Encoders and the parts of a method; importing this registers them with fast-reid."""

from . import heads, loss_heads, meta_arch, narrow_resnet
from .clip import head as clip_head
from .clip import image_tower as clip

__all__ = ["clip", "clip_head", "heads", "loss_heads", "meta_arch", "narrow_resnet"]
