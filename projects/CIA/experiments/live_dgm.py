"""DGM with a differentiable Eq. 5, made for the table `live` of `projects/CIA/tables.yml`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import mapped_targets
from dnreid_plugins.functional.matching.dictionary import mutual_information
from dnreid_plugins.functional.types import Assignment, Domain
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY
from dnreid_plugins.modeling.loss_heads.dgm import DGM
from dnreid_plugins.modeling.parts import Parts


@LOSS_HEAD_REGISTRY.register()
class LiveDGM(DGM):
    """As DGM, but M of Eq. 8 is that of an image and the live row of its partner, with gradient through Eq. 5.

    DGM's own M is that of two centroids at the start of the epoch, a constant; matched pairs are edges, so it is
    at least 1. Here an image whose similarity is below S_tau weighs alpha S.
    """

    def contrast(self, part: BatchFeatures, parts: Parts, assignment: Assignment, domain: Domain) -> Tensor:
        to = mapped_targets(part.targets, assignment.partner(domain)[0])
        rows = parts.memory.cluster_rows(domain.other)
        if not bool((to >= 0).any()):
            return part.features.sum() * 0.0
        cosines = part.unit.float() @ rows.T
        own = cosines.gather(1, to.clamp(min=0)[:, None])[:, 0]
        options = self.matcher.options  # type: ignore[union-attr]
        information = mutual_information(
            own,
            scoring=options["scoring"],
            alpha=options["alpha"],
            threshold=options["similarity_threshold"],
        )
        each = F.cross_entropy(cosines / self.temperature, to, ignore_index=-1, reduction="none")
        return (information * each).sum() / (to >= 0).sum()
