"""What losses do in a trained run: figures behind the discussions in projects/*/README.md.

    python tools/probe.py alignment logs/CIA/dnmini --weights model_0005.pth
    python tools/probe.py prototypes logs/BridgingDayNight/dnmini --top-k 5
    python tools/probe.py texts logs/BridgingDayNight/dnmini
    python tools/probe.py figures logs/CIA/dnmini --names health/DGM/edges audit/loss_maa_share

What the discussions quote stands in docs/probes.md. The training images are labelled anew from the features of the
given weights, as the run's config says.

alignment: gradients of CIA's L_MAA and of plain MMD^2 at the unit features of batches of 8 clusters x 4 images of each
domain. Printed are the cosine of the two gradients, and how the mean cosine of pairs of images changes per unit step
against either, on the unit sphere: of one domain and one cluster, of one domain and different clusters, of day and
night images of the same vehicle and of different ones.

texts: the prompts of a run of Bridging (stage1.pth beside the weights; without it those of the start). Printed is the
mean cosine of the text centroids of different clusters, and of texts with the centroid of their cluster.

prototypes: the mutual neighbours that Bridging's CPML attracts and the one-sided ones that it repels. Printed is the
share of these pairs of clusters that mostly show the same vehicle. True identities are used for such figures only.

figures: those of the run's metrics.json with the given names, by iteration; no images are read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model
from tabulate import tabulate
from torch import Tensor

from dnreid_plugins.data.datasets import configure
from dnreid_plugins.data.train_data import build_train_data
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.functional.losses.adaptive_alignment import maa_loss
from dnreid_plugins.functional.losses.mmd import mmd2
from dnreid_plugins.functional.matching.mutual_topk import mutual_topk_partition
from dnreid_plugins.functional.matching.quality import majority_identity
from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.labels.build import build_labels
from dnreid_plugins.modeling.clip.image_tower import unit_parts
from dnreid_plugins.modeling.clip.prompts import build_prompt_learner
from dnreid_plugins.modeling.clip.text_tower import build_text_tower
from dnreid_plugins.modeling.meta_arch import StudentFeatures
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.weight_files import read_weight_file

PAIRS = ("same cluster", "same domain, other cluster", "across, same vehicle", "across, other vehicle")
Figures = dict[str, list[float]]


class Probed:
    """A run's training images labelled by the features of some of its weights; true identities ``ids`` ``(N,)``."""

    def __init__(self, run: Path, weights: str) -> None:
        self.run, self.cfg = run, get_cfg()
        merge_with_suggestions(
            self.cfg, run / "config.yaml", ["OUTPUT_DIR", "", "DATALOADER.NUM_WORKERS", "0"]
        )
        self.cfg.freeze()
        configure(self.cfg)
        self.data, self.model = build_train_data(self.cfg), build_model(self.cfg)
        self.model.load_state_dict(read_weight_file(run / weights)["model"], strict=False)
        cluster, last = self.cfg.CLUSTER, self.cfg.SOLVER.MAX_EPOCH
        features = self.features(cluster.FEATURE, flip=cluster.FLIP)
        self.epoch = build_labels(self.cfg)(features, self.data.images, number=last, last=last)
        self.ids = np.asarray(self.data.images.true_ids)

    def features(self, feature: Any, *, flip: bool = False) -> Tensor:
        return extract_features(
            StudentFeatures(self.model, feature=feature), self.data.inference_loader, flip=flip
        )


def draw(labels: Tensor, rng: np.random.Generator) -> Tensor:
    """Places of four images of each of eight clusters, as CIA's batches have them."""
    names, sizes = torch.unique(labels[labels >= 0], return_counts=True)
    chosen = rng.choice(names[sizes >= 4].numpy(), 8, replace=False)
    places = [torch.nonzero(labels == name).flatten().numpy() for name in chosen]
    return torch.from_numpy(np.concatenate([rng.choice(own, 4, replace=False) for own in places]))


def changes(unit: Tensor, gradient: Tensor, masks: dict[str, Tensor]) -> dict[str, float]:
    """Change of the mean cosine of the pairs of each mask per unit step against the gradient, on the sphere."""
    step = -(gradient - (gradient * unit).sum(1, keepdim=True) * unit)
    step = step / step.norm()
    moved = step @ unit.T
    return {name: float((moved + moved.T)[mask].mean()) for name, mask in masks.items()}


def alignment(probed: Any, *, batches: int = 200, **_: Any) -> Figures:
    """The cosine of the two gradients and `changes` for each, of every batch."""
    epoch: Epoch = probed.epoch
    rng = np.random.default_rng(0)
    found: Figures = defaultdict(list)
    parts = [epoch.day, epoch.night]
    for _ in range(batches):
        places = [draw(part.labels, rng) for part in parts]
        rows = [F.normalize(p.features[own], dim=1).requires_grad_() for p, own in zip(parts, places)]
        targets = [part.labels[own] for part, own in zip(parts, places)]
        losses = {"MAA": maa_loss(*rows, *targets).loss, "MMD": mmd2(*rows)}
        gradients = {name: torch.cat(torch.autograd.grad(loss, rows)) for name, loss in losses.items()}
        flat = [gradient.flatten() for gradient in gradients.values()]
        found["cosine of the two gradients"].append(float(F.cosine_similarity(*flat, dim=0)))
        vehicles = torch.from_numpy(
            probed.ids[torch.cat([p.indices[own] for p, own in zip(parts, places)]).numpy()]
        )
        masks = _masks(torch.cat(targets), vehicles)
        for loss, gradient in gradients.items():
            for name, change in changes(torch.cat(rows).detach(), gradient, masks).items():
                found[f"{loss}: {name}"].append(change)
    return found


def _masks(targets: Tensor, vehicles: Tensor) -> dict[str, Tensor]:
    """Which pairs of a batch, its first half by day, are of each kind of `PAIRS`, kinds without a pair left out."""
    night = torch.arange(len(targets)) >= len(targets) // 2
    same_domain = night[:, None] == night[None]
    same_cluster = same_domain & (targets[:, None] == targets[None])
    same_vehicle = vehicles[:, None] == vehicles[None]
    other = ~torch.eye(len(targets), dtype=torch.bool)
    kinds = (
        same_cluster & other,
        same_domain & ~same_cluster,
        ~same_domain & same_vehicle,
        ~same_domain & ~same_vehicle,
    )
    return {name: mask for name, mask in zip(PAIRS, kinds, strict=True) if mask.any()}


def prototypes(probed: Any, *, top_k: int = 5, **_: Any) -> Figures:
    """Shares of right pairs, in percent, and how many pairs a cluster has."""
    epoch: Epoch = probed.epoch
    similarity = epoch.day.centroids @ epoch.night.centroids.T
    day, night = (_majority(part, probed.ids) for part in (epoch.day, epoch.night))
    right = day[:, None] == night[None]
    found = mutual_topk_partition(similarity, top_k)
    nearest = torch.zeros_like(right).scatter_(1, similarity.argmax(1, keepdim=True), True)
    groups = {
        "all pairs": torch.ones_like(right),
        "nearest of a day cluster": nearest,
        f"mutual, k = {top_k} (attracted)": found.positives,
        "mutual, k = 1": mutual_topk_partition(similarity, 1).positives,
        f"one-sided, k = {top_k} (repelled)": found.hard_day | found.hard_night,
    }
    figures = {
        f"{name}: right, %": [100 * float(right[mask].float().mean())] for name, mask in groups.items()
    }
    each = 2 / sum(similarity.shape)
    figures |= {f"{name}: per cluster": [each * float(mask.sum())] for name, mask in groups.items()}
    return figures


def _majority(part: Clusters, ids: np.ndarray) -> Tensor:
    return majority_identity(part.labels, torch.from_numpy(ids[part.indices.numpy()]), part.num_clusters)


@torch.no_grad()
def texts(probed: Any, **_: Any) -> Figures:
    """Cosines of text centroids of different clusters, and of texts with their own; a figure of each cluster."""
    text = build_text_tower(probed.cfg)
    prompts = build_prompt_learner(probed.cfg, text, probed.data.images.domains)
    learned = probed.run / "stage1.pth"
    if learned.is_file():
        prompts.load_state_dict(read_weight_file(learned)["stage"]["prompts"])
    pooled = probed.features("before")
    inputs = unit_parts(pooled, (pooled.shape[1] - text.output_dim, text.output_dim))
    rows = torch.cat(
        [
            prompts.text_features(text, places, inputs[places])
            for places in torch.arange(len(pooled)).split(256)
        ]
    )
    found: Figures = {}
    for name, part in (("day", probed.epoch.day), ("night", probed.epoch.night)):
        own = F.normalize(rows[part.indices], dim=1)
        centroids = make_clusters(part.labels, own, part.indices).centroids
        between = (centroids @ centroids.T)[~torch.eye(len(centroids), dtype=torch.bool)]
        kept = part.labels >= 0
        within = (own[kept] * centroids[part.labels[kept]]).sum(1)
        found[f"{name}: centroids of different clusters"] = between.tolist()
        found[f"{name}: a text and its centroid"] = within.tolist()
    return found


def figures(run: Path, names: list[str]) -> str:
    """A row per iteration at which the run wrote one of them.

    Raises:
        SystemExit: the run has no figure of these names.
    """
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    known: set[str] = set()
    for line in (run / "metrics.json").read_text().splitlines():
        record = json.loads(line)
        known |= record.keys()
        if found := {name: record[name] for name in names if name in record}:
            rows[record["iteration"]] |= found
    if unknown := sorted(set(names) - known):
        sys.exit(f"{run / 'metrics.json'} has no {unknown[0]!r}; it has {sorted(known)}.")
    lines = [[place, *(row.get(name) for name in names)] for place, row in sorted(rows.items())]
    return tabulate(lines, headers=["iteration", *names], floatfmt=".4g", tablefmt="github")


def caption(run: Path, weights: str) -> str:
    """Which run this is: its weights, data, seeds, config and code, as its results.json has them."""
    cfg = get_cfg()
    merge_with_suggestions(cfg, run / "config.yaml")
    made = json.loads((run / "results.json").read_text())
    data = f"{cfg.DATASETS.TESTS[0]}, rendering {cfg.DATASETS.DNMINI_SEED}, run seed {made['seed']}"
    return f"*{weights}; {data}; config {made['config_hash']}; {made['code_version']}.*"


PROBES = {"texts": texts, "alignment": alignment, "prototypes": prototypes}


def main(argv: list[str] | None = None) -> None:
    """Print a table: figure, mean, standard deviation, and of how many values (batches, clusters or pairs)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("probe", choices=[*PROBES, "figures"])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--weights", default="model_final.pth", help="checkpoint in that folder")
    parser.add_argument("--batches", type=int, default=200, help="of alignment")
    parser.add_argument("--top-k", type=int, default=5, help="of prototypes")
    parser.add_argument("--names", nargs="+", default=[], help="of figures")
    args = parser.parse_args(argv)
    if args.probe == "figures":
        print(f"{figures(args.run, args.names)}\n\n{caption(args.run, 'metrics.json')}")
        return
    found = PROBES[args.probe](Probed(args.run, args.weights), batches=args.batches, top_k=args.top_k)
    rows = [[name, np.mean(values), np.std(values), len(values)] for name, values in found.items()]
    table = tabulate(rows, headers=["figure", "mean", "deviation", "of"], floatfmt=".4g", tablefmt="github")
    print(f"{table}\n\n{caption(args.run, args.weights)}")


if __name__ == "__main__":
    main()
