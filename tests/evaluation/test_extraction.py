"""Extraction: canonical order, modes restored, flips as the paper says, the same with several processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from pool_model import PoolModel
from torch import nn

from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image
from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.data.transforms import build_domain_transform
from dnreid_plugins.evaluation.extraction import evaluating, extract_features


def naive(model: nn.Module, items: list[Any], cfg: Any, *, mirrored: bool = False) -> torch.Tensor:
    """One image at a time, read and encoded by hand."""
    transform, rows = build_domain_transform(cfg, is_train=False), []
    model.eval()
    for item in items:
        image = transform(read_image(item.path), item.domain)[None]
        place = torch.zeros(1, dtype=torch.int64)
        with torch.no_grad():
            rows.append(
                model({"images": image.flip(3) if mirrored else image, "domains": place, "indices": place})
            )
    return torch.cat(rows)


def test_rows_are_in_canonical_order(model, items, cfg) -> None:
    expected = naive(model, items, cfg)
    loader = build_inference_loader(cfg, items)
    features = extract_features(model, loader, normalize=False)
    assert features.dtype == torch.float32 and features.device.type == "cpu" and not features.requires_grad
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(extract_features(model, loader), F.normalize(expected, dim=1))


def test_flip_is_the_renormalised_mean_of_unit_features(model, items, cfg) -> None:
    plain, mirror = (F.normalize(naive(model, items, cfg, mirrored=m), dim=1) for m in (False, True))
    assert not torch.allclose(plain, mirror, atol=1e-3)
    features = extract_features(model, build_inference_loader(cfg, items), flip=True, normalize=False)
    torch.testing.assert_close(features, F.normalize((plain + mirror) / 2, dim=1))


def test_every_submodule_returns_to_its_own_mode(model, items, cfg) -> None:
    model.train()
    model.norm.eval()
    before = [module.training for module in model.modules()]
    extract_features(model, build_inference_loader(cfg, items))
    assert [module.training for module in model.modules()] == before == [True, False, True]
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before
    Path(items[5].path).write_bytes(b"")
    with pytest.raises(DataError, match="0_5.png"):
        extract_features(model, build_inference_loader(cfg, items))
    assert [module.training for module in model.modules()] == before


class Sometimes(PoolModel):
    """Gives NaN for one image."""

    def forward(self, batch: dict[str, Any]) -> torch.Tensor:
        features = super().forward(batch).clone()
        features[batch["indices"] == 6, 1] = float("nan")
        return features


def test_nan_names_the_image(items, cfg) -> None:
    with pytest.raises(FloatingPointError, match=r"1 of 20 images, the first is '.*0_6\.png'.*BASE_LR"):
        extract_features(Sometimes(), build_inference_loader(cfg, items))


def test_a_part_of_the_list_is_refused(model, items, cfg) -> None:
    with pytest.raises(ValueError, match="10 of 20 images were not extracted and 0 more than once"):
        extract_features(model, build_inference_loader(cfg, items, rank=1, world_size=2))


def test_a_bar_only_where_asked_for(model, items, cfg, capfd) -> None:
    extract_features(model, build_inference_loader(cfg, items), progress="extract")
    assert model.batches == 5
    assert "extract" not in capfd.readouterr().err  # not a terminal


def _process(rank: int, world_size: int, folder: str, items: list[Any], cfg: Any) -> None:
    from dnreid_plugins.evaluation.evaluator import evaluate

    torch.set_num_threads(1)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=init, rank=rank, world_size=world_size)
    try:
        loader = build_inference_loader(cfg, items, rank=rank, world_size=world_size)
        few = build_inference_loader(cfg, items[:2], rank=rank, world_size=world_size)
        answer: dict[str, Any] = {
            "features": extract_features(PoolModel(), loader, flip=True),
            "few": extract_features(PoolModel(), few),
            "results": evaluate(PoolModel(), _dataset(items), cfg),
        }
        try:
            evaluate(PoolModel(), _dataset(items), _broken(cfg))
        except Exception as error:
            answer["refused"] = str(error)
        if rank == 1:
            os.remove(items[-1].path)
        dist.barrier()
        try:
            extract_features(PoolModel(), loader)
        except Exception as error:
            answer["error"], answer["error type"] = str(error), type(error).__name__
        torch.save(answer, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def _dataset(items: list[Any]) -> Any:
    from types import SimpleNamespace

    from dnreid_plugins.data.protocols import dn348_protocol

    return SimpleNamespace(test=items, protocol=dn348_protocol([item.domain for item in items]))


def _broken(cfg: Any) -> Any:
    cfg = cfg.clone()
    cfg.TEST.METRIC = "manhattan"
    return cfg


@pytest.mark.slow
def test_three_processes_give_every_one_the_whole(items, cfg, tmp_path: Path) -> None:
    from dnreid_plugins.evaluation.evaluator import evaluate

    world_size = 3
    expected = extract_features(PoolModel(), build_inference_loader(cfg, items), flip=True)
    few = extract_features(PoolModel(), build_inference_loader(cfg, items[:2]))
    results = evaluate(PoolModel(), _dataset(items), cfg)
    mp.spawn(_process, (world_size, str(tmp_path), items, cfg), nprocs=world_size)
    for rank in range(world_size):
        answer = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        torch.testing.assert_close(answer["features"], expected)
        torch.testing.assert_close(answer["few"], few)
        for name, metrics in results.items():
            assert answer["results"][name] == pytest.approx(metrics)
        assert "TEST.METRIC is 'manhattan'" in answer["refused"]
        # the last process misses an image: all of them stop, and say so
        assert "does not exist" in answer["error"] and items[-1].path in answer["error"]
        assert answer["error type"] == "DataError" and "could not extract" not in answer["error"]
