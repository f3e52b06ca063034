"""Write the table of docs/reliability.md from the lines that the stress runs wrote to a ledger (`make stress`)."""

from __future__ import annotations

import argparse
import json
import re
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


def rows_of(document: str) -> list[dict[str, Any]]:
    """The rows of the table that stands in the document, in its order, without day and place."""
    rows = []
    part = document.partition("<!-- reliability begin -->")[2].partition("<!-- reliability end -->")[0]
    for line in part.splitlines():
        cells = [one.strip().replace("\\|", "|") for one in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[2].replace(",", "").isdigit():
            tried, survived = (int(one.replace(",", "")) for one in cells[2:4])
            row = {"area": cells[0], "fault": cells[1], "tried": tried, "survived": survived}
            rows.append({**row, "lost": "" if cells[4] == "nothing" else cells[4]})
    return rows


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
    parser.add_argument("--keep", action="store_true", help="keep the table's rows that the ledger has not")
    args = parser.parse_args()
    try:
        document, ledger = (path.read_text(encoding="utf-8") for path in (args.document, args.ledger))
        kept = "".join(f"{json.dumps(row)}\n" for row in rows_of(document)) if args.keep else ""
        rows = read_ledger(kept + ledger)
        document = replace_part(document, "reliability", table(rows))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.document.write_text(document, encoding="utf-8")
    failed = [row["fault"] for row in rows if row["survived"] < row["tried"]]
    print(f"{args.document}: {len(rows)} faults, not survived: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
