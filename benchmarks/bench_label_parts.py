"""Every label source and refiner beside the clusters of each domain: time and memory.

``--num 106365 --dim 2048`` is DN-Wild's size. Made-up features, two thirds of them day images. Each part works in a
process of its own on true identities as clusters, where it needs some. Seconds are processor seconds, so with
``--threads 1`` other work on the machine changes them little.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from measure import Job, Report, Work, finish, interleaved, parser
from synthetic import query_and_gallery

import dnreid_plugins  # noqa: F401
from dnreid_plugins.functional.types import Domain, Epoch, TrainImages
from dnreid_plugins.labels import (
    DensityRelabel,
    DomainClusters,
    JointClusters,
    MajoritySmooth,
    TransferByVote,
    UnionClusters,
)
from dnreid_plugins.labels.base import make_clusters, without_gaps
from dnreid_plugins.modeling.loss_heads import NeighbourTargets
from dnreid_plugins.modeling.matchers import ProgressiveMatcher
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts

#: DN-Wild's training images per identity.
IMAGES = 106_365 / 2_286
SECONDS = "processor_seconds"


def _soft_targets(epoch: Epoch) -> Epoch:
    head = NeighbourTargets(weight=((1, 1.0),), matcher=ProgressiveMatcher(max_rounds=3))
    Parts(memory=ClusterMemory(), losses={"NeighbourTargets": head}).begin_epoch(epoch)
    return epoch


Part = Callable[[Epoch, torch.Tensor, TrainImages], object]
PARTS: dict[str, Part] = {
    "DomainClusters": lambda epoch, features, images: DomainClusters()(features, images, epoch=1),
    "UnionClusters": lambda epoch, features, images: UnionClusters()(features, images, epoch=1),
    "JointClusters": lambda *of: JointClusters()(*of),
    "JointClusters, balanced, K1 40, K2 32": lambda *of: JointClusters(balanced=True, k1=40, k2=32)(*of),
    "JointClusters, codes": lambda *of: JointClusters(codes="softmax")(*of),
    "TransferByVote": lambda *of: TransferByVote()(*of),
    "MajoritySmooth": lambda *of: MajoritySmooth()(*of),
    "DensityRelabel": lambda *of: DensityRelabel()(*of),
    "NeighbourTargets (soft targets)": lambda epoch, features, images: _soft_targets(epoch),
}


def part(name: str, num: int, identities: int, dim: int) -> Work:
    """Job: what the part does once per epoch."""
    _, features, _, own = query_and_gallery(0, num, dim, identities=identities)
    domains = (torch.arange(num) % 3 == 0).long()
    images = TrainImages(domains, torch.zeros(num, dtype=torch.int64), None)
    clusters = []
    for domain in Domain:
        places = torch.nonzero(domains == domain).flatten()
        clusters.append(make_clusters(without_gaps(own[places]), features[places], places))
    epoch = Epoch.of(clusters[0], clusters[1], 1, 2)
    small = torch.arange(min(num, 200))  # compiles the loops
    PARTS["JointClusters"](epoch, features[small], TrainImages(domains[small], images.cams[small], None))

    def work() -> Report:
        began = time.process_time()
        PARTS[name](epoch, features, images)
        return {SECONDS: time.process_time() - began}

    return work


def main() -> None:
    arguments = parser(__doc__, repeats=1)
    arguments.add_argument("--num", type=int, default=20_000)
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = arguments.parse_args()
    num, dim = (400, 64) if args.quick else (args.num, args.dim)
    size = {"num": num, "identities": max(int(num / IMAGES), 1), "dim": dim}
    reports = interleaved(
        {name: Job(__file__, "part", {"name": name, **size}) for name in args.parts},
        args,
        repeats=args.repeats,
    )
    base = reports.get("DomainClusters", {}).get(SECONDS)
    table = [
        {
            "part": name,
            "processor s": one[SECONDS],
            "over DomainClusters": one[SECONDS] / base if base else None,
            "growth, GiB": one["growth_gib"],
            "peak, GiB": one["peak_gib"],
        }
        for name, one in reports.items()
        if SECONDS in one
    ]
    finish("label_parts", args, {f"{num} x {dim}, {args.threads} threads": table}, reports)


if __name__ == "__main__":
    main()
