"""One CIA step beside one Base step: same encoder, same batch, interleaved in one process.

ResNet-50 with domain-specific stem, layer1 and layer2, 64 images of 288 x 144, 200 clusters per domain, random
weights. A step is forward, losses, backward, optimizer step and memory update.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from measure import finish, parser, seconds_of

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.solver import build_optimizer
from dnreid_plugins.functional.types import Clusters, Epoch

ROOT = Path(__file__).resolve().parents[1]
BASE, CIA = ("ClusterNCE",), ("ClusterNCE", "MAA", "DGM")


def build(size: tuple[int, int]) -> tuple[Any, Any]:
    """Model with every loss head of CIA and its optimizer."""
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "projects/CIA/configs/dn348.yml"))
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.PRETRAIN = "cpu", False
    cfg.MODEL.LOSSES.NAME = CIA
    cfg.INPUT.SIZE_TRAIN = list(size)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    return model, build_optimizer(cfg, model)


def clusters(num: int, dim: int) -> Epoch:
    """``num`` random clusters of two images per domain."""
    centres = F.normalize(torch.randn(num, dim), dim=1)
    parts = []
    for domain in range(2):
        centroids = F.normalize(centres + 0.02 * torch.randn(num, dim), dim=1)
        labels = torch.arange(num).repeat_interleave(2)
        indices = 2 * num * domain + torch.arange(2 * num)
        parts.append(Clusters(labels, centroids[labels], centroids, indices))
    return Epoch.of(parts[0], parts[1], 60, 100)


def measure(repeats: int, size: tuple[int, int], num_clusters: int) -> dict[str, float]:
    """Shortest seconds of both steps over ``repeats`` interleaved pairs and their ratio."""
    model, optimizer = build(size)
    model.parts.begin_epoch(clusters(num_clusters, 2048))
    heads = dict(model.parts.losses)
    batch = {
        "images": torch.rand(64, 3, *size) * 255,
        "targets": torch.arange(8).repeat_interleave(4).repeat(2),
        "domains": torch.tensor([0] * 32 + [1] * 32),
        "indices": torch.arange(64),
    }

    def step(names: tuple[str, ...]) -> None:
        model.parts.losses = torch.nn.ModuleDict({name: heads[name] for name in names})
        losses = model(batch)
        assert len(losses) == len(names)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        model.parts.after_step(model.last_batch)

    step(CIA)
    pairs = [(seconds_of(lambda: step(BASE)), seconds_of(lambda: step(CIA))) for _ in range(repeats)]
    base, cia = (min(column) for column in zip(*pairs, strict=True))
    return {"base_seconds": base, "cia_seconds": cia, "ratio": cia / base}


def main() -> None:
    args = parser(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    size, num_clusters = ((64, 32), 16) if args.quick else ((288, 144), 200)
    found = measure(1 if args.quick else args.repeats, size, num_clusters)
    row = {"Base s": found["base_seconds"], "CIA s": found["cia_seconds"], "ratio": found["ratio"]}
    finish("cia_step", args, {"One training step": [row]}, found)


if __name__ == "__main__":
    main()
