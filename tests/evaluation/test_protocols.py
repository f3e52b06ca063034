"""Protocols: what asks, what answers, how it prints."""

from __future__ import annotations

import numpy as np
import pytest

from dnreid_plugins.data.protocols import (
    Direction,
    Protocol,
    both_directions,
    dn348_protocol,
    dnwild_protocol,
    regdb_protocol,
)

DOMAINS = [0, 1, 0, 1, 1]


def test_dn348_is_all_against_all_of_the_other_domain() -> None:
    protocol = dn348_protocol(DOMAINS)
    assert [one.name for one in protocol.directions] == ["D2N", "N2D"]
    assert protocol["D2N"].query.tolist() == protocol["N2D"].gallery.tolist() == [0, 2]
    assert protocol["D2N"].gallery.tolist() == protocol["N2D"].query.tolist() == [1, 3, 4]
    assert str(protocol) == (
        "DN-348: D2N 2 queries, 3 in the gallery, N2D 3 queries, 2 in the gallery; "
        "nothing removed; image-level CMC at 1, 5, 10"
    )


def test_dnwild_asks_with_its_list() -> None:
    protocol = dnwild_protocol(DOMAINS, is_query=[1, 0, 0, 0, 1], is_gallery=[1, 1, 1, 1, 0])
    assert protocol["D2N"].query.tolist() == [0] and protocol["D2N"].gallery.tolist() == [1, 3]
    assert protocol["N2D"].query.tolist() == [4] and protocol["N2D"].gallery.tolist() == [0, 2]


def test_regdb_is_one_of_ten() -> None:
    assert str(regdb_protocol(DOMAINS, 4)).startswith("RegDB trial 4: ")
    assert str(regdb_protocol(DOMAINS, 4)).endswith("1, 5, 10, 20; one of 10 repetitions")


def test_empty_parts_and_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="gallery of direction D2N has shape"):
        dn348_protocol([0, 0])
    with pytest.raises(ValueError, match="query of direction N2D"):
        both_directions("x", DOMAINS, is_query=[True, False, True, False, False])
    direction = Direction("D2N", np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="removal is 'camera'; give a rule such as `nothing`"):
        Protocol("x", (direction,), removal="camera")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cmc is 'id'"):
        Protocol("x", (direction,), cmc="id")
    with pytest.raises(ValueError, match="no direction; give"):
        Protocol("x", ())
    with pytest.raises(KeyError, match="no direction 'N2D'; it has D2N"):
        Protocol("x", (direction,))["N2D"]
