"""Features of a whole list of images in canonical order, by one process or by several together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from fastreid.utils import comm
from torch import Tensor, nn

from ..data.collate import on_device
from ..data.errors import DataError
from ..runtime.progress import with_progress
from .shared_rows import ROWS_AT_ONCE, SharedRows, summed


class ImageLoader(Protocol):
    """A loader of batch dicts whose ``indices`` are positions in the data set; see ``build_inference_loader``."""

    dataset: Any

    def __iter__(self) -> Iterator[dict[str, Any]]: ...

    def __len__(self) -> int: ...


def extract_features(
    model: nn.Module,
    loader: ImageLoader,
    *,
    flip: bool = False,
    normalize: bool = True,
    progress: str | None = None,
) -> Tensor:
    """Features ``(N, D)`` float32 on the CPU, row i for item i of ``loader.dataset``.

    The model runs in eval mode without gradients; afterwards every sub-module is in the mode it was in, also
    after an exception. With several processes each extracts its own part of the list and all get the whole result,
    those of one machine the same memory (`SharedRows`): it is to be read only.

    Args:
        model: ``model(batch) -> (B, D)`` in eval mode.
        loader: gives every item once over all processes.
        flip: mean of the unit features of image and mirror image, normalised again (U29).
        normalize: unit rows; with ``flip`` they are unit rows anyway.
        progress: the text that `with_progress` shows meanwhile; None = nothing.

    Raises:
        ValueError: an item came twice or not at all.
        DataError: an image cannot be read; in every process, whichever one reads it.
        FloatingPointError: a feature is NaN or infinite; the message names the first image.
    """
    device = _device_of(model)
    error: Exception | None = None
    found: SharedRows | None = None
    seen = torch.zeros(len(loader.dataset), dtype=torch.int64)
    try:
        with evaluating(model), torch.no_grad():
            for batch in _shown(loader, progress):
                rows = _encode(model, batch, flip=flip, normalize=normalize, device=device)
                found = found or SharedRows(len(seen), rows.shape[1])
                found.matrix[batch["indices"]] = rows
                seen.index_add_(0, batch["indices"], torch.ones_like(batch["indices"]))
    except Exception as caught:
        if comm.get_world_size() == 1:
            raise
        error = caught
    found = found or SharedRows(len(seen), 0)
    if comm.get_world_size() > 1:
        _stop_together(error)
    features = found.join()
    summed(seen)
    _check(features, seen, loader.dataset)
    return features


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every sub-module is back in its own mode, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _encode(
    model: nn.Module, batch: dict[str, Any], *, flip: bool, normalize: bool, device: torch.device
) -> Tensor:
    moved = on_device(batch, device)
    features = model(moved).float()
    if flip:
        mirrored = model({**moved, "images": moved["images"].flip(-1)}).float()
        features = F.normalize(features, dim=1) + F.normalize(mirrored, dim=1)
    if flip or normalize:
        features = F.normalize(features, dim=1)
    return features.cpu()


def _device_of(model: nn.Module) -> torch.device:
    for tensor in [*model.parameters(), *model.buffers()]:
        return tensor.device
    return torch.device("cpu")


def _shown(loader: ImageLoader, progress: str | None) -> Iterable[dict[str, Any]]:
    if progress is None or not comm.is_main_process():
        return loader
    return with_progress(loader, progress, len(loader))


def _check(features: Tensor, seen: Tensor, dataset: Sized) -> None:
    if not bool((seen == 1).all()):
        raise ValueError(
            f"{int((seen == 0).sum())} of {len(seen)} images were not extracted and {int((seen > 1).sum())} more "
            "than once; use build_inference_loader with the rank and world size of this process"
        )
    # In parts: where all is well, no matrix of flags is needed beside that of the features.
    bad = torch.nonzero(
        ~torch.cat([torch.isfinite(part).all(dim=1) for part in features.split(ROWS_AT_ONCE)])
    ).flatten()
    if len(bad):
        items = getattr(dataset, "items", None)
        name = repr(items[int(bad[0])][0]) if items else f"number {int(bad[0])}"
        raise FloatingPointError(
            f"the model gives NaN or infinity for {len(bad)} of {len(seen)} images, the first is {name}; "
            "load an intact checkpoint or train with a lower SOLVER.BASE_LR"
        )


# ---------------------------------------------------------------------------- several processes


def _stop_together(error: Exception | None) -> None:
    """Raise in all processes if one of them failed, so that none waits for it.

    An error that the user can fix, e.g. an unreadable image, has the same message in all of them.
    """
    words: list[tuple[bool, str] | None] = [None] * dist.get_world_size()
    own = None
    if error is not None:
        expected = isinstance(error, DataError)
        own = (expected, str(error) if expected else f"{type(error).__name__}: {error}")
    dist.all_gather_object(words, own)
    if error is not None:
        raise error
    for rank, word in enumerate(words):
        if word is not None:
            expected, text = word
            if expected:
                raise DataError(text)
            raise RuntimeError(f"process {rank} could not extract its features ({text})")
