"""Score a model on a data set: one extraction, every direction of the protocol."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from fastreid.utils import comm
from torch import Tensor, nn

from ..data.cache import open_pixels
from ..data.items import domain_of
from ..data.loaders import build_inference_loader
from ..data.protocols import Direction, Protocol, Removal, is_variant, same_identity_and_camera
from ..data.transforms import build_domain_transform
from ..functional.types import Domain
from ..runtime.agreement import computed_once
from .extraction import extract_features
from .scoring import ScoreOptions, Side, score

logger = logging.getLogger(__name__)

Results = OrderedDict[str, dict[str, float]]

WITHIN_DOMAIN = {Domain.DAY: "D2D", Domain.NIGHT: "N2N"}


@dataclass(frozen=True, eq=False)
class Extracted:
    """What a set was scored from: features ``(N, D)`` of its ``items``, on the CPU, and how they were scored."""

    features: Tensor
    items: list[tuple[Any, ...]]
    protocol: Protocol
    options: ScoreOptions


_KEPT: ContextVar[dict[str, Extracted] | None] = ContextVar("kept", default=None)


@contextmanager
def keeping_features() -> Iterator[dict[str, Extracted]]:
    """Inside, the newest features of every set that is scored are kept, by the name of the set."""
    kept: dict[str, Extracted] = {}
    token = _KEPT.set(kept)
    try:
        yield kept
    finally:
        _KEPT.reset(token)


def evaluate(model: nn.Module, dataset: Any, cfg: Any, *, name: str = "") -> Results:
    """``{direction: {"Rank-1": ..., "mAP": ..., "mINP": ...}}`` in percent, plain floats, in every process.

    All test images are extracted once, for both directions and for the within-domain figures
    (``TEST.WITHIN_DOMAIN``: ``D2D`` and ``N2N``, the image itself removed, plain distances). One of
    fast-reid's own data sets has the single direction ``Q2G`` under fast-reid's camera rule.

    Args:
        model: ``model(batch) -> (B, D)`` in eval mode.
        dataset: a reader with ``test`` and ``protocol``, or one of fast-reid's with ``query`` and ``gallery``.
        cfg: ``TEST`` and ``INPUT`` are used.
        name: of the set for :func:`keeping_features`; "" = that of its class.

    Raises:
        ValueError: the data set has no identities, or the features cannot be ranked.
    """
    items, protocol = evaluation_set(dataset)
    transform = build_domain_transform(cfg, is_train=False)
    (pixels,) = open_pixels(cfg, items, transform, once=True)
    place = {"rank": comm.get_rank(), "world_size": comm.get_world_size()}
    features = extract_features(
        model,
        build_inference_loader(cfg, items, transform, **place, pixels=pixels),
        flip=cfg.TEST.FLIP.ENABLED,
        normalize=False,
        progress=f"extract {protocol.name}",
    )
    within, options = getattr(cfg.TEST, "WITHIN_DOMAIN", False), ScoreOptions.from_config(cfg)
    kept = _KEPT.get()
    if kept is not None:
        kept[name or type(dataset).__name__] = Extracted(features, items, protocol, options)
    return computed_once(
        lambda: score_protocol(features, items, protocol, options=options, within_domain=within)
    )


def score_protocol(
    features: Tensor,
    items: Sequence[tuple[Any, ...]],
    protocol: Protocol,
    *,
    options: ScoreOptions | None = None,
    within_domain: bool = False,
) -> Results:
    """Score given features ``(N, D)`` of ``items`` under ``protocol``; no model needed. See :func:`evaluate`.

    With re-ranking each direction has its plain figures and, as ``"<direction> re-ranked"``, those of the re-ranking.
    """
    options = options or ScoreOptions()
    ids = np.array([item[1] for item in items], dtype=np.int64)
    cams = np.array([item[2] for item in items], dtype=np.int64)
    logger.info("%s", protocol)

    def run(
        direction: Direction, cams: npt.NDArray[np.int64], removal: Removal, options: ScoreOptions
    ) -> dict[str, float]:
        def side(index: npt.NDArray[np.int64]) -> Side:
            return Side(features[index], ids[index], cams[index])

        rank = partial(score, options=options, removal=removal, topk=protocol.topk, cmc=protocol.cmc)
        query = side(direction.query)
        return averaged([rank(query, side(gallery)) for gallery in direction.galleries])

    results: Results = OrderedDict()
    plain = replace(options, rerank=None)
    for one in protocol.directions:
        results[one.name] = run(one, cams, protocol.removal, plain)
        if options.rerank is not None:
            results[f"{one.name} re-ranked"] = run(one, cams, protocol.removal, options)
    if within_domain:
        # "same identity and camera" with the index as the camera removes exactly the image itself; re-ranking and
        # query expansion would use it twice, so they stay off here
        place, alone = np.arange(len(items)), ScoreOptions(metric=options.metric)
        for direction in within_domain_directions(items, protocol):
            results[direction.name] = run(direction, place, same_identity_and_camera, alone)
    return results


def averaged(scores: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over the galleries of a direction; for several also their number and ``std/<metric>`` (of the sample)."""
    if len(scores) == 1:
        return scores[0]
    columns = {key: np.array([one.get(key, np.nan) for one in scores]) for key in scores[0]}
    result = {key: float(np.nanmean(values)) for key, values in columns.items()}
    result.update({f"std/{key}": float(np.nanstd(values, ddof=1)) for key, values in columns.items()})
    return {**result, "galleries": float(len(scores))}


def within_domain_directions(items: Sequence[tuple[Any, ...]], protocol: Protocol) -> list[Direction]:
    """D2D and N2N: the queries of each domain among the gallery images of the same domain, where there are both.

    Where galleries are drawn, every image of the domain is in the gallery, so that the figures hang on no draw; and
    where no image of the domain is a query (visible ones of SYSU-MM01), every one is. A domain in which no query has
    another image of its identity is left out, too.
    """
    ids = np.unique([int(item[1]) for item in items], return_inverse=True)[1]
    domains = np.array([domain_of(item) for item in items])
    queries = np.unique(np.concatenate([one.query for one in protocol.directions]))
    gallery = np.unique(np.concatenate([part for one in protocol.directions for part in one.galleries]))
    drawn = any(one.more_galleries for one in protocol.directions)
    found = []
    for domain, name in WITHIN_DOMAIN.items():
        every = np.flatnonzero(domains == domain)
        query, shown = (part[domains[part] == domain] for part in (queries, gallery))
        if drawn:
            query, shown = query if query.size else every, every
        others = np.bincount(ids[shown], minlength=len(items))[ids[query]] - np.isin(query, shown)
        if (others > 0).any():
            found.append(Direction(name, query, shown))
        else:
            text = "%s has no %s: none of %d queries has another image among %d in the gallery."
            logger.info(text, protocol.name, name, len(query), len(shown))
    return found


def in_words(protocol: Protocol, cfg: Any) -> str:
    """The protocol and the keys of ``TEST`` that change a figure, as one line for a log or a file."""
    words = [str(protocol), *ScoreOptions.from_config(cfg).words()]
    if cfg.TEST.FLIP.ENABLED:
        words.append("features of image and mirror image averaged")
    return "; ".join(words)


def chooses_a_model(direction: str) -> bool:
    """Whether a direction's figures count when the best weights on test are named: not within a domain, no variant."""
    return direction not in WITHIN_DOMAIN.values() and not is_variant(direction)


def evaluation_set(dataset: Any) -> tuple[list[tuple[Any, ...]], Protocol]:
    """Distinct test images and protocol of a reader, or of one of fast-reid's data sets.

    Raises:
        ValueError: there is nothing to score.
    """
    name = type(dataset).__name__
    if hasattr(dataset, "protocol"):
        if dataset.protocol is None:
            raise ValueError(
                f"{name} has no identities, so it cannot be scored; leave it out of DATASETS.TESTS"
            )
        return list(dataset.test), dataset.protocol
    query, gallery = list(dataset.query), list(dataset.gallery)
    direction = Direction("Q2G", np.arange(len(query)), len(query) + np.arange(len(gallery)))
    return query + gallery, Protocol(name, (direction,), removal=same_identity_and_camera)
