"""The k-distance curve of both domains as a picture: at which radius images become parts of clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..functional.types import Domain
from ..runtime.files import write_atomically

COLOURS = {Domain.DAY: "#c77700", Domain.NIGHT: "#2b4c9b"}
ENDINGS = (".png", ".svg", ".pdf")


def check_ending(path: Path) -> None:
    """Refuse a picture that cannot be drawn, before the work.

    Raises:
        ValueError: its name ends in something else than `ENDINGS`.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"The picture {path} must end in one of {', '.join(ENDINGS)}.")


def draw_k_distances(
    path: Path, curves: Mapping[Domain, NDArray[np.float32]], radii: Mapping[Domain, float], count: int
) -> None:
    """Draw the sorted distances to the neighbour number ``count`` and the chosen radius of each domain.

    Args:
        path: a file whose name ends in one of `ENDINGS`.
        curves: ``(N,)`` ascending, by domain.
        radii: the chosen ones.
        count: CLUSTER.MIN_SAMPLES.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for domain, curve in curves.items():
        share = 100 * np.arange(1, len(curve) + 1) / max(len(curve), 1)
        axes.plot(share, curve, color=COLOURS[domain], label=_words(domain, len(curve), radii))
        axes.axhline(radii[domain], color=COLOURS[domain], linestyle="--", linewidth=1)
    axes.set(xlim=(0, 100), ylim=(0, 1), xlabel="images, sorted (%)")
    axes.set_ylabel(f"Jaccard distance to neighbour {count} (itself included)")
    axes.set_title("Features of the start; dashed: the radius that `auto` would take", fontsize=10)
    axes.legend(loc="lower right", frameon=False)
    axes.grid(alpha=0.25)
    write_atomically(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower(), dpi=150))


def _words(domain: Domain, images: int, radii: Mapping[Domain, float]) -> str:
    return f"{domain.word}: {images} images, radius {radii[domain]:g}"
