"""A training step beside the bare minimum: the same backbone and batch, forward, backward and Adam, nothing else.

The step is the trainer's own, hooks included, for every system below and two networks; reading images is left out.
Bare and whole steps take turns in a process of their own; the shortest of ``--repeats`` counts. Seconds are processor
seconds, so with ``--threads 1`` other work on the machine changes them little; in its caches it does.
Labels are the true identities, prototypes random rows, prompts those of the start; no training is involved.
"""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.utils.events import EventStorage
from measure import Job, Report, Work, finish, interleaved, parser

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.label_phase import LabelPhase
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.modeling.backbone import build_backbone
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.shipped import find_config

SYSTEMS = {
    "Base": "CIA/dnmini/base",
    "CIA": "CIA/dnmini",
    "Bridging, stage 2": "BridgingDayNight/dnmini",
}
#: At most so much of the bare minimum.
GOALS = {"Base": 1.08, "CIA": 1.08, "Bridging, stage 2": 1.15}
#: Bridging needs the two towers of a CLIP.
OF_ANY_NETWORK = ("Base", "CIA")
RESNET = [
    *(
        "MODEL.BACKBONE.NAME",
        "build_resnet_backbone",
        "MODEL.BACKBONE.DEPTH",
        "50x",
        "MODEL.BACKBONE.FEAT_DIM",
        2048,
    ),
    *("MODEL.DUAL_STREAM.MODULES", "['conv1', 'bn1', 'layer1', 'layer2']", "SOLVER.IMS_PER_BATCH", 16),
    *("INPUT.SIZE_TRAIN", "[288, 144]", "MODEL.BACKBONE.PRETRAIN", False),
]
NETWORKS: dict[str, list[Any]] = {
    "DNMini's network, 64 images": [],
    "ResNet-50, 16 images of 288 x 144": RESNET,
}


class Clock:
    """Processor seconds by name; what runs inside a named part does not count for the outer one."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    def around(self, owner: Any, method: str, name: str) -> None:
        """Count every call of ``owner.method`` under ``name``."""
        call = getattr(owner, method)

        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self._inside.append(0.0)
            try:
                return call(*args, **kwargs)
            finally:
                whole = time.process_time() - start
                self.spent[name] += whole - self._inside.pop()
                if self._inside:
                    self._inside[-1] += whole

        setattr(owner, method, counted)


def trainer_of(config: str, opts: list[Any]) -> Any:
    """The trainer of a shipped config in an epoch in which all its parts act, its labels the true identities.

    Not the last one: DGM's threshold leaves no edge there.
    """
    cfg = get_cfg()
    own = ["OUTPUT_DIR", "", "TEST.EVAL_START", "False", "PROMPT_STAGE.EPOCHS", "0", "AUDIT.PERIOD", "0"]
    merge_with_suggestions(cfg, str(find_config(config)), [*map(str, opts), *own])
    trainer: Any = CrossDomainTrainer(cfg)
    trainer.storage = EventStorage(0)
    trainer.storage.__enter__()
    trainer.epoch = trainer.max_epoch - 3
    trainer.iter = trainer.start_iter = trainer.epoch * trainer.iters_per_epoch
    others = [hook for hook in trainer._hooks if not isinstance(hook, LabelPhase)]
    trainer.iter, begun = 0, trainer.iter  # a stage begins before the first epoch only
    for hook in others:
        hook.before_train()
    trainer.iter, trainer.storage.epoch = begun, trainer.epoch
    for hook in others:
        hook.before_epoch()
    trainer.bare_model.train()
    figures = trainer.parts.begin_epoch(known_identities(trainer))
    assert figures.get("DGM", {"edges": 1.0})["edges"] > 0, "DGM matches nothing, so its loss is not timed"
    trainer.use_labels(trainer.parts.epoch)
    return trainer


def known_identities(trainer: Any) -> Epoch:
    """The true identities of the training images as clusters, with random centroids alike in both domains."""
    images, generator = trainer.train_data.images, torch.Generator().manual_seed(0)
    image = {"images": torch.zeros(2, 3, *trainer.cfg.INPUT.SIZE_TRAIN), "domains": torch.arange(2)}
    trainer.bare_model.eval()
    width = trainer.bare_model(image).shape[1]
    trainer.bare_model.train()
    ids = torch.from_numpy(images.true_ids)
    centres = torch.randn(int(ids.max()) + 1, width, generator=generator)
    parts = []
    for domain in (0, 1):
        indices = (images.domains == domain).nonzero().flatten()
        present, labels = torch.unique(ids[indices], return_inverse=True)
        noise = 0.1 * torch.randn(len(present), width, generator=generator)
        centroids = F.normalize(centres[present] + noise, dim=1)
        parts.append(Clusters(labels, centroids[labels], centroids, indices))
    return Epoch.of(parts[0], parts[1], trainer.epoch + 1, trainer.max_epoch)


def repeated(batches: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Endless batches that are in memory already."""
    for batch in itertools.cycle(batches):
        yield dict(batch)


def bare_step(
    trainer: Any, images: torch.Tensor
) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None]]:
    """Forward, backward and Adam of the same backbone without two streams; normalises the images, as any training."""
    cfg, model = trainer.cfg, trainer.bare_model
    backbone = build_backbone(cfg).train().to(memory_format=model.memory_format)
    solver = cfg.SOLVER
    optimizer = torch.optim.Adam(backbone.parameters(), lr=solver.BASE_LR, weight_decay=solver.WEIGHT_DECAY)
    loss: list[torch.Tensor] = []

    def forward() -> None:
        maps = backbone(model.preprocess_image({"images": images}))
        loss[:] = [maps.float().square().mean()]

    def backward() -> None:
        optimizer.zero_grad()
        loss[0].backward()

    return forward, backward, optimizer.step


def count_parts(trainer: Any, clock: Clock) -> None:
    """Give every part of a step its name on the clock."""
    model, step = trainer.bare_model, trainer.step_trainer
    clock.around(model.backbone, "forward", "backbone, forward")
    clock.around(model.heads, "forward", "neck, forward")
    for name, head in model.parts.losses.items():
        clock.around(head, "forward", f"{name}, forward")
        clock.around(head, "after_step", f"{name}, after the step")
    clock.around(model.parts.memory, "after_step", "memory")
    clock.around(model, "forward", "model, the rest")
    clock.around(torch.Tensor, "backward", "backward")
    clock.around(step.optimizer, "step", "optimizer")
    clock.around(step.optimizer, "zero_grad", "optimizer")
    for method, name in (
        ("_checked_values", "losses finite"),
        ("_check_gradients", "gradients finite"),
        ("_write_metrics", "metrics"),
        ("run_step", "trainer, the rest"),
    ):
        clock.around(step, method, name)
    for hook in trainer._hooks:
        for method in ("before_step", "after_step"):
            clock.around(hook, method, f"hook {type(hook).__name__}")


def steps(config: str, opts: list[Any], repeats: int) -> Work:
    """Job: bare and whole steps in turn, then the parts of both."""
    trainer = trainer_of(config, opts)
    names = trainer.parts.streams_now
    loaders = {name: iter(trainer.step_trainer.streams[name]) for name in names}
    batches = {name: [next(loader) for _ in range(2)] for name, loader in loaders.items()}
    trainer.step_trainer._iterators = {name: repeated(batches[name]) for name in names}
    bare = bare_step(trainer, batches[names[0]][0]["images"])

    def step() -> None:
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
        trainer.iter += 1

    def work() -> Report:
        turns = []
        for _ in range(repeats + 1):
            turns.append([*map(processor_seconds, bare), processor_seconds(step)])
        forward, backward, adam, whole = (min(column) for column in zip(*turns[1:], strict=True))
        clock = Clock()
        count_parts(trainer, clock)
        tries = []
        for _ in range(repeats):
            clock.spent.clear()
            step()
            tries.append(dict(clock.spent))
        return {
            "bare_seconds": min(sum(turn[:3]) for turn in turns[1:]),
            "step_seconds": whole,
            "median_ratio": statistics.median(turn[3] / sum(turn[:3]) for turn in turns[1:]),
            "bare": {"backbone, forward": forward, "backward": backward, "optimizer": adam},
            "where": {name: min(one.get(name, 0.0) for one in tries) for name in tries[0]},
        }

    return work


def processor_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    args = parser(__doc__, repeats=20).parse_args()
    os.environ.setdefault("FASTREID_DATASETS", "datasets")
    networks, systems = NETWORKS, SYSTEMS
    if args.quick:
        # Base alone on the few images in $FASTREID_DATASETS/dn348.
        opts = ["DATASETS.NAMES", "('DN348',)", "DATASETS.TESTS", "('DN348',)", "SOLVER.IMS_PER_BATCH", "16"]
        networks, systems = {"DNMini's network, 16 images": opts}, {"Base": SYSTEMS["Base"]}
    repeats, compared, where, raw = 1 if args.quick else args.repeats, [], {}, {}
    for network, opts in networks.items():
        fits = {
            name: one for name, one in systems.items() if args.quick or not opts or name in OF_ANY_NETWORK
        }
        jobs = {
            name: Job(__file__, "steps", {"config": config, "opts": opts, "repeats": repeats})
            for name, config in fits.items()
        }
        raw[network] = found = interleaved(jobs, args)
        compared += [
            {
                "network": network,
                "system": name,
                "bare s": one["bare_seconds"],
                "step s": one["step_seconds"],
                "step / bare": f"{one['step_seconds'] / one['bare_seconds']:.2f}",
                "median of the pairs": f"{one['median_ratio']:.2f}",
                "goal": GOALS[name],
            }
            for name, one in found.items()
        ]
        where[f"Where the time of a step goes, milliseconds: {network}"] = table_of_parts(found)
    finish("step", args, {"A step beside the bare minimum": compared, **where}, raw)


def table_of_parts(found: dict[str, Report]) -> list[dict[str, Any]]:
    """A row per part of a step that took a tenth of a millisecond, a column for the bare minimum and each system."""
    bare = next(iter(found.values()))["bare"]
    names = dict.fromkeys(name for one in found.values() for name in one["where"])
    rows = [
        {
            "part": name,
            "bare": 1e3 * bare[name] if name in bare else None,
            **{
                system: 1e3 * one["where"][name] if name in one["where"] else None
                for system, one in found.items()
            },
        }
        for name in names
        if max(one["where"].get(name, 0.0) for one in found.values()) >= 1e-4
    ]
    return sorted(rows, key=lambda row: -max(value or 0.0 for key, value in row.items() if key != "part"))


if __name__ == "__main__":
    main()
