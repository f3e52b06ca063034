"""Contrast with dynamic prototypes: recent features that the teacher made of each cluster's images (PCLHD)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.losses.hybrid import dynamic_nce
from ...functional.memory_update import newest_rows, spread_rows
from ...functional.types import Domain, Epoch
from ...runtime.sections import Count, Positive
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class DynamicContrast(LossHead):
    """Sum over the domains of `dynamic_nce`: the own cluster's least similar row against the nearest of the others.

    An epoch begins with the features that its labels were made from, evenly spaced over each cluster; a cluster with
    fewer images than rows repeats them. After each step what the teacher made of the batch's plain images takes the
    place of the oldest rows. Until its first step the teacher is the trained encoder.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        rows: Rows per cluster.
        as_released: The teacher's own features are contrasted, with rows that never change: a constant without
            gradient.
    """

    asks_teacher = True
    rows_day: Tensor

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 1.0),),
        temperature: Positive = 0.05,
        rows: Count = 16,
        as_released: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        self.temperature, self.num_rows, self.as_released = temperature, rows, as_released
        for domain in Domain:
            self.register_buffer(f"rows_{domain.word}", torch.empty(0, 0, 0))
            self.register_buffer(f"oldest_{domain.word}", torch.empty(0, dtype=torch.int64))

    @classmethod
    def from_config(cls, cfg: Any) -> Any:
        if not cfg.MODEL.TEACHER.ENABLED:
            raise ValueError(
                f"{cls.__name__} contrasts with the teacher's features, but MODEL.TEACHER.ENABLED is False; set it "
                "True."
            )
        return super().from_config(cfg)

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        for domain in Domain:
            part = epoch[domain]
            rows = spread_rows(part.features, part.labels, part.num_clusters, self.num_rows)
            self._store(domain, F.normalize(rows.float(), dim=2), torch.zeros(part.num_clusters).long())
        return {}

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            features = self._taught(part) if self.as_released else part.unit
            rows = self._kept(domain)[0]
            total = total + dynamic_nce(features, part.targets, rows, temperature=self.temperature)
        return total

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        if self.as_released:
            return
        plain = batch.where(batch.views == 0)
        for domain in Domain:
            part = plain.of(domain)
            self._store(domain, *newest_rows(*self._kept(domain), self._taught(part), part.targets))

    @staticmethod
    def _taught(part: BatchFeatures) -> Tensor:
        return F.normalize(part.extra["teacher"].float(), dim=1)

    def _kept(self, domain: Domain) -> tuple[Tensor, Tensor]:
        """``(C, K, D)`` rows, and ``(C,)`` the place of each cluster's oldest one."""
        return getattr(self, f"rows_{domain.word}"), getattr(self, f"oldest_{domain.word}")

    def _store(self, domain: Domain, rows: Tensor, oldest: Tensor) -> None:
        device = self.rows_day.device
        setattr(self, f"rows_{domain.word}", rows.to(device))
        setattr(self, f"oldest_{domain.word}", oldest.to(device))
