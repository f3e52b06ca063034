"""What every retrieval metric needs: which images match, which are removed, and distances block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ..neighbours._product import multiplier, squared_norms
from ..neighbours.knn import as_matrix

Features = NDArray[np.floating] | Tensor
Metric = Literal["cosine", "euclidean"]
Removal = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Which gallery images are removed for some queries: from their rows ``(B,)`` to the mask ``(B, G)``."""


class Matches:
    """Identities and removal rule of one evaluation.

    Attributes:
        query_codes: ``(Q,)`` int64, place of the identity among those of the gallery; -1 = not in it.
        gallery_codes: ``(G,)`` int64, the same for the gallery.
        members, ends: gallery images of identity ``c`` are ``members[ends[c] : ends[c + 1]]``, ascending.
    """

    def __init__(
        self,
        query_ids: ArrayLike | Tensor,
        gallery_ids: ArrayLike | Tensor,
        *,
        remove: Removal | None,
    ) -> None:
        query, gallery = _vector(query_ids, "query_ids"), _vector(gallery_ids, "gallery_ids")
        names, codes = np.unique(gallery, return_inverse=True)
        self.gallery_codes = codes.astype(np.int64)
        self.members = np.argsort(codes, kind="stable")
        self.ends = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
        place = np.minimum(np.searchsorted(names, query), max(len(names) - 1, 0))
        self.query_codes = (
            np.where(names[place] == query, place, -1) if len(names) else np.full_like(query, -1)
        )
        self.remove = remove

    def check_shape(self, queries: int, gallery: int) -> None:
        if (queries, gallery) != (len(self.query_codes), len(self.gallery_codes)):
            raise ValueError(
                f"got {len(self.query_codes)} query ids and {len(self.gallery_codes)} gallery ids for "
                f"{queries} queries and {gallery} gallery images; give one id per row."
            )

    def hide_removed(self, distances: NDArray[np.float32], start: int) -> None:
        """Write infinity over the distances of removed images; row 0 is query ``start``."""
        if self.remove is None:
            return
        mask = np.asarray(self.remove(np.arange(start, start + len(distances))), dtype=bool)
        if mask.shape != distances.shape:
            raise ValueError(f"remove gave {mask.shape} for {distances.shape} distances; one entry per pair.")
        distances[mask] = np.inf


def distance_blocks(
    query_features: Features, gallery_features: Features, *, metric: Metric, block: int
) -> Iterator[NDArray[np.float32]]:
    """``(B, G)`` float32 distances of consecutive blocks of queries; the caller may change each of them.

    Equal gallery rows have equal distances to the bit. Products alone do not promise it: their last bits may depend
    on the place of a row, and the order of two copies would be an accident of machine and block.
    """
    query, gallery = (
        as_matrix(query_features, "query_features"),
        as_matrix(gallery_features, "gallery_features"),
    )
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}.")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(f"query has {query.shape[1]} dimensions, gallery {gallery.shape[1]}; use one model.")
    copies, originals = _copies(gallery)
    gallery = gallery.to(query.device)
    norms = squared_norms(gallery) if metric == "euclidean" else None
    multiply = multiplier(normalize(gallery, dim=1) if norms is None else gallery)
    del gallery
    for part in query.split(block):
        if norms is None:
            product = multiply(normalize(part, dim=1))
            distances = torch.sub(1, product, out=product)
        else:
            distances = (squared_norms(part)[:, None] + norms).sub_(multiply(part), alpha=2)
        found = distances.cpu().numpy()
        found[:, copies] = found[:, originals]
        yield found


def _copies(matrix: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that stand further up in ``matrix``, too, and where each stands first."""
    seen: dict[bytes, int] = {}
    names = (hashlib.blake2b(row, digest_size=16).digest() for row in matrix.cpu().contiguous().numpy())
    first = np.array([seen.setdefault(name, row) for row, name in enumerate(names)], np.int64)
    copies = np.flatnonzero(first != np.arange(len(first)))
    return copies, first[copies]


def _vector(values: ArrayLike | Tensor, name: str) -> NDArray[np.int64]:
    vector = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {vector.shape}; give one integer per image.")
    return vector.astype(np.int64)
