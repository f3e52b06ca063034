"""Pre-train a small backbone on coarse attributes of a rendered, daytime-only source set.

The result is for DNMini what ImageNet weights are for photographs: initial weights trained on bodies, paints and roofs
in general, but on no identity of the target set and no night image.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.modeling.backbones import build_backbone
from torch import Tensor, nn

from ..runtime.files import write_atomically
from .source import IGNORED, SourceSet, source_set

logger = logging.getLogger(__name__)

MAX_SHIFT = 6  # pixels


@dataclass(frozen=True)
class PretrainOptions:
    """Everything that determines the weights; ``exposure`` and ``jitter``: see `photometric_jitter`.

    Training is short and jitter weak on purpose: weights that have seen night-like light would leave nothing to adapt
    to.
    """

    backbone: str = "build_shufflenetv2_backbone"
    depth: str = "0.5x"
    num_ids: int = 400
    images_per_id: int = 20
    epochs: int = 3
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 5e-4
    exposure: tuple[float, float] = (0.65, 1.2)
    jitter: float = 0.25
    pixel_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    pixel_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    seed: int = 7
    half: bool = False
    world: str = "dnmini"


def photometric_jitter(
    images: Tensor, generator: torch.Generator, *, exposure: tuple[float, float], strength: float = 1.0
) -> Tensor:
    """Random exposure, saturation, tint and noise per image.

    Args:
        images: ``(B, 3, H, W)`` float32 in 0..255.
        generator: source of all randomness.
        exposure: lowest and highest brightness factor, drawn evenly on a log scale.
        strength: 0 changes the exposure only; 1 takes up to 80 % of the saturation, tints by up to 20 % and adds
            noise of up to 14 grey levels.

    Returns:
        a new tensor of the same shape, clipped to 0..255.
    """
    shape = (len(images), 1, 1, 1)
    low, high = (math.log(limit) for limit in exposure)
    gain = torch.exp(low + (high - low) * torch.rand(shape, generator=generator))
    tint = 1.0 + strength * (0.4 * torch.rand((len(images), 3, 1, 1), generator=generator) - 0.2)
    desaturation = strength * 0.8 * torch.rand(shape, generator=generator)
    deviation = strength * 14.0 * torch.rand(shape, generator=generator)
    grey = images.mean(dim=1, keepdim=True)
    lit = (images + desaturation * (grey - images)) * gain * tint
    return (lit + deviation * torch.randn(images.shape, generator=generator)).clamp_(0.0, 255.0)


def shift_and_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror half of the images ``(B, 3, H, W)`` and move each by up to ``MAX_SHIFT`` pixels; edges are repeated."""
    count, _, height, width = images.shape
    mirrored = torch.rand(count, generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (MAX_SHIFT,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * MAX_SHIFT + 1, (count, 2), generator=generator).tolist()
    return torch.stack([padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(offsets)])


class AttributeClassifier(nn.Module):
    """Backbone, global average pooling and one linear classifier per attribute."""

    def __init__(self, backbone: nn.Module, *, feat_dim: int, num_classes: list[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifiers = nn.ModuleList(nn.Linear(feat_dim, count) for count in num_classes)

    def forward(self, images: Tensor) -> list[Tensor]:
        """``(B, 3, H, W)`` normalised images -> one ``(B, classes)`` per attribute."""
        features = self.backbone(images).mean(dim=(2, 3))
        return [classifier(features) for classifier in self.classifiers]


def attribute_loss(logits: list[Tensor], labels: Tensor) -> Tensor:
    """Sum over attributes of the mean cross entropy; ``labels``: ``(B, A)`` int64, ``IGNORED`` entries are skipped.

    An attribute that applies to no image of the batch adds 0.
    """
    losses = [
        F.cross_entropy(rows, labels[:, column], ignore_index=IGNORED)
        for column, rows in enumerate(logits)
        if bool((labels[:, column] != IGNORED).any())
    ]
    return torch.stack(losses).sum() if losses else logits[0].sum() * 0.0


def build_plain_backbone(options: PretrainOptions) -> nn.Module:
    """The fast-reid backbone from random weights that are a function of ``options.seed``."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = options.backbone, options.depth
    cfg.MODEL.BACKBONE.PRETRAIN = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        return build_backbone(cfg)


def pretrain(options: PretrainOptions, *, source: SourceSet | None = None) -> dict[str, Tensor]:
    """Train and return the backbone's state dict in fast-reid's names, nothing else.

    Args:
        options: see `PretrainOptions`.
        source: rendered from ``options`` when left out.
    """
    if source is None:
        logger.info("rendering %d source vehicles, %d day views each", options.num_ids, options.images_per_id)
        source = source_set(options.num_ids, options.images_per_id, options.seed, world=options.world)
    backbone = build_plain_backbone(options)
    model = _classifier(backbone, source, options).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    steps = options.epochs * (len(source.images) // options.batch_size)
    if steps < 1:
        raise ValueError(
            f"{len(source.images)} source images are too few for a batch of {options.batch_size}; render more"
        )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=steps, pct_start=0.15
    )
    generator = torch.Generator().manual_seed(options.seed)
    model.train()
    for step, (images, labels) in enumerate(_batches(source, options, generator), start=1):
        loss = attribute_loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            logger.info("step %d of %d: loss %.3f", step, steps, loss.item())
    return {name: value.detach().clone().contiguous() for name, value in backbone.state_dict().items()}


def _classifier(backbone: nn.Module, source: SourceSet, options: PretrainOptions) -> AttributeClassifier:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(options.seed)
        feat_dim = backbone.eval()(torch.zeros(1, 3, *source.images.shape[1:3])).shape[1]
        num_classes = [int(column.max()) + 1 for column in source.labels.T]
        return AttributeClassifier(backbone, feat_dim=feat_dim, num_classes=num_classes)


def _batches(
    source: SourceSet, options: PretrainOptions, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    mean = torch.tensor(options.pixel_mean).view(1, 3, 1, 1)
    std = torch.tensor(options.pixel_std).view(1, 3, 1, 1)
    labels = torch.from_numpy(source.labels)
    for _ in range(options.epochs):
        order = torch.randperm(len(source.images), generator=generator)
        for rows in order[: len(order) // options.batch_size * options.batch_size].split(options.batch_size):
            # (B, H, W, 3) seen as (B, 3, H, W): channels last in memory, the fastest layout for convolutions on a CPU.
            images = torch.from_numpy(source.images[rows.numpy()]).permute(0, 3, 1, 2).float()
            images = photometric_jitter(
                shift_and_flip(images, generator),
                generator,
                exposure=options.exposure,
                strength=options.jitter,
            )
            images = (images - mean) / std
            yield images.contiguous(memory_format=torch.channels_last), labels[rows]


def weights_path(options: PretrainOptions) -> Path:
    """The file of this backbone's initial weights in the package."""
    name = options.backbone.removeprefix("build_").removesuffix("_backbone") + f"_{options.depth}"
    name += "" if options.world == "dnmini" else f"_{options.world}"
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def write_weights(state: dict[str, Tensor], path: Path, options: PretrainOptions) -> None:
    """Save ``state`` as safetensors with the options in the file's metadata, so that its origin can be traced."""
    from safetensors.torch import save

    if options.half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    data = save(state, metadata={name: str(value) for name, value in asdict(options).items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda stream: stream.write(data))
