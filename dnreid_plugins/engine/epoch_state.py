"""Everything that a bit-exact resume needs: the content of a checkpoint beyond weights and optimizer."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from ..functional.types import Clusters, Epoch, KnownPairs
from ..labels.base import rows_at

FIELDS = ("labels", "features", "centroids", "indices")


def generator_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's global generators as tensors and plain values."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = {
        "python": [version, list(internal), gauss],
        "numpy": [
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_generator_state(state: dict[str, Any]) -> None:
    """Counterpart of `generator_state`."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def choose_repeatable_kernels() -> None:
    """Use deterministic CUDA kernels where they exist; call before the first CUDA operation."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Memory that is always written before it is read need not be filled.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def epoch_to_state(epoch: Epoch, *, with_features: bool = True) -> dict[str, Any]:
    """Plain tensors and numbers, loadable with ``weights_only=True``; matchings are recomputed from them."""
    fields = [f for f in FIELDS if with_features or f != "features"]
    clusters = {
        name: {field: getattr(part, field).contiguous() for field in fields}
        for name, part in epoch.clusters.items()
    }
    known = {"same": epoch.known.same, "apart": epoch.known.apart} if epoch.known is not None else None
    return {
        "number": epoch.number,
        "last": epoch.last,
        "clusters": clusters,
        "soft": dict(epoch.soft),
        "known": known,
        "figures": dict(epoch.figures),
    }


def epoch_from_state(state: dict[str, Any], features: torch.Tensor | None = None) -> Epoch:
    """Counterpart of `epoch_to_state`; ``features`` (N, D) of all images if the state has none."""
    parts = {name: dict(part) for name, part in state["clusters"].items()}
    for part in parts.values():
        if features is not None:
            part["features"] = rows_at(features, part["indices"])
    clusters = {name: Clusters(**part) for name, part in parts.items()}
    known = KnownPairs(**state["known"]) if state.get("known") else None
    return Epoch(
        state["number"],
        state["last"],
        clusters,
        state["soft"],
        known=known,
        figures=state["figures"],
    )
