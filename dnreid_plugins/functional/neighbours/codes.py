"""An image described by its similarity to prototypes instead of by its feature."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def softmax_codes(features: Tensor, prototypes: Sequence[Tensor], *, temperature: float = 0.05) -> Tensor:
    """Softmax over each set of prototypes apart, side by side.

    The two domains' prototypes describe images of both alike, where the features themselves are a domain apart.

    Args:
        features: ``(N, D)`` unit rows.
        prototypes: sets of ``(C_i, D)`` unit rows; a set may be empty.
        temperature: divides the cosine; > 0.

    Returns:
        ``(N, C_1 + C_2 + ...)`` float32; the code of each set sums to 1.
    """
    codes = [torch.softmax(features.float() @ rows.float().T / temperature, dim=1) for rows in prototypes]
    return torch.cat(codes, dim=1)
