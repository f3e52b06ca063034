"""The pre-training source set: other vehicles, by day only, coarse labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dnreid_plugins.dnmini.parallel import map_in_processes
from dnreid_plugins.dnmini.pretrain import PretrainOptions
from dnreid_plugins.dnmini.source import COARSE_ATTRIBUTES, IGNORED, coarse_labels, source_set
from dnreid_plugins.dnmini.worlds import WORLDS
from dnreid_plugins.dnmini.write import Parameters, dnmini_identities
from dnreid_plugins.functional.types import Domain


def test_the_shipped_start_has_seen_no_vehicle_of_dnmini() -> None:
    options = PretrainOptions()
    source = WORLDS["dnmini"].identities(count=options.num_ids, seed=options.seed, half=1)
    for seed in (0, 1, 2, 1000):
        parameters = Parameters(seed=seed, num_train_ids=100, num_test_ids=60, images_per_domain=1)
        assert set(dnmini_identities(parameters).values()).isdisjoint(source)


def test_source_set_is_a_function_of_its_arguments_and_not_of_the_workers() -> None:
    one, two = source_set(3, 2, 5, workers=1), source_set(3, 2, 5, workers=2)
    assert one.images.shape == (6, 80, 128, 3) and one.images.dtype == np.uint8
    assert one.labels.shape == (6, len(COARSE_ATTRIBUTES)) and one.labels.dtype == np.int64
    assert np.array_equal(one.images, two.images) and np.array_equal(one.labels, two.labels)
    assert not np.array_equal(one.images, source_set(3, 2, 6, workers=1).images)
    assert all(identity.half() == 1 for identity in one.identities)


def test_no_night_image_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for name, world in WORLDS.items():

        def view(vehicle, rng, domain, draw=world.view):
            seen.append(domain)
            return draw(vehicle, rng, domain)

        monkeypatch.setitem(WORLDS, name, replace(world, view=view))
        source_set(2, 2, 0, world=name, workers=1)
    assert seen == [Domain.DAY] * 8


def test_labels_say_what_the_vehicle_is() -> None:
    columns = list(COARSE_ATTRIBUTES)
    for identity in WORLDS["dnmini"].identities(count=100, seed=0, half=1):
        labels = coarse_labels(identity)
        for name, label in zip(columns, labels, strict=True):
            if name == "stripe_tone" and identity.stripe == "none":
                assert label == IGNORED
            else:
                assert list(COARSE_ATTRIBUTES[name])[label] == getattr(identity, name)


@pytest.mark.parametrize("sizes", [(0, 1), (1, 0)])
def test_empty_sources_are_refused(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        source_set(*sizes, 0)


def _square(x: int) -> int:
    return x * x


@pytest.mark.parametrize("workers", [1, 2, None])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_map_keeps_the_order(workers: int | None, count: int) -> None:
    assert list(map_in_processes(_square, [(i,) for i in range(count)], workers=workers)) == [
        i * i for i in range(count)
    ]


def test_map_refuses_no_worker() -> None:
    with pytest.raises(ValueError, match="workers must be >= 1"):
        list(map_in_processes(_square, [(1,)], workers=0))
