"""Results of a run as rows of a table: before and after training, by set and direction, with the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...evaluation.results import COLUMNS
from .folder import RunFolder
from .material import Material


class ResultRow(NamedTuple):
    """A search direction: ``{metric: percent}`` before the training (empty where it is not known) and after it."""

    direction: str
    before: dict[str, float]
    after: dict[str, float]


class SetResults(NamedTuple):
    """The results of one test set; ``protocol`` in words, "" where it is not known."""

    name: str
    protocol: str
    columns: list[str]
    rows: list[ResultRow]


def results_of(run: RunFolder, material: Material | None = None) -> list[SetResults]:
    """The results of every test set that was scored."""
    found = []
    for name in run.tests:
        after = directions(run.results.get(name))
        if not after:
            continue
        before = directions(run.results.get("start", {}).get(name))
        rows = [ResultRow(key, before.get(key, {}), value) for key, value in after.items()]
        columns = [one for one in COLUMNS if any(one in row.after for row in rows)]
        found.append(SetResults(name, protocol_of(run, name, material), columns, rows))
    return found


def protocol_of(run: RunFolder, name: str, material: Material | None = None) -> str:
    """The protocol of a set in a sentence, from the run's results or from its data; "" where neither has it."""
    kept = run.results.get("protocol", {})
    if isinstance(kept, dict) and name in kept:
        return str(kept[name])
    return str(material.tests[name].protocol) if material is not None and name in material.tests else ""


def directions(found: Any) -> dict[str, dict[str, float]]:
    """``{direction: {metric: percent}}``; a set whose evaluator knows no directions has one, "all"."""
    if not isinstance(found, Mapping) or not found:
        return {}
    nested = {key: _numbers(value) for key, value in found.items() if isinstance(value, Mapping)}
    plain = _numbers(found)
    return ({"all": plain} if plain else {}) | nested


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items() if isinstance(value, (int, float))}
