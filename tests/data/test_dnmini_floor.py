"""The colour-histogram floor against a loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from dnreid_plugins.dnmini.floor import colour_histogram


def slow(image: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    row_of = np.concatenate(
        [np.full(len(p), i) for i, p in enumerate(np.array_split(range(len(image)), grid[0]))]
    )
    column_of = np.concatenate(
        [np.full(len(p), i) for i, p in enumerate(np.array_split(range(image.shape[1]), grid[1]))]
    )
    counts = np.zeros((grid[0], grid[1], 4, 4, 4))
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            counts[row_of[y], column_of[x]][tuple(image[y, x] // 64)] += 1
    shares = counts / counts.sum(axis=(2, 3, 4), keepdims=True)
    return np.sqrt(shares.ravel() / (grid[0] * grid[1]))


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 2)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 1)])
def test_equals_the_loop_and_has_unit_norm(size: tuple[int, int], grid: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(3, *size, 3), dtype=np.uint8)
    features = colour_histogram(images, grid=grid)
    assert features.dtype == np.float32 and features.shape == (3, grid[0] * grid[1] * 64)
    np.testing.assert_allclose(features, [slow(image, grid) for image in images], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-6)


def test_no_image_gives_no_row() -> None:
    assert colour_histogram(np.zeros((0, 4, 4, 3), dtype=np.uint8)).shape == (0, 256)


def test_what_is_no_image_or_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        colour_histogram(np.zeros((1, 4, 4, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="grid must have"):
        colour_histogram(np.zeros((1, 4, 4, 3), dtype=np.uint8), grid=(5, 1))
