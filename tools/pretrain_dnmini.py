"""Pre-train DNMini's initial model on coarse attributes of other vehicles, by day only, and write its weights.

python tools/pretrain_dnmini.py                  # rewrites the file that the repository ships
python tools/pretrain_dnmini.py --output my.safetensors --epochs 2
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.dnmini.pretrain import PretrainOptions, pretrain, weights_path, write_weights
from dnreid_plugins.dnmini.worlds import WORLDS


def main() -> None:
    default = PretrainOptions()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default=default.backbone, help="a builder of fast-reid's registry")
    parser.add_argument("--depth", default=default.depth)
    parser.add_argument("--num-ids", type=int, default=default.num_ids)
    parser.add_argument("--images-per-id", type=int, default=default.images_per_id)
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--world", choices=list(WORLDS), default=default.world, help="whose vehicles")
    parser.add_argument(
        "--half", action="store_true", help="write float16; a model of float32 reads it exactly"
    )
    parser.add_argument("--output", type=Path, help="default: the shipped file of this backbone")
    args = vars(parser.parse_args())
    output = args.pop("output")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = PretrainOptions(**args)
    path = output or weights_path(options)
    try:
        write_weights(pretrain(options), path, options)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
