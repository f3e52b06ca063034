"""Camera ids go from the data set to every part, numbered as the label sources know them, other processes' too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from run_helpers import label_phase, train
from torch import Tensor

from dnreid_plugins.data.datasets.day_night_lists import DN348
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.functional.types import Clusters, Domain
from dnreid_plugins.labels import LABEL_SOURCE_REGISTRY, LabelSource, TrainImages
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead
from dnreid_plugins.modeling.loss_heads.base import Schedule
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import configured

#: Six by day and six by night; as texts "10" stands before "2".
CAMERAS = 12


def camera(path: str, domain: Domain) -> int:
    """0 .. 11."""
    return int(path.split("/")[-1].split(".")[0]) + 6 * int(domain)


def moved(item: DomainItem, names: bool) -> DomainItem:
    number = camera(item.path, item.domain)
    return DomainItem(item.path, item.pid, f"cam{number}" if names else number, item.domain)


@pytest.fixture
def registered(scratch: None) -> None:
    @LOSS_HEAD_REGISTRY.register()
    class CameraSpread(LossHead):
        """Pulls the images of a batch to the mean of their camera, so that it needs to know the cameras.

        Args:
            weight: Piecewise constant over the epochs.
        """

        def __init__(self, *, weight: Schedule = ((1, 1.0),)) -> None:
            super().__init__(weight=weight)
            self.seen: list[BatchFeatures] = []

        def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
            self.seen.append(batch.detach())
            total = batch.features.sum() * 0.0
            for cam in batch.cams.unique():
                own = batch.unit[batch.cams == cam]
                total = total + (own - own.mean(dim=0)).square().sum()
            return total

    @LABEL_SOURCE_REGISTRY.register()
    @configured("LABELS.PERCAMERA")
    class PerCamera(LabelSource):
        """One cluster per camera."""

        def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
            parts = {}
            for domain in Domain:
                own = torch.nonzero(images.domains == domain).flatten()
                numbers = torch.unique(images.cams[own], return_inverse=True)[1]
                parts[domain.word] = make_clusters(numbers, features[own], own)
            return parts


@pytest.fixture(params=["numbers", "names"])
def cfg(registered: None, tiny_cfg: CfgNode, request: pytest.FixtureRequest) -> CfgNode:
    names = request.param == "names"

    @DATASET_REGISTRY.register()
    class ManyCameras(DN348):
        """The tiny DN-348, image k of an identity taken by camera k of its domain."""

        def load_train(self) -> list[DomainItem]:
            return [moved(item, names) for item in super().load_train()]

    tiny_cfg.DATASETS.NAMES, tiny_cfg.DATASETS.TESTS = ("ManyCameras",), ()
    return tiny_cfg


def test_every_batch_knows_its_cameras(cfg: CfgNode) -> None:
    cfg.MODEL.LOSSES.NAME = ("CameraSpread", "ClusterNCE")
    trainer = train(cfg)
    head: Any = trainer.bare_model.parts.losses["CameraSpread"]
    images, data = label_phase(trainer).images, trainer.train_data
    assert data is not None and len(head.seen) == 8
    for batch in head.seen:
        items = [data.items[index] for index in batch.indices.tolist()]
        expected = [camera(item.path, item.domain) for item in items]
        pairs = set(zip(expected, batch.cams.tolist(), strict=True))
        assert len(pairs) == len(set(expected)) == len(set(batch.cams.tolist())), "a camera has two numbers"
        assert batch.cams.tolist() == images.cams[batch.indices].tolist(), (
            "label sources number them otherwise"
        )
    assert sorted(set(images.cams.tolist())) == list(range(CAMERAS))


def test_a_label_source_labels_camera_by_camera(cfg: CfgNode) -> None:
    cfg.LABELS.SOURCE = "PerCamera"
    epoch = train(cfg).bare_model.parts.epoch
    assert epoch.day.num_clusters == epoch.night.num_clusters == CAMERAS // 2
    assert torch.bincount(epoch.day.labels).tolist() == [6] * 6
