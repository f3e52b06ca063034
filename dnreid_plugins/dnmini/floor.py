"""The lower bound for DNMini: retrieval with a colour histogram, without any learning."""

from __future__ import annotations

import numpy as np

NUM_BINS = 4


def colour_histogram(images: np.ndarray, *, grid: tuple[int, int] = (2, 2)) -> np.ndarray:
    """Unit-norm features from joint RGB histograms of image cells (square roots of the counts).

    Args:
        images: ``(N, H, W, 3)`` uint8.
        grid: rows and columns of cells; ``H`` and ``W`` need not divide by them.

    Returns:
        ``(N, rows * columns * 64)`` float32; the cosine of two rows is the mean Bhattacharyya coefficient.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be (N, H, W, 3) uint8, got {images.shape} {images.dtype}; convert them first"
        )
    rows, columns = grid
    if not (1 <= rows <= images.shape[1] and 1 <= columns <= images.shape[2]):
        raise ValueError(
            f"grid must have 1 to H rows and 1 to W columns, got {grid} for images {images.shape[1:3]}"
        )
    bins = (images.astype(np.int64) * NUM_BINS) // 256
    codes = (bins[..., 0] * NUM_BINS + bins[..., 1]) * NUM_BINS + bins[..., 2]
    cells = [
        cell.reshape(len(images), cell.shape[1] * cell.shape[2])
        for band in np.array_split(codes, rows, axis=1)
        for cell in np.array_split(band, columns, axis=2)
    ]
    if len(images) == 0:
        return np.zeros((0, len(cells) * NUM_BINS**3), dtype=np.float32)
    counts = [np.stack([np.bincount(row, minlength=NUM_BINS**3) for row in cell]) for cell in cells]
    shares = [count / count.sum(axis=1, keepdims=True) for count in counts]
    return np.sqrt(np.concatenate(shares, axis=1) / len(cells)).astype(np.float32)
