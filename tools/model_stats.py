"""Parameters and multiply-adds per module of "Bridging Day and Night", next to the paper's.

python tools/model_stats.py [--model ViT-B-16] [--size 256 256] [--bias-hidden 80]
"""

from __future__ import annotations

import argparse

import dnreid_plugins  # noqa: F401
from dnreid_plugins.report.model_stats import prompted_clip_stats, table

# Table 7 of "Bridging Day and Night", of the kind `layer_macs`: multiply-adds and parameters.
PAPER_BRIDGING = {
    "image encoder": (14.70e9, 85.65e6),
    "text encoder": (1.94e9, 38.13e6),
    "dynamic-bias net": (143.36e3, 0.139e6),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ViT-B-16", help="as MODEL.BACKBONE.CLIP.MODEL")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--bias-hidden", type=int, default=80)
    args = parser.parse_args()
    rows = prompted_clip_stats(args.model, input_size=tuple(args.size), bias_hidden=args.bias_hidden)
    print(table(rows, PAPER_BRIDGING if args.model == "ViT-B-16" else None))


if __name__ == "__main__":
    main()
