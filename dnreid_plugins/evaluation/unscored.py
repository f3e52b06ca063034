"""What a run can say about itself where no data set has identities: figures of its labels, and why there is no mAP."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .results import update_results

logger = logging.getLogger(__name__)

NO_MAP = (
    "No mAP can be given: it compares retrieved images with known identities, and no set of DATASETS.TESTS has any. "
    "What follows needs none; it says how distinct and how steady the clusters are, not how many of them are right."
)
#: Figure of the health line -> what it is.
FIGURES = {
    "clusters": "clusters",
    "clustered": "images in a cluster (%)",
    "silhouette": "silhouette, cosine (-1 to 1)",
    "stability": "labels kept since the epoch before (ARI)",
}


def report_label_quality(folder: str) -> None:
    """Log the figures of the run's first and newest epoch and add them to ``results.json`` as ``label_quality``.

    Nothing is said before the first epoch, or of a run without an ``OUTPUT_DIR``.

    Args:
        folder: the ``OUTPUT_DIR`` with the ``health.jsonl``.
    """
    rows = _health(folder)
    if not rows:
        return
    first, last = rows[0], rows[-1]
    table = [
        [domain, words, first.get(f"{domain}/{key}"), last.get(f"{domain}/{key}")]
        for domain in ("day", "night")
        for key, words in FIGURES.items()
    ]
    table.append(["both", "clusters matched across domains (%)", first.get("matched"), last.get("matched")])
    heads = ["", "", f"epoch {first['epoch']}", f"epoch {last['epoch']}"]
    text = tabulate(table, headers=heads, floatfmt=".4g", tablefmt="github", missingval="–")
    logger.info("%s\n%s", NO_MAP, text)
    quality = {f"epoch {row['epoch']}": _shown(row) for row in (first, last)}
    update_results(folder, label_quality={"reason": NO_MAP, **quality})


def _health(folder: str) -> list[dict[str, Any]]:
    path = Path(folder) / "health.jsonl"
    if not folder or not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = [f"{domain}/{key}" for domain in ("day", "night") for key in FIGURES]
    return {key: row[key] for key in (*keys, "matched") if key in row}
