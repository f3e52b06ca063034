"""Sections of the config are constructors: keys, ranges, choices, sentences, groups, and whoever comes late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.config import add_config, extend_defaults
from dnreid_plugins.engine.config_merge import merge_with_suggestions
from dnreid_plugins.runtime.sections import (
    SECTIONS,
    Count,
    CountOrNone,
    NotNegative,
    Positive,
    Range,
    Share,
    add_sections,
    check_keys,
    configured,
    construct,
    keys_of,
    own_keys,
)

pytestmark = pytest.mark.usefixtures("scratch")

NAN, INF = float("nan"), float("inf")


@configured("")
class Lamp:
    """A lamp.

    Args:
        watts: How bright,
            in watts.
        colour: Of its light.
    """

    def __init__(
        self, *, watts: Annotated[float, Range(5, 60)] = 40, colour: Literal["warm", "cold"] = "warm"
    ):
        self.watts, self.colour = watts, colour


class Thing:
    """A thing with a lamp.

    Args:
        size, depth: Both in metres; a
            colon: stands here too.
        share: How much of it.
        names: Whose it is.
        lamp: What lights it.
        switch: On or off.
        owner: No key, since it has no default.
        seed: No key either.

    Attributes:
        share: what it became.
    """

    def __init__(
        self,
        *,
        size: Positive = 1.5,
        depth: Count = 2,
        share: Share = 0.5,
        names: Sequence[str] = ("a", "b"),
        lamp: Lamp,
        switch: bool = True,
        free: float = -3.0,
        maybe: float | None = None,
        owner: str,
        seed: int = 0,
    ) -> None:
        self.size, self.depth, self.share, self.names = size, depth, share, tuple(names)
        self.lamp, self.switch, self.free, self.maybe = lamp, switch, free, maybe
        self.owner, self.seed = owner, seed


def make(path: str = "ROOM.THING") -> type:
    """`Thing` as the section ``path``."""
    return configured(path, without=("seed",))(type("Thing", (Thing,), {}))


def fresh() -> CfgNode:
    cfg = CfgNode()
    add_sections(cfg)
    return cfg


# ---------------------------------------------------------------------- keys


def test_the_signature_is_the_section_groups_included() -> None:
    thing = make()
    keys = {key.name: key for key in keys_of(thing)}
    assert list(keys) == ["SIZE", "DEPTH", "SHARE", "NAMES", "SWITCH", "FREE", "MAYBE", "WATTS", "COLOUR"]
    assert [key.name for key in own_keys(thing)] == list(keys)[:7]
    assert {name: key.default for name, key in keys.items()} == dict(get_cfg().ROOM.THING)
    assert keys["WATTS"].default == 40 and SECTIONS["ROOM.THING"] is thing and Lamp not in SECTIONS.values()


def test_sentences_come_from_the_docstring_and_what_may_be_from_the_type() -> None:
    keys = {key.name: key for key in keys_of(make())}
    assert keys["SIZE"].sentence == keys["DEPTH"].sentence == "Both in metres; a colon: stands here too."
    assert keys["SHARE"].sentence == "How much of it." and keys["WATTS"].sentence == "How bright, in watts."
    assert keys["COLOUR"].sentence == "Of its light." and keys["FREE"].sentence == ""
    choices = {name: key.choices for name, key in keys.items()}
    assert choices["COLOUR"] == "'warm', 'cold'" and choices["WATTS"] == "from 5 to 60"
    assert (choices["SIZE"], choices["DEPTH"], choices["SHARE"]) == ("above 0", "at least 1", "from 0 to 1")
    assert choices["NAMES"] == choices["SWITCH"] == choices["MAYBE"] == ""


def test_every_section_of_the_package_says_what_each_key_is() -> None:
    without = [
        f"{path}.{key.name}"
        for path, cls in SECTIONS.items()
        for key in keys_of(cls)
        if len(key.sentence) < 5
    ]
    assert len(SECTIONS) >= 18 and without == []


def test_the_defaults_of_the_package_are_allowed() -> None:
    wrong = [
        f"{path}.{key.name}: {text}"
        for path, cls in SECTIONS.items()
        for key in keys_of(cls)
        if (text := key.objection(key.default))
    ]
    assert wrong == []


# ---------------------------------------------------------------------- objects


def test_an_object_has_the_values_of_the_config() -> None:
    thing = make()
    cfg = get_cfg()
    merge_with_suggestions(
        cfg, "", ["ROOM.THING.WATTS", "25", "ROOM.THING.DEPTH", "7", "ROOM.THING.NAMES", "['x']"]
    )
    one = construct(thing, cfg, owner="me", seed=5)
    assert (one.size, one.depth, one.names, one.owner, one.seed) == (1.5, 7, ("x",), "me", 5)
    assert type(one.lamp) is Lamp and (one.lamp.watts, one.lamp.colour) == (25.0, "warm")


def test_two_configs_do_not_share_a_section() -> None:
    make()
    one, other = get_cfg(), get_cfg()
    one.ROOM.THING.DEPTH = 9
    assert other.ROOM.THING.DEPTH == get_cfg().ROOM.THING.DEPTH == 2


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("SIZE", 0.0, "ROOM.THING.SIZE is 0.0; it must be above 0."),
        ("SIZE", NAN, "ROOM.THING.SIZE is nan; it must be above 0."),
        ("SIZE", INF, "ROOM.THING.SIZE is inf; it must be above 0."),
        ("SIZE", "wide", "ROOM.THING.SIZE is 'wide'; it must be above 0."),
        ("SIZE", None, "ROOM.THING.SIZE is None; it must be above 0."),
        ("SIZE", True, "ROOM.THING.SIZE is True; it must be above 0."),
        ("DEPTH", 0, "ROOM.THING.DEPTH is 0; it must be at least 1."),
        ("SHARE", 1.01, "ROOM.THING.SHARE is 1.01; it must be from 0 to 1."),
        ("WATTS", 4, "ROOM.THING.WATTS is 4; it must be from 5 to 60."),
        ("COLOUR", "Warm", "ROOM.THING.COLOUR is 'Warm'; it must be one of 'warm', 'cold'."),
        ("COLOUR", ["warm"], "ROOM.THING.COLOUR is ['warm']; it must be one of 'warm', 'cold'."),
        ("COLOUR", 0, "ROOM.THING.COLOUR is 0; it must be one of 'warm', 'cold'."),
    ],
)
def test_what_the_signature_does_not_allow_is_refused(key: str, value: Any, text: str) -> None:
    thing = make()
    cfg = get_cfg()
    cfg.ROOM.THING[key] = value
    with pytest.raises(ValueError, match="^") as caught:
        construct(thing, cfg, owner="me")
    assert str(caught.value) == text


def test_numbers_of_the_wrong_kind_are_refused() -> None:
    """Half a layer, a share that is a truth value, a name where a number is wanted."""
    thing = make()
    for key, value in (("DEPTH", 2.5), ("FREE", "x"), ("FREE", NAN), ("SWITCH", "on"), ("NAMES", (1, 2))):
        cfg = get_cfg()
        cfg.ROOM.THING[key] = value
        with pytest.raises(ValueError, match=rf"ROOM\.THING\.{key} is "):
            construct(thing, cfg, owner="me")


def test_an_object_made_by_hand_is_checked_too() -> None:
    thing = make()
    with pytest.raises(ValueError, match=r"ROOM\.THING\.SHARE is -1; it must be from 0 to 1"):
        thing(lamp=Lamp(), owner="me", share=-1)
    with pytest.raises(ValueError, match=r"^WATTS is 4; it must be from 5 to 60\.$"):
        Lamp(watts=4)
    with pytest.raises(TypeError):
        thing(lamp=Lamp())


def test_a_section_can_be_checked_before_its_object_can_be_made() -> None:
    thing = make()
    cfg = get_cfg()
    check_keys(thing, cfg)
    cfg.ROOM.THING.SHARE = 2
    with pytest.raises(ValueError, match=r"ROOM\.THING\.SHARE is 2"):
        check_keys(thing, cfg)
    cfg.ROOM.THING.SHARE, cfg.ROOM.THING.WATTS = 0.5, 99
    with pytest.raises(ValueError, match=r"ROOM\.THING\.WATTS is 99"):
        check_keys(thing, cfg)


@pytest.mark.parametrize(
    ("kind", "inside", "outside"),
    [
        (Positive, [1e-9, 3, 1e9], [0, -1, NAN, INF]),
        (NotNegative, [0, 0.0, 5], [-1e-9, NAN, INF, -INF]),
        (Share, [0, 1, 0.5], [-0.1, 1.1, NAN]),
        (Count, [1, 99], [0, -1]),
        (CountOrNone, [0, 1], [-1]),
        (Annotated[float, Range(0, 1, above=True)], [1e-9, 1], [0, 1.5]),
    ],
)
def test_ranges(kind: Any, inside: list[float], outside: list[float]) -> None:
    limits = kind.__metadata__[0]
    assert all(value in limits for value in inside) and not any(value in limits for value in outside)


def test_a_range_says_what_it_allows() -> None:
    ranges = [Range(0, above=True), Range(0), Range(0, 1), Range(0, 1, above=True)]
    expected = ["above 0", "at least 0", "from 0 to 1", "above 0 and at most 1"]
    assert [str(one) for one in ranges] == expected


# ---------------------------------------------------------------------- when and where


def test_a_section_that_comes_late_is_in_every_config_made_after_it() -> None:
    assert "ROOM" not in get_cfg()
    make()
    assert get_cfg().ROOM.THING.SIZE == 1.5
    mine = CfgNode()
    add_config(mine)
    make("ROOM.OTHER")
    assert mine.ROOM.OTHER.DEPTH == 2 and get_cfg().ROOM.OTHER.DEPTH == 2


def test_extending_the_defaults_twice_changes_nothing() -> None:
    make()
    before = get_cfg()
    extend_defaults()
    assert get_cfg() == before


def test_a_dataclass_and_a_subclass() -> None:
    @configured("ROOM.DATA")
    @dataclass(frozen=True, kw_only=True)
    class Data:
        """Data.

        Args:
            size: How large.
        """

        size: Count = 3

    assert keys_of(Data)[0].sentence == "How large." and construct(Data, get_cfg()).size == 3

    class Base:
        def __init__(self, *, depth: Count = 2) -> None:
            self.depth = depth

    @configured("ROOM.SUB")
    class Sub(Base):
        """Sub.

        Args:
            depth: How deep.
            height: How high.
        """

        def __init__(self, *, depth: Count = 4, height: Count = 1) -> None:
            super().__init__(depth=depth)
            self.height = height

    one = construct(Sub, get_cfg())
    assert (one.depth, one.height) == (4, 1)
    with pytest.raises(ValueError, match=r"ROOM\.SUB\.HEIGHT is 0"):
        Sub(height=0)
    assert fresh().ROOM.SUB.DEPTH == 4
