"""Outlines of the stickers that distinguish otherwise equal vehicles."""

from __future__ import annotations

import math


def mark_polygons(shape: str, *, radius: float) -> list[list[tuple[float, float]]]:
    """The outline(s) of a mark around the origin. Raises ``ValueError`` for an unknown shape."""
    r = radius
    if shape in ("disc", "ring"):
        return [[(r * math.cos(i * math.pi / 7), r * math.sin(i * math.pi / 7)) for i in range(14)]]
    thin = 0.34 * r
    outlines: dict[str, list[list[tuple[float, float]]]] = {
        "square": [
            [(-0.85 * r, -0.85 * r), (0.85 * r, -0.85 * r), (0.85 * r, 0.85 * r), (-0.85 * r, 0.85 * r)]
        ],
        "triangle": [[(-r, -0.85 * r), (r, -0.85 * r), (0.0, r)]],
        "diamond": [[(-1.2 * r, 0.0), (0.0, -0.8 * r), (1.2 * r, 0.0), (0.0, 0.8 * r)]],
        "cross": [
            [(-thin, -r), (thin, -r), (thin, r), (-thin, r)],
            [(-r, -thin), (r, -thin), (r, thin), (-r, thin)],
        ],
        "bars": [
            [(x - 0.22 * r, -r), (x + 0.22 * r, -r), (x + 0.22 * r, r), (x - 0.22 * r, r)]
            for x in (-0.8 * r, 0.0, 0.8 * r)
        ],
        "chevron": [[(-r, r), (-0.2 * r, r), (r, 0.0), (-0.2 * r, -r), (-r, -r), (0.2 * r, 0.0)]],
    }
    if shape not in outlines:
        raise ValueError(f"unknown mark shape {shape!r}; known are disc, ring, {', '.join(outlines)}")
    return outlines[shape]
