"""Whether and where the resized images of a list are kept: what ``DATALOADER.CACHE`` says, and what is possible."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import PIL
from fastreid.utils import comm

from ...runtime.devices import available_memory
from ...runtime.files import lock, remove_leftovers, temporary_name
from ..augment import ChannelExchange
from ..digest import THREADS, short_hash
from .split import Split
from .store import Layout, PixelStore

if TYPE_CHECKING:
    from ..transforms import DomainTransform

logger = logging.getLogger(__name__)

#: Of the layout and of what makes the pixels.
VERSION = 1
#: One list takes at most this share of the memory that is free.
SHARE_OF_MEMORY = 0.25
#: Bytes of the disk that stay free.
SPARE_DISK = 2**30
GIB, MIB = 2.0**30, 2.0**20

_KEPT: ContextVar[dict[str, PixelStore] | None] = ContextVar("kept_pixels", default=None)


@contextmanager
def kept_pixels() -> Iterator[None]:
    """Inside, stores in memory of several evaluations are one: a store is kept until the end."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def cache_folder() -> Path:
    """``$DNREID_CACHE``, or the folder ``dnreid`` where the system keeps caches."""
    own, system = os.environ.get("DNREID_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else Path(system or Path.home() / ".cache") / "dnreid"


def open_pixels(
    cfg: Any, items: Sequence[tuple[Any, ...]], *transforms: DomainTransform, once: bool = False
) -> list[PixelStore | None]:
    """The store of the resized images of ``items`` for each transform; None where their files are read every time.

    Transforms that resize alike have one store. All processes of a job must call this at the same point; those of one
    machine share a store.

    Args:
        once: the images are read once, so that memory is only used inside `kept_pixels`.
    """
    splits = [list(one.splits().values()) for one in transforms]
    every: dict[str, list[Split]] = {}
    for found in splits:
        every.setdefault(repr(found[0].resize) if found else "", []).extend(found)
    stores = {name: _open(cfg, items, found, once=once) for name, found in every.items()}
    return [stores[repr(found[0].resize) if found else ""] for found in splits]


def _open(
    cfg: Any, items: Sequence[tuple[Any, ...]], splits: list[Split], *, once: bool
) -> PixelStore | None:
    kept = _KEPT.get()
    layout, name = _layout(items, splits) if splits and items else (None, "")
    machines = comm.all_gather(platform.node()) if comm.get_world_size() > 1 else [""]
    leads = machines.index(machines[comm.get_rank()]) == comm.get_rank()  # the first process of its machine
    store = kept.get(name) if kept is not None else None
    store = store if store is not None and store.layout == layout else None
    if leads and layout is not None and store is None:
        store = _made(cfg.DATALOADER.CACHE, layout, name, once=once and kept is None)
    if comm.get_world_size() > 1:
        places = comm.all_gather(store.place if store is not None and leads else "")
        if not leads and layout is not None and (store is None or store.place not in places):
            store = next(filter(None, (_shared(place, layout) for place in places if place)), None)
    if kept is not None and store is not None:
        kept[name] = store
    return store


def _layout(items: Sequence[tuple[Any, ...]], splits: list[Split]) -> tuple[Layout, str]:
    """What a store of these images holds, and a name for their list and size."""
    resize = splits[0].resize
    grey = any(not isinstance(step, ChannelExchange) for split in splits for step in split.planes)
    paths = [os.path.abspath(item[0]) for item in items]
    with ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(_size_and_time, paths, chunksize=256))
    height, width = resize.size
    shape = (len(paths), int(height), int(width), 4 if grey else 3)
    what = {"version": VERSION, "shape": shape, "resize": repr(resize)}
    name = short_hash(json.dumps([paths, what]))
    digest = hashlib.sha256(json.dumps([paths, files]).encode()).hexdigest()
    return Layout(json.dumps({**what, "pillow": PIL.__version__, "files": digest}).encode(), shape), name


def _size_and_time(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def _made(mode: str, layout: Layout, name: str, *, once: bool) -> PixelStore | None:
    need = layout.bytes
    try:
        if mode == "ram" and not once:
            return _in_memory(layout)
        if mode == "disk":
            return _on_disk(layout, cache_folder() / f"{name}.pixels")
    except (OSError, AttributeError) as error:  # AttributeError: a system without such calls
        reason = getattr(error, "strerror", None) or str(error)
        text = "DATALOADER.CACHE %s: %.1f GiB of resized images cannot be kept (%s); they are read from their files."
        logger.warning(text, mode, need / GIB, reason)
    return None


def _in_memory(layout: Layout) -> PixelStore | None:
    free = available_memory()
    if free is not None and layout.bytes > SHARE_OF_MEMORY * free:
        text = "DATALOADER.CACHE ram: %.1f GiB of resized images are more than a quarter of the free memory (%.1f "
        text += "GiB); they are read from their files. With DATALOADER.CACHE disk they are kept there."
        logger.info(text, layout.bytes / GIB, free / GIB)
        return None
    store = PixelStore.new(os.memfd_create("dnreid-pixels"), layout)
    text = "DATALOADER.CACHE ram: %d resized images are kept in memory, %.0f MiB."
    logger.info(text, layout.shape[0], layout.bytes / MIB)
    return store


def _on_disk(layout: Layout, path: Path) -> PixelStore:
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    if (found := _complete_file(path, layout)) is not None:
        return found
    free = shutil.disk_usage(path.parent).free
    if layout.bytes + SPARE_DISK > free:
        raise OSError(28, f"{path.parent} has {free / GIB:.1f} GiB left")
    temporary = temporary_name(path)
    with temporary.open("x+b") as file:
        try:
            descriptor = os.dup(file.fileno())
            lock(file)
            os.posix_fallocate(descriptor, 0, layout.bytes)
            return PixelStore.new(descriptor, layout, temporary=temporary, path=path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _complete_file(path: Path, layout: Layout) -> PixelStore | None:
    """The store that an earlier run has left, if it is one of the same images and complete."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if not layout.is_in(descriptor):
        os.close(descriptor)
        return None
    store = PixelStore(descriptor, layout)
    if not store.complete:
        return None
    logger.info("DATALOADER.CACHE disk: the resized images are read from %s.", path)
    return store


def _shared(place: str, layout: Layout) -> PixelStore | None:
    """The store of another process of this machine; None if that is on another one, or not to be opened."""
    for access in (os.O_RDWR, os.O_RDONLY):
        try:
            descriptor = os.open(place, access)
        except OSError:
            continue
        if layout.is_in(descriptor):
            store = PixelStore(descriptor, layout)
            store.place = place
            return store
        os.close(descriptor)
    return None
