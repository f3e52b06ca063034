"""CPML against a loop over all mutual pairs, with and without gradient, at 200 x 200 clusters and k = 15.

The loop does per pair what the released evaluation does: gather the anchor's hard negatives, concatenate,
log-softmax. Both run on the same inputs in one process; only their ratios mean anything. ``ratio_value`` is
the smaller one: released code evaluates without gradient, and a gradient through thousands of small indexings
costs the loop several times its value.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from measure import finish, parser, shortest
from torch import Tensor

from dnreid_plugins.functional.losses.cpml import row_cpml
from dnreid_plugins.functional.matching.mutual_topk import NeighbourPartition, mutual_topk_partition

TEMPERATURE = 0.07


def loop_cpml(rows_day: Tensor, rows_night: Tensor, partition: NeighbourPartition) -> Tensor:
    """Eq. 13 pair by pair; anchors without a hard negative are skipped."""
    logits = F.normalize(rows_day, dim=1) @ F.normalize(rows_night, dim=1).T / TEMPERATURE
    directions = [
        (logits, partition.positives, partition.hard_day),
        (logits.T, partition.positives.T, partition.hard_night.T),
    ]
    means = []
    for table, positives, hard in directions:
        terms = []
        for i, j in torch.nonzero(positives).tolist():
            negatives = table[i, torch.nonzero(hard[i]).flatten()]
            if negatives.numel() > 0:
                pair = torch.cat([table[i, j].view(1), negatives])
                terms.append(torch.logsumexp(pair, dim=0) - table[i, j])
        means.append(torch.stack(terms).mean() if terms else table.sum() * 0.0)
    return 0.5 * (means[0] + means[1])


def measure(num_clusters: int, k: int, repeats: int, dim: int = 1280, seed: int = 0) -> dict[str, float]:
    """Run both and return seconds, their ratios, the number of mutual pairs and the largest differences."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(num_clusters, dim, generator=generator)
    rows = [
        F.normalize(centres + torch.randn(num_clusters, dim, generator=generator), dim=1).requires_grad_()
        for _ in range(2)
    ]
    partition = mutual_topk_partition(rows[0].detach() @ rows[1].detach().T, k)

    def gradients(loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, rows)

    def vectorised() -> Tensor:
        return row_cpml(rows[0], rows[1], partition, temperature=TEMPERATURE)

    def looped() -> Tensor:
        return loop_cpml(rows[0], rows[1], partition)

    fast_loss, slow_loss = vectorised(), looped()
    gradient_gap = max(
        (a - b).abs().max().item() for a, b in zip(gradients(fast_loss), gradients(slow_loss), strict=True)
    )
    fast = shortest(lambda: gradients(vectorised()), 7 * repeats)
    slow = shortest(lambda: gradients(looped()), repeats)
    with torch.no_grad():
        fast_value = shortest(vectorised, 7 * repeats)
        slow_value = shortest(looped, repeats)
    return {
        "clusters": float(num_clusters),
        "k": float(k),
        "mutual_pairs": float(partition.positives.sum()),
        "vectorised_seconds": fast,
        "loop_seconds": slow,
        "ratio": slow / fast,
        "vectorised_value_seconds": fast_value,
        "loop_value_seconds": slow_value,
        "ratio_value": slow_value / fast_value,
        "loss_difference": (fast_loss - slow_loss).abs().item(),
        "gradient_difference": gradient_gap,
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--clusters", type=int, default=200)
    options.add_argument("--k", type=int, default=15)
    args = options.parse_args()
    torch.set_num_threads(args.threads)
    if args.quick:
        args.clusters, args.k, args.repeats = 20, 5, 1
    found = measure(args.clusters, args.k, args.repeats)
    rows = [
        {
            "": name,
            "loop s": found[f"loop{key}_seconds"],
            "ours s": found[f"vectorised{key}_seconds"],
            "ratio": ratio,
        }
        for name, key, ratio in (
            ("value", "_value", found["ratio_value"]),
            ("with gradient", "", found["ratio"]),
        )
    ]
    title = f"{args.clusters} x {args.clusters} clusters, {found['mutual_pairs']:.0f} mutual pairs"
    finish("cpml", args, {title: rows}, found)


if __name__ == "__main__":
    main()
