"""Contrast of a batch with the matched clusters of the other domain."""

from __future__ import annotations

from torch import Tensor

from ...functional.losses.contrast import mutual_mapping_loss
from ...functional.types import Assignment, Domain
from ..batch import BatchFeatures
from ..parts import Parts


def cross_domain_contrast(
    batch: BatchFeatures, parts: Parts, assignment: Assignment, domain: Domain, *, temperature: float
) -> Tensor:
    """`mutual_mapping_loss` of the batch's ``domain`` part against the current rows of the other domain."""
    part = batch.of(domain)
    partner, score = assignment.partner(domain)
    rows = parts.memory.cluster_rows(domain.other)
    return mutual_mapping_loss(
        part.unit,
        part.targets,
        partner.to(part.targets),
        score.to(rows),
        rows,
        temperature=temperature,
    )
