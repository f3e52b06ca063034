"""The folder of a gallery: features, images and search structure, of which one small file says which are valid.

``gallery.json`` is written last and names the others, so whatever ends a writer leaves the gallery that was there.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..functional.types import Domain
from ..runtime.files import remove_leftovers, write_atomically
from ..runtime.run_lock import FolderInUseError, lock_folder, unlock_folder

MANIFEST, VERSION = "gallery.json", 1
#: What the manifest names: ``<kind>-<token><ending>``.
FEATURES, IMAGES, SEARCH = ("features", ".npy"), ("images", ".jsonl"), ("search", ".faiss")
Blocks = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]


@dataclass(frozen=True)
class Entry:
    """An image of a gallery: absolute path, domain, identity ("" = unknown) and a hash of the file's bytes."""

    path: str
    domain: Domain
    id: str = ""
    content: str = ""


@dataclass(frozen=True)
class Stored:
    """A gallery as it lies on disk; ``features`` ``(N, D)`` is memory-mapped, ``search`` the file of its structure."""

    manifest: dict[str, Any]
    entries: list[Entry]
    features: NDArray[np.float32]
    search: Path | None


def is_gallery(folder: str | Path) -> bool:
    return (Path(folder) / MANIFEST).is_file()


@contextlib.contextmanager
def writing(folder: str | Path) -> Iterator[Path]:
    """The only writer of a gallery inside; what dead writers left is removed.

    Raises:
        ValueError: the folder is something else, or another process writes it.
    """
    refuse_foreign(folder)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock_folder(str(folder))
    except FolderInUseError as error:
        raise ValueError(str(error).replace("another OUTPUT_DIR", "another gallery")) from None
    try:
        _remove_orphans(folder)
        yield folder
    finally:
        unlock_folder(str(folder))


def refuse_foreign(folder: str | Path) -> None:
    """
    Raises:
        ValueError: ``folder`` is neither a gallery nor new nor empty.
    """
    folder = Path(folder)
    if folder.exists() and not is_gallery(folder) and (not folder.is_dir() or any(_foreign(folder))):
        raise ValueError(f"{folder} exists and is no gallery; name a new or an empty folder.")


def _foreign(folder: Path) -> Iterator[Path]:
    """Files that no writer of ours leaves."""
    return (path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "run.lock")


def _remove_orphans(folder: Path) -> None:
    remove_leftovers(folder)
    valid = set(read_manifest(folder)["files"].values()) if is_gallery(folder) else set()
    for name, ending in (FEATURES, IMAGES, SEARCH):
        for path in folder.glob(f"{name}-????????{ending}"):
            if path.name not in valid:
                with contextlib.suppress(OSError):  # a reader on Windows still has it open
                    path.unlink()


def write_features(folder: Path, expected: int, blocks: Blocks) -> tuple[Path, NDArray[np.int64]]:
    """Write ``blocks`` of (positions, rows) one after the other as one ``.npy``; its path and all positions.

    Args:
        expected: the most rows that there can be.

    Raises:
        ValueError: there is not one row.
    """
    path = new_file(folder, FEATURES)
    places: list[NDArray[np.int64]] = []

    def write(file: IO[bytes]) -> None:
        dim = 0
        for positions, rows in blocks:
            if not places:
                dim = rows.shape[1]
                _write_header(file, (expected, dim))
            file.write(np.ascontiguousarray(rows, dtype="<f4").data)
            places.append(positions)
        count = sum(map(len, places))
        if not count:
            raise ValueError("No image is left to put into the gallery; give images that can be read.")
        file.seek(0)
        _write_header(file, (count, dim))

    write_atomically(path, write)
    return path, np.concatenate(places)


def _write_header(file: IO[bytes], shape: tuple[int, int]) -> None:
    """numpy leaves room for a longer first number, so a header of fewer rows is as long."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})


def write_entries(folder: Path, entries: Sequence[Entry]) -> Path:
    """One JSON list per image, paths relative to the gallery."""
    path, base, seen = new_file(folder, IMAGES), os.path.realpath(folder), {}

    def real(one: str) -> str:
        parent, name = os.path.split(os.path.abspath(one))
        if parent not in seen:
            seen[parent] = relative(os.path.realpath(parent), base)
        return os.path.join(seen[parent], name)

    def write(file: IO[bytes]) -> None:
        for entry in entries:
            row = [real(entry.path), entry.domain.word, entry.id, entry.content]
            file.write(json.dumps(row).encode() + b"\n")

    write_atomically(path, write)
    return path


def relative(path: str, base: str) -> str:
    """``path`` as seen from ``base``; absolute where there is no way (another drive)."""
    try:
        return os.path.relpath(path, base)
    except ValueError:
        return path


def absolute(path: str, folder: str | Path) -> str:
    """A path of the manifest, made by `relative` for the gallery ``folder``; "" stays."""
    return os.path.normpath(os.path.join(os.path.realpath(folder), path)) if path else ""


def new_file(folder: Path, kind: tuple[str, str]) -> Path:
    return folder / f"{kind[0]}-{secrets.token_hex(4)}{kind[1]}"


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """From here on the gallery is what ``content`` says; the files of the one before are removed."""
    text = json.dumps({"version": VERSION, **content}, indent=1)
    write_atomically(folder / MANIFEST, lambda file: file.write(text.encode()))
    _remove_orphans(folder)


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """
    Raises:
        ValueError: there is no gallery, or one of another version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} is no gallery; make one with `dnreid index RUN IMAGES --out {folder}`.")
    try:
        content = json.loads(path.read_text())
        version = content["version"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is damaged; build the gallery again.") from error
    if version != VERSION:
        raise ValueError(
            f"{path} is of version {version}, this package reads {VERSION}; build the gallery again."
        )
    return dict(content)


def read(folder: str | Path) -> Stored:
    """
    Raises:
        ValueError: there is no gallery, or it is damaged.
    """
    folder, manifest = Path(folder), read_manifest(folder)
    try:
        files = manifest["files"]
        features = np.load(folder / files["features"], mmap_mode="r")
        with (folder / files["images"]).open(encoding="ascii") as lines:
            rows = [json.loads(line) for line in lines]
        base = os.path.realpath(folder)
        entries = [
            Entry(os.path.normpath(os.path.join(base, path)), Domain.named(domain), str(name), str(content))
            for path, domain, name, content in rows
        ]
        search = folder / files["search"] if "search" in files else None
        whole = features.dtype == np.float32 and features.shape == (len(entries), manifest["dim"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{folder} is damaged ({' '.join(str(error).split())[:120]}); build it again."
        ) from error
    if not whole:
        raise ValueError(f"{folder} is damaged: features and images differ in number; build it again.")
    return Stored(manifest, entries, features, search)
