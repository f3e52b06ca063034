"""What stands on a page, part by part, against slow and obvious twins, and at its odd sizes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model
from PIL import Image
from torch import nn

from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.protocols import (
    Direction,
    Protocol,
    Removal,
    dn348_protocol,
    nothing,
    same_identity_and_camera,
)
from dnreid_plugins.evaluation.evaluator import Extracted, score_protocol
from dnreid_plugins.evaluation.scoring import ScoreOptions
from dnreid_plugins.functional.ranking._retrieval import distance_blocks
from dnreid_plugins.functional.ranking.metrics import distances_of_query
from dnreid_plugins.report.page.attention import NoMapError, grad_cam, grid_of
from dnreid_plugins.report.page.curves import draw, label_curves
from dnreid_plugins.report.page.folder import ClusterRow, RunFolder
from dnreid_plugins.report.page.maps import MapImages, area_under_curve, project, similarities
from dnreid_plugins.report.page.pictures import Thumbnails, jpeg
from dnreid_plugins.report.page.ranks import LENGTH, chosen_queries, rank_lists
from dnreid_plugins.report.page.sheets import sheets


def extracted(options: ScoreOptions, removal: Removal, count: int = 40) -> Extracted:
    """Features with ties, identities and cameras; the paths are no files."""
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(count, 5, generator=generator)
    features[1::7] = features[:1]  # equal rows: the order is that of the list
    ids = torch.randint(4, (count,), generator=generator).tolist()
    ids[0] = 99  # a query without any correct image
    items = [DomainItem(f"{n:02d}.png", ids[n], n % 3, int(n >= count // 2)) for n in range(count)]
    directions = (
        Direction("D2N", np.arange(count // 2), np.arange(count // 2, count)),
        Direction("all", np.arange(count), np.arange(count)),
    )
    return Extracted(features, items, Protocol("made", directions, removal=removal), options)


@pytest.mark.parametrize("removal", [nothing, same_identity_and_camera])
@pytest.mark.parametrize(
    "options",
    [
        ScoreOptions(),
        ScoreOptions(metric="euclidean"),
        ScoreOptions(rerank=(5, 2, 0.3)),
        ScoreOptions(aqe=(3, 2.0, 1)),
    ],
    ids=["cosine", "euclidean", "rerank", "aqe"],
)
def test_rank_lists_are_the_metrics_own(options: ScoreOptions, removal: Removal) -> None:
    data = extracted(options, removal)
    results = score_protocol(data.features, data.items, data.protocol, options=options)
    removed_at_all = 0
    for lists in rank_lists(data, Thumbnails()):
        assert lists.mean_ap == pytest.approx(results[lists.name]["mAP"])
        assert lists.without_match == sum(map(math.isnan, lists.aps))
        assert lists.without_match > 0 or (removal is nothing and lists.name == "all")
        assert len(lists.lists) == 9 and len({one.path for one in lists.lists}) == 9
        for one in lists.lists:
            ap = sum((place + 1) / rank for place, rank in enumerate(one.correct_ranks)) / len(
                one.correct_ranks
            )
            assert one.ap == pytest.approx(100 * ap)
            query = data.items[int(one.path[:2])]
            kept = [result for result in one.results if result.rank is not None]
            assert [result.rank for result in kept] == list(range(1, len(kept) + 1))
            for result in one.results:
                item = data.items[int(result.path[:2])]
                same = item[1] == query[1]
                assert result.correct is same
                hidden = removal is not nothing and same and item[2] == query[2]
                assert (result.rank is None) is hidden
                removed_at_all += hidden
                if result.rank is not None:
                    assert (result.rank in one.correct_ranks) is same
    assert bool(removed_at_all) is (removal is not nothing)


def test_rank_lists_are_ordered_as_a_full_sort_does() -> None:
    data = extracted(ScoreOptions(metric="euclidean"), nothing)
    lists = rank_lists(data, Thumbnails())[1]
    distances = ((data.features[:, None].double() - data.features.double()) ** 2).sum(dim=2)
    for one in lists.lists:
        row = distances[int(one.path[:2])].tolist()
        order = sorted(range(len(row)), key=lambda image: (round(row[image], 4), image))
        assert [int(result.path[:2]) for result in one.results] == order[:LENGTH]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_distances_of_one_query_are_those_of_all(metric: Literal["cosine", "euclidean"]) -> None:
    generator = torch.Generator().manual_seed(5)
    query, gallery = torch.randn(7, 6, generator=generator), torch.randn(9, 6, generator=generator)
    whole = np.concatenate(list(distance_blocks(query, gallery, metric=metric, block=3)))
    for row in range(7):
        assert np.array_equal(distances_of_query(query, gallery, row, metric=metric, block=3), whole[row])


def test_chosen_queries() -> None:
    aps = np.array([90.0, 95.0, 10.0, math.nan, 50.0, 60.0, 20.0])
    ids = np.array([1, 1, 2, 3, 4, 5, 6])
    chosen = chosen_queries(aps, ids, count=2)
    assert chosen[:4] == [("best", 1), ("best", 5), ("worst", 2), ("worst", 6)]
    assert sorted(row for _, row in chosen[4:]) == [0, 4]
    assert chosen_queries(np.array([math.nan]), np.array([1])) == []
    assert chosen_queries(np.empty(0), np.empty(0, np.int64)) == []
    assert chosen_queries(np.array([5.0]), np.array([1])) == [("best", 0)]


# ---------------------------------------------------------------------------- Grad-CAM


def plain_grad_cam(
    model: nn.Module, layer: nn.Module, batch: dict, target: torch.Tensor, tokens: bool
) -> torch.Tensor:
    """Of one image by autograd: mean gradient of each channel, weighted sum, positive part, largest value 1."""
    seen: list[torch.Tensor] = []

    def keep(module: nn.Module, args: tuple, output: torch.Tensor | None = None) -> None:
        seen.append(args[0] if tokens else output)

    hook = layer.register_forward_pre_hook(keep) if tokens else layer.register_forward_hook(keep)
    images = batch["images"].clone().requires_grad_()
    value = F.normalize(model({**batch, "images": images}), dim=1) @ target
    hook.remove()
    (gradient,) = torch.autograd.grad(value.sum(), seen[0])
    activation = seen[0].detach()
    if tokens:
        rows, columns = 2, 2
        activation, gradient = (
            one[:, 1:].transpose(1, 2).reshape(1, -1, rows, columns) for one in (activation, gradient)
        )
    heat = (gradient.mean(dim=(2, 3), keepdim=True) * activation).sum(dim=1).clamp(min=0)[0]
    return heat / heat.max().clamp(min=1e-12)


@pytest.mark.parametrize("tokens", [False, True], ids=["feature map", "tokens"])
@pytest.mark.parametrize("teacher", [False, True])
def test_grad_cam(tokens: bool, teacher: bool, tiny_cfg: CfgNode, tiny_bridging_cfg: CfgNode) -> None:
    cfg = tiny_bridging_cfg if tokens else tiny_cfg
    cfg.MODEL.TEACHER.ENABLED = teacher
    model = build_model(cfg).eval()
    assert isinstance(model, nn.Module)
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(4, 3, *cfg.INPUT.SIZE_TEST, generator=generator)
    domains = torch.tensor([1, 0, 1, 0])
    with torch.no_grad():
        width = model({"images": images, "domains": domains}).shape[1]
    targets = F.normalize(torch.randn(4, width, generator=generator), dim=1)
    heat = grad_cam(model, images, domains, targets)
    backbone = model.answering()[0]
    layer = backbone.backbone.blocks[-1] if tokens else backbone
    for n in range(4):
        one = {"images": images[n : n + 1], "domains": domains[n : n + 1]}
        expected = plain_grad_cam(model, layer, one, targets[n], tokens)
        assert torch.allclose(heat[n], expected, atol=1e-4), n
    assert sum(bool(one.max() > 0) for one in heat) >= 2  # a map without any positive value is all 0
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_the_grid_of_tokens() -> None:
    assert grid_of(128, (256, 128)) == (16, 8)
    assert grid_of(210, (256, 128)) == (21, 10)
    assert grid_of(7, (30, 20)) == (7, 1)
    with pytest.raises(NoMapError):
        grid_of(0, (8, 8))

    class Flat(nn.Module):
        backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1))

        def forward(self, batch: dict) -> torch.Tensor:
            return self.backbone(batch["images"])[..., 0, 0]

    with pytest.raises(NoMapError, match="neither a feature map nor blocks"):
        grad_cam(Flat(), torch.rand(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64), torch.ones(1, 3))


# ---------------------------------------------------------------------------- maps


def test_similarities_of_pairs() -> None:
    features = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    groups = ["a", "a", "b", "", "a", "b", "b"]
    images = MapImages(features, np.array([0, 0, 0, 0, 1, 1, 1]), groups)
    found = {one.curve.title: (one.positives, one.negatives) for one in similarities(images)}
    assert found == {"within day": (1, 2), "within night": (1, 2), "across: day and night": (2 + 2, 9 - 4)}
    alone = similarities(MapImages(features[:2], np.array([0, 0]), ["a", "a"]))
    assert [(one.positives, one.negatives, one.auc) for one in alone] == [(1, 0, None)]
    assert similarities(MapImages(features[:1], np.array([0]), ["a"])) == []
    assert similarities(MapImages(features[:2], np.array([0, 0]), ["", ""])) == []
    assert area_under_curve([0.9, 0.5], [0.5, 0.1]) == pytest.approx(100 * 3.5 / 4)


@pytest.mark.parametrize(("count", "width"), [(0, 4), (1, 4), (4, 4), (5, 1), (9, 3), (40, 8)])
def test_a_map_of_any_size(count: int, width: int) -> None:
    features = torch.randn(count, width, generator=torch.Generator().manual_seed(1))
    points = project(features)
    if count < 5:
        assert points is None
    elif points is not None:
        assert points.shape == (count, 2) and np.isfinite(points).all()
        assert np.array_equal(points, project(features))
    else:
        assert width == 1  # unit rows of one number are all the same
    assert project(torch.ones(8, 3)) is None


# ---------------------------------------------------------------------------- pictures and clusters


def test_thumbnails_of_odd_files(tmp_path: Path) -> None:
    tall = Image.new("RGB", (3, 900), (200, 10, 10))
    tall.save(tmp_path / "tall.png")
    Image.new("I;16", (40, 20), 65535).save(tmp_path / "deep.png")
    Image.new("CMYK", (40, 20)).save(tmp_path / "cmyk.jpg")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    thumbnails = Thumbnails()
    for name in ("tall.png", "deep.png", "cmyk.jpg"):
        assert thumbnails(str(tmp_path / name)).uri.startswith("data:image/jpeg;base64,")
    assert thumbnails.sentence() == ""
    for name in ("broken.png", "gone.png", "broken.png"):
        assert thumbnails(str(tmp_path / name)).uri == ""
    assert thumbnails.sentence().startswith("2 images of this page cannot be shown; the first: image ")
    assert tall.size == (3, 900) and len(jpeg(tall)) > 100


def test_contact_sheets() -> None:
    rows = [ClusterRow(f"d{n}", "day", n % 3 if n < 9 else -1, 0 if n % 3 == 1 else -1) for n in range(10)]
    rows += [ClusterRow(f"n{n}", "night", 0, 1) for n in range(30)]
    ids = [str(n % 2) for n in range(40)]
    found = sheets(rows, [row.path for row in rows], ids, Thumbnails())
    assert found.total == {"day": 3, "night": 1} and found.outliers == {"day": 1} and found.matched == 1
    night = found.clusters["night"][0]
    assert night.size == 30 and len(night.pictures) == 10 and night.identities == 2
    assert [one.name for one in night.pictures][::9] == ["n0", "n29"]
    (pair,) = found.pairs
    assert [(one.domain, one.cluster) for one in pair] == [("day", 1), ("night", 0)]
    assert [len(one.pictures) for one in pair] == [3, 5]
    none = sheets([ClusterRow("a", "day", -1, -1)], ["a"], None, Thumbnails())
    assert none.total == {"day": 0, "night": 0} and not none.pairs and not none.clusters["night"]


def test_curves_of_epochs_without_clusters_or_figures() -> None:
    health = [
        {"epoch": 1.0, "day/clusters": 0.0, "night/clusters": 2.0, "Head/pairs": 1.0},
        {"epoch": 2.0, "day/clusters": 3.0, "true/Head/matching_precision": 50.0, "day/other_thing": 1.0},
        {"epoch": 3.0},
    ]
    run = RunFolder(Path("x"), CfgNode(), {}, health, [], [], [], {})
    found = label_curves(run)
    assert [one.title for one in found.main] == ["clusters", "Head: matched pairs"]
    assert "day from 0 to 3" in found.main[0].alt and "night from 2 to 2" in found.main[0].alt
    assert [one.title for one in found.true] == ["Head: correct pairs, %"]
    assert [one.title for one in found.more] == ["other thing"]
    assert label_curves(RunFolder(Path("x"), CfgNode(), {}, [], [], [], [], {})) == ([], [], [])
    assert draw("t", {"$a_": ([1.0], [1.0]), "_b": ([], [])}, "x").uri.startswith(
        "data:image/svg+xml;base64,"
    )


def test_the_protocol_of_dn348_removes_nothing() -> None:
    """So that a page of it has no removed image, and the test above needs its own protocol."""
    assert dn348_protocol([0, 1]).removal is nothing
