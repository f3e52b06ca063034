"""Our pipeline is fast-reid's where fast-reid's works, and runs and repeats where it does not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.data.transforms import build_transforms as fastreid_build_transforms
from PIL import Image

from dnreid_plugins.data.augment import ChannelAugmentation, NoiseErasing, SmallPoolPatch
from dnreid_plugins.data.transforms import build_domain_transform, build_transforms
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.runtime.generators import generators_kept, seed_generators

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
SWITCHES = ("CROP", "FLIP", "PADDING", "CJ", "AUTOAUG", "AUGMIX", "REA")


def config(*switches: str, **values: Any) -> Any:
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST, cfg.INPUT.CROP.SIZE = [24, 20], [24, 20], [24, 20]
    for switch in switches:
        cfg.INPUT[switch].ENABLED = True
        if "PROB" in cfg.INPUT[switch]:
            cfg.INPUT[switch].PROB = 1.0
    for name, value in values.items():
        section, key = name.split("_", 1)
        cfg.INPUT[section][key] = value
    return cfg


def seeded(transform: Any, *args: Any, seed: int = 3) -> torch.Tensor:
    with generators_kept():
        seed_generators(seed)
        return transform(*args)


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("switches", [(), *[(name,) for name in SWITCHES], SWITCHES])
@pytest.mark.parametrize("is_train", [True, False])
def test_equal_to_fastreid_where_it_works(switches: tuple[str, ...], is_train: bool) -> None:
    cfg, image = config(*switches), Image.fromarray(PIXELS)
    theirs = seeded(fastreid_build_transforms(cfg, is_train=is_train), image)
    ours = seeded(build_transforms(cfg, is_train=is_train), image)
    assert ours.dtype == torch.float32 and ours.shape == (3, 24, 20)
    assert torch.equal(ours, theirs.float())
    assert (np.asarray(image) == PIXELS).all()


@pytest.mark.parametrize("domain", Domain)
@pytest.mark.parametrize(
    "switches", [("AFFINE",), ("RPT",), ("CHANNEL_AUG",), (*SWITCHES, "AFFINE", "RPT", "CHANNEL_AUG")]
)
def test_every_pipeline_repeats_under_its_seed(switches: tuple[str, ...], domain: Domain) -> None:
    transform = build_domain_transform(config(*switches, REA_MODE="noise"), is_train=True)
    image = Image.fromarray(PIXELS)

    def run(seed: int) -> torch.Tensor:
        transform.begin_batch()
        return torch.stack([seeded(transform, image, domain, seed=seed + i) for i in range(8)])

    assert torch.equal(run(1), run(1))
    if domain == Domain.DAY or switches != ("CHANNEL_AUG",):
        assert not torch.equal(run(1), run(100))
    assert torch.isfinite(run(1)).all()


def test_affine_moves_the_image() -> None:
    image = Image.fromarray(PIXELS)
    assert not torch.equal(
        seeded(build_transforms(config("AFFINE")), image), build_transforms(config())(image)
    )


def test_test_pipelines_draw_nothing() -> None:
    cfg = config(*SWITCHES, "AFFINE", "RPT", "CHANNEL_AUG", REA_MODE="noise")
    transform = build_domain_transform(cfg, is_train=False)
    state = torch.get_rng_state()
    assert torch.equal(
        transform(Image.fromarray(PIXELS), Domain.DAY), transform(Image.fromarray(PIXELS), Domain.NIGHT)
    )
    assert torch.equal(state, torch.get_rng_state())


def test_channel_augmentation_is_for_day_images_and_takes_each_plane() -> None:
    transform = build_domain_transform(config("CHANNEL_AUG"), is_train=True)
    image = Image.fromarray(PIXELS).resize((20, 24), 3)
    plain = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    planes = [*plain, torch.from_numpy(np.array(image.convert("L"))).float()]
    seen = set()
    for seed in range(40):
        result = seeded(transform, image, Domain.DAY, seed=seed)
        assert (result == result[:1]).all()
        seen.add(next(i for i, plane in enumerate(planes) if torch.equal(plane, result[0])))
        assert torch.equal(seeded(transform, image, Domain.NIGHT, seed=seed), plain)
    assert seen == {0, 1, 2, 3}
    assert ChannelAugmentation(0.0)(image) is image


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("exchange", {"red": 1 / 3, "green": 1 / 3, "blue": 1 / 3}),
        ("grey", {"grey": 1.0}),
        ("grey_or_colour", {"grey": 1 / 2, "colour": 1 / 2}),
        ("grey_or_channel", {"colour": 1 / 2, "red": 1 / 8, "green": 1 / 8, "blue": 1 / 8, "grey": 1 / 8}),
        ("channel_or_grey", {"red": 1 / 4, "green": 1 / 4, "blue": 1 / 4, "grey": 1 / 8, "colour": 1 / 8}),
    ],
)
def test_a_views_step_draws_as_often_as_it_says(step: str, expected: dict[str, float]) -> None:
    cfg = config()
    cfg.INPUT.VIEWS.NIGHT = ((step,),)
    transform = build_domain_transform(cfg, is_train=True)
    image = Image.fromarray(PIXELS[:24, :20])
    planes = dict(zip(("red", "green", "blue"), image.split())) | {"grey": image.convert("L")}
    known = {
        name: torch.from_numpy(np.array(plane)).float().expand(3, -1, -1) for name, plane in planes.items()
    }
    known["colour"] = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    counts = dict.fromkeys(known, 0)
    for seed in range(800):
        result = seeded(transform, image, Domain.NIGHT, seed=seed)
        counts[next(name for name, pixels in known.items() if torch.equal(pixels, result))] += 1
    # Four standard deviations of 800 draws.
    for name, count in counts.items():
        share = expected.get(name, 0.0)
        assert abs(count / 800 - share) <= 4 * (share * (1 - share) / 800) ** 0.5, (name, count)


def test_noise_erasing_fills_one_rectangle_with_the_statistics_given() -> None:
    erase = NoiseErasing(1.0, mean=[10.0, 100.0, 200.0], std=[1.0, 2.0, 4.0])
    image = torch.full((3, 200, 200), -1000.0)
    result = seeded(erase, image)
    assert (image == -1000).all()
    changed = (result != -1000).all(dim=0)
    rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
    inside = result[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert int(changed.sum()) == inside[0].numel() >= 0.02 * 200 * 200 * 0.9
    torch.testing.assert_close(inside.mean(dim=(1, 2)), torch.tensor([10.0, 100.0, 200.0]), atol=0.5, rtol=0)
    torch.testing.assert_close(inside.std(dim=(1, 2)), torch.tensor([1.0, 2.0, 4.0]), atol=0.5, rtol=0)
    assert NoiseErasing(0.0, [0.0] * 3, [1.0] * 3)(image) is image


def test_unknown_erasing_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="INPUT.REA.MODE is 'pixel'; choose"):
        build_transforms(config("REA", REA_MODE="pixel"))


def test_patches_are_copies_in_a_small_pool() -> None:
    patch = SmallPoolPatch(1.0, capacity=5, min_sample_size=2)
    random.seed(0)
    for value in range(20):
        image = torch.full((3, 30, 20), float(value))
        patch(image)
        image.fill_(-1.0)
    assert len(patch.patchpool) == 5
    assert all(float(one.min()) >= 0 for one in patch.patchpool)
    patch.reset()
    image = torch.zeros(3, 30, 20)
    assert torch.equal(patch(image), torch.zeros(3, 30, 20)) and patch.patchpool.maxlen == 5


def test_seeding_touches_all_three_generators_and_gives_them_back(global_states) -> None:
    def draw() -> tuple[float, float, float]:
        numpy = np.random.rand()
        return random.random(), float(numpy), float(torch.rand(()))

    with generators_kept():
        seed_generators(2**62 + 5)
        first = draw()
        seed_generators(2**62 + 5)
        assert draw() == first
    before = global_states()
    with pytest.raises(RuntimeError), generators_kept():
        seed_generators(1)
        raise RuntimeError
    assert before == global_states()
