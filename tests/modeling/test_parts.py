"""The life cycle of parts: who is told what, in which order, and what is state."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from head_world import build, configured, parts_of, turned_world, world
from torch import nn

from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LossHead
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Part, PartRegistry, Parts, names_of_parts


class Diary(Part):
    """Writes down what it is told, and has every kind of state."""

    told: ClassVar[list[str]] = []

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, 2))
        self.register_buffer("rows", torch.zeros(0, 3))
        self.register_buffer("own", torch.zeros(2), persistent=False)

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        matching = epoch.matching
        self.told.append(
            f"teacher: epoch {epoch.number}, {len(matching.pairs()) if matching else 'no'} pairs"
        )
        assert parts.epoch is epoch and parts.memory.rows("day").shape == epoch.day.centroids.shape
        self.rows = torch.ones(epoch.day.num_clusters, 3)
        return {"clusters": float(epoch.day.num_clusters)}

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        self.told.append(f"teacher: step with {len(batch.targets)} images")
        assert not torch.equal(parts.memory.rows("day"), parts.epoch.day.centroids)  # type: ignore[union-attr]


class Late(LossHead):
    """A head that trains from epoch 2 on and writes down what it is told."""

    def __init__(self) -> None:
        super().__init__(weight=((2, 1.0),))

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        Diary.told.append(f"late: epoch {epoch.number}")
        return {"seen": 1.0}

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        Diary.told.append("late: step")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(Diary, "told", [])
    return Diary.told


def test_every_part_is_told_in_order_and_heads_only_while_they_have_a_weight(told: list[str]) -> None:
    parts = Parts(memory=ClusterMemory(), losses={"DGM": build("DGM"), "Late": Late()}, teacher=Diary())
    assert [name for name, _ in parts.named()] == ["memory", "DGM", "Late", "teacher"]
    assert [name for name, _ in parts.active_heads()] == ["DGM"]  # before the first epoch as in it
    for number in (1, 2):
        here = turned_world(number)
        figures = parts.begin_epoch(here.epoch)
        assert figures["teacher"] == {"clusters": 3.0} and figures["DGM"]["edges"] >= 3
        assert ("Late" in figures) == (number == 2) and "memory" not in figures
        parts.after_step(here.batch.detach())
    once = ["teacher: epoch {}, 3 pairs", "teacher: step with 15 images"]
    expected = [line.format(1) for line in once] + ["late: epoch 2", once[0].format(2), "late: step", once[1]]
    assert told == expected


def test_the_last_matching_is_that_of_the_epoch() -> None:
    for names in (["PGM", "DGM"], ["DGM", "PGM"]):
        parts = parts_of(*(build(name) for name in names))
        assert parts.epoch is None and parts.matching("DGM") is None
        parts.begin_epoch(turned_world().epoch)
        assert parts.epoch is not None and list(parts.epoch.matchings) == names
        assert parts.epoch.matching is parts.matching(names[-1]) is not parts.matching(names[0])


def test_a_head_without_a_weight_makes_no_matching() -> None:
    parts = parts_of(build("PGM"), configured("DGM"))  # DGM begins at epoch 51
    parts.begin_epoch(turned_world().epoch)
    assert parts.epoch is not None and list(parts.epoch.matchings) == ["PGM"]


def test_the_same_epoch_again_changes_nothing() -> None:
    """A resume inside an epoch replays its start."""
    parts, here = parts_of(build("CMA"), build("DGM", ON_EMPTY="keep_last")), turned_world()
    figures = parts.begin_epoch(here.epoch)
    before = {name: value.clone() for name, value in parts.state_dict().items()}
    assert parts.begin_epoch(here.epoch) == figures
    after = parts.state_dict()
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())


def test_state_takes_over_the_sizes_of_a_checkpoint_and_is_forgotten_on_demand(told: list[str]) -> None:
    model, other = nn.Module(), nn.Module()
    for one in (model, other):
        one.body = nn.Linear(2, 2)
        one.parts = Parts(memory=ClusterMemory(), losses={"DGM": build("DGM")}, teacher=Diary())
    model.parts.begin_epoch(turned_world().epoch)
    with torch.no_grad():
        model.parts.teacher.table = nn.Parameter(torch.rand(4, 5))
    other.load_state_dict(model.state_dict())
    mine, theirs = model.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert theirs["parts.teacher.table"].shape == (4, 5) and theirs["parts.memory.own_night"].shape[0] == 4
    assert [name for name, _ in other.named_parameters()] == [name for name, _ in model.named_parameters()]
    other.parts.forget()
    empty = {"own_day", "own_night", "rows", "day_to_night", "night_labels"}
    assert all(value.numel() == 0 for key, value in other.state_dict().items() if key.split(".")[-1] in empty)
    assert other.state_dict()["parts.teacher.table"].numel() == 20  # a parameter is no leftover of an epoch
    names = names_of_parts(model)
    assert {"parts.memory.own_day", "parts.teacher.table", "parts.teacher.own"} <= names
    assert "parts.losses.DGM.matcher.day_labels" in names and not any(
        name.startswith("body") for name in names
    )


def test_a_state_of_another_size_is_refused_outside_of_the_parts() -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 3)
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(model.state_dict())


def test_stages_are_asked_for_once() -> None:
    class Asking(Late):
        stages = ("LearnPrompts", "Other")

    class More(Late):
        stages = ("Other",)

    assert parts_of(Asking(), More(), build("DGM")).stages() == ["LearnPrompts", "Other"]


def test_a_registered_part_has_a_section_of_its_name_and_is_built_from_it(scratch: None) -> None:
    from fastreid.config import get_cfg

    registry = PartRegistry("THINGS", "TEST_THINGS")
    registry.register(type("Thing", (Part,), {"__init__": thing_init, "__doc__": "A thing.\n"}))
    cfg = get_cfg()
    assert cfg.TEST_THINGS.THING.SIZE == 3 and registry.names() == ["Thing"]
    cfg.TEST_THINGS.THING.SIZE = 8
    thing: Any = registry.get("Thing").from_config(cfg)
    assert thing.size == 8


def thing_init(self: Any, *, size: int = 3) -> None:
    Part.__init__(self)
    self.size = size


def test_a_part_needs_no_clusters_at_all() -> None:
    here = world([-1, -1], [-1])
    for name in ("ClusterNCE", "MAA", "DGM", "PGM", "CMA"):
        parts = here.parts(build(name))
        parts.after_step(here.batch.detach())
        assert parts.memory.rows("day").shape == (0, 16)
