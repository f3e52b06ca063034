"""What a person says of clusters on the page: a log of actions that survives a kill, and what they amount to."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from ...labels.corrections import LEFT_OUT, CorrectionRow
from ...runtime.files import one_at_a_time, write_atomically

#: Beside the clusters that it corrects.
NAME = "corrections.jsonl"
Correction = Literal["confirm", "same", "different", "split", "remove"]
Verb = Correction | Literal["undo"]
VERBS = (*get_args(Correction), "undo")
#: Verbs that call all images of an action one vehicle, and those that tell them from the others.
ONE, TWO = ("confirm", "same"), ("different", "split")


class StaleError(ValueError):
    """The clusters have changed since the page was made that an action comes from."""


@dataclass(frozen=True)
class Action:
    """One line of the log.

    Attributes:
        do: the verb. "confirm": ``images`` are one vehicle; "same": and ``others`` are the same one; "different",
            "split": ``images`` are one vehicle, but not that of ``others``; "remove": ``images`` belong to no
            cluster; "undo": the last action that stands is taken back.
        about: for people, such as "day 3 with day 5".
        images: paths.
        others: paths.
    """

    do: Verb
    about: str = ""
    images: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class CorrectionLog:
    """The actions in a file of one JSON object per line; a line is on the disk before the page says so.

    Raises:
        ValueError: a line of the file is damaged.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.actions: tuple[Action, ...] = ()
        self._size = 0
        self._guard = threading.Lock()
        self._read()

    @property
    def revision(self) -> int:
        """How many lines there are; a page says which one it was made for."""
        return len(self.actions)

    def append(self, action: Action, revision: int) -> None:
        """Write one more line.

        Raises:
            StaleError: there are other lines than the ``revision`` that the action was made for.
            OSError: it cannot be written; then the file is as it was.
        """
        with self._guard, one_at_a_time(self.file.parent):
            if self.file.is_file() and self.file.stat().st_size != self._size:
                self._read()
            if revision != self.revision:
                raise StaleError(
                    "The clusters have been corrected since this page was made; look at it again."
                )
            line = json.dumps({**asdict(action), "time": round(time.time())}) + "\n"
            self._write(line.encode())
            self.actions = (*self.actions, action)

    def _read(self) -> None:
        found = []
        content = self.file.read_bytes() if self.file.is_file() else b""
        # A last line without its end is what a kill or a full disk has left of one that nobody was told of.
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                found.append(Action(row["do"], row["about"], tuple(row["images"]), tuple(row["others"])))
                if row["do"] not in VERBS:
                    raise ValueError
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"Line {number} of {self.file} is damaged; take it out, or move the file away."
                ) from None
        self.actions, self._size = tuple(found), len(whole)

    def _write(self, line: bytes) -> None:
        if not self.file.is_file():
            write_atomically(self.file, lambda file: None)
        with self.file.open("r+b") as file:
            try:
                file.truncate(self._size)
                file.seek(self._size)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self._size)
                raise
            self._size += len(line)


def standing(actions: Iterable[Action]) -> list[Action]:
    """The actions without those that were taken back."""
    result: list[Action] = []
    for action in actions:
        if action.do != "undo":
            result.append(action)
        elif result:
            result.pop()
    return result


def rows_of(actions: Sequence[Action]) -> list[CorrectionRow]:
    """What the standing ``actions`` say of each image, the later ones being right."""
    said = _Judgements()
    for action in actions:
        if action.do in ONE:
            said.unite([*action.images, *action.others])
        elif action.do in TWO:
            said.part(action.images, action.others)
        else:
            said.leave_out(action.images)
    return said.rows()


class _Judgements:
    """Groups of images by number, the images that a group is told from, and those that are in no cluster."""

    def __init__(self) -> None:
        self.group: dict[str, int] = {}
        self.members: dict[int, set[str]] = {}
        self.apart: dict[int, set[str]] = {}
        self.left_out: set[str] = set()

    def unite(self, images: Iterable[str]) -> None:
        images = set(images)
        old = {self.group[image] for image in images if image in self.group}
        members = images.union(*(self.members[group] for group in old))
        apart = set[str]().union(*(self.apart[group] for group in old))
        for group in old:
            del self.members[group], self.apart[group]
        self._add(members, apart)
        self.left_out -= images

    def part(self, images: Iterable[str], others: Iterable[str]) -> None:
        images, others = set(images), set(others)
        apart = set[str]().union(*(self.apart[self.group[image]] for image in images if image in self.group))
        self._take(images)
        self.left_out -= images
        # Whoever is one with the others is told from them, too.
        known = {self.group[other] for other in others if other in self.group}
        self._add(images, others.union(apart, *(self.members[group] for group in known)))

    def leave_out(self, images: Iterable[str]) -> None:
        images = set(images)
        self._take(images)
        self.left_out |= images

    def rows(self) -> list[CorrectionRow]:
        apart: dict[str, list[int]] = {}
        for group, images in sorted(self.apart.items()):
            for image in images - self.left_out:
                apart.setdefault(image, []).append(group)
        every = sorted({*self.group, *self.left_out, *apart})
        return [
            CorrectionRow(
                path,
                LEFT_OUT if path in self.left_out else self.group.get(path),
                tuple(apart.get(path, ())),
            )
            for path in every
        ]

    def _add(self, members: set[str], apart: set[str]) -> None:
        number = max(self.members, default=-1) + 1
        self.members[number], self.apart[number] = members, apart - members
        self.group.update(dict.fromkeys(members, number))

    def _take(self, images: Iterable[str]) -> None:
        """Take ``images`` out of their groups; a group that nobody is in any more is gone."""
        for image in images:
            group = self.group.pop(image, None)
            if group is not None:
                self.members[group].discard(image)
                if not self.members[group]:
                    del self.members[group], self.apart[group]
