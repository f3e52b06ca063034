"""Write the table of docs/reliability.md from the lines that the stress runs left in a ledger (`make stress`)."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- reliability begin -->", "<!-- reliability end -->"
HEAD = "| area | fault | tried | survived | lost |\n|---|---|---:|---:|---|\n"
FIELDS = {"area", "fault", "tried", "survived", "lost"}


def read_ledger(text: str) -> list[dict[str, Any]]:
    """The ledger's rows, areas and faults in the order of their first line; of a fault tried again the last line.

    Raises:
        ValueError: a line is no row of a ledger, or survived more than was tried.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not row.keys() >= FIELDS or not 0 <= row["survived"] <= row["tried"]:
            raise ValueError(
                f"Line {number} of the ledger is {line[:80]!r}, no row of a stress run; run make stress afresh."
            )
        rows[row["area"], row["fault"]] = row
    areas = list(dict.fromkeys(area for area, _ in rows))
    return sorted(rows.values(), key=lambda row: areas.index(row["area"]))


def rows_of(document: str) -> list[dict[str, Any]]:
    """The rows of the table that stands in the document, in its order, without day and place."""
    rows = []
    for line in document.partition(BEGIN)[2].partition(END)[0].splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[2].replace(",", "").isdigit():
            tried, survived = (int(cell.replace(",", "")) for cell in cells[2:4])
            row = {"area": cells[0], "fault": cells[1], "tried": tried, "survived": survived}
            rows.append({**row, "lost": "" if cells[4] == "nothing" else cells[4]})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The markdown between the markers: one line per fault, a line of totals, when and with what it was tried."""
    lines = [
        f"| {_cell(row['area'])} | {_cell(row['fault'])} | {row['tried']:,} | {row['survived']:,} | "
        f"{_cell(row['lost'] or 'nothing')} |\n"
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


def with_table(document: str, content: str) -> str:
    """``document`` with ``content`` between the two markers.

    Raises:
        ValueError: they are not there once each, in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(f"The document needs one {BEGIN} and after it one {END}; put them back.")
    return f"{before}{BEGIN}\n{content}{END}{after}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


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
        document = with_table(document, table(rows))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    args.document.write_text(document, encoding="utf-8")
    failed = [row["fault"] for row in rows if row["survived"] < row["tried"]]
    print(f"{args.document}: {len(rows)} faults, not survived: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
