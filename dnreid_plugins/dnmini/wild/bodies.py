"""From a vehicle's attributes to its solids."""

from __future__ import annotations

from dataclasses import dataclass

from .identity import PROPORTIONS, STEPS, WildIdentity
from .solids import Solid, block, pipe, prism, wheel


@dataclass(frozen=True)
class Body:
    """Measures of a body in metres; ``belt`` and ``sill`` are shares of the height.

    ``sill``: where the cabin begins, ``belt``: where its glass does. ``rake``, ``slope``: how far wind screen and
    rear window lean; ``deck``: what lies behind the cabin; ``lean``: of the sides; ``panes``: windows of a side.
    """

    length: float
    width: float
    height: float
    clear: float
    sill: float
    belt: float
    bonnet: float
    rake: float
    slope: float
    deck: float
    lean: float
    panes: int
    wheel: float


BODIES = {
    "coupe": Body(4.2, 1.80, 1.30, 0.16, 0.62, 0.64, 1.35, 0.85, 0.95, 0.45, 0.30, 1, 0.33),
    "saloon": Body(4.7, 1.82, 1.46, 0.18, 0.62, 0.65, 1.25, 0.75, 0.55, 0.85, 0.25, 2, 0.32),
    "estate": Body(4.6, 1.80, 1.50, 0.18, 0.61, 0.64, 1.15, 0.75, 0.28, 0.04, 0.20, 3, 0.32),
    "crossover": Body(4.3, 1.86, 1.66, 0.24, 0.60, 0.62, 0.95, 0.62, 0.40, 0.10, 0.18, 3, 0.37),
    "offroader": Body(4.0, 1.88, 1.88, 0.36, 0.58, 0.61, 1.05, 0.20, 0.06, 0.04, 0.06, 2, 0.42),
    "microvan": Body(3.4, 1.58, 1.90, 0.20, 0.46, 0.50, 0.20, 0.38, 0.08, 0.02, 0.08, 2, 0.29),
    "coach": Body(6.4, 2.20, 2.65, 0.28, 0.44, 0.50, 0.05, 0.20, 0.06, 0.02, 0.04, 5, 0.44),
    "flatbed": Body(5.4, 2.00, 2.20, 0.40, 0.38, 0.58, 0.08, 0.25, 0.03, 3.40, 0.07, 1, 0.40),
    "tanker": Body(5.8, 2.05, 2.35, 0.42, 0.38, 0.56, 0.30, 0.22, 0.03, 3.60, 0.07, 1, 0.42),
}
TRUCKS = ("flatbed", "tanker")


@dataclass(frozen=True)
class Frame:
    """Where the parts of one vehicle are, in metres.

    ``cabin``: x of the cabin's lower rear, lower front, upper front and upper rear corner.
    """

    front: float
    half: float
    clear: float
    sill: float
    belt: float
    roof: float
    nose: float
    tail: float
    cabin: tuple[float, float, float, float]
    lean: float
    panes: int
    truck: bool
    axles: tuple[float, float]
    wheel: float


def frame_of(identity: WildIdentity) -> Frame:
    """The measures of a vehicle, a function of its attributes."""
    body = BODIES[identity.body]
    steps = zip(PROPORTIONS, identity.proportions, strict=True)
    share = {name: step / (STEPS - 1) for name, step in steps}
    length = body.length * (0.90 + 0.20 * share["length"])
    roof = body.height * (0.92 + 0.18 * share["height"])
    front = length / 2
    bonnet = body.bonnet * (0.75 + 0.5 * share["bonnet"])
    rake = body.rake * (0.65 + 0.7 * share["rake"])
    slope = body.slope * (1.35 - 0.7 * share["rake"])
    sill = roof * body.sill
    low_front, low_rear = front - bonnet, -front + body.deck * (1.15 - 0.3 * share["bonnet"])
    stance = 0.20 - 0.05 * share["stance"]
    return Frame(
        front=front,
        half=body.width / 2,
        clear=body.clear * (0.85 + 0.4 * share["stance"]),
        sill=sill,
        belt=roof * (body.belt + 0.05 * (share["belt"] - 0.5)),
        roof=roof,
        nose=sill * (0.84 if bonnet > 0.4 else 0.97),
        tail=sill * (0.97 if body.deck < 0.3 else 0.93),
        cabin=(low_rear, low_front, low_front - rake, low_rear + slope),
        lean=body.lean,
        panes=body.panes,
        truck=identity.body in TRUCKS,
        axles=(-front + stance * length, front - stance * length),
        wheel=body.wheel * (0.94 + 0.14 * share["stance"]),
    )


def build(identity: WildIdentity) -> list[Solid]:
    """All solids of a vehicle, hull and cabin first."""
    frame = frame_of(identity)
    own = (identity, frame)
    x, low = frame.front, frame.clear
    back, ahead, top_ahead, top_back = frame.cabin
    hull = [(-x, low), (x - 0.08, low), (x, low + 0.18), (x, frame.nose), (ahead, frame.sill)]
    if not frame.truck:
        hull.append((back, frame.sill))
    hull.append((-x, frame.sill if frame.truck else frame.tail))
    cabin = [
        (back, frame.sill - 0.02),
        (ahead, frame.sill - 0.02),
        (top_ahead, frame.roof),
        (top_back, frame.roof),
    ]
    solids = [
        prism("hull", own, hull, frame.half, lean=0.03),
        prism("cabin", own, cabin, frame.half - 0.05, lean=frame.lean),
    ]
    for axle in frame.axles:
        for side in (-1.0, 1.0):
            y = sorted((side * (frame.half + 0.03), side * (frame.half - 0.20)))
            solids.append(wheel("wheel", own, axle, (y[0], y[1]), frame.wheel))
    for side in (-1.0, 1.0):
        y = sorted((side * (frame.half - 0.02), side * (frame.half + 0.16)))
        solids.append(
            block("mirror", own, (ahead - 0.42, ahead - 0.28), (y[0], y[1]), (frame.belt, frame.belt + 0.15))
        )
    return [*solids, *_cargo(identity, frame), *_load(identity, frame)]


def _cargo(identity: WildIdentity, frame: Frame) -> list[Solid]:
    """What a lorry carries behind its cabin."""
    if not frame.truck:
        return []
    rear, end, half, floor = -frame.front + 0.10, frame.cabin[0] - 0.12, frame.half, frame.sill
    own = (identity, frame)
    if identity.body == "tanker":
        tall = (frame.roof - floor) / 2
        return [pipe("tank", own, (rear, end), (0.0, floor + tall), (half * 0.92, tall))]
    if identity.cargo == "pipes":
        return [pipe("tank", own, (rear, end), (y, floor + 0.3), (0.28, 0.28)) for y in (-0.6, 0.0, 0.6)]
    if identity.cargo == "cover":
        return [block("cover", own, (rear, end), (-half + 0.06, half - 0.06), (floor, frame.roof), lean=0.12)]
    if identity.cargo == "crates":
        middle = (rear + end) / 2
        tall = (frame.roof - floor) * 0.8
        return [
            block("crate", own, (rear, middle - 0.1), (-half + 0.15, half - 0.15), (floor, floor + tall)),
            block("crate", own, (middle + 0.1, end), (-half + 0.2, half - 0.2), (floor, floor + tall * 0.6)),
        ]
    return [block("crate", own, (end - 0.15, end), (-half + 0.1, half - 0.1), (floor, frame.roof * 0.95))]


def _load(identity: WildIdentity, frame: Frame) -> list[Solid]:
    """What stands on the roof."""
    _, _, ahead, back = frame.cabin
    back, roof, half = back + 0.1, frame.roof, frame.half * 0.62
    middle, kind = (ahead + back) / 2, identity.load
    reach = max(0.25, (ahead - back) / 2 - 0.12)
    own = (identity, frame)
    if kind == "bars":
        places = (middle - reach * 0.7, middle + reach * 0.7)
        return [
            block("bar", own, (p - 0.05, p + 0.05), (-half, half), (roof + 0.03, roof + 0.14)) for p in places
        ]
    if kind == "case":
        return [
            block(
                "case",
                own,
                (middle - reach, middle + reach),
                (-half, half * 0.2),
                (roof, roof + 0.34),
                lean=0.15,
            )
        ]
    if kind == "pair":
        return [
            block("case", own, (middle + p, middle + p + reach * 0.8), (-half, half), (roof, roof + 0.22))
            for p in (-reach, reach * 0.2)
        ]
    if kind == "board":
        return [block("board", own, (middle - 0.10, middle + 0.10), (-half, half), (roof, roof + 0.30))]
    if kind == "beacon":
        return [block("beacon", own, (middle - 0.12, middle + 0.12), (-half, half), (roof, roof + 0.13))]
    return []
