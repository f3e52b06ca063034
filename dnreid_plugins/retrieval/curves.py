"""A picture of a threshold: similarities of same and different pairs, and what is found at which rate."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..runtime.files import write_atomically
from .threshold import Threshold


def check_name(path: str | Path) -> None:
    """
    Raises:
        ValueError: it does not end in .png, or its folder is missing.
    """
    if Path(path).suffix != ".png" or not Path(path).parent.is_dir():
        raise ValueError(f"The picture is {str(path)!r}; name a file .png in a folder that exists.")


def draw(threshold: Threshold, path: str | Path) -> None:
    """Write a PNG with the histograms of each kind of pairs and its curve.

    Raises:
        ValueError: see `check_name`.
        OSError: it cannot be written.
    """
    from matplotlib.figure import Figure

    check_name(path)
    count = len(threshold.directions)
    figure = Figure(figsize=(4.2 * (count + 1), 3.4), layout="constrained")
    axes = figure.subplots(1, count + 1)
    for axis, (kind, one) in zip(axes, threshold.directions.items()):
        edges = np.array(one.histogram["edges"])
        for name, word, colour in (("negative", "different", "#8b8d98"), ("positive", "same", "#18794e")):
            counts = np.array(one.histogram[name], dtype=float)
            axis.stairs(counts / max(counts.sum(), 1), edges, fill=True, alpha=0.6, color=colour, label=word)
        axis.axvline(one.value, color="#ca244d", label=f"threshold {one.value:.3f}")
        axis.set(
            title="across domains" if kind == "across" else f"within {kind}", xlabel="cosine", ylabel="share"
        )
        axis.legend(fontsize=8)
    for kind, one in threshold.directions.items():
        false, true = [point[0] for point in one.roc], [point[1] for point in one.roc]
        axes[-1].plot(false, true, marker="o", label=kind)
    axes[-1].set(
        title="found at a rate of false matches", xlabel="false match rate", ylabel="true match rate"
    )
    axes[-1].set_xscale("symlog", linthresh=1e-5)
    axes[-1].set_ylim(0, 1)
    axes[-1].legend(fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    write_atomically(path, lambda out: out.write(file.getvalue()))
