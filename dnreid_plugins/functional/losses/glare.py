"""The loss of a suppression mask: nothing is suppressed by day, everything at night."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def mask_loss(logits: Tensor, domains: Tensor) -> Tensor:
    """``1/2 [mean_day -log(1 - sigmoid(l)) + mean_night -log sigmoid(l)]``, the means over all pixels of a domain.

    Written with softplus, so that a mask at 0 or 1 costs no infinity. A domain without an image adds nothing.

    Args:
        logits: ``(B, h, w)``; carries the gradient.
        domains: ``(B,)`` int64, 0 day and 1 night.
    """
    total = zero_with_graph(logits)
    for sign, domain in ((1, 0), (-1, 1)):
        own = logits[domains == domain]
        if own.numel() > 0:
            total = total + 0.5 * F.softplus(sign * own).mean()
    return total
