"""What a search found, as text, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from .results import Result
from .threshold import Threshold

COLUMNS = ("query", "query_domain", "rank", "score", "accepted", "match", "domain", "id")


def rows_of(results: Sequence[Result], threshold: Threshold | None) -> list[dict[str, Any]]:
    """One row per match; ``accepted`` is None without a threshold."""
    return [
        {
            "query": result.path,
            "query_domain": result.domain.word,
            "rank": rank,
            "score": round(match.score, 6),
            "accepted": None
            if threshold is None
            else match.score >= threshold.of(result.domain, match.domain),
            "match": match.path,
            "domain": match.domain.word,
            "id": match.id,
        }
        for result in results
        for rank, match in enumerate(result.matches, start=1)
    ]


def as_csv(results: Sequence[Result], threshold: Threshold | None) -> bytes:
    """A header and one line per match, UTF-8."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    for row in rows_of(results, threshold):
        accepted = row["accepted"]
        writer.writerow({**row, "accepted": "" if accepted is None else str(accepted).lower()})
    return text.getvalue().encode("utf-8", "surrogateescape")


def as_json(results: Sequence[Result], threshold: Threshold | None) -> bytes:
    """``{"threshold": {kind: value} or null, "matches": [row, ...]}``."""
    values = None if threshold is None else {k: one.value for k, one in threshold.directions.items()}
    content = {"threshold": values, "matches": rows_of(results, threshold)}
    return json.dumps(content, indent=1).encode()


def as_text(results: Sequence[Result], threshold: Threshold | None, *, queries: int) -> str:
    """A table of the first ``queries`` queries for a terminal; a match below the threshold is in brackets."""
    lines = []
    for row in rows_of(results[:queries], threshold):
        first = row["rank"] == 1
        score = f"{row['score']:.3f}"
        lines.append(
            [
                printable(row["query"]) if first else "",
                row["rank"],
                f"({score})" if row["accepted"] is False else score,
                printable(row["match"]),
                row["domain"],
                printable(row["id"]),
            ]
        )
    header = ["query", "rank", "score", "match", "domain", "id"]
    text = tabulate(lines, header, tablefmt="simple", disable_numparse=True)
    hidden = len(results) - queries
    return f"{text}\n... and {hidden} more queries; --out writes all of them." if hidden > 0 else text


def printable(text: str) -> str:
    """``text`` without control characters, which a terminal would obey."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def unicode_name(name: str) -> str:
    """A file name, which may hold bytes that are no text, as text."""
    return name.encode("utf-8", "replace").decode()
