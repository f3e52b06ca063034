"""Run a table of a project on DNMini, several seeds per row, and write the measured table into its README.

    python tools/ablation.py --project CIA --table 2 --seeds 0 1 2 3 4 --jobs 2

It can be interrupted and restarted: a finished run (``results.json`` with all its epochs) is not repeated, an
interrupted one is resumed from its last checkpoint. ``projects/<project>/tables.yml`` lists the rows of a table.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.report.ablation import load_table, run_table, write_table

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--project", required=True, help="folder below projects/ or configs/ with a tables.yml"
    )
    parser.add_argument("--table", required=True, help="name of a table in tables.yml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--logs", type=Path, default=ROOT / "logs" / "ablation")
    parser.add_argument("--report-only", action="store_true", help="write the table from the runs that exist")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides for every run, after --")
    args = parser.parse_args()
    table = load_table(ROOT, args.project, args.table)
    logs = args.logs / args.project
    overrides = [word for word in args.opts if word != "--"]
    if not args.report_only:
        run_table(ROOT, table, logs, seeds=args.seeds, jobs=args.jobs, overrides=overrides)
    print(write_table(table, logs, seeds=args.seeds))


if __name__ == "__main__":
    main()
