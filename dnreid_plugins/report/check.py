"""What a data set is and what is wrong with it, before any training: the text and the file of ``dnreid check``."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from tabulate import tabulate

from ..data.datasets import CrossDomainDataset
from ..data.items import DomainItem
from ..data.protocols import Protocol
from ..data.survey import (
    DomainSummary,
    Duplicates,
    ImageFacts,
    Removal,
    duplicates_of,
    is_known,
    look_at_all,
    removals_of,
    summary_of,
)
from ..functional.types import Domain
from ..runtime.progress import with_progress

#: Paths of one kind that the text names; the file names all.
SHOWN = 5
#: Images of a batch in the shipped configs.
USUAL_BATCH = 64


@dataclass(frozen=True)
class Examination:
    """What was understood of a data set.

    Attributes:
        name: of the reader.
        train: the readable training images.
        test: the readable test images that are no training images.
        shared: identities of the training images that are in both domains.
        unreadable: path -> sentence.
        duplicates: among all images.
        leaked: test images whose bytes are those of a training image with another path.
        protocol: how it is scored, "" where nothing is.
        removals: what the protocol removes.
        notes: what the reader said.
        warnings: what is suspicious.
        objections: why training could not start; with none it can.
    """

    name: str
    train: Mapping[Domain, DomainSummary]
    test: Mapping[Domain, DomainSummary]
    shared: int
    unreadable: Mapping[str, str]
    duplicates: Duplicates
    leaked: Sequence[str]
    protocol: str
    removals: Sequence[Removal]
    notes: Sequence[str]
    warnings: Sequence[str]
    objections: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        content = asdict(self)
        for half in ("train", "test"):
            content[half] = {domain.word: summary for domain, summary in content[half].items()}
        within = content["duplicates"]["within"]
        content["duplicates"]["within"] = {domain.word: groups for domain, groups in within.items()}
        return content

    def text(self) -> str:
        """For a terminal."""
        rows = [*_rows("train", self.train), *(_rows("test", self.test) if _count(self.test) else [])]
        headers = ("half", "domain", "images", "width", "height", "types", "ids", "cameras")
        parts = [f"{self.name}\n", tabulate(rows, headers, tablefmt="simple", disable_numparse=True)]
        parts.append("(width and height in pixels: smallest / median / largest)")
        parts.append(f"\nidentities in both domains: {self.shared}")
        parts.append(f"scored by: {self.protocol or 'nothing can be scored'}")
        parts += [
            f"  {one.direction}: {one.removed} of {one.pairs} pairs are removed, {one.without_match} queries have no "
            "right answer"
            for one in self.removals
        ]
        parts += _titled("The reader says:", self.notes)
        parts += _titled("Images that cannot be used:", list(self.unreadable.values()))
        parts += _titled("Worth a look:", self.warnings, everything=True)
        parts += _titled("Training cannot start:", self.objections, everything=True)
        parts += [] if self.objections else ["\nTraining can start."]
        return "\n".join(parts) + "\n"


def examine(dataset: CrossDomainDataset) -> Examination:
    """Read every file of ``dataset`` once.

    Raises:
        DataError: the reader itself refuses the set.
    """
    name = type(dataset).__name__
    with _overheard() as notes:
        train = dataset.load_train()
        found = _facts([item.path for item in train])
        dataset.train_on([item for item in train if not found[item.path].problem])
        test, protocol = list(dataset.test), dataset.protocol
    paths = {item.path for item in train}
    others = [item for item in test if item.path not in paths]
    found |= _facts([item.path for item in others])
    items = [*train, *others]
    facts = [found[item.path] for item in items]
    duplicates = duplicates_of(items, facts)
    summary = summary_of(train, facts[: len(train)])
    in_train = {found[path].content for path in paths} - {""}
    leaked = [item.path for item in others if found[item.path].content in in_train]
    unreadable = {fact.path: fact.problem for fact in facts if fact.problem}
    return Examination(
        name=name,
        train=summary,
        test=summary_of(others, facts[len(train) :]),
        shared=_shared(train),
        unreadable=unreadable,
        duplicates=duplicates,
        leaked=leaked,
        protocol=str(protocol or ""),
        removals=removals_of(test, protocol) if protocol else [],
        notes=notes,
        warnings=_warnings(summary, duplicates, leaked, protocol),
        objections=_objections(summary, unreadable),
    )


def _facts(paths: Sequence[str]) -> dict[str, ImageFacts]:
    found = with_progress(look_at_all(paths), "Looking at the images", len(paths))
    return {fact.path: fact for fact in found}


def _shared(items: Sequence[DomainItem]) -> int:
    by_domain = [{i.pid for i in items if i.domain == domain and is_known(i)} for domain in Domain]
    return len(by_domain[0] & by_domain[1])


def _objections(summary: Mapping[Domain, DomainSummary], unreadable: Mapping[str, str]) -> list[str]:
    found = [
        f"No {domain.word} image can be read; both domains need at least one."
        for domain, one in summary.items()
        if one.images == 0
    ]
    if unreadable and not found:
        found.append(
            f"{len(unreadable)} images cannot be used; replace them, or train with DATASETS.SKIP_BAD True, which "
            "leaves them out."
        )
    return found


def _warnings(
    summary: Mapping[Domain, DomainSummary],
    duplicates: Duplicates,
    leaked: Sequence[str],
    protocol: Protocol | None,
) -> list[str]:
    found = []
    images = _count(summary)
    if images < USUAL_BATCH:
        found.append(
            f"There are {images} images, fewer than a batch of the shipped configs; lower SOLVER.IMS_PER_BATCH "
            f"from {USUAL_BATCH}."
        )
    for domain, groups in duplicates.within.items():
        if groups:
            copies = sum(map(len, groups)) - len(groups)
            first = " = ".join(map(repr, groups[0][:2]))
            found.append(f"{copies} {domain.word} images are copies of others, the first: {first}.")
    if duplicates.across:
        first = f"{duplicates.across[0][0]!r} = {duplicates.across[0][-1]!r}"
        found.append(
            f"{len(duplicates.across)} images are both among the day and among the night images, the first: {first}."
        )
    if leaked:
        found.append(
            f"{len(leaked)} test images are also training images, the first: {leaked[0]!r}; results will be too good."
        )
    if protocol is None:
        found.append(
            "No identities are known in both domains, so there is no mAP: a run cannot be scored, only judged by "
            "the quality of its clusters without labels (health.jsonl)."
        )
    return found


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """What the readers log inside, in place of the log."""
    said: list[str] = []

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, handler = logging.getLogger("dnreid_plugins.data"), Notes(logging.INFO)
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _count(half: Mapping[Domain, DomainSummary]) -> int:
    return sum(one.images for one in half.values())


def _rows(half: str, summaries: Mapping[Domain, DomainSummary]) -> list[tuple[str, ...]]:
    return [
        (
            half,
            domain.word,
            str(one.images),
            " / ".join(map(str, one.width)),
            " / ".join(map(str, one.height)),
            ", ".join(f"{count} {kind}" for kind, count in one.kinds.items()),
            str(one.identities),
            str(len(one.cameras)),
        )
        for domain, one in summaries.items()
    ]


def _titled(title: str, lines: Sequence[str], *, everything: bool = False) -> list[str]:
    shown = list(lines) if everything else list(lines[:SHOWN])
    more = [f"... and {len(lines) - len(shown)} more"] if len(shown) < len(lines) else []
    return [f"\n{title}", *(f"  {line}" for line in [*shown, *more])] if lines else []
