"""Features seen from afar: a t-SNE map of a sample of images, histograms of the similarities of its pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from ...functional.types import Domain
from .curves import Curve
from .pictures import DAY, NIGHT, chart, svg

#: Groups that get a colour of their own on a map.
COLOURED = 20
#: Fewest images of a map: the neighbours of fewer say nothing.
LEAST = 5
#: In front of all groups: an image of no cluster.
NO_GROUP = ""
#: Of a picture that is a map and nothing else.
WHOLE = (0.01, 0.01, 0.98, 0.98)

Points = npt.NDArray[np.float64]


class MapImages(NamedTuple):
    """The images of a map: unit features ``(n, D)``, domains ``(n,)``, the name of each one's group or `NO_GROUP`."""

    features: Tensor
    domains: npt.NDArray[np.int64]
    groups: list[str]


def project(features: Tensor, seed: int = 0) -> Points | None:
    """``(n, 2)`` coordinates by t-SNE of the unit features ``(n, D)``; None for fewer than `LEAST` images."""
    from sklearn.manifold import TSNE

    unit = F.normalize(features.float(), dim=1).numpy()
    if len(unit) < LEAST or not np.ptp(unit, axis=0).any():
        return None
    parts = min(50, *unit.shape)
    # Principal components: t-SNE is slow in many dimensions.
    left, lengths, _ = np.linalg.svd(unit - unit.mean(axis=0), full_matrices=False)
    reduced = left[:, :parts] * lengths[:parts]
    perplexity = min(30.0, (len(unit) - 1) / 3)
    start = reduced[:, :2] if reduced.shape[1] > 1 else np.pad(reduced, ((0, 0), (0, 1)))
    start = 1e-4 * start / max(float(np.std(start[:, 0])), 1e-12)
    tsne = TSNE(2, perplexity=perplexity, init=start, random_state=seed, max_iter=500)
    points: Points = tsne.fit_transform(reduced).astype(np.float64)
    return points


def draw_map(points: Points, images: MapImages, what: str) -> list[Curve]:
    """The map coloured by domain and by group; ``what`` the groups are called, "identities" or "clusters"."""
    return [_by_domain(points, images), _by_group(points, images, what)]


def _by_domain(points: Points, images: MapImages) -> Curve:
    figure, axes = chart(4.4, 4.0)
    scatter_domains(axes, points, images)
    axes.set_position(WHOLE)
    return Curve("by domain", svg(figure), f"Map of {len(points)} images, coloured by domain")


def scatter_domains(axes: Any, points: Points, images: MapImages) -> None:
    """Draw the images, coloured by domain."""
    for domain, colour in ((Domain.DAY, DAY), (Domain.NIGHT, NIGHT)):
        chosen = images.domains == int(domain)
        if chosen.any():
            axes.scatter(
                *points[chosen].T, s=9, c=colour, label=domain.word, lw=0, alpha=0.75, rasterized=True
            )
    _bare(axes)
    axes.legend(loc="best", markerscale=2, frameon=False, fontsize=8)


def _by_group(points: Points, images: MapImages, what: str) -> Curve:
    figure, axes = chart(4.4, 4.0)
    shown, total = scatter_groups(axes, points, images)
    axes.set_position(WHOLE)
    title = f"by {what}: {shown} of {total} in colour"
    return Curve(title, svg(figure), f"Map of {len(points)} images, the largest {what} in colour")


def scatter_groups(axes: Any, points: Points, images: MapImages) -> tuple[int, int]:
    """Draw the images, day as dots and night as triangles, the largest groups in colour: how many, and of how many."""
    from matplotlib import colormaps

    groups = np.array(images.groups, dtype=object)
    names, counts = np.unique(groups[groups != NO_GROUP].astype(str), return_counts=True)
    largest = names[np.argsort(-counts, kind="stable")][:COLOURED]
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    rest = ~np.isin(groups.astype(str), largest)
    axes.scatter(*points[rest].T, s=6, c="#d1d5db", lw=0, rasterized=True)
    for name, colour in zip(largest, palette):
        for domain, marker in ((Domain.DAY, "o"), (Domain.NIGHT, "^")):
            chosen = (groups == name) & (images.domains == int(domain))
            axes.scatter(*points[chosen].T, s=15, color=colour, marker=marker, lw=0, rasterized=True)
    _bare(axes)
    return len(largest), len(names)


def _bare(axes: Any) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)


class Similarity(NamedTuple):
    """The pairs of one kind; ``auc``: how often, in percent, a positive one is more similar than a negative one."""

    curve: Curve
    auc: float | None
    positives: int
    negatives: int


class Cosines(NamedTuple):
    """The cosines of the pairs of one kind: of the same group, and of different ones."""

    title: str
    positive: npt.NDArray[np.float32]
    negative: npt.NDArray[np.float32]


def cosines(images: MapImages) -> list[Cosines]:
    """The cosines of pairs with the same group and with another one: within day, within night, and across.

    Images without a group are in no pair, an image and itself are none; a kind without any pair is left out.
    """
    known = np.array([group != NO_GROUP for group in images.groups], dtype=bool)
    unit = F.normalize(images.features.float(), dim=1)[known].numpy()
    domains = images.domains[known]
    codes = np.unique([g for g in images.groups if g != NO_GROUP], return_inverse=True)[1]
    cosine, same = unit @ unit.T, codes[:, None] == codes
    upper = np.triu(np.ones_like(same), 1)
    day, night = domains == int(Domain.DAY), domains == int(Domain.NIGHT)
    kinds = {
        "within day": upper & day[:, None] & day,
        "within night": upper & night[:, None] & night,
        "across: day and night": day[:, None] & night,
    }
    return [
        Cosines(title, cosine[mask & same], cosine[mask & ~same])
        for title, mask in kinds.items()
        if mask.any()
    ]


def similarities(images: MapImages) -> list[Similarity]:
    """A histogram of each kind of `cosines`."""
    return [_histogram(one) for one in cosines(images)]


def _histogram(found: Cosines) -> Similarity:
    title, positive, negative = found
    figure, axes = chart()
    draw_histogram(axes, found)
    auc = area_under_curve(positive, negative)
    alt = f"{title}: {len(positive)} pairs of the same, {len(negative)} of different ones"
    return Similarity(Curve(title, svg(figure), alt), auc, len(positive), len(negative))


def draw_histogram(axes: Any, found: Cosines) -> None:
    """The cosines of both kinds of pairs over each other."""
    both = np.concatenate([found.positive, found.negative])
    low, high = float(both.min()), float(both.max())
    bins = np.linspace(low, max(high, low + 1e-3), 51)
    for values, label, colour in (
        (found.negative, "different", "#9ca3af"),
        (found.positive, "same", "#0f9488"),
    ):
        if len(values):
            axes.hist(values, bins, density=True, alpha=0.6, color=colour, label=label)
    axes.set_xlabel("cosine")
    axes.set_yticks([])
    axes.legend(loc="best", frameon=False, fontsize=8)


def area_under_curve(
    positive: Sequence[float] | npt.NDArray, negative: Sequence[float] | npt.NDArray
) -> float | None:
    """How often, in percent, a positive value is above a negative one, ties half; None without one of either."""
    if not len(positive) or not len(negative):
        return None
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(positive)), np.zeros(len(negative))])
    return 100.0 * float(roc_auc_score(truth, np.concatenate([positive, negative])))
