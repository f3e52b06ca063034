"""The data set of every loader: items on disk become samples, each with its own random seed."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from fastreid.data.common import CommDataset
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from ..runtime.generators import generators_kept, seed_generators
from .cache import PixelStore
from .collate import LoadFailure
from .errors import DataError
from .images import read_image
from .items import DomainItem, domain_of
from .samplers import SeededIndex
from .transforms import DomainTransform


class SeededSamples(Dataset[Any]):
    """Samples by place, or by ``(place, seed)`` or ``(place, seed, view)``: then all draws come from that seed.

    The process's own generators are not changed either way. A subclass implements `read` and `complaint`.
    """

    def read(self, index: int, view: int = 0) -> Any:
        """A view of the sample at a place; may draw from the global generators."""
        raise NotImplementedError

    def complaint(self, index: int) -> str:
        """Beginning of the message when `read` fails; the reason follows. A `DataError` is used as it is."""
        raise NotImplementedError

    def begin_batch(self) -> None:
        """Called before the samples of each batch."""

    def __getitem__(self, key: int | SeededIndex) -> Any:
        """One sample.

        Raises:
            DataError: it cannot be loaded.
        """
        sample = self.__getitems__([key])[0]
        if isinstance(sample, LoadFailure):
            raise DataError(sample.message)
        return sample

    def __getitems__(self, keys: Sequence[int | SeededIndex]) -> list[Any]:
        """The samples of one batch; a failure takes the sample's place (torch's workers call this)."""
        self.begin_batch()
        # nothing else uses a worker's generators
        with nullcontext() if get_worker_info() is not None else generators_kept():
            return [self._load(*key) if isinstance(key, tuple) else self._load(key) for key in keys]

    def _load(self, index: int, seed: int | None = None, view: int = 0) -> Any:
        try:
            if seed is not None:
                seed_generators(seed)
            return self.read(index, view)
        except DataError as error:
            return LoadFailure(str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            return LoadFailure(f"{self.complaint(index)} ({reason})", traceback.format_exc())


class DomainDataset(SeededSamples):
    """Images as fast-reid's sample dict plus ``domains``, if any is known, and ``indices`` (position in ``items``).

    Args:
        items: ``(path, pid, camid)`` in canonical order, :class:`DomainItem` if domains are needed.
        transform: ``(image, domain) -> (3, H, W)`` in 0..255.
        reveal_ids: ``targets`` are the true identities as ``0 .. num_classes-1``; otherwise -1, so that unsupervised
            training cannot use them accidentally.
        pixels: where the resized images of ``items`` are kept; None = every image is read from its file.
    """

    def __init__(
        self,
        items: Sequence[tuple[Any, ...]],
        transform: DomainTransform,
        *,
        reveal_ids: bool = True,
        pixels: PixelStore | None = None,
    ) -> None:
        self.items = list(items)
        self.transform = transform
        self.pixels = pixels
        self._splits = transform.splits() if pixels is not None else {}
        self.pids = sorted({item[1] for item in self.items})
        self.cams = sorted({item[2] for item in self.items})
        relabel = {pid: i for i, pid in enumerate(self.pids)}
        recam = {cam: i for i, cam in enumerate(self.cams)}
        #: True identity, camera and domain of every item, ``(N,)`` int64 each.
        self.true_ids = np.array([relabel[item[1]] for item in self.items], dtype=np.int64)
        self.camids = np.array([recam[item[2]] for item in self.items], dtype=np.int64)
        self.domains = np.array([domain_of(item) for item in self.items], dtype=np.int64)
        self._know_domains = know_domains(self.items)
        self._targets = self.true_ids if reveal_ids else np.full_like(self.true_ids, -1)

    @property
    def num_classes(self) -> int:
        return len(self.pids)

    @property
    def num_cameras(self) -> int:
        return len(self.cams)

    def __len__(self) -> int:
        return len(self.items)

    def begin_batch(self) -> None:
        begin_batch = getattr(self.transform, "begin_batch", None)
        if begin_batch is not None:
            begin_batch()

    def read(self, index: int, view: int = 0) -> dict[str, Any]:
        path = self.items[index][0]
        image = self._image(index, view)
        image, *erased = image if isinstance(image, tuple) else (image,)
        sample = {
            "images": image,
            **({"erased": erased[0]} if erased else {}),
            "targets": int(self._targets[index]),
            "camids": int(self.camids[index]),
            "img_paths": path,
            "indices": int(index),
            "views": view,
        }
        return {**sample, "domains": int(self.domains[index])} if self._know_domains else sample

    def _image(self, index: int, view: int) -> Tensor | tuple[Tensor, Tensor]:
        path, domain = self.items[index][0], domain_of(self.items[index])
        split = self._splits.get((domain, view))
        if self.pixels is None or split is None:
            return self.transform(read_image(path), domain, *([view] if view else []))
        return split(self.pixels.pixels(index, path, split.resize))

    def complaint(self, index: int) -> str:
        return f"image {self.items[index][0]!r} cannot be transformed"


class DomainCommDataset(CommDataset):
    """fast-reid's data set of a list of images; if the list has domains, so do the samples."""

    def __init__(self, img_items: Sequence[tuple[Any, ...]], *args: Any, **kwargs: Any) -> None:
        super().__init__(img_items, *args, **kwargs)
        self._know_domains = know_domains(img_items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "domains": int(domain_of(self.img_items[index]))} if self._know_domains else sample


def know_domains(items: Sequence[tuple[Any, ...]]) -> bool:
    """Whether any item has a domain; then those of fast-reid's own sets count as day (`domain_of`)."""
    return any(isinstance(item, DomainItem) for item in items)
