"""Parts of fast-reid that do not compute what they claim, rewritten with the same interface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fastreid.layers.any_softmax import ArcSoftmax
from fastreid.modeling.meta_arch.moco import Memory
from fastreid.utils import comm
from torch import Tensor

# At this distance from -1 and 1 acos and its gradient are finite in float32.
COSINE_LIMIT = 1.0 - 1e-6


class SafeArcSoftmax(ArcSoftmax):
    """ArcFace logits ``s cos(acos(c) + m)`` with a finite gradient where a feature meets its class centre.

    fast-reid applies ``acos`` to cosines that exceed 1 by rounding (NaN); its gradient is infinite at 1.
    """

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """``logits``: (B, C) cosines; ``targets``: (B,) int64, -1 = no margin. Returns (B, C)."""
        margin = torch.zeros_like(logits)
        known = targets != -1
        margin[known, targets[known]] = self.m
        angle = torch.acos(logits.clamp(-COSINE_LIMIT, COSINE_LIMIT))
        return torch.where(margin == 0, logits, torch.cos(angle + margin)) * self.s


def cross_entropy_loss(logits: Tensor, targets: Tensor, eps: float, alpha: float = 0.2) -> Tensor:
    """Mean cross entropy with label smoothing over *all* images; fast-reid left out those whose loss is exactly 0.

    The target of the true class is ``1 - eps``, that of each other class ``eps / (C - 1)``; ``eps < 0`` uses ``alpha``
    times the predicted probability of the true class instead, image by image.

    Args:
        logits: ``(B, C)`` with at least two classes.
        targets: ``(B,)`` int64.

    Raises:
        ValueError: one class only.
    """
    num_classes = logits.shape[1]
    if num_classes < 2:
        raise ValueError(f"CrossEntropyLoss got {num_classes} class; the training set needs two identities.")
    log_probability = F.log_softmax(logits, dim=1)
    own = log_probability.gather(1, targets[:, None])[:, 0]
    # fast-reid also stops the gradient at the adaptive share.
    share = alpha * own.detach().exp() if eps < 0 else torch.full_like(own, eps)
    others = log_probability.sum(dim=1) - own
    return -((1 - share) * own + share / (num_classes - 1) * others).mean()


class QueueMemory(Memory):
    """MoCo's queue with the correct mask and without random entries.

    fast-reid's compares each image with itself as a positive as soon as the queue's pointer has moved, and
    treats the random rows of an unfilled queue as images of class 0.
    """

    def __init__(self, dim: int = 512, K: int = 65536) -> None:
        super().__init__(dim, K)
        self.queue_label.fill_(-1)
        self._own_start = 0

    def forward(self, feat_q: Tensor, targets: Tensor) -> Tensor:
        """``feat_q``: (B, D), ``targets``: (B,) int64 -> scalar pairwise cosface against the queue."""
        self._own_start = int(self.queue_ptr) + comm.get_rank() * len(feat_q)
        return super().forward(feat_q, targets)

    def _pairwise_cosface(self, feat_q: Tensor, targets: Tensor) -> Tensor:
        similarity = feat_q @ self.queue
        labels = self.queue_label[0]
        own = torch.arange(len(feat_q), device=feat_q.device)
        positive = targets[:, None] == labels[None, :]
        positive[own, self._own_start + own] = False
        negative = (targets[:, None] != labels[None, :]) & (labels >= 0)
        nothing = torch.finfo(similarity.dtype).min
        pull = torch.where(positive, -self.gamma * similarity, nothing).logsumexp(dim=1)
        push = torch.where(negative, self.gamma * (similarity + self.margin), nothing).logsumexp(dim=1)
        # An image without a positive or without a negative has nothing to compare and adds no loss.
        complete = positive.any(dim=1) & negative.any(dim=1)
        return torch.where(complete, F.softplus(torch.where(complete, pull + push, 0.0)), 0.0).mean()
