"""Stages: work that a method does before the first epoch, one file each."""

from .base import STAGE_REGISTRY, Stage, build_stages
from .learn_prompts import LearnPrompts

__all__ = ["STAGE_REGISTRY", "LearnPrompts", "Stage", "build_stages"]
