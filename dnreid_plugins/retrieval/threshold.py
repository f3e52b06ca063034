"""The similarity above which two images count as the same vehicle, beside the model that it was found for."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..functional.types import Domain
from ..runtime.files import write_atomically
from . import store

logger = logging.getLogger(__name__)

FILE, VERSION = "threshold.json", 1
#: The kinds of pairs: both by day, both by night, one of each.
WITHIN_DAY, WITHIN_NIGHT, ACROSS = "day", "night", "across"


@dataclass(frozen=True)
class Direction:
    """The threshold for one kind of pairs.

    Attributes:
        value: a pair is accepted if its cosine is at least this.
        false_match_rate: share of the different pairs that it accepts.
        interval: 95 % confidence interval of that rate, see `calibrate`.
        true_match_rate: share of the same pairs that it accepts.
        pairs_positive, pairs_negative: pairs of one identity and of two.
        identities: how many there are; 0 = not known.
        histogram: ``{"edges", "positive", "negative"}``, counts of the similarities.
        roc: ``[false match rate, true match rate, threshold]`` at some rates.
    """

    value: float
    false_match_rate: float
    interval: tuple[float, float]
    true_match_rate: float
    pairs_positive: int
    pairs_negative: int
    identities: int = 0
    histogram: Mapping[str, list[float]] = field(default_factory=dict)
    roc: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class Threshold:
    """Thresholds by the kind of pair; the attributes of the main one (across domains where there is it) as its own.

    Attributes:
        fingerprint: of the model, see `Matcher`.
        wanted: the false match rate that was asked for.
        directions: by "across", "day", "night".
    """

    fingerprint: str
    wanted: float
    directions: Mapping[str, Direction]

    @property
    def main(self) -> Direction:
        return next(
            self.directions[kind] for kind in (ACROSS, WITHIN_DAY, WITHIN_NIGHT) if kind in self.directions
        )

    @property
    def value(self) -> float:
        return self.main.value

    @property
    def false_match_rate(self) -> float:
        return self.main.false_match_rate

    @property
    def interval(self) -> tuple[float, float]:
        return self.main.interval

    @property
    def pairs_positive(self) -> int:
        return self.main.pairs_positive

    @property
    def pairs_negative(self) -> int:
        return self.main.pairs_negative

    def of(self, query: Domain | int, match: Domain | int) -> float:
        """The threshold for a query and a match of these domains; the main one where that kind is not known."""
        kind = ACROSS if int(query) != int(match) else Domain(query).word
        return self.directions.get(kind, self.main).value

    def save(self, folder: str | Path) -> Path:
        """Write ``threshold.json`` into the folder of the run, whole or not at all."""
        path = Path(folder) / FILE
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))
        return path

    @classmethod
    def load(cls, folder: str | Path) -> Threshold | None:
        """That of a run, or of the run that a gallery was made with; None if none was found for this model yet.

        Raises:
            ValueError: the file is damaged.
        """
        if not store.is_gallery(folder):
            return cls._read(Path(folder) / FILE)
        about = store.read_manifest(folder)
        home = about["run"] or os.path.dirname(about["weights"])
        return cls.of_model(store.absolute(home, folder), about["fingerprint"])

    @classmethod
    def of_model(cls, run: str | Path, fingerprint: str) -> Threshold | None:
        """That of a run, if it is for the model ``fingerprint``; else None, which the log says."""
        path = Path(run) / FILE
        found = cls._read(path)
        if found is not None and found.fingerprint != fingerprint:
            logger.warning("%s is of another model, so it is not used; run `dnreid calibrate` again.", path)
            return None
        return found

    @classmethod
    def _read(cls, path: Path) -> Threshold | None:
        if not path.is_file():
            return None
        try:
            return cls._of(json.loads(path.read_text()))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is damaged; run `dnreid calibrate` again.") from error

    @classmethod
    def _of(cls, content: dict[str, Any]) -> Threshold:
        if content["version"] != VERSION or not content["directions"]:
            raise ValueError
        directions = {
            kind: Direction(
                **{
                    **one,
                    "interval": tuple(map(float, one["interval"])),
                    "roc": tuple(map(tuple, one["roc"])),
                }
            )
            for kind, one in content["directions"].items()
        }
        return cls(content["fingerprint"], float(content["wanted"]), directions)
