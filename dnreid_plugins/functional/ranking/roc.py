"""Verification: the share of true pairs that is accepted at a low rate of accepted false pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)


def true_positive_rates(
    blocks: Iterable[npt.NDArray[np.float32]],
    query_ids: npt.NDArray[np.int64],
    gallery_ids: npt.NDArray[np.int64],
    *,
    remove: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]] | None = None,
    rates: Sequence[float] = FALSE_POSITIVE_RATES,
) -> dict[str, float]:
    """``TPR@FPR=<rate>`` in percent: true pairs closer than all but ``rate`` of the false pairs.

    A pair is accepted when its distance is below a threshold; the threshold is the lowest at which at most
    ``floor(rate * false pairs)`` false pairs would pass. Only the closest false pairs are kept in memory.

    Args:
        blocks: distances of consecutive queries, ``(b, G)`` each, ``Q`` rows in all.
        query_ids, gallery_ids: ``(Q,)`` and ``(G,)``.
        remove: from query rows ``(b,)`` to the pairs ``(b, G)`` that do not count.
        rates: false positive rates in (0, 1).

    Raises:
        ValueError: there is no true or no false pair.
    """
    keep = int(max(rates) * len(query_ids) * len(gallery_ids)) + 1
    true_parts: list[npt.NDArray[np.float32]] = []
    false = np.empty(0, dtype=np.float32)
    start = total_false = 0
    for distances in blocks:
        rows = np.arange(start, start + len(distances))
        start += len(distances)
        same = query_ids[rows, None] == gallery_ids[None, :]
        counts = np.ones_like(same) if remove is None else ~remove(rows)
        true_parts.append(distances[same & counts])
        wrong = distances[~same & counts]
        total_false += len(wrong)
        false = np.concatenate([false, wrong])
        if len(false) > keep:
            false = np.partition(false, keep - 1)[:keep]
    genuine = np.concatenate(true_parts) if true_parts else np.empty(0, dtype=np.float32)
    if genuine.size == 0 or total_false == 0:
        raise ValueError(
            f"TPR@FPR needs true and false pairs, got {genuine.size} and {total_false}; switch it off (TEST.ROC) "
            "for this set."
        )
    false = np.sort(false)
    return {
        f"TPR@FPR={rate:.0e}": 100.0 * float((genuine < false[int(rate * total_false)]).mean())
        for rate in rates
    }
