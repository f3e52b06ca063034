"""Stages: work that a method does before the first epoch, one file each."""

from .base import STAGE_REGISTRY, Stage, build_stages
from .compute_stage import ComputeStage
from .learn_prompts import LearnPrompts

__all__ = ["STAGE_REGISTRY", "ComputeStage", "LearnPrompts", "Stage", "build_stages"]
