"""Optimizer and learning-rate schedule from fast-reid's ``SOLVER`` keys."""

from .optimizer import build_lr_scheduler, build_optimizer, optimizer_class
from .schedule import EpochSchedule, plan_from_config

__all__ = ["EpochSchedule", "build_lr_scheduler", "build_optimizer", "optimizer_class", "plan_from_config"]
