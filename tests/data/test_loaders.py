"""Loaders: the same bits with any number of workers, fresh labels each epoch, one sentence when it goes wrong."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import get_cfg

from dnreid_plugins.data.datasets import DN348
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.loaders import (
    CpuGpuLoader,
    DomainDataset,
    InferenceSlice,
    SentenceLoader,
    build_inference_loader,
    build_train_loader,
)
from dnreid_plugins.data.samplers import CrossDomainIdentitySampler
from dnreid_plugins.data.transforms import build_domain_transform


@pytest.fixture
def items(dn_root: Path) -> list[DomainItem]:
    return DN348(dn_root).train


def config(workers: int = 0) -> Any:
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST = [16, 12], [16, 12]
    for switch in ("FLIP", "PADDING", "REA", "RPT", "CJ", "CHANNEL_AUG"):
        cfg.INPUT[switch].ENABLED = True
    cfg.DATALOADER.NUM_WORKERS, cfg.TEST.IMS_PER_BATCH = workers, 4
    return cfg


def sampler_of(items: list[DomainItem], **options: Any) -> CrossDomainIdentitySampler:
    data = DomainDataset(items, None)
    values = {"num_clusters": 2, "num_instances": 2, "iterations": 3, "seed": 1, **options}
    return CrossDomainIdentitySampler(data.true_ids, data.domains, **values)


def batches(items: list[DomainItem], workers: int) -> list[dict[str, Any]]:
    sampler = sampler_of(items)
    loader = build_train_loader(config(workers), items, sampler, reveal_ids=True)
    result = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        result += list(loader)
    return result


def test_same_bits_with_any_number_of_workers_and_no_disturbance(
    items: list[DomainItem], global_states
) -> None:
    state = global_states()
    expected = batches(items, 0)
    assert state == global_states()
    assert len(expected) == 6
    for workers in (1, 2):
        for one, other in zip(expected, batches(items, workers), strict=True):
            assert one.keys() == other.keys()
            for key, value in one.items():
                assert (
                    torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
                )


def test_a_batch_is_fastreids_dict_plus_domains_and_indices(items: list[DomainItem]) -> None:
    batch = batches(items, 0)[0]
    assert batch["images"].shape == (8, 3, 16, 12) and batch["images"].dtype == torch.float32
    assert float(batch["images"].min()) >= 0 and 1 < float(batch["images"].max()) <= 255
    for place, index in enumerate(batch["indices"].tolist()):
        item = items[index]
        assert batch["img_paths"][place] == item.path
        assert int(batch["domains"][place]) == item.domain
        assert int(batch["targets"][place]) == sorted({i.pid for i in items}).index(item.pid)
        assert int(batch["camids"][place]) == int(item.domain)


def test_true_identities_are_hidden_unless_asked_for(items: list[DomainItem]) -> None:
    batch = next(iter(build_train_loader(config(), items, sampler_of(items))))
    assert (batch["targets"] == -1).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_labels_set_between_epochs_count(items: list[DomainItem], workers: int) -> None:
    sampler = sampler_of(items)
    loader = build_train_loader(config(workers), items, sampler)
    next(iter(loader))  # an epoch that is given up in its middle
    labels = np.full(len(items), -1)
    labels[[0, 7]] = 0
    sampler.set_labels(labels)
    assert all(set(batch["indices"].tolist()) == {0, 7} for batch in loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_sentence(items: list[DomainItem], workers: int) -> None:
    Path(items[3].path).write_bytes(b"broken")
    loader = build_inference_loader(config(workers), items)
    with pytest.raises(DataError, match="cannot be read") as caught:
        list(loader)
    assert items[3].path in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        loader.dataset[3]
    assert loader.dataset[2]["indices"] == 2


class Broken:
    """A transform with a bug."""

    def __call__(self, image: Any, domain: Any) -> torch.Tensor:
        raise KeyError("bug")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_transform_is_named_with_its_image(
    items: list[DomainItem], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dnreid_plugins")
    with pytest.raises(DataError, match=r"000\.jpg' cannot be transformed \(KeyError: 'bug'\)"):
        list(build_inference_loader(config(workers), items, Broken()))
    assert "Traceback" in caplog.text


class Killer:
    """A transform that kills its worker."""

    def __call__(self, image: Any, domain: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_ends_the_loop(items: list[DomainItem]) -> None:
    with pytest.raises(
        DataError, match=r"^A process that reads images (was killed by signal|exited).*NUM_WORKERS"
    ):
        list(build_inference_loader(config(1), items, Killer()))


def test_several_workers_need_no_seed_for_plain_indices(items: list[DomainItem]) -> None:
    data = DomainDataset(items, build_domain_transform(config(), is_train=False))
    assert torch.equal(data[4]["images"], data[(4, 9)]["images"])
    assert len(data) == 15 and data.num_classes == 3 and data.num_cameras == 2


@pytest.mark.parametrize("size", [1, 4, 5, 8, 15])
@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_inference_slices_are_the_canonical_list(size: int, world_size: int) -> None:
    joined = []
    for rank in range(world_size):
        part = InferenceSlice(size, 3, rank=rank, world_size=world_size)
        found = list(part)
        assert len(found) == len(part) and all(0 < len(batch) <= 3 for batch in found)
        joined += itertools.chain(*found)
    assert joined == list(range(size))


def test_inference_is_in_canonical_order(items: list[DomainItem]) -> None:
    loader = build_inference_loader(config(2), items)
    assert len(loader) == 4
    assert list(itertools.chain(*(batch["img_paths"] for batch in loader))) == [item.path for item in items]
    shares = [build_inference_loader(config(), items, rank=rank, world_size=2) for rank in (0, 1)]
    assert [len(batch["indices"]) for batch in shares[0]] == [2, 2, 2, 2]
    assert [int(i) for share in shares for batch in share for i in batch["indices"]] == list(range(15))


def test_the_stand_in_for_fastreids_loader(items: list[DomainItem]) -> None:
    data = DomainDataset(items, build_domain_transform(config(), is_train=False))
    loader = CpuGpuLoader(0, dataset=data, batch_size=4, num_workers=0, pin_memory=True)
    assert len(loader) == 4 and isinstance(loader, SentenceLoader)
    assert not loader.pin_memory or torch.cuda.is_available()


def test_the_stand_in_leaves_batches_on_the_cpu(
    items: list[DomainItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on a machine that has CUDA (here only in name): the model may still be on the CPU."""
    data = DomainDataset(items, build_domain_transform(config(), is_train=False))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loader = CpuGpuLoader(0, dataset=data, batch_size=4, num_workers=0)
    loader.pin_memory = False  # pinning needs CUDA in deed
    batch = next(iter(loader))
    assert {batch[key].device.type for key in ("images", "targets", "camids")} == {"cpu"}


def test_fastreids_own_builders_run_on_the_cpu(dn_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastreid.data import build_reid_test_loader, build_reid_train_loader

    cfg = config()
    cfg.DATASETS.NAMES, cfg.DATALOADER.SAMPLER_TRAIN = ("DN348",), "NaiveIdentitySampler"
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 4, 2
    cfg.INPUT.RPT.ENABLED = False
    monkeypatch.setenv("FASTREID_DATASETS", str(dn_root))
    batch = next(iter(build_reid_train_loader(cfg)))
    assert batch["images"].shape == (4, 3, 16, 12) and len(set(batch["targets"].tolist())) == 2
    loader, num_query = build_reid_test_loader(cfg, dataset_name="DN348")
    assert num_query == 4
    assert torch.cat([b["camids"] for b in loader]).tolist() == [0] * 4 + [1] * 6
