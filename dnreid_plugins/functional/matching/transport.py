"""Optimal transport with entropy (Sinkhorn's iteration) and the many-to-one matching that RPNR reads from its plan."""

from __future__ import annotations

import torch
from torch import Tensor

from dnreid_plugins.functional.types import Assignment

TIE = 1e-6
"""Shares of a cluster's mass that differ by less count as equal."""


@torch.no_grad()
def sinkhorn(log_kernel: Tensor, row: Tensor, col: Tensor, tol: float = 1e-9, max_iter: int = 5000) -> Tensor:
    """The plan ``diag(u) exp(log_kernel) diag(v)`` whose row sums are ``row`` and whose column sums are ``col``.

    Computed in the log domain and in float64, so no kernel is too sharp to be represented.

    Args:
        log_kernel: ``(R, C)``; ``-cost / regularisation``, finite.
        row: ``(R,)`` masses >= 0.
        col: ``(C,)`` masses >= 0 with the same sum.
        tol: largest error of a row sum at which the iteration ends; column sums are exact.
        max_iter: iterations after which it ends in any case; the error of the row sums is then larger than ``tol``.

    Returns:
        ``(R, C)`` float64 plan; all zero if a side is empty.

    Raises:
        ValueError: masses of another length than the kernel, below 0, or with different sums.
    """
    if log_kernel.shape != (len(row), len(col)):
        raise ValueError(
            f"The kernel has shape {tuple(log_kernel.shape)} and the masses are ({len(row)}, {len(col)}); give one "
            "mass per row and one per column."
        )
    log_kernel, row, col = (x.detach().to(torch.float64) for x in (log_kernel, row, col))
    if log_kernel.numel() == 0:
        return torch.zeros_like(log_kernel)
    if bool((row < 0).any() | (col < 0).any()) or not torch.isclose(row.sum(), col.sum()):
        raise ValueError(
            f"The masses of rows and columns sum to {float(row.sum()):g} and {float(col.sum()):g}, the least is "
            f"{float(torch.cat([row, col]).min()):g}; give masses >= 0 with equal sums."
        )
    # Masses that were rounded to float32 differ in their sums, and no plan would ever have both.
    col = col * (row.sum() / col.sum())
    log_row, log_col, v = row.log(), col.log(), torch.zeros_like(col)
    for _ in range(max_iter):
        u = log_row - torch.logsumexp(log_kernel + v, dim=1)
        v = log_col - torch.logsumexp(log_kernel + u[:, None], dim=0)
        plan = torch.exp(log_kernel + u[:, None] + v)
        if float((plan.sum(dim=1) - row).abs().max()) <= tol:
            break
    return plan


@torch.no_grad()
def sinkhorn_argmax(cost: Tensor, reg: float = 5.0) -> Assignment:
    """Every cluster's partner is the one to which the transport plan with uniform masses sends most of it (RPNR).

    Many to one: columns share the mass evenly, so a cluster that is nearest to all does not get all.

    Args:
        cost: ``(C_day, C_night)``; either side may be empty. RPNR: ``exp(-cosine)``.
        reg: divides the cost; > 0. The smaller, the nearer to the plan without entropy.

    Returns:
        Assignment that covers both sides; scores are the partner's share of the cluster's mass, in ``(0, 1]``. Among
        equal shares the lowest cost, then the lower cluster number. Empty if a side is empty.

    Raises:
        ValueError: if ``reg`` is not positive.
    """
    if not reg > 0:
        raise ValueError(f"reg must be > 0, got {reg}; the released code has 5.")
    num_day, num_night = cost.shape
    if cost.numel() == 0:
        return Assignment.empty(num_day, num_night)
    day_mass, night_mass = (
        torch.full((count,), 1.0 / count, dtype=torch.float64, device=cost.device) for count in cost.shape
    )
    plan = sinkhorn(-cost.double() / reg, day_mass, night_mass)
    day, night = _largest(plan * num_day, cost), _largest((plan * num_night).T, cost.T)
    return Assignment(day[0], night[0], day[1], night[1])


def _largest(share: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
    """``(R,)`` int64 column of the largest share in each row, the cheapest among equal ones; ``(R,)`` that share."""
    best = share.amax(dim=1, keepdim=True)
    # Against a single cluster all shares are equal, and which is the largest would be rounding.
    partner = torch.where(share >= best - TIE, cost, torch.inf).argmin(dim=1)
    return partner.cpu(), share.gather(1, partner[:, None]).flatten().float().cpu()
