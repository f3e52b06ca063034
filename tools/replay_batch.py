"""Replay the batch on which a run failed: the loss of every head and the norms of its gradient."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tabulate import tabulate

from dnreid_plugins.engine.bad_batch import load_bad_batch, replay


def main(argv: list[str] | None = None) -> None:
    """Print the error, and one line per loss head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "files", nargs="+", help="bad_batch.pt of the run, and .rank1.pt ... if there are any"
    )
    parser.add_argument("--device", default="", help="cpu or cuda; default: as in the run")
    args = parser.parse_args(argv)
    try:
        content = load_bad_batch(args.files)
        reports = replay(content, args.device)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    print(content["reason"])
    print("\n".join(content["batch"].get("img_paths", [])))
    rows = [[r.name, r.loss, r.gradient_at_features, r.gradient_at_weights] for r in reports]
    print(tabulate(rows, headers=["head", "loss", "gradient at features", "gradient at weights"]))


if __name__ == "__main__":
    main()
