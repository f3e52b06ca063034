"""Write the table of docs/reliability.md from the lines that the stress runs wrote to a ledger (`make stress`)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from made_page import ROOT, cell, replace_part

DOCUMENT = ROOT / "docs" / "reliability.md"
HEAD = "| area | fault | tried | survived | lost |\n|---|---|---:|---:|---|\n"
FIELDS = {"area", "fault", "tried", "survived", "lost"}


def read_ledger(text: str) -> list[dict[str, Any]]:
    """The ledger's rows in the order of their areas' and faults' first lines; the last line of a repeated fault.

    Raises:
        ValueError: a line is not a row of a ledger, or more were survived than tried.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.keys() >= FIELDS or not 0 <= row["survived"] <= row["tried"]:
            raise ValueError(
                f"Line {number} of the ledger is {line[:80]!r}, not a row of a stress run; run make stress again."
            )
        rows[row["area"], row["fault"]] = row
    areas = list(dict.fromkeys(area for area, _ in rows))
    return sorted(rows.values(), key=lambda row: areas.index(row["area"]))


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown between the markers: one line per fault, a line of totals, when and with what it was tried."""
    lines = [
        f"| {cell(row['area'])} | {cell(row['fault'])} | {row['tried']:,} | {row['survived']:,} | "
        f"{cell(row['lost'] or 'nothing')} |\n"
        for row in rows
    ]
    tried, survived = (sum(row[key] for row in rows) for key in ("tried", "survived"))
    lost = "nothing" if tried == survived else f"see the {sum(r['tried'] > r['survived'] for r in rows)} rows"
    total = f"| **all** | | **{tried:,}** | **{survived:,}** | **{lost}** |\n"
    days = sorted({row["day"] for row in rows if "day" in row})
    where = sorted({row["where"] for row in rows if "where" in row})
    when = (
        f"\nTried {' to '.join(dict.fromkeys(days[:1] + days[-1:]))}; {'; '.join(where)}.\n" if days else ""
    )
    return HEAD + "".join(lines) + total + when


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledger", type=Path, help="file of JSON lines, DNREID_STRESS_LEDGER of the runs")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    args = parser.parse_args()
    try:
        rows = read_ledger(args.ledger.read_text(encoding="utf-8"))
        document = replace_part(args.document.read_text(encoding="utf-8"), "reliability", table(rows))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.document.write_text(document, encoding="utf-8")
    failed = [row["fault"] for row in rows if row["survived"] < row["tried"]]
    print(f"{args.document}: {len(rows)} faults, not survived: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
