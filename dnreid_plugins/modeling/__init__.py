"""Encoders, memories and loss heads; importing this registers them with fast-reid."""

from . import clip, clip_head, heads, loss_heads, meta_arch

__all__ = ["clip", "clip_head", "heads", "loss_heads", "meta_arch"]
