"""Compiled loops that round rows to int8 and measure what is lost, see `_filter`."""

from __future__ import annotations

import numpy as np

from .._jit import Array, jit_vector_sum


@jit_vector_sum
def row_lengths(rows: Array, centre: Array, squares: Array, start: int, stop: int) -> None:
    """Squared lengths of ``rows - centre``, summed in float64."""
    for i in range(start, stop):
        total = 0.0
        for d in range(rows.shape[1]):
            value = np.float64(rows[i, d]) - np.float64(centre[d])
            total += value * value
        squares[i] = total


@jit_vector_sum
def rounded_rows(
    rows: Array, order: Array, centre: Array, codes: Array, figures: Array, start: int, stop: int
) -> None:
    """``rows[order] - centre`` as int8 times a scale of each row; squared length, scale, length, residual's length."""
    dim = rows.shape[1]
    values = np.empty(dim, dtype=np.float64)
    for i in range(start, stop):
        total, largest = 0.0, 0.0
        for d in range(dim):
            value = np.float64(rows[order[i], d]) - np.float64(centre[d])
            values[d] = value
            total += value * value
            largest = max(largest, abs(value))
        scale = largest / 127.0 if largest > 0 else 1.0
        inverse = 1.0 / scale
        rounded, residual = 0.0, 0.0
        for d in range(dim):
            code = min(max(np.rint(values[d] * inverse), -127.0), 127.0)
            codes[i, d] = np.int8(code)
            rounded += code * code
            rest = values[d] - scale * code
            residual += rest * rest
        figures[0, i], figures[1, i] = total, scale
        figures[2, i] = max(np.sqrt(total), scale * np.sqrt(rounded))
        figures[3, i] = np.sqrt(residual)
