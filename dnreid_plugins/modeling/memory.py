"""Cluster prototypes: one unit row per cluster and domain, rebuilt each epoch and moved after each step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.memory import UpdatePolicy, updated_rows
from ..functional.types import Domain, EpochClusters


class PrototypeMemory:
    """Holds the rows; never changes inside ``forward`` or ``backward``, only in `rebuild` and `update`.

    Args:
        momentum: share of the old row kept by an update, in [0, 1].
        policy: ``"sequential"``, ``"mean"`` or ``"hardest"`` (see `functional.memory.updated_rows`).
        outlier_rows: append the features of outliers as rows that no update touches (Bridging Day and
            Night as released); `num_clusters` does not count them.
    """

    def __init__(
        self, *, momentum: float = 0.1, policy: UpdatePolicy = "sequential", outlier_rows: bool = False
    ) -> None:
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"MODEL.MEMORY.MOMENTUM is {momentum}; it must lie in [0, 1].")
        self.momentum = momentum
        self.policy = policy
        self.outlier_rows = outlier_rows
        self._rows: dict[int, Tensor] = {}
        self._num_clusters: dict[int, int] = {}

    def rows(self, domain: Domain | int) -> Tensor:
        """``(C, D)`` float32 unit rows of one domain, outlier rows (if any) at the end; carries no gradient."""
        return self._rows[int(domain)]

    def cluster_rows(self, domain: Domain | int) -> Tensor:
        """`rows` without the outlier rows; a view."""
        return self.rows(domain)[: self.num_clusters(domain)]

    def num_clusters(self, domain: Domain | int) -> int:
        return self._num_clusters[int(domain)]

    def rebuild(self, clusters: EpochClusters, device: torch.device | str) -> None:
        """Start the epoch from the cluster centroids."""
        for domain in Domain:
            part = clusters[domain]
            rows = part.centroids
            if self.outlier_rows:
                rows = torch.cat([rows, F.normalize(part.features[part.labels < 0], dim=1)])
            self._rows[domain] = rows.detach().to(device=device, dtype=torch.float32).clone()
            self._num_clusters[domain] = part.num_clusters

    def set_rows(self, domain: Domain | int, rows: Tensor) -> None:
        """Replace the cluster rows of one domain, e.g. by a merge across domains; ``rows`` (C, D)."""
        count = self._num_clusters[int(domain)]
        if rows.shape != self._rows[int(domain)][:count].shape:
            raise ValueError(f"set_rows got shape {tuple(rows.shape)}, the domain has {count} clusters.")
        self._rows[int(domain)][:count] = rows.detach().to(self._rows[int(domain)])

    @torch.no_grad()
    def update(self, features: Tensor, targets: Tensor, domains: Tensor) -> None:
        """Move the rows of the clusters in a batch; called after the optimizer step.

        Args:
            features: ``(B, D)`` unit features of the whole (all processes') batch.
            targets: ``(B,)`` int64 cluster within the image's domain; -1 = none.
            domains: ``(B,)`` int64.
        """
        for domain in Domain:
            chosen = (domains == domain) & (targets >= 0)
            count = self._num_clusters.get(domain, 0)
            if count == 0 or not bool(chosen.any()):
                continue
            rows = self._rows[domain]
            rows[:count] = updated_rows(
                rows[:count],
                features[chosen].to(rows),
                targets[chosen],
                momentum=self.momentum,
                policy=self.policy,
            )

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": {d.name: self._rows[d].cpu() for d in Domain if d in self._rows},
            "num_clusters": {d.name: self._num_clusters[d] for d in Domain if d in self._num_clusters},
        }

    def load_state_dict(self, state: dict[str, Any], device: torch.device | str) -> None:
        self._rows = {int(Domain[name]): rows.to(device) for name, rows in state["rows"].items()}
        self._num_clusters = {int(Domain[name]): int(n) for name, n in state["num_clusters"].items()}
