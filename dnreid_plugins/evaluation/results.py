"""results.json: the metrics of a run, before and after training."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ..runtime.files import write_atomically

logger = logging.getLogger(__name__)

COLUMNS = ("Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP")


def read_json(path: Path) -> dict[str, Any]:
    """The file's content, or an empty dict if there is none or, with a warning, if it is damaged."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__} where a mapping is needed")
        if not _is_table(content.get("start", {})):
            raise ValueError(f"start is {content['start']!r:.60}, where a mapping of data sets is needed")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning(
            "%s cannot be read (%s); its content, such as the results before training, is lost and the file is "
            "begun anew.",
            path,
            error,
        )
        return {}
    return content


def _is_table(start: Any) -> bool:
    return isinstance(start, dict) and all(isinstance(found, dict) for found in start.values())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a temporary file that is flushed to the disk; a reader or a kill never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def update_results(output_dir: str, **entries: Any) -> None:
    """Merge ``entries`` into ``results.json`` of ``output_dir``; nothing happens for an empty folder name."""
    write_results(output_dir, {**read_results(output_dir), **entries})


def write_results(output_dir: str, content: dict[str, Any]) -> None:
    """Replace ``results.json`` of ``output_dir`` by ``content``; nothing happens for an empty folder name."""
    if output_dir:
        write_json(Path(output_dir) / "results.json", content)


def read_results(output_dir: str) -> dict[str, Any]:
    """The present content of ``results.json`` of ``output_dir``."""
    return read_json(Path(output_dir) / "results.json") if output_dir else {}


def log_results(
    where: str, tests: Sequence[str], results: Mapping[str, Any], *, start: Mapping[str, Any] | None = None
) -> None:
    """Log one table of the newest ``results``, with those of the ``start``; ``where``: the file that has them."""
    before = {(name, direction): metrics for name, direction, metrics in _rows(tests, start or {})}
    rows = []
    for name, direction, metrics in _rows(tests, results):
        if (name, direction) in before:
            rows.append((name, direction, "before", before[name, direction]))
        rows.append((name, direction, "after" if before else "", metrics))
    if not any(metrics for *_, metrics in rows):
        logger.info(
            "Nothing was scored, since no set of DATASETS.TESTS has identities; how well the clusters hang together "
            "is in health.jsonl of the run."
        )
        return
    columns = dict.fromkeys(
        [*(c for c in COLUMNS if any(c in metrics for *_, metrics in rows))]
        + [key for *_, metrics in rows for key in metrics if key != "metric"]
    )
    table = tabulate(
        [[*words, *[metrics.get(key) for key in columns]] for *words, metrics in rows],
        headers=["set", "direction", "training", *columns],
        floatfmt=".2f",
        tablefmt="github",
    )
    logger.info("Results in percent%s:\n%s", f" ({where})" if where else "", table)


def _rows(tests: Sequence[str], results: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """``(set, direction, metrics)``; a set whose evaluator knows no directions has one row without."""
    for name in tests:
        found = results.get(name, {})
        if not isinstance(found, dict):
            logger.warning("The result of %s is %r, which is no table and left out.", name, found)
            continue
        directions = {key: value for key, value in found.items() if isinstance(value, dict)}
        plain = {key: value for key, value in found.items() if not isinstance(value, dict)}
        for direction, metrics in ([("", plain)] if plain else []) + list(directions.items()):
            yield name, direction, metrics
