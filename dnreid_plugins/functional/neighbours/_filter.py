"""Proven lower bounds of squared distances from products of rounded rows: what the k-NN search filters by.

With a centre ``m`` and ``y = c (x - m)``, ``c`` a power of two that brings the longest row near 1, a row is rounded to
``q`` and leaves ``r = y - q``. ``2 (y_i.y_j - q_i.q_j) = (y_i + q_i).r_j + r_i.(y_j + q_j)``, so with ``M`` the larger
of ``|y|`` and ``|q|``

    |c^2 |x_i - x_j|^2 - a_ij| <= e_ij = 2 (M_i |r_j| + |r_i| M_j)    for    a_ij = |y_i|^2 + |y_j|^2 - 2 q_i.q_j.

- *int8*: ``q`` = integers times the row's ``max|y| / 127``; their products are exact in int32.
- *float32*: ``q = y`` up to float32. In any order of summing a product is off by at most ``D u / (1 - D u) M_i M_j``
  with ``u = 2^-24``, and by ``D 2^-125`` where it underflows; half of the first counts as part of each ``|r|``.

``|y|``, ``|q|`` and ``|r|`` are summed in float64 (off by some ``D 2^-52``) and rounded up to float32. Then float32
computes ``low_ij = a_ij - e_ij`` from ``|y|^2 - s``; the slack ``s_i = 2^-17 M_i^2 + tiny`` makes it a lower bound:

- The terms sum up to at most ``4 (M_i^2 + M_j^2)`` and meet at most ten roundings each: ``40 u (M_i^2 + M_j^2)``.
- The table's own distances round float32 differences and their sum: ``3 u`` of at most ``2 (M_i^2 + M_j^2)``.
- Together below ``2^-18``, and the slack is twice that. ``tiny`` covers underflow: here 2^-90, and 2^-148 of the
  unscaled distances. It is infinite where distances may exceed float32.

The same terms give the upper bound ``low_ij + 2 e_ij + 2 (s_i + s_j)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._jit import map_rows
from ._knn_kernels import ERROR, LENGTH, LOW, SCALE
from ._product import has_int8, multiplier, squared_norms
from ._rounding_kernels import rounded_rows, row_lengths

Rows = slice | Tensor
"""Consecutive rows, or any by their numbers."""

Multiply = Callable[[Rows], NDArray[Any]]

CELL = 512
"""Rows in each group of `near_together`, on average."""

FLOAT_UNIT, LARGEST = 2.0**-24, float(np.finfo(np.float32).max)
UP = 1 + 2.0**-20
"""Makes a float64 value an upper bound: of its own rounding errors and of its rounding to float32."""


@dataclass(frozen=True)
class Filter:
    """Rounded rows.

    Attributes:
        bounds: ``(4, N)`` float32: ``|y|^2 - s``, scale of a product's entries, ``M``, ``|r|``.
        tiny: the constant part of ``s``.
        unit: ``c^2``, what squared distances are multiplied by.
        order: ``(N,)`` int64, the row of the matrix that each of these is.
        start: maps the rows of one side to their product with rows of the other: ``start(cols)(rows)`` is
            ``(rows, cols)`` int32 or float32.
    """

    bounds: NDArray[np.float32]
    tiny: float
    unit: float
    order: NDArray[np.int64]
    start: Callable[[slice], Multiply]

    def rooms(self) -> NDArray[np.float64]:
        """``(N,)`` at least the upper less the lower bound of any pair of a row."""
        lengths, errors = self.bounds[LENGTH].astype(np.float64), self.bounds[ERROR].astype(np.float64)
        longest = lengths.max()
        slack = 2.0**-17 * (lengths**2 + longest**2) + 2 * self.tiny
        rooms: NDArray[np.float64] = 4 * (lengths * errors.max() + errors * longest) + 2 * slack
        return rooms


def rounded_filter(matrix: Tensor, order: NDArray[np.int64] | None = None) -> Filter:
    """int8 where the processor multiplies it fast and the sums fit into int32, else float32.

    Args:
        matrix: ``(N, D)`` float32 on the CPU, finite squared lengths.
        order: of the rounded rows; None = as they are.
    """
    num, dim = matrix.shape
    order = np.arange(num) if order is None else order
    if not (has_int8() and dim * 127**2 < 2**31):
        return _float_filter(matrix, order)
    codes, figures = torch.empty(num, dim, dtype=torch.int8), np.empty((4, num))
    work = partial(rounded_rows, matrix.numpy(), order, _centre(matrix).numpy(), codes.numpy(), figures)
    map_rows(work, num, chunk=512)
    squares, scales, lengths, residuals = figures

    def start(cols: slice) -> Multiply:
        right = codes[cols].t()
        return lambda rows: torch._int_mm(codes[rows], right).numpy()

    return _filter(squares, scales, lengths, residuals, dim, order, start)


def _float_filter(matrix: Tensor, order: NDArray[np.int64]) -> Filter:
    """float32, around 0; around the mean if the rows are far from 0 for their spread. No second matrix."""
    num, dim = matrix.shape
    squares, centre, origin = np.empty(num), _centre(matrix), torch.zeros(dim)
    map_rows(partial(row_lengths, matrix.numpy(), origin.numpy(), squares), num, chunk=512)
    if centre.double().square().sum() < 0.9 * squares.mean():
        centre = origin
    map_rows(partial(row_lengths, matrix.numpy(), centre.numpy(), squares), num, chunk=512)
    share = dim * FLOAT_UNIT
    assert share < 0.5, "a row of four million numbers"
    error = share / (1 - share) / 2 + 4 * FLOAT_UNIT
    squares = squares[order]
    lengths = np.sqrt(squares) * UP
    factor = _power(lengths)
    plain = factor == 1 and not bool(centre.any())
    places = torch.from_numpy(order)

    def rows_of(part: Rows) -> Tensor:
        rows = matrix[places[part]]
        return rows if plain else (rows - centre) * factor

    def start(cols: slice) -> Multiply:
        multiply = multiplier(rows_of(cols))
        return lambda rows: multiply(rows_of(rows)).numpy()

    return _filter(squares, np.full(num, 1 / factor), lengths, error * lengths, dim, order, start)


def _filter(
    squares: NDArray[np.float64],
    scales: NDArray[np.float64],
    lengths: NDArray[np.float64],
    residuals: NDArray[np.float64],
    dim: int,
    order: NDArray[np.int64],
    start: Callable[[slice], Multiply],
) -> Filter:
    """From figures of the unscaled rows ``x - m``."""
    factor = _power(lengths)
    longest = float(lengths.max(initial=0))
    tiny = 2.0**-90 + dim * 2.0**-124 + 2.0**-148 * factor**2
    if 8 * longest**2 > LARGEST:
        tiny = math.inf
    bounds = np.empty((4, len(squares)), dtype=np.float32)
    bounds[SCALE] = scales * factor
    bounds[LENGTH] = lengths * (factor * UP)
    bounds[ERROR] = residuals * (factor * UP)
    bounds[LOW] = squares * factor**2 - (2.0**-17 * (lengths * factor) ** 2 + tiny)
    return Filter(bounds, tiny, factor**2, order, start)


def near_together(matrix: Tensor) -> NDArray[np.int64]:
    """An order of the rows in which near ones mostly follow each other: by the nearest of evenly spaced rows.

    The candidates of a row are then found early, and most others left out at first sight. Any order would be correct.
    """
    few = matrix[::CELL]
    multiply, halves = multiplier(few), squared_norms(few) / 2
    nearest = torch.cat([(multiply(part) - halves).argmax(dim=1) for part in matrix.split(4096)])
    return nearest.argsort(stable=True).numpy()


def _power(lengths: NDArray[np.float64]) -> float:
    """The power of two that brings the longest row to 0.5 ... 1; 1 where that is near enough."""
    exponent = math.frexp(float(lengths.max(initial=0)))[1]
    return 1.0 if abs(exponent) <= 4 else 2.0 ** min(-exponent, 100)  # a float32 itself


def _centre(matrix: Tensor) -> Tensor:
    """The mean row. Any row would be correct; rounding is finest around this one."""
    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    for part in matrix.split(4096):
        total += part.sum(dim=0, dtype=torch.float64)
    return (total / max(len(matrix), 1)).float()
