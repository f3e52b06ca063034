"""What actions amount to: later ones are right, groups grow and are told apart, nobody is in two of them."""

from __future__ import annotations

import random

import pytest

from dnreid_plugins.labels.corrections import CorrectionRow
from dnreid_plugins.retrieval.web.judgements import Action, rows_of, standing

Rows = dict[str, tuple[int | None, tuple[int, ...]]]


def rows(*actions: Action) -> Rows:
    """Image -> group (None where nothing is said) and the groups that it is not of."""
    return {row.path: (row.same, row.apart) for row in rows_of(actions)}


def said(do: str, images: str, others: str = "") -> Action:
    return Action(do, "", tuple(images), tuple(others))  # type: ignore[arg-type]


def test_each_verb_alone() -> None:
    one = {"a": (0, ()), "b": (0, ())}
    assert rows() == {}
    assert rows(said("confirm", "ab")) == rows(said("same", "a", "b")) == one
    assert rows(said("split", "ab", "cd")) == {**one, "c": (None, (0,)), "d": (None, (0,))}
    assert rows(said("split", "ab", "cd")) == rows(said("different", "ab", "cd"))
    assert rows(said("remove", "ab")) == {"a": (-1, ()), "b": (-1, ())}


def test_groups_grow_over_what_they_share() -> None:
    assert rows(said("confirm", "ab"), said("confirm", "cd"), said("same", "b", "c")) == dict.fromkeys(
        "abcd", (0, ())
    )


def test_later_actions_are_right() -> None:
    split, merged = said("split", "ab", "cd"), said("same", "ab", "cd")
    assert rows(split, merged) == dict.fromkeys("abcd", (0, ()))
    assert rows(merged, split) == {"a": (1, ()), "b": (1, ()), "c": (0, (1,)), "d": (0, (1,))}
    assert rows(said("remove", "a"), said("confirm", "ab")) == {"a": (0, ()), "b": (0, ())}
    assert rows(said("confirm", "abc"), said("remove", "a")) == {"a": (-1, ()), "b": (0, ()), "c": (0, ())}


def test_who_is_one_with_the_others_is_told_from_the_images_too() -> None:
    found = rows(said("confirm", "cx"), said("split", "ab", "cd"))
    assert found["x"] == (0, (1,)) and found["c"] == (0, (1,)) and found["d"] == (None, (1,))
    # and what a part of a group was told from, it stays told from
    found = rows(said("split", "abz", "d"), said("split", "z", "ab"))
    assert found["d"] == (None, (0, 1)) and found["a"] == (0, (1,)) and found["z"] == (1, ())


def test_undo_takes_back_the_last_one_that_stands() -> None:
    a, b, undo = said("confirm", "ab"), said("remove", "a"), said("undo", "")
    assert standing([undo, a, b, undo, undo, undo, b]) == [b]
    assert standing([a, b, undo]) == [a] and standing([]) == []


@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_actions_is_without_contradiction(seed: int) -> None:
    draw = random.Random(seed)
    actions = []
    for _ in range(25):
        images = draw.sample("abcdefghij", draw.randint(1, 4))
        others = [one for one in draw.sample("abcdefghij", 3) if one not in images]
        do = draw.choice(["confirm", "same", "different", "split", "remove"])
        actions.append(said(do, "".join(images), "" if do in ("confirm", "remove") else "".join(others)))
        found = rows_of(actions)
        assert [row.path for row in found] == sorted({row.path for row in found})
        groups = {row.same for row in found}
        for row in found:
            assert row.same not in row.apart and set(row.apart) <= groups
            assert row != CorrectionRow(row.path, None, ())
        state = {row.path: row for row in found}
        if do in ("confirm", "same"):
            united = images + (others if do == "same" else [])
            assert len({state[image].same for image in united}) == 1
        elif do in ("split", "different"):
            (group,) = {state[image].same for image in images}
            kept = [state[other] for other in others if other in state and state[other].same != -1]
            assert all(group in other.apart for other in kept)
        else:
            assert all(state[image].same == -1 for image in images)
