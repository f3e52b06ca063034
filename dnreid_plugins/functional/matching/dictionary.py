"""CIA's mutual information dictionary and the graph built from it (Eq. 4-7)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.precision import in_full_precision

Scoring = Literal["continuous", "discrete", "fixed", "direct"]

# Width of one level of the discrete score; the paper gives none.
DISCRETE_STEP = 0.1


@in_full_precision
def cosine_similarity_matrix(rows_day: Tensor, rows_night: Tensor) -> Tensor:
    """Eq. 4: ``(C_day, C_night)`` cosines, float32 or, of such rows, float64. A zero row has similarity 0."""
    return F.normalize(rows_day, dim=1) @ F.normalize(rows_night, dim=1).T


def mutual_information(
    similarity: Tensor, *, scoring: Scoring = "continuous", alpha: float = 0.2, threshold: float = 0.5
) -> Tensor:
    """Eq. 5 and its alternatives of Table 4: ``M``, the score of each pair of clusters.

    The paper defines only ``continuous``. It says that ``Fixed means scoring using fixed values``, that
    ``Discrete means using discrete scores``, that the continuous score maps similarities above the
    threshold ``into a continuous range via multiplication by 0.2, replacing the original discrete values``,
    and it mentions a ``direct scoring strategy`` without a row of its own. We read that as:

    - ``continuous``: ``1 + alpha (S - threshold)`` where ``S >= threshold``, else ``alpha S``. It jumps
      from ``alpha * threshold`` to 1 at the threshold, although the paper calls it continuous.
    - ``discrete``: the same, of a similarity rounded down to levels 0.1 wide, so that the score has a few
      values and near ties become ties.
    - ``fixed``: two values, 1 where ``S >= threshold``, else 0 (``alpha`` = 0). All pairs above the threshold cost the
      same, so the assignment only maximises their number, and from two thirds of the ramp on
      (``T_ada > 1``) no pair is left.
    - ``direct``: ``S`` itself; then only similarities above ``T_ada`` >= 0.7 make an edge, and like
      ``fixed`` it has none left from two thirds of the ramp on, since no cosine exceeds 1.

    Args:
        similarity: ``(C_day, C_night)`` cosines.
        scoring: see above.
        alpha: slope of the score (paper: 0.2).
        threshold: similarity from which a pair counts as reliable, ``S_tau`` (paper: 0.5).

    Returns:
        ``M``, same shape and dtype.

    Raises:
        ValueError: for an unknown ``scoring``.
    """
    believed = similarity >= threshold
    if scoring == "direct":
        return similarity.clone()
    if scoring == "fixed":
        return believed.to(similarity.dtype)
    above, below = similarity - threshold, similarity
    if scoring == "discrete":
        above, below = _rounded_down(above), _rounded_down(below)
    elif scoring != "continuous":
        raise ValueError(f"scoring must be one of {get_args(Scoring)}, got {scoring!r}.")
    return torch.where(believed, 1.0 + alpha * above, alpha * below)


def _rounded_down(value: Tensor) -> Tensor:
    # The tiny shift puts 0.3 / 0.1 = 2.9999... on level 3.
    return torch.floor(value / DISCRETE_STEP + 1e-6) * DISCRETE_STEP


def ramped_threshold(epoch: float, max_epoch: float, *, start: float = 0.7, final: float = 1.15) -> float:
    """Eq. 6: ``T_ada``, linear in the completed share of training.

    Args:
        epoch: completed epochs, ``0 .. max_epoch``, either of the whole run or of the stage (U2). An
            epoch counter that starts at 1 passes ``epoch - 1``.
        max_epoch: length of the run or the stage, > 0.
        start: threshold at 0, ``T_0`` (paper: 0.7).
        final: threshold at the end (paper: 1.15).

    Raises:
        ValueError: if the epoch lies outside the run.
    """
    if not 0 <= epoch <= max_epoch or max_epoch <= 0:
        raise ValueError(f"epoch must lie in 0 .. max_epoch, got {epoch} of {max_epoch}.")
    return start + (final - start) * (epoch / max_epoch)


def graph_cost(information: Tensor, edge_threshold: float, *, penalty: float = 1.0) -> Tensor:
    """Eq. 7: assignment cost, ``1 - M`` on the edges ``M >= edge_threshold`` and ``penalty`` elsewhere.

    Edges cost at most 0.3 and, once the ramp has passed 1, no more than 0, so any penalty above that only
    trades the number of matched pairs against their score; 1.0 (U8; the paper gives no value) favours
    the number. Pairs that the assignment chooses at the cost ``penalty`` are not matches: drop them afterwards.
    """
    return torch.where(information >= edge_threshold, 1.0 - information, penalty)
