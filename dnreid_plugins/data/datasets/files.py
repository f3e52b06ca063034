"""Find a data set on disk: its root, its lists, its images. Missing files are reported in one sentence."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...functional.types import Domain
from ..errors import DataError

logger = logging.getLogger(__name__)

ENVIRONMENT = "FASTREID_DATASETS"
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
)
# A path in a list ends at the first image suffix that is followed by white space or the end of the line.
_IMAGE_NAME = re.compile(
    rf"(.*?(?:{'|'.join(re.escape(suffix) for suffix in sorted(IMAGE_SUFFIXES))}))(?:\s+(.*))?$", re.IGNORECASE
)


def datasets_root(root: str | os.PathLike[str] | None) -> Path:
    """Folder that holds the data sets: ``root``, or the current ``$FASTREID_DATASETS``.

    fast-reid reads the variable at import and passes that old value as ``root``; it is read again here.
    """
    from fastreid.data import build

    if root is None or str(root) == str(build._root):
        root = os.environ.get(ENVIRONMENT, "datasets")
    return Path(root).expanduser()


def find_folder(name: str, root: Path, folders: Sequence[str], markers: Sequence[str]) -> Path:
    """First of ``root/<folder>`` that exists; ``root`` itself if it contains one of ``markers``.

    Raises:
        DataError: neither does.
    """
    for folder in folders:
        if (root / folder).is_dir():
            return root / folder
    if any((root / marker).exists() for marker in markers):
        return root
    found = "has none of " + ", ".join(folders) if root.is_dir() else "does not exist"
    raise DataError(
        f"{name}: the data root {str(root)!r} {found}; "
        f"set ${ENVIRONMENT} to the folder that holds {folders[0]!r}"
    )


def find_list(name: str, role: str, folders: Sequence[Path], names: Sequence[str]) -> Path:
    """First existing list among ``names`` in ``folders``; the choice is logged.

    Raises:
        DataError: none exists.
    """
    for path in (folder / one for folder in folders for one in names):
        if path.is_file():
            logger.info("%s: %s list is %s", name, role, path)
            return path
    raise DataError(
        f"{name}: no {role} list in {str(folders[0])!r} (looked for {', '.join(names)}); "
        f"put it there or set ${ENVIRONMENT} to another copy of the data"
    )


def read_lines(path: Path) -> list[tuple[int, list[str]]]:
    """``(line number, fields)`` of each non-blank line of a list; ``\\`` becomes ``/``.

    Field 0 is the path, including white space in the name if the name ends with an image suffix.

    Raises:
        DataError: the file is not text, or a path points outside the data set's folder.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise DataError(f"list {str(path)!r} cannot be read: {reason}; copy it again") from None
    lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = _fields(line.replace("\\", "/").strip())
        if not fields:
            continue
        if fields[0].startswith("/") or "\0" in fields[0] or ".." in fields[0].split("/"):
            raise DataError(
                f"list {str(path)!r}, line {number}: {shortened(fields[0])!r} is outside the data folder; make it relative"
            )
        lines.append((number, fields))
    return lines


def _fields(line: str) -> list[str]:
    image = _IMAGE_NAME.match(line)
    return [image[1], *(image[2] or "").split()] if image else line.split()


def list_images(folder: Path) -> list[str]:
    """Paths of all image files below ``folder``, sorted; hidden files and other types are left out.

    Links to folders are followed, and each folder is read once: a link back into a folder that is read anyway (a loop
    above all) is left out, which a warning says, as it does of links that lead nowhere.

    Raises:
        DataError: a folder may not be read.
    """
    found: list[str] = []
    left_out: list[str] = []
    read: set[tuple[int, int]] = set()
    to_read = [str(folder)]  # links come after all that is really there, so that they are what is left out
    while to_read:
        top = to_read.pop(0)
        for parent, folders, names in os.walk(top, onerror=_refuse_folder):
            identity = os.stat(parent)
            if (identity.st_dev, identity.st_ino) in read:
                left_out.append(parent)
                folders.clear()
                continue
            read.add((identity.st_dev, identity.st_ino))
            to_read += sorted(path for name in folders if os.path.islink(path := os.path.join(parent, name)))
            for name in names:
                path = os.path.join(parent, name)
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                    found.append(path)
                elif os.path.islink(path) and not os.path.exists(path):
                    left_out.append(path)
    if left_out:
        text = "%s: %d links are left out, since they lead nowhere or to a folder that is read already: %s"
        logger.warning(text, folder, len(left_out), ", ".join(sorted(left_out)[:5]))
    return sorted(found)


def _refuse_folder(error: OSError) -> None:
    raise DataError(f"folder {error.filename!r} cannot be read: {error.strerror}; give yourself the right to it")


def domain_folders(root: Path) -> dict[Domain, Path] | None:
    """The folders ``day`` and ``night`` of ``root``, in any case (``Day``, ``NIGHT``); None unless both are there."""
    found: dict[str, Path] = {}
    try:
        # "day" sorts after "Day" and "DAY" and so takes precedence
        for child in sorted(root.iterdir()):
            if child.name.lower() in ("day", "night") and child.is_dir():
                found[child.name.lower()] = child
    except OSError:  # not a folder, or no permission
        return None
    return {domain: found[domain.name.lower()] for domain in Domain} if len(found) == 2 else None


def shortened(path: str) -> str:
    """``path`` short enough for a message: a damaged list may have a line of any length."""
    return path if len(path) <= 100 else f"{path[:97]}..."


def parse_identity(list_path: Path, line: int, text: str) -> int:
    """A non-negative integer that fits into 64 bits.

    Raises:
        DataError: ``text`` is not one; the message names list and line.
    """
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise DataError(
        f"list {str(list_path)!r}, line {line}: {text[:40]!r} is not an integer identity; correct the line"
    )


def unique_paths(list_path: Path, pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Path -> identity; a repeated line counts once, with a warning.

    Raises:
        DataError: one path has two identities.
    """
    identities: dict[str, int] = {}
    repeated = 0
    for path, identity in pairs:
        repeated += path in identities
        if identities.setdefault(path, identity) != identity:
            raise DataError(
                f"list {str(list_path)!r} gives {shortened(path)!r} identity {identities[path]} and {identity}; "
                "keep one"
            )
    if repeated:
        logger.warning("list %s: %d repeated lines count once", list_path, repeated)
    return identities


def labelled_paths(list_path: Path) -> dict[str, int]:
    """Path -> label of a list with lines ``<path> <label>``.

    Raises:
        DataError: a line is another one, or one path has two labels.
    """
    pairs = []
    for line, fields in read_lines(list_path):
        if len(fields) != 2:
            raise DataError(
                f"list {str(list_path)!r}, line {line}: {shortened(' '.join(fields))!r} is not '<path> <label>'; "
                "correct it"
            )
        pairs.append((fields[0], parse_identity(list_path, line, fields[1])))
    return unique_paths(list_path, pairs)


def missing_images(base: Path, paths: Iterable[str]) -> list[str]:
    """The relative ``paths`` that do not exist below ``base``. One directory scan per folder."""
    by_folder: dict[str, list[str]] = {}
    for path in paths:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    missing = []
    for folder, members in by_folder.items():
        try:
            with os.scandir(base / folder) as entries:
                present = {entry.name for entry in entries}
        except OSError:
            present = set()
        missing += [path for path in members if path.rpartition("/")[2] not in present]
    return missing


def locate_images(name: str, list_path: Path, bases: Sequence[Path], paths: Sequence[str]) -> Path:
    """The one of ``bases`` below which all ``paths`` exist.

    Raises:
        DataError: images are missing in every candidate; the message gives their number and the first five.
    """
    candidates = [base for base in bases if base.is_dir()] or list(bases[:1])
    lacking = {base: missing_images(base, paths) for base in candidates}
    best = min(candidates, key=lambda base: len(lacking[base]))
    if not lacking[best]:
        return best
    first = ", ".join(shortened(path) for path in lacking[best][:5])
    raise DataError(
        f"{name}: {len(lacking[best])} of the {len(paths)} images of {str(list_path)!r} are missing below "
        f"{str(best)!r}, the first: {first}; copy them there or take them out of the list"
    )
