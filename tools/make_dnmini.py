"""Render the embedded data set DNMini into a folder, or draw a contact sheet of it.

    python tools/make_dnmini.py datasets                        # datasets/dnmini, the published set
    python tools/make_dnmini.py datasets --seed 1000            # datasets/dnmini-seed1000, for calibration
    python tools/make_dnmini.py datasets --seed 1 --name dnmini2    # datasets/dnmini2-seed1, of protocol 2
    python tools/make_dnmini.py datasets --seed 1 --name dnminiwild # datasets/dnminiwild-seed1, the second world
    python tools/make_dnmini.py datasets --sheet docs/dnmini.png
    python tools/make_dnmini.py datasets --seed 1000 --name dnminiwild --vehicles 6 --sheet docs/dnminiwild.png

Not needed before training: the data set is rendered on first use.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.dnmini import contact_sheet, ensure_dnmini
from dnreid_plugins.dnmini.write import SIZES

NUM_COLOURS = 64  # keeps the file small; the night images' noise hides the difference


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder that holds the data sets ($FASTREID_DATASETS)")
    parser.add_argument("--seed", type=int, default=0, help="0 is the set that results are reported on")
    parser.add_argument(
        "--name",
        choices=list(SIZES),
        default="dnmini",
        help="dnmini2: the sizes of protocol 2; dnminiwild: the second world",
    )
    parser.add_argument("--vehicles", type=int, default=8, help="rows of the sheet")
    parser.add_argument("--sheet", type=Path, help="draw vehicles of this seed into this PNG instead")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if args.sheet is None:
            print(ensure_dnmini(args.root, seed=args.seed, name=args.name))
        else:
            world = SIZES[args.name].get("world", "dnmini")
            sheet = contact_sheet(seed=args.seed, num_ids=args.vehicles, world=world)
            sheet.quantize(NUM_COLOURS, kmeans=3, dither=Image.Dither.NONE).save(args.sheet, optimize=True)
            print(args.sheet)
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
