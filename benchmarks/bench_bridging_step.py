"""One step of stage 1 and one of stage 2 of "Bridging Day and Night" at full size: ViT-B/16, random weights.

The config is that of DN-348 (128 images of 256 x 256, 64 prompts per domain and step) without mixed precision.
Memory is the peak of a process of its own, libraries included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from measure import Job, Report, Work, finish, interleaved, parser, seconds_of

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.solver import build_optimizer
from dnreid_plugins.engine.stages.prompt_options import PromptStageOptions
from dnreid_plugins.engine.stages.prompt_training import PromptStage
from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.modeling.clip.prompts import build_prompt_learner
from dnreid_plugins.modeling.clip.text_tower import build_text_tower
from dnreid_plugins.runtime.sections import construct

ROOT = Path(__file__).resolve().parents[1] / "projects" / "BridgingDayNight" / "configs"
GIB = 2**30


def clusters(num: int, images: int, dim: int) -> Epoch:
    """``num`` random clusters per domain of ``images`` images each, in canonical order."""
    parts = []
    for domain in range(2):
        labels = torch.arange(num).repeat_interleave(images)
        centroids = F.normalize(torch.randn(num, dim), dim=1)
        indices = len(labels) * domain + torch.arange(len(labels))
        parts.append(Clusters(labels, centroids[labels], centroids, indices))
    return Epoch.of(parts[0], parts[1], 1, 40)


def both_stages(config: str, opts: list[Any], num: int) -> Work:
    """Job: build the model, take a step of each stage."""
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / config))
    cfg.merge_from_list([*opts, "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.PRETRAIN", False])

    def work() -> Report:
        torch.manual_seed(0)
        model: Any = build_model(cfg).train()
        batch, size = cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.SIZE_TRAIN
        images = cfg.DATALOADER.NUM_INSTANCE
        epoch = clusters(num, images, cfg.MODEL.BACKBONE.FEAT_DIM)
        domains = torch.tensor([0, 1]).repeat_interleave(num * images)
        text = build_text_tower(cfg)
        prompts = build_prompt_learner(cfg, text, domains)
        features = torch.cat([epoch[d].features for d in (0, 1)])
        options = construct(PromptStageOptions, cfg, seed=cfg.SEED)
        stage = PromptStage(prompts=prompts, text=text, features=features, options=options)
        first = seconds_of(stage.train_step)
        model.parts.losses["ImageText"].prepare(prompts, text)
        model.parts.begin_epoch(epoch)
        optimizer = build_optimizer(cfg, model)
        half = torch.arange(batch // 2)
        data = {
            "images": torch.rand(batch, 3, *size) * 255,
            "targets": (half // images).repeat(2),
            "domains": torch.tensor([0, 1]).repeat_interleave(batch // 2),
            "indices": torch.cat([half, num * images + half]),
        }
        losses: dict[str, float] = {}

        def step() -> None:
            found = model(data)
            losses.update({name: float(value.detach()) for name, value in found.items()})
            sum(found.values()).backward()
            optimizer.step()

        second = seconds_of(step)
        return {"stage_1_seconds": first, "stage_2_seconds": second, "losses": losses}

    return work


def main() -> None:
    args = parser(__doc__, repeats=1).parse_args()
    torch.set_num_threads(args.threads)
    whole: dict[str, Any] = {"config": "dn348.yml", "num": 100}
    if args.quick:
        whole = {"config": "dnmini.yml", "num": 8}
    recompute = ["MODEL.BACKBONE.CLIP.GRAD_CHECKPOINT", True]
    jobs = {
        "blocks recomputed (GRAD_CHECKPOINT)": Job(__file__, "both_stages", {**whole, "opts": recompute}),
        "all kept": Job(__file__, "both_stages", {**whole, "opts": []}, needs=0 if args.quick else 50 * GIB),
    }
    found = interleaved(jobs, args, repeats=args.repeats)
    rows = [
        {
            "step": name,
            "stage 1 s": one.get("stage_1_seconds"),
            "stage 2 s": one.get("stage_2_seconds"),
            "peak GiB": one.get("peak_gib"),
            "": one.get("skipped", ""),
        }
        for name, one in found.items()
    ]
    finish("bridging_step", args, {"One step of each stage, 128 images of 256 x 256": rows}, found)


if __name__ == "__main__":
    main()
