"""Image-text losses of Bridging: instance contrast (Eq. 2-3), batch centroids (Eq. 9), smoothed labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.grouping import cluster_means
from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def instance_contrast(
    image_features: Tensor, text_features: Tensor, image_ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Image-to-text and text-to-image contrast within a batch (Eq. 2 and 3); Eq. 14 adds the two.

    Every entry of the batch is its own class, but the smaller domain is over-sampled, so the same image may occur in
    the batch several times: all its copies are positives, and the log-likelihood is averaged over
    them.

    Args:
        image_features: ``(B, D)`` unit rows, the projected image features.
        text_features: ``(B, D)`` as they leave the text tower, **not** normalised: with the released
            temperature of 1 their length is the inverse temperature.
        image_ids: ``(B,)`` int64, which image each entry is.
        temperature: divides the inner product; > 0 (released code: 1.0, CLIP's own scale is not used).

    Returns:
        ``(image_to_text, text_to_image)`` scalars; zeros with a graph for an empty batch.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the released code uses 1.0.")
    if image_ids.shape[0] == 0:
        nothing = zero_with_graph(image_features) + zero_with_graph(text_features)
        return nothing, nothing
    same = (image_ids[:, None] == image_ids[None, :]).to(image_features.dtype)
    share = same / same.sum(dim=1, keepdim=True)
    logits = image_features @ text_features.to(image_features.dtype).T / temperature
    image_to_text = -(share * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    text_to_image = -(share * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
    return image_to_text, text_to_image


@in_full_precision
def smoothed_cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.1) -> Tensor:
    """Cross-entropy against ``(1 - smoothing) * onehot + smoothing / C`` (Eq. 7/8 over the cluster heads).

    Args:
        logits: ``(B, C)``; only the columns of the C clusters that exist, smoothing is shared among them.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 is ignored.
        smoothing: in ``[0, 1]`` (released code: 0.1).

    Returns:
        Mean over the samples with a target; zero with a graph when there is none.

    Raises:
        ValueError: for a smoothing outside ``[0, 1]``.
    """
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must lie in [0, 1], got {smoothing}; the released code uses 0.1.")
    if logits.shape[1] == 0:
        return zero_with_graph(logits)
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
    return total / (targets >= 0).sum().clamp(min=1)


@in_full_precision
def batch_text_alignment(
    image_features: Tensor, text_features: Tensor, targets: Tensor, *, smoothing: float = 0.1
) -> Tensor:
    """Classify images by the text centroids of the clusters in the batch (Eq. 9).

    ``t_c`` is the normalised mean text feature of the batch entries of cluster ``c``; the logits are
    ``<image, t_c>`` without a temperature, the smoothing mass is shared among the clusters present.
    Gradient flows to the images and, unless the caller detaches them, to the texts (T5).

    Args:
        image_features: ``(B, D)`` projected image features, not normalised (Bridging: after the BN neck).
        text_features: ``(B, D)`` text feature of each entry, not normalised.
        targets: ``(B,)`` int64 clusters, -1 is left out of classes and loss.
        smoothing: see `smoothed_cross_entropy`.

    Returns:
        Scalar; with one cluster in the batch, or none, it is zero and keeps its graph.
    """
    clusters, means = cluster_means(text_features, targets)
    logits = image_features @ F.normalize(means, dim=1).to(image_features.dtype).T
    position = torch.searchsorted(clusters, targets)
    return smoothed_cross_entropy(logits, torch.where(targets >= 0, position, -1), smoothing=smoothing)
