"""Triplet losses over all images of a batch: weighted by softmax, of the hardest images, and of the centres.

The field takes them of the feature before the batch-norm neck, not of unit length. Labels count over both domains;
images labelled -1 are left out, and the order of the images does not matter unless ``stride`` asks for it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision

#: Squared distances are at least this, so that the root of a zero distance has gradient 0 and not NaN.
SMALLEST_SQUARE = 1e-12
#: Largest squared difference of `weighted_triplet`, as released: beyond it the loss of an anchor is flat.
LARGEST_SQUARE = 88.0


@in_full_precision
def weighted_triplet(x: Tensor, y: Tensor, *, squared: bool = False, as_released: bool = False) -> Tensor:
    """Margin-free triplet loss whose pairs are weighted by a softmax of their distance (AGW, TPAMI 2021).

    ``mean_i softplus(sum_j w+_ij D_ij - sum_j w-_ij D_ij)``: ``w+`` is the softmax of ``D_i`` over the images of the
    anchor's identity, itself included, ``w-`` that of ``-D_i`` over all others.

    Args:
        x: ``(B, D)`` features; carry the gradient, the weights included.
        y: ``(B,)`` int64 identities; -1 = none.
        squared: the difference counts with its square, at most 88, and its sign (CAJ, ICCV 2021).
        as_released: normalise the weights as the released code does, with the zeros of masked pairs in the maximum
            and 1e-6 in the denominator: beyond distances of about 12 all ``w-`` vanish and the loss grows with ``D``.

    Returns:
        Scalar over the anchors that have an image of another identity; zero with a graph if none has.
    """
    x, y = x[y >= 0], y[y >= 0]
    same = y[:, None] == y
    anchors = (~same).any(dim=1)
    if not bool(anchors.any()):
        return zero_with_graph(x)
    distances, same = _distances(x, x)[anchors], same[anchors]
    weights = _released_weights if as_released else _weights
    furthest = (weights(distances, same) * distances).sum(dim=1)
    closest = (weights(-distances, ~same) * distances).sum(dim=1)
    difference = furthest - closest
    if squared:
        difference = difference.sign() * difference.square().clamp(max=LARGEST_SQUARE)
    return F.softplus(difference).mean()


@in_full_precision
def hard_triplet(x: Tensor, y: Tensor, *, margin: float, domains: Tensor | None = None) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., 2017): the furthest of the identity against the nearest of the others.

    Args:
        x: ``(B, D)`` features; carry the gradient.
        y: ``(B,)`` int64 identities; -1 = none.
        margin: at least 0.
        domains: ``(B,)`` int64; given, both are sought among the images of the anchor's own domain only.

    Returns:
        Scalar, mean over the anchors that have an image of another identity; zero with a graph if none has.

    Raises:
        ValueError: ``margin`` is negative.
    """
    _check_margin(margin)
    known = y >= 0
    x, y = x[known], y[known]
    near = torch.ones(len(y), len(y), dtype=torch.bool, device=y.device)
    if domains is not None:
        near = domains[known][:, None] == domains[known]
    same = y[:, None] == y
    anchors = (near & ~same).any(dim=1)
    if not bool(anchors.any()):
        return zero_with_graph(x)
    distances, same, near = _distances(x, x)[anchors], same[anchors], near[anchors]
    furthest = distances.masked_fill(~(near & same), -torch.inf).amax(dim=1)
    nearest = distances.masked_fill(~(near & ~same), torch.inf).amin(dim=1)
    return (furthest - nearest + margin).clamp(min=0).mean()


@in_full_precision
def centre_triplet(x: Tensor, y: Tensor, *, margin: float = 0.7, stride: int | None = None) -> Tensor:
    """Each image to its identity's centre, the centres of two identities at least ``margin`` apart (DCLNet, MM 2022).

    ``mean_i |x_i - c_y_i| + mean_a mean_b relu(margin - |c_a - c_b|)``; ``c`` is an identity's mean feature in the
    batch, ``a`` runs over the images and ``b`` over those of other identities.

    Args:
        x: ``(B, D)`` features; carry the gradient, the centres included.
        y: ``(B,)`` int64 identities; -1 = none.
        margin: at least 0.
        stride: only every so many-th image is an anchor ``a``, as in the released code, where the images of one
            identity and domain follow one another and twice their number skips every second identity; None = all.

    Returns:
        Scalar; without a second identity only the pull, with no image at all zero with a graph.

    Raises:
        ValueError: ``margin`` is negative or ``stride`` below 1.
    """
    _check_margin(margin)
    if stride is not None and stride < 1:
        raise ValueError(f"stride is {stride}; it must be at least 1, or None for all images.")
    x, y = x[y >= 0], y[y >= 0]
    if len(x) == 0:
        return zero_with_graph(x)
    names, place, counts = torch.unique(y, return_inverse=True, return_counts=True)
    centres = x.new_zeros(len(names), x.shape[1]).index_add(0, place, x) / counts[:, None]
    pull = (x - centres[place]).square().sum(dim=1).clamp(min=SMALLEST_SQUARE).sqrt().mean()
    # Images of an identity share a centre, so their terms are equal: one row per identity, as often as it has anchors.
    chosen = torch.bincount(place[:: stride or 1], minlength=len(names)).to(x)
    others = counts * ~torch.eye(len(names), dtype=torch.bool, device=x.device)
    if len(names) < 2:
        return pull
    short = (margin - _distances(centres, centres)).clamp(min=0)
    push = (others * short).sum(dim=1) / others.sum(dim=1)
    return pull + (push * chosen).sum() / chosen.sum()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """``(A, B)`` Euclidean distances; their gradient is 0 where two features are equal.

    Summed from differences, since squares taken apart lose the small distances that the hardest pairs have.
    """
    return (a[:, None] - b).square().sum(dim=2).clamp(min=SMALLEST_SQUARE).sqrt()


def _weights(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of each row over the entries of ``mask``, 0 elsewhere."""
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=1)


def _released_weights(scores: Tensor, mask: Tensor) -> Tensor:
    masked = scores * mask
    powers = (masked - masked.amax(dim=1, keepdim=True)).exp() * mask
    return powers / (powers.sum(dim=1, keepdim=True) + 1e-6)


def _check_margin(margin: float) -> None:
    if not margin >= 0:
        raise ValueError(f"margin is {margin}; it must be at least 0.")
