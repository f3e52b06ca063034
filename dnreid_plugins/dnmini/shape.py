"""The body of a vehicle as numbers: a side profile to extrude, glass, wheels. Units are metres.

``x`` runs from the rear (0) to the front (``length``), ``y`` from the near side (0) to the far side (``width``),
``z`` from the ground up.
"""

from __future__ import annotations

from dataclasses import dataclass

from .identity import NUM_STEPS, Identity

Point = tuple[float, float]

# body: length, height, width, hood length, rear deck length, rear slope, front slope, belt height / height
_BODIES = {
    "sedan": (4.3, 1.50, 1.75, 1.05, 0.75, 0.45, 0.60, 0.62),
    "hatchback": (3.7, 1.55, 1.70, 0.90, 0.06, 0.40, 0.60, 0.60),
    "wagon": (4.3, 1.55, 1.75, 1.00, 0.05, 0.22, 0.60, 0.61),
    "suv": (4.1, 1.85, 1.85, 0.95, 0.04, 0.12, 0.42, 0.60),
    "pickup": (4.5, 1.80, 1.85, 0.95, 1.70, 0.10, 0.45, 0.58),
    "van": (4.5, 2.15, 1.90, 0.55, 0.02, 0.05, 0.60, 0.55),
    "minibus": (5.0, 2.40, 2.00, 0.12, 0.02, 0.04, 0.28, 0.50),
    "truck": (5.0, 2.60, 2.05, 0.25, 3.20, 0.02, 0.30, 0.50),
}
CLEARANCE = 0.28


@dataclass(frozen=True)
class Edge:
    """One straight piece of the profile, extruded across the vehicle; ``glass`` marks front and rear screens."""

    start: Point
    end: Point
    glass: bool = False


@dataclass(frozen=True)
class Shape:
    """``profile``: closed side outline, anticlockwise as seen from the near side with the front to the right.

    ``panes``: side windows, four corners each. ``roof``: first x, last x and height of the part that carries a roof
    rack. ``side_band``: first x, last x, lowest and highest z of the flat side that carries stripe and marks.
    ``wheels``: x of the rear and front axle. ``lamp_height``: z of the lamps' centre. ``nose``: height of the front.
    """

    length: float
    height: float
    width: float
    edges: tuple[Edge, ...]
    profile: tuple[Point, ...]
    panes: tuple[tuple[Point, ...], ...]
    roof: tuple[float, float, float]
    side_band: tuple[float, float, float, float]
    wheels: Point
    wheel_radius: float
    lamp_height: float
    nose: float
    tail: float


def _between(step: int, low: float, high: float) -> float:
    return low + (high - low) * step / (NUM_STEPS - 1)


def _split_panes(
    corners: tuple[Point, Point, Point, Point], count: int, pillar: float
) -> tuple[tuple[Point, ...], ...]:
    """Cut a greenhouse (bottom-rear, bottom-front, top-front, top-rear) into ``count`` panes with pillars between."""
    (xb0, zb), (xb1, _), (xt1, zt), (xt0, _) = corners
    panes = []
    for i in range(count):
        low, high = i / count + pillar / 2, (i + 1) / count - pillar / 2
        low, high = (0.0 if i == 0 else low), (1.0 if i == count - 1 else high)
        panes.append(
            (
                (xb0 + (xb1 - xb0) * low, zb),
                (xb0 + (xb1 - xb0) * high, zb),
                (xt0 + (xt1 - xt0) * high, zt),
                (xt0 + (xt1 - xt0) * low, zt),
            )
        )
    return tuple(panes)


def build_shape(identity: Identity) -> Shape:
    """The geometry of one vehicle; a function of its attributes alone."""
    length, height, width, hood, deck, rear_slope, front_slope, belt = _BODIES[identity.body]
    step = dict(
        zip(("length", "height", "hood", "cabin", "belt", "wheelbase"), identity.proportions, strict=True)
    )
    length *= _between(step["length"], 0.88, 1.12)
    height *= _between(step["height"], 0.90, 1.12)
    hood *= _between(step["hood"], 0.75, 1.25)
    deck *= _between(step["cabin"], 0.80, 1.20)
    front_slope *= _between(step["cabin"], 0.70, 1.30)
    belt_z = height * (belt + _between(step["belt"], -0.05, 0.05))
    is_truck = identity.body == "truck"
    nose = belt_z * (0.80 if hood > 0.4 else 0.98)
    tail = height if is_truck else belt_z * 0.97
    roof_front, roof_rear = length - hood - front_slope, deck + rear_slope
    cab_height = height * 0.80 if is_truck else height
    bottom = [(0.0, CLEARANCE), (length, CLEARANCE)]
    front = [(length, nose), (length - hood, belt_z), (roof_front, cab_height)]
    if is_truck:
        rear = [(deck, cab_height), (deck, height), (0.0, height)]
    else:
        rear = [(roof_rear, height), (deck, belt_z), (0.0, tail)]
    profile = bottom + front + rear
    glass_starts = {(length - hood, belt_z)} | (set() if is_truck else {(roof_rear, height)})
    edges = tuple(
        Edge(start=start, end=end, glass=start in glass_starts)
        for start, end in zip(profile, profile[1:] + profile[:1], strict=True)
    )
    glass_low, glass_high = belt_z + 0.03, cab_height - 0.10
    lean = 0.0 if is_truck else rear_slope
    first = deck + (0.15 if is_truck else 0.10)
    greenhouse = (
        (first, glass_low),
        (length - hood - 0.14, glass_low),
        (roof_front - 0.03, glass_high),
        (first + lean * 0.9, glass_high),
    )
    radius = 0.30 + 0.035 * identity.wheel_size + (0.05 if height > 1.7 else 0.0)
    spread = _between(step["wheelbase"], -0.12, 0.12)
    band_top = height - 0.15 if is_truck else belt_z - 0.06
    return Shape(
        length=length,
        height=height,
        width=width,
        edges=edges,
        profile=tuple(profile),
        panes=_split_panes(
            greenhouse, identity.num_windows, pillar=0.07 if identity.num_windows < 4 else 0.12
        ),
        roof=(0.1, deck - 0.1, height) if is_truck else (roof_rear + 0.05, roof_front - 0.05, height),
        side_band=(0.12, (deck if is_truck else length) - 0.12, CLEARANCE + 0.22, band_top),
        wheels=(length * (0.20 - spread * 0.4), length * (0.80 + spread * 0.4)),
        wheel_radius=radius,
        lamp_height=CLEARANCE + (nose - CLEARANCE) * (0.35 + 0.15 * identity.lamp_height),
        nose=nose,
        tail=tail,
    )
