"""Run a table of a project on DNMini, several seeds per row, and write the measured table into its README.

    python tools/ablation.py --project CIA --table 2 --seeds 0 1 2 3 4 --jobs 2
    python tools/ablation.py --project CIA --table 2 --protocol DNMini/protocol2 --data-seeds 1 2 3 --seeds 0 1 \\
        --difference-to Base

It can be interrupted and restarted, and runs in the background with `nohup ... &`: a finished run is not repeated, an
interrupted one is resumed from its last checkpoint. A run is known by its whole config, and its figures are kept with
the code and library versions that made them: after a change of either it is repeated, since a table never mixes
them. ``projects/<project>/tables.yml`` lists the rows of a table. With overrides after ``--`` the table is printed
and kept in the logs, but not written into the README; nor is one that compares with another row than it names there.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.report.ablation import Results, power_lines, run_table, write_table
from dnreid_plugins.report.runs import plan
from dnreid_plugins.report.store import read_json
from dnreid_plugins.report.tables import load_table

ROOT = Path(__file__).resolve().parents[1]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--project", required=True, help="folder below projects/ or configs/ with a tables.yml"
    )
    parser.add_argument("--table", required=True, help="name of a table in tables.yml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="run seeds")
    parser.add_argument("--data-seeds", type=int, nargs="+", default=[0], help="seeds of the renderings")
    parser.add_argument("--protocol", help="a config whose changes over its base are set in every row")
    parser.add_argument("--difference-to", help="name of the row that the others are compared with")
    parser.add_argument("--power", action="store_true", help="print what 1 mAP needs, from these runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time, one thread each")
    parser.add_argument("--logs", type=Path, default=ROOT / "logs" / "ablation")
    parser.add_argument("--report-only", action="store_true", help="write the table from the runs that exist")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="config overrides for every run, after --")
    return parser.parse_args()


def main() -> None:
    args = parse()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    overrides = [word for word in args.opts if word != "--"]
    logs = args.logs / args.project
    try:
        table = load_table(ROOT, args.project, args.table)
        asked = {"protocol": args.protocol, "difference_to": args.difference_to}
        if args.protocol not in (None, table.protocol):
            table = replace(table, title=f"{table.title}, measured by {args.protocol}")
        compared_anew = table.difference_to and args.difference_to not in (None, table.difference_to)
        table = replace(table, **{name: value for name, value in asked.items() if value is not None})
        table.reference()
        runs = plan(ROOT, table, data_seeds=args.data_seeds, seeds=args.seeds, overrides=overrides)
        store = logs / "results.json" if overrides else table.store
        if not args.report_only:
            run_table(ROOT, runs, logs, store, jobs=args.jobs)
        print(write_table(table, runs, logs, store, readme=not (overrides or compared_anew)))
        if args.power:
            print("\n".join(power_lines(Results(table, runs, read_json(store)))))
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
