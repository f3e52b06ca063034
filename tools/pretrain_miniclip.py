"""Pre-train the miniature CLIP that DNMini's "Bridging Day and Night" starts from, on rendered source vehicles.

    python tools/pretrain_miniclip.py [--output FOLDER] [--world wild] [--steps N] [--num-ids N] [--threads N]

Writes miniclip.json and miniclip.safetensors; without --output they replace the shipped ones.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch

import dnreid_plugins
from dnreid_plugins.dnmini.pretrain_clip import ClipPretrainOptions, pretrain_clip, write_miniclip
from dnreid_plugins.dnmini.worlds import WORLDS


def main() -> None:
    shipped = Path(dnreid_plugins.__file__).parent / "dnmini" / "weights"
    default = ClipPretrainOptions()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=shipped)
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--num-ids", type=int, default=default.num_ids, help="rendered source vehicles")
    parser.add_argument("--world", choices=list(WORLDS), default=default.world, help="whose vehicles")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    options = replace(default, steps=args.steps, num_ids=args.num_ids, world=args.world)
    description, state = pretrain_clip(options)
    write_miniclip(args.output, description, state, options)
    size = (args.output / "miniclip.safetensors").stat().st_size
    print(f"{args.output}: {size / 2**20:.2f} MiB, {len(description.vocabulary or ())} tokens")


if __name__ == "__main__":
    main()
