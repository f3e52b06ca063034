"""Cluster prototypes: named banks of unit rows, rebuilt each epoch and updated after each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.memory_update import UpdatePolicy, updated_rows
from ...functional.types import Domain, Epoch
from ...runtime.sections import Share, configured
from ..batch import BatchFeatures
from ..parts import Part, Parts

OWN = "own"
#: An extra bank's rule: the image that is least similar to the row of the bank "own" moves the row.
HARDEST_OF_OWN = "hardest_of_own"


@configured("MODEL.MEMORY")
class ClusterMemory(Part):
    """One row per cluster; a bank for every name in ``Epoch.clusters``, in one or several kinds.

    Rows change in `begin_epoch`, `set_rows` and `update` only, never inside ``forward`` or ``backward``.

    Args:
        momentum: Share of the old row that an update keeps (0.1: it follows the newest images); not given in the
            papers (U4).
        update: Which images of a cluster update its row (not given in the papers, U4): "sequential" (each in turn),
            "mean" or "hardest".
        outlier_rows: Features of outliers become rows of their own that are never updated (T-list of the projects'
            README); `num_clusters` does not count them.
        extra_banks: Further banks beside "own", as (name, update) pairs: the same rows at an epoch's start, moved by
            another rule; "hardest_of_own" takes the image that is hardest for the bank "own" (hybrid memories).
        plain_views_only: Only the plain view of an image (view 0) moves rows.

    Raises:
        ValueError: a repeated name or an unknown rule of an extra bank.
    """

    def __init__(
        self,
        *,
        momentum: Share = 0.1,
        update: UpdatePolicy = "sequential",
        outlier_rows: bool = False,
        extra_banks: Sequence[Sequence[str]] = (),
        plain_views_only: bool = False,
    ) -> None:
        super().__init__()
        self.momentum = momentum
        self.outlier_rows = outlier_rows
        self.plain_views_only = plain_views_only
        self.policies: dict[str, str] = {OWN: update}
        rules = (*get_args(UpdatePolicy), HARDEST_OF_OWN)
        for pair in extra_banks:
            name, policy = pair if isinstance(pair, (list, tuple)) and len(pair) == 2 else ("", "")
            fresh = isinstance(name, str) and name.isidentifier() and name not in self.policies
            if not fresh or policy not in rules:
                raise ValueError(
                    f"MODEL.MEMORY.EXTRA_BANKS is {tuple(extra_banks)!r}; it holds (name, update) pairs, each name "
                    f"once and not {OWN!r}, each update one of {rules}."
                )
            self.policies[name] = policy
        self._counts: dict[str, int] = {}
        for bank in self.policies:
            for domain in Domain:
                self.register_buffer(f"{bank}_{domain.word}", torch.empty(0, 0))

    def rows(self, name: Domain | int | str, bank: str = OWN) -> Tensor:
        """``(C, D)`` float32 unit rows of a domain, or of other clusters by name; no gradient.

        Outlier rows, if any, are at the end.
        """
        return getattr(self, f"{bank}_{_word(name)}")

    def cluster_rows(self, name: Domain | int | str, bank: str = OWN) -> Tensor:
        """`rows` without the outlier rows; a view."""
        return self.rows(name, bank)[: self.num_clusters(name)]

    def num_clusters(self, name: Domain | int | str) -> int:
        return self._counts[_word(name)]

    def begin_epoch(self, epoch: Epoch, parts: Parts | None = None) -> dict[str, float]:
        """Set the rows to the cluster centroids; rows of clusters that this epoch does not have are dropped."""
        self._counts = {}
        present = [*(domain.word for domain in Domain), *epoch.clusters]
        for gone in set(self._buffers) - {f"{bank}_{name}" for bank in self.policies for name in present}:
            delattr(self, gone)
        for name, part in epoch.clusters.items():
            rows = part.centroids
            if self.outlier_rows:
                rows = torch.cat([rows, F.normalize(part.features[part.labels < 0], dim=1)])
            for bank in self.policies:
                self._store(f"{bank}_{name}", rows)
            self._counts[name] = part.num_clusters
        return {}

    def set_rows(self, name: Domain | int | str, rows: Tensor, bank: str = OWN) -> None:
        """Replace the cluster rows of one domain, e.g. by a merge across domains; ``rows`` (C, D)."""
        old = self.cluster_rows(name, bank)
        if rows.shape != old.shape:
            raise ValueError(
                f"set_rows got shape {tuple(rows.shape)}, {_word(name)} has {len(old)} clusters."
            )
        old.copy_(rows.detach())

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        """Update the rows of the clusters in the batch.

        The rows of clusters from which a stream of their own is drawn are moved by that stream's batches alone.
        """
        if self.plain_views_only:
            batch = batch.where(batch.views == 0)
        unit = batch.unit
        drawn = {"joint"} if {"joint", "union"} & set(parts.streams_now) else set()
        names = set(self._counts) - drawn if batch.stream == "domains" else drawn
        for name in self._counts:
            if name not in names:
                continue
            if name in (domain.word for domain in Domain):
                chosen = batch.domains == Domain[name.upper()]
                self.update(name, unit[chosen], batch.targets[chosen])
            elif parts.epoch is not None:
                self.update(name, unit, parts.epoch.targets(name, batch.indices))

    @torch.no_grad()
    def update(self, name: Domain | int | str, features: Tensor, targets: Tensor) -> None:
        """Update the rows of some clusters.

        Args:
            name: of the clusters.
            features: ``(B, D)`` unit features of the whole (all processes') batch.
            targets: ``(B,)`` int64 cluster of each; -1 = none.
        """
        known = (targets >= 0).nonzero().flatten()
        if self._counts.get(_word(name), 0) == 0 or len(known) == 0:
            return
        # Of the few clusters in a batch, not of all: a memory may be larger than the network.
        present, places = torch.unique(targets[known], return_inverse=True)
        features, own = features[known], self.rows(name)[present]
        for bank, rule in self.policies.items():
            rows, hybrid = self.rows(name, bank), rule == HARDEST_OF_OWN
            policy: Any = "hardest" if hybrid else rule
            rows[present] = updated_rows(
                rows[present],
                features.to(rows),
                places,
                momentum=self.momentum,
                policy=policy,
                judge=own if hybrid else None,
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take over banks of other names than day and night, too: those of a checkpoint's own epoch."""
        for key in state_dict:
            name = key.removeprefix(prefix)
            if key.startswith(prefix) and name not in self._buffers:
                self.register_buffer(name, torch.empty(0, 0, device=self.rows(Domain.DAY).device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _store(self, name: str, rows: Tensor) -> None:
        device = self.rows(Domain.DAY).device
        self.register_buffer(name, rows.detach().to(device=device, dtype=torch.float32).clone())


def _word(name: Domain | int | str) -> str:
    return name if isinstance(name, str) else Domain(name).word
