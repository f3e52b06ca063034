"""How stage 1 of "Bridging Day and Night" trains: options, learning rate, order of the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...runtime.sections import Count, CountOrNone, NotNegative, Positive, configured


@configured("PROMPT_STAGE", without=("seed",))
@dataclass(frozen=True, kw_only=True)
class PromptStageOptions:
    """How stage 1 trains.

    Args:
        epochs: Passes over the larger domain; 0 = no stage 1 (tokens stay random). Released code 180, paper 150.
        batch_size: Images per domain and step.
        optimizer: "AdamW" (released code) or "Adam" (paper; decay then enters the gradient).
        lr: Learning rate after the warm-up, where the cosine schedule begins (the paper's value is missing).
        weight_decay: Of the optimizer.
        warmup_epochs: Epochs of linear warm-up from WARMUP_LR to LR; 0 = none.
        warmup_lr: Learning rate at the start of the warm-up.
        min_lr: Learning rate in the last epoch.
        temperature: Divides the similarity of image and text (tau of Eq. 2-3).
        token_rate: Learning rate of a sparse table's rows. "dense": LR times the factor by which a row moves further
            per visit under the released code's dense AdamW, whose momentum continues for the rest of the epoch (5.5 x
            at 31 steps an epoch, 26 x at DN-Wild's 1109). "plain": LR.
        first_moment: First moment of the token table: "float32" or "bfloat16" (DN-Wild: 0.4 GiB less).
        last_batch: Images of the larger domain that do not fill a batch: "drop" them for this epoch, "merge" them into
            the last full batch or "keep" them as a smaller batch.
        weights: A finished stage 1 of another run (its OUTPUT_DIR/stage1.pth) to use instead of running it again.
        checkpoint_period: Save the state of a running stage 1 every so many epochs; SOLVER.CHECKPOINT_MINUTES applies
            too.
        seed: For the order of the images.
    """

    epochs: CountOrNone = 180
    batch_size: Count = 64
    optimizer: Literal["AdamW", "Adam"] = "AdamW"
    lr: Positive = 3.5e-4
    weight_decay: NotNegative = 1e-4
    warmup_epochs: CountOrNone = 5
    warmup_lr: NotNegative = 1e-5
    min_lr: NotNegative = 1e-6
    temperature: Positive = 1.0
    token_rate: Literal["dense", "plain"] = "dense"
    first_moment: Literal["float32", "bfloat16"] = "float32"
    last_batch: Literal["drop", "merge", "keep"] = "drop"
    weights: str = ""
    checkpoint_period: CountOrNone = 10
    seed: int = 0

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1: linear warm-up, then the cosine over all epochs."""
        if epoch < self.warmup_epochs:
            return self.warmup_lr + (self.lr - self.warmup_lr) * epoch / self.warmup_epochs
        share = min(epoch / max(self.epochs, 1), 1.0)
        return self.min_lr + 0.5 * (self.lr - self.min_lr) * (1 + math.cos(math.pi * share))

    def token_factor(self, steps_per_epoch: int, beta: float = 0.999) -> float:
        """How much further than LR a row that is visited once per epoch should go per visit.

        A dense AdamW decays a row's second moment ``v`` in each of the S steps between two visits with gradient
        ``g``, so that ``v = (1 - beta) g^2 / (1 - beta^S)``, and its first moment keeps moving the row until all of
        ``g`` is used: the row moves by ``lr g / sqrt(v)``. A row-wise AdamW, whose step count does not advance in
        between, moves it by ``lr``. The factor is the quotient of the two.
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
