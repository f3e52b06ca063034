"""How stage 1 of "Bridging Day and Night" trains: options, learning rate, order of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

OPTIMIZERS = ("AdamW", "Adam")
FIRST_MOMENTS = ("float32", "bfloat16")
TOKEN_RATES = ("dense", "plain")
LAST_BATCH = ("drop", "merge", "keep")


@dataclass(frozen=True)
class PromptStageOptions:
    """How stage 1 trains; the fields are the keys of ``PROMPT_STAGE``, explained in `add_prompt_config`."""

    epochs: int = 180
    batch_size: int = 64
    optimizer: str = "AdamW"
    lr: float = 3.5e-4
    weight_decay: float = 1e-4
    warmup_epochs: int = 5
    warmup_lr: float = 1e-5
    min_lr: float = 1e-6
    temperature: float = 1.0
    token_rate: str = "dense"
    first_moment: str = "float32"
    last_batch: str = "drop"
    seed: int = 0

    def __post_init__(self) -> None:
        for key, known in (
            ("optimizer", OPTIMIZERS),
            ("token_rate", TOKEN_RATES),
            ("first_moment", FIRST_MOMENTS),
            ("last_batch", LAST_BATCH),
        ):
            if getattr(self, key) not in known:
                value = getattr(self, key)
                raise ValueError(f"PROMPT_STAGE.{key.upper()} is {value!r}; it is one of {known}.")
        if self.batch_size < 1 or self.epochs < 0:
            raise ValueError(
                f"PROMPT_STAGE has BATCH_SIZE {self.batch_size} and EPOCHS {self.epochs}; it takes >= 1 and >= 0."
            )

    @classmethod
    def from_config(cls, cfg: Any) -> PromptStageOptions:
        known = {field.name for field in fields(cls)}
        section = {key.lower(): value for key, value in cfg.PROMPT_STAGE.items()}
        return cls(seed=cfg.SEED, **{key: value for key, value in section.items() if key in known})

    def learning_rate(self, epoch: int) -> float:
        """Rate of a whole epoch, counted from 1: linear warm-up, then the cosine over all epochs."""
        if epoch < self.warmup_epochs:
            return self.warmup_lr + (self.lr - self.warmup_lr) * epoch / self.warmup_epochs
        share = min(epoch / max(self.epochs, 1), 1.0)
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * share))

    def token_factor(self, steps_per_epoch: int, beta: float = 0.999) -> float:
        """How much further than LR a row that is visited once per epoch should go per visit.

        A dense AdamW decays a row's second moment ``v`` in each of the S steps between two visits with gradient
        ``g``, so that ``v = (1 - beta) g^2 / (1 - beta^S)``, and its first moment moves the row on until all of
        ``g`` is spent: the row goes ``lr g / sqrt(v)``. A row-wise AdamW, whose clock stands still in between,
        goes ``lr``. The factor is the quotient of the two.
        """
        if self.token_rate == "plain":
            return 1.0
        return math.sqrt((1 - beta**steps_per_epoch) / (1 - beta))


def epoch_order(
    sizes: tuple[int, int], options: PromptStageOptions, epoch: int
) -> list[tuple[Tensor, Tensor]]:
    """Batches of an epoch as positions within the day and the night images, a function of (seed, epoch).

    The larger domain is shuffled; the smaller one is shuffled and filled up with random repeats. An epoch has
    at least one batch and no empty one. A domain without images gives empty tensors throughout.
    """
    generator = torch.Generator().manual_seed(options.seed * 1_000_003 + epoch)
    longest, parts = max(sizes), []
    for size in sizes:
        order = torch.randperm(size, generator=generator)
        extra = torch.randint(max(size, 1), (longest - size if size else 0,), generator=generator)
        parts.append(torch.cat([order, extra]))
    starts = list(range(0, longest, options.batch_size))
    short = longest % options.batch_size
    if short and len(starts) > 1 and options.last_batch != "keep":
        starts.pop()
    ends = [start + options.batch_size for start in starts]
    if options.last_batch == "merge" and ends:
        ends[-1] = longest
    return [(parts[0][start:end], parts[1][start:end]) for start, end in zip(starts, ends, strict=True)]
