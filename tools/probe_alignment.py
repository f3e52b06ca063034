"""What MAA's gradient does to the features of a trained run, and what plain MMD's does.

    python tools/probe_alignment.py logs/CIA/dnmini --weights model_0005.pth

Draws batches of the training images from the run's clusters (``clusters.csv``), and takes the gradient of L_MAA and of
MMD^2 at their unit features. Printed are the cosine of the two gradients, and how the mean cosine of pairs of images
changes per unit step against either gradient, on the unit sphere: of one domain and one cluster, of one domain and
different clusters, of day and night images of the same vehicle and of different ones (true identities, for this figure
only).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from pathlib import Path

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
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.meta_arch import StudentFeatures
from dnreid_plugins.runtime.config_files import merge_with_suggestions

PAIRS = ("same cluster", "same domain, other cluster", "across, same vehicle", "across, other vehicle")


def features_of(run: Path, weights: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit features ``(N, D)``, domains, clusters and true identities ``(N,)`` of the run's training images."""
    cfg = get_cfg()
    merge_with_suggestions(cfg, run / "config.yaml", ["OUTPUT_DIR", "", "DATALOADER.NUM_WORKERS", "0"])
    cfg.freeze()
    configure(cfg)
    data, model = build_train_data(cfg), build_model(cfg)
    state = torch.load(run / weights, map_location="cpu", weights_only=False)["model"]
    model.load_state_dict(state, strict=False)
    student = StudentFeatures(model, feature="after")
    features = F.normalize(extract_features(student, data.inference_loader, flip=False), dim=1)
    with (run / "clusters.csv").open() as file:
        cluster = {row["path"]: int(row["cluster"]) for row in csv.DictReader(file)}
    clusters = torch.tensor([cluster[item[0]] for item in data.items])
    return features, data.images.domains, clusters, torch.as_tensor(data.images.true_ids)


def draw(places: Tensor, clusters: Tensor, rng: np.random.Generator) -> Tensor:
    """Four images of each of eight clusters, as CIA's batches have them."""
    names, sizes = torch.unique(clusters[places][clusters[places] >= 0], return_counts=True)
    chosen = rng.choice(names[sizes >= 4].numpy(), 8, replace=False)
    return torch.cat([torch.from_numpy(rng.choice(places[clusters[places] == c], 4, False)) for c in chosen])


def changes(unit: Tensor, gradient: Tensor, masks: dict[str, Tensor]) -> dict[str, float]:
    """Change of the mean cosine of the pairs of each mask per unit step against the gradient, on the sphere."""
    step = -(gradient - (gradient * unit).sum(1, keepdim=True) * unit)
    step = step / step.norm()
    moved = step @ unit.T
    return {name: float((moved + moved.T)[mask].mean()) for name, mask in masks.items()}


def probe(run: Path, weights: str, batches: int) -> dict[str, list[float]]:
    """Figures of each batch: "cosine" of the two gradients and those of `changes` for each."""
    features, domains, clusters, ids = features_of(run, weights)
    places = [torch.nonzero(domains == domain).flatten() for domain in Domain]
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(batches):
        day, night = (draw(own, clusters, rng) for own in places)
        rows = [features[own].clone().requires_grad_() for own in (day, night)]
        targets = [clusters[own] for own in (day, night)]
        losses = {"MAA": maa_loss(*rows, *targets).loss, "MMD": mmd2(*rows)}
        gradients = {name: torch.cat(torch.autograd.grad(loss, rows)) for name, loss in losses.items()}
        both, where = torch.cat([day, night]), torch.cat([domains[day], domains[night]])
        same_domain = where[:, None] == where[None]
        same_cluster = same_domain & (clusters[both][:, None] == clusters[both][None])
        same_vehicle = ids[both][:, None] == ids[both][None]
        other = ~torch.eye(len(both), dtype=torch.bool)
        masks = (
            same_cluster & other,
            same_domain & ~same_cluster,
            ~same_domain & same_vehicle,
            ~same_domain & ~same_vehicle,
        )
        present = {name: mask for name, mask in zip(PAIRS, masks, strict=True) if mask.any()}
        flat = [gradient.flatten() for gradient in gradients.values()]
        found["cosine of the two gradients"].append(float(F.cosine_similarity(*flat, dim=0)))
        for loss, gradient in gradients.items():
            for name, change in changes(features[both], gradient, present).items():
                found[f"{loss}: {name}"].append(change)
    return found


def main(argv: list[str] | None = None) -> None:
    """Print a table: figure, mean and standard deviation over the batches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run of CIA or one of its parts")
    parser.add_argument("--weights", default="model_final.pth", help="checkpoint in that folder")
    parser.add_argument("--batches", type=int, default=200)
    args = parser.parse_args(argv)
    found = probe(args.run, args.weights, args.batches)
    rows = [[name, np.mean(values), np.std(values), len(values)] for name, values in found.items()]
    print(tabulate(rows, headers=["figure", "mean", "deviation", "batches"], floatfmt=".4f"))


if __name__ == "__main__":
    main()
