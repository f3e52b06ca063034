"""fast-reid's samplers behind `SampleStream`: a function of seed, rank and iteration, whatever else is drawn."""

from __future__ import annotations

import itertools
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.data import build_reid_train_loader
from fastreid.data.samplers import TrainingSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.sample_stream import SampleStream, SeededDataset, begin_at, repeatable
from dnreid_plugins.data.samplers import SeededIndex

SAMPLERS = ("TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler", "ImbalancedDatasetSampler")


@pytest.fixture
def cfg(dn_root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FASTREID_DATASETS", str(dn_root))
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = [16, 12]
    for switch in ("FLIP", "PADDING", "REA", "RPT", "CJ", "AFFINE", "AUGMIX", "AUTOAUG"):
        cfg.INPUT[switch].ENABLED = True
        if "PROB" in cfg.INPUT[switch]:
            cfg.INPUT[switch].PROB = 0.9
    cfg.DATASETS.NAMES, cfg.DATALOADER.NUM_WORKERS = ("DN348",), 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE = 4, 2
    return cfg


def disturb() -> None:
    """What a run draws from the global generators in between."""
    random.random()
    np.random.rand(3)
    torch.rand(3)


def build(cfg: Any, sampler: str, *, workers: int = 0, rank: int = 0, world_size: int = 1) -> Any:
    disturb()
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.NUM_WORKERS = sampler, workers
    loader = build_reid_train_loader(cfg)
    inner = loader.batch_sampler.sampler
    inner._rank, inner._world_size = rank, world_size
    return repeatable(loader, seed=3, rank=rank, world_size=world_size)


def indices(loader: Any, count: int, *, start: int = 0) -> list[list[SeededIndex]]:
    begin_at(loader, start)
    result = []
    for batch in itertools.islice(loader.batch_sampler, count):
        result.append(batch)
        disturb()
    return result


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_batches_of_an_iteration_do_not_depend_on_the_start_or_on_other_draws(
    cfg: Any, sampler: str, global_states: Any
) -> None:
    whole = indices(build(cfg, sampler), 20)
    assert [len(batch) for batch in whole] == [4] * 20
    loader = build(cfg, sampler)
    state = global_states()
    list(itertools.islice(loader.batch_sampler, 3))
    assert global_states() == state
    for start in (0, 1, 7, 19):
        assert indices(loader, 20 - start, start=start) == whole[start:]
        assert indices(build(cfg, sampler), 20 - start, start=start) == whole[start:]
    seeds = [seed for batch in whole for _, seed in batch]
    assert len(set(seeds)) == 80 and all(0 <= seed < 2**63 for seed in seeds)
    places = [[index for index, _ in batch] for batch in whole]
    assert places[:8] != places[8:16]
    other = SampleStream(build(cfg, sampler).batch_sampler.batches, seed=4)
    assert [[index for index, _ in batch] for batch in itertools.islice(other, 20)] != places


@pytest.mark.parametrize("sampler", ["TrainingSampler", "ImbalancedDatasetSampler"])
def test_processes_share_one_stream_and_each_skips_its_own_part(cfg: Any, sampler: str) -> None:
    alone = [index for batch in indices(build(cfg, sampler), 20) for index, _ in batch]
    ranks = [indices(build(cfg, sampler, rank=rank, world_size=2), 10) for rank in (0, 1)]
    parts = [[index for batch in part for index, _ in batch] for part in ranks]
    assert [index for pair in zip(*parts, strict=True) for index in pair] == alone
    seeds = {seed for part in ranks for batch in part for _, seed in batch}
    assert len(seeds) == 80
    for rank, part in enumerate(ranks):
        assert indices(build(cfg, sampler, rank=rank, world_size=2), 6, start=4) == part[4:]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_images_are_the_same_bits_with_any_number_of_workers_and_after_a_resume(
    cfg: Any, sampler: str
) -> None:
    def read(workers: int, start: int) -> list[dict[str, Any]]:
        loader = build(cfg, sampler, workers=workers)
        begin_at(loader, start)
        batches = iter(loader)
        return [(disturb(), next(batches))[1] for _ in range(start, 6)]

    whole = read(0, 0)
    assert whole[0]["images"].shape == (4, 3, 16, 12)
    for workers, start in ((2, 0), (0, 4), (2, 3)):
        for one, other in zip(whole[start:], read(workers, start), strict=True):
            assert one.keys() == other.keys() and one["img_paths"] == other["img_paths"]
            assert torch.equal(one["images"], other["images"])
            assert torch.equal(one["targets"], other["targets"])


def test_images_that_are_skipped_are_not_read(cfg: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = build(cfg, "NaiveIdentitySampler")
    read: list[int] = []
    inner = type(loader.dataset.inner)
    plain = inner.__getitem__
    monkeypatch.setattr(inner, "__getitem__", lambda self, i: (read.append(i), plain(self, i))[1])
    begin_at(loader, 500)
    next(iter(loader))
    assert len(read) == 4


def test_the_data_set_inside_shows_through(cfg: Any) -> None:
    data = build(cfg, "TrainingSampler").dataset
    assert data.num_classes == 3 and data.num_cameras == 2 and len(data.img_items) == len(data) == 15
    assert pickle.loads(pickle.dumps(SeededDataset(Numbers()))).limit == 5
    with pytest.raises(AttributeError, match="no_such"):
        _ = data.no_such
    assert torch.equal(data[(4, 9)]["images"], data[(4, 9)]["images"])
    assert not torch.equal(data[(4, 9)]["images"], data[(4, 10)]["images"])


class Numbers(Dataset[int]):
    """Five samples, the last of which cannot be read; no transform, as in a script's own data set."""

    limit = 5

    def __len__(self) -> int:
        return self.limit

    def __getitem__(self, index: int) -> int:
        if index == 4:
            raise OSError("disk\ngone")
        return index


def test_a_sample_that_fails_is_one_sentence(cfg: Any) -> None:
    with pytest.raises(DataError, match=r"^training sample 4 of Numbers .* \(OSError: disk gone\)$"):
        SeededDataset(Numbers())[(4, 0)]
    loader = build(cfg, "TrainingSampler", workers=1)
    for item in loader.dataset.img_items:
        Path(item[0]).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"^image .* cannot be read"):
        next(iter(loader))


def test_a_finite_sampler_ends(cfg: Any) -> None:
    stream = SampleStream(BatchSampler(range(10), 4, drop_last=False), seed=0)
    assert [[index for index, _ in batch] for batch in stream] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    stream.start = 2
    assert [[index for index, _ in batch] for batch in stream] == [[8, 9]]
    stream.start = 5
    assert list(stream) == []


def test_a_loader_of_a_script_stays_and_a_resume_says_so(caplog: pytest.LogCaptureFixture) -> None:
    loader = DataLoader(Numbers(), batch_size=2)
    assert repeatable(loader, seed=0) is loader
    begin_at(loader, 0)
    assert not caplog.records
    begin_at(loader, 8)
    assert "begin anew at iteration 8" in caplog.text


@pytest.mark.parametrize("wrong", [{"rank": 2, "world_size": 2}, {"seed": -1}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need 0 <= rank"):
        SampleStream(BatchSampler(TrainingSampler(8), 4, True), **{"seed": 0, **wrong})
