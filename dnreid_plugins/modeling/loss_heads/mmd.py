"""Plain and margin MMD between the two domains' batch features (MMD-ReID), the rivals of MAA."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...functional.mmd import margin_mmd, mmd2
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead
from .maa import aligned_features, both_maps, check_feature, check_num_kernels


@LOSS_HEAD_REGISTRY.register()
class MMD(LossHead):
    """Squared multi-kernel MMD of the whole batch; ``feature`` and ``num_kernels`` as for `MAA`."""

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((1, 0.5),),
        feature: str = "neck",
        num_kernels: int = 5,
    ) -> None:
        super().__init__(weight=weight)
        self.feature = check_feature("MMD", feature)
        self.num_kernels = check_num_kernels("MMD", num_kernels)

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        x, y, _, _ = aligned_features(batch, self.feature)
        return mmd2(x, y, num_kernels=self.num_kernels)


@LOSS_HEAD_REGISTRY.register()
class MarginMMD(LossHead):
    """MMD that counts only above a margin, per matched pair of clusters once another head has matched.

    Args:
        margin: paper of MMD-ReID 1.4 for identities; whole domains seldom reach it, hence `batch_margin`.
        batch_margin: the margin while nothing is matched and the batch is one group; paper silent.
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((1, 0.5),),
        margin: float = 1.4,
        batch_margin: float = 0.0,
        feature: str = "neck",
        num_kernels: int = 5,
    ) -> None:
        super().__init__(weight=weight)
        self.margin = margin
        self.batch_margin = batch_margin
        self.feature = check_feature("MARGINMMD", feature)
        self.num_kernels = check_num_kernels("MARGINMMD", num_kernels)

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        x, y, day, night = aligned_features(batch, self.feature)
        if self.matching is None:
            return margin_mmd(x, y, margin=self.batch_margin, num_kernels=self.num_kernels)
        return margin_mmd(
            x,
            y,
            day.targets,
            night.targets,
            *both_maps(self.matching, day.targets),
            margin=self.margin,
            num_kernels=self.num_kernels,
        )
