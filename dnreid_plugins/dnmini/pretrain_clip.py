"""Pre-train the miniature CLIP of DNMini: image and sentence towers on rendered, captioned source vehicles.

The vehicles are the source set's (none of them is in DNMini), seen by day only. The towers are open_clip's own
classes, so that everything that works with the miniature works with a real CLIP.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..modeling.clip.text_tower import ClipTextTower
from ..modeling.clip.weights import ClipDescription, build_open_clip
from ..runtime.files import write_atomically
from .pretrain import photometric_jitter, shift_and_flip
from .source import SourceSet, source_set
from .worlds import WORLDS

logger = logging.getLogger(__name__)

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": [64, 64], "layers": 4, "width": 128, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "width": 64, "heads": 2, "layers": 3},
}
CONV_STEM = (16, 32, 64)
# Sentences that captions are inserted into; DNMini's prompts are built from the first.
FRAMES = ("A daytime photo of {}.", "A visible photo of {}.", "A photo of {}.", "{}")
# Matches the fine attributes of a caption; the coarse ones are body, paint, panels, roof, stripe, windows.
FINE = re.compile(r" mark$| at the back$| marker lights?$| wheels$| lamps$")
# Words of the templates, whether or not a caption has them.
TEMPLATE_WORDS = "A daytime nighttime visible infrared thermal photo image of a an the vehicle car person . ,"


@dataclass(frozen=True)
class ClipPretrainOptions:
    """Everything that determines the weights.

    Training is short and jitter weak on purpose, as in `PretrainOptions`.
    ``exposure``, ``jitter``: see `photometric_jitter`. ``fine_share``: share of captions that may mention
    wheels, lamps, stickers and the like, which distinguish single vehicles. ``short_share``: share of
    captions that keep only their first few attributes. ``vehicle_share``: share of captions that say "vehicle"
    instead of the body type.
    """

    num_ids: int = 1500
    images_per_id: int = 4
    steps: int = 300
    batch_size: int = 128
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    exposure: tuple[float, float] = (0.65, 1.2)
    jitter: float = 0.25
    fine_share: float = 0.0
    short_share: float = 0.5
    vehicle_share: float = 0.25
    pixel_mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    pixel_std: tuple[float, float, float] = (127.5, 127.5, 127.5)
    seed: int = 11
    world: str = "dnmini"


def describe_miniclip(world: str = "dnmini") -> ClipDescription:
    """Architecture and reduced vocabulary: every token that a caption of this world or a template can contain."""
    from open_clip import SimpleTokenizer

    tokenizer, drawn = SimpleTokenizer(), WORLDS[world]
    captions = " ".join(
        drawn.caption(vehicle)
        for half in (0, 1)
        for vehicle in drawn.identities(count=2000, seed=0, half=half)
    )
    ids = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
    ids.update(tokenizer.encode(f"{TEMPLATE_WORDS} {captions}"))
    model_cfg = {**MODEL_CFG, "text_cfg": {**MODEL_CFG["text_cfg"], "vocab_size": len(ids)}}
    return ClipDescription("miniclip", model_cfg, tuple(sorted(ids)), CONV_STEM)


def vary_caption(sentence: str, options: ClipPretrainOptions, generator: torch.Generator) -> str:
    """A random variant of a caption: fewer attributes, "vehicle" instead of the body type, another frame."""
    draw = torch.rand(4, generator=generator).tolist()
    head, _, tail = sentence.partition(" with ")
    if draw[1] < options.vehicle_share:
        head = " ".join([*head.split()[:-1], "vehicle"])
    parts = re.split(r", | and ", tail)
    if draw[3] >= options.fine_share:
        parts = [part for part in parts if not FINE.search(part)]
    if draw[0] < options.short_share:
        parts = parts[: int(torch.randint(max(len(parts), 1), (1,), generator=generator))]
    text = f"{head} with {', '.join(parts)}" if parts else head
    return FRAMES[int(draw[2] * len(FRAMES))].format(text)


def pretrain_clip(
    options: ClipPretrainOptions, *, source: SourceSet | None = None
) -> tuple[ClipDescription, dict[str, Tensor]]:
    """Train both towers with CLIP's contrastive loss; returns the description and the state dict.

    A batch consists of different vehicles, one random view of each, with varied captions.
    """
    if source is None:
        logger.info("rendering %d source vehicles, %d day views each", options.num_ids, options.images_per_id)
        source = source_set(options.num_ids, options.images_per_id, options.seed, world=options.world)
    if len(source.identities) < options.batch_size:
        raise ValueError(
            f"{len(source.identities)} vehicles are too few for a batch of {options.batch_size}; render more."
        )
    description = describe_miniclip(options.world)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        model = build_open_clip(description).train()
    tokens = ClipTextTower(model=model, vocabulary=description.vocabulary)
    model.requires_grad_(True)
    optimizer = _optimizer(model, options)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(options.seed)
    batches = _batches(source, model.visual.image_size, options, generator)
    for step in range(1, options.steps + 1):
        images, sentences = next(batches)
        image = F.normalize(model.encode_image(images))
        text = F.normalize(tokens.encode_texts(sentences))
        logits = model.logit_scale.exp().clamp(max=100) * image @ text.T
        target = _same_sentence(sentences)
        loss = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == options.steps:
            right = (target.gather(1, logits.argmax(dim=1, keepdim=True)) > 0).float().mean().item()
            logger.info(
                "step %d of %d: loss %.3f, right caption %.3f", step, options.steps, loss.item(), right
            )
    return description, {name: value.detach().clone() for name, value in model.state_dict().items()}


def _same_sentence(sentences: Sequence[str]) -> Tensor:
    """``(B, B)`` float32, rows of sum 1: targets of the contrast; equal captions share an image's weight."""
    numbers = {sentence: number for number, sentence in enumerate(dict.fromkeys(sentences))}
    which = torch.tensor([numbers[sentence] for sentence in sentences])
    same = (which[:, None] == which[None, :]).float()
    return same / same.sum(dim=1, keepdim=True)


def _optimizer(model: Any, options: ClipPretrainOptions) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups, lr=options.learning_rate, weight_decay=options.weight_decay, betas=(0.9, 0.98)
    )


def _batches(
    source: SourceSet, size: Sequence[int], options: ClipPretrainOptions, generator: torch.Generator
) -> Iterator[tuple[Tensor, list[str]]]:
    mean = torch.tensor(options.pixel_mean).view(1, 3, 1, 1)
    std = torch.tensor(options.pixel_std).view(1, 3, 1, 1)
    pictures = _resized(source, tuple(size))
    captions = [WORLDS[options.world].caption(vehicle) for vehicle in source.identities]
    views = len(pictures) // len(captions)
    while True:
        order = torch.randperm(len(captions), generator=generator)
        for chosen in order[: len(order) // options.batch_size * options.batch_size].split(
            options.batch_size
        ):
            view = torch.randint(views, chosen.shape, generator=generator)
            images = shift_and_flip(pictures[chosen * views + view].float(), generator)
            images = photometric_jitter(images, generator, exposure=options.exposure, strength=options.jitter)
            sentences = [vary_caption(captions[i], options, generator) for i in chosen.tolist()]
            yield (images - mean) / std, sentences


def _resized(source: SourceSet, size: tuple[int, ...]) -> Tensor:
    """``(N, 3, h, w)`` uint8, resized once as the test transform would."""
    result = torch.empty(len(source.images), 3, *size, dtype=torch.uint8)
    for part in torch.arange(len(source.images)).split(1024):
        images = torch.from_numpy(source.images[part.numpy()]).permute(0, 3, 1, 2).float()
        result[part] = F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 255).byte()
    return result


def write_miniclip(
    folder: Path, description: ClipDescription, state: dict[str, Tensor], options: ClipPretrainOptions
) -> None:
    """``miniclip.json`` and ``miniclip.safetensors`` (half precision; the options are in its metadata)."""
    from safetensors.torch import save

    halves = {name: value.half().contiguous() for name, value in state.items()}
    data = save(halves, metadata={name: str(value) for name, value in asdict(options).items()})
    content = {
        "model_cfg": description.model_cfg,
        "conv_stem": list(description.conv_stem),
        "vocabulary": list(description.vocabulary or ()),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "miniclip.json", lambda file: file.write(json.dumps(content).encode()))
    write_atomically(folder / "miniclip.safetensors", lambda file: file.write(data))
