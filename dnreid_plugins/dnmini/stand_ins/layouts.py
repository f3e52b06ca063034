"""Where each set that we read keeps its images and lists, filled with a few identities.

Layouts are facts of the released data sets; `docs/datasets.md` describes them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ...functional.types import Domain

TRAIN_IDS, TEST_IDS = range(1, 17), range(17, 25)
WORDS = {Domain.DAY: "day", Domain.NIGHT: "night"}


@dataclass
class Layout:
    """A data set to be written.

    Attributes:
        folder: its folder in the folder of all data sets.
        images: path below ``folder`` -> (identity from 1 on, domain, number of the view).
        texts: path below ``folder`` -> content of a list.
    """

    folder: str
    images: dict[str, tuple[int, Domain, int]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, identity: int, domain: Domain) -> str:
        """Another view of ``identity``; returns ``path``."""
        view = sum(other[:2] == (identity, domain) for other in self.images.values())
        self.images[path] = (identity, domain, view)
        return path

    def write_list(self, path: str, lines: Iterable[str]) -> None:
        self.texts[path] = "".join(f"{line}\n" for line in lines)


def dn348() -> Layout:
    """``{day,night}/<id>/<image>`` and ``train_test_split/{train,test}_list_{day,night}.txt``."""
    layout = Layout("dn348")
    for split, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        for domain, word in WORDS.items():
            lines = _by_identity(layout, domain, ids, 5 if word == "day" else 4)
            layout.write_list(f"train_test_split/{split}_list_{word}.txt", lines)
    return layout


def dnwild() -> Layout:
    """The same folders; lists are called ``{day,night}_{train,query,test}.txt``, and a part of the images asks."""
    layout = Layout("dnwild")
    for split, ids in (("train", TRAIN_IDS), ("test", TEST_IDS)):
        for domain, word in WORDS.items():
            lines = _by_identity(layout, domain, ids, 6 if word == "day" else 4)
            layout.write_list(f"train_test_split/{word}_{split}.txt", lines)
            if split == "test":
                asking = [line for line in lines if line.endswith(("000.jpg", "002.jpg"))]
                layout.write_list(f"train_test_split/{word}_query.txt", asking)
    return layout


def _by_identity(layout: Layout, domain: Domain, ids: Iterable[int], count: int) -> list[str]:
    """Images ``<domain>/<id>/<number>.jpg``; returns their paths relative to the domain's folder."""
    lines = [f"{identity:05d}/{number:03d}.jpg" for identity in ids for number in range(count)]
    for line in lines:
        layout.add(f"{WORDS[domain]}/{line}", int(line[:5]), domain)
    return lines


def regdb() -> Layout:
    """``{Visible,Thermal}/<id>/*.bmp`` and ``idx/{train,test}_{visible,thermal}_<trial>.txt`` of ten trials."""
    layout = Layout("RegDB")
    ids = range(1, 25)
    words = {Domain.DAY: "visible", Domain.NIGHT: "thermal"}
    paths = {
        domain: {
            identity: [
                layout.add(f"{word.title()}/{identity}/{word[0]}_{number}.bmp", identity, domain)
                for number in range(1, 5)
            ]
            for identity in ids
        }
        for domain, word in words.items()
    }
    for trial in range(1, 11):
        order = random.Random(trial).sample(ids, len(ids))
        for split, chosen in (("train", sorted(order[:12])), ("test", sorted(order[12:]))):
            for domain, word in words.items():
                lines = [f"{path} {label}" for label, one in enumerate(chosen) for path in paths[domain][one]]
                layout.write_list(f"idx/{split}_{word}_{trial}.txt", lines)
    return layout


def sysu() -> Layout:
    """``cam{1..6}/<id>/<number>.jpg`` and ``exp/{train,val,test}_id.txt``; not everybody is under camera 2."""
    layout = Layout("SYSU-MM01")
    splits = {"train": range(1, 12), "val": range(12, 15), "test": range(15, 23)}
    for split, ids in splits.items():
        layout.write_list(f"exp/{split}_id.txt", [",".join(map(str, ids))])
        for identity in ids:
            for camera in (1, 2, 3, 4, 5, 6):
                domain = Domain.NIGHT if camera in (3, 6) else Domain.DAY
                for number in range(1, 4 if domain == Domain.NIGHT else 3):
                    if camera != 2 or identity % 4:
                        layout.add(f"cam{camera}/{identity:04d}/{number:04d}.jpg", identity, domain)
    return layout


def llcm() -> Layout:
    """``idx/train_{vis,nir}.txt``, ``idx/test_id.txt``, ``test_{vis,nir}/cam<n>/<id>/*``; there is no nir camera 3."""
    layout = Layout("LLCM")
    for domain, word in ((Domain.DAY, "vis"), (Domain.NIGHT, "nir")):
        lines = []
        for identity in (*TRAIN_IDS, *TEST_IDS):
            cameras = [(3 * identity + step) % 9 + 1 for step in range(4)]
            for camera in (c for c in cameras if (domain, c) != (Domain.NIGHT, 3)):
                for frame in (1, 2):
                    name = (
                        f"{identity:04d}/{identity:04d}_c{camera:02d}_s{identity:06d}_f{frame:04d}_{word}.jpg"
                    )
                    if identity in TRAIN_IDS:
                        path = layout.add(f"{word}/{name}", identity, domain)
                        lines.append(f"{path} {identity - 1}")
                    else:
                        layout.add(f"test_{word}/cam{camera}/{name}", identity, domain)
        layout.write_list(f"idx/train_{word}.txt", lines)
    layout.write_list("idx/test_id.txt", [",".join(map(str, TEST_IDS))])
    return layout


def two_folders() -> Layout:
    """Crops in ``{day,night}/<id>/``: no list."""
    layout = Layout("mycrops")
    for domain in Domain:
        _by_identity(layout, domain, TRAIN_IDS, 4)
    return layout


#: Name of the reader -> the layout that it reads.
LAYOUTS: dict[str, Callable[[], Layout]] = {
    "DN348": dn348,
    "DNWild": dnwild,
    "RegDB": regdb,
    "SYSUMM01": sysu,
    "LLCM": llcm,
    "DayNightFolder": two_folders,
}
