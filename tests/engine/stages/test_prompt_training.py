"""Stage 1: the equations step by step, the order of images, resuming, what trains and what does not."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from torch import Tensor

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.stages.prompt_options import PromptStageOptions, epoch_order
from dnreid_plugins.engine.stages.prompt_training import PromptStage
from dnreid_plugins.modeling.clip.prompts import PromptLearner
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import ClipDescription, build_open_clip
from dnreid_plugins.runtime.sections import construct

TOY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 30, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
OPTIONS = PromptStageOptions(epochs=3, batch_size=4, lr=0.01, warmup_epochs=1)


@pytest.fixture(scope="module")
def text() -> ClipTextTower:
    torch.manual_seed(0)
    return ClipTextTower(model=build_open_clip(ClipDescription("toy", TOY)))


def make(
    text: ClipTextTower, sizes: tuple[int, int] = (9, 6), sparse: bool = True, **options: Any
) -> PromptStage:
    domains = torch.tensor([0] * sizes[0] + [1] * sizes[1])
    features = torch.randn(len(domains), 28, generator=torch.Generator().manual_seed(1))
    prompts = PromptLearner(text=text, domains=domains, feature_dim=28, bias_hidden=4, sparse=sparse)
    chosen = replace(OPTIONS, **options)
    return PromptStage(prompts=prompts, text=text, features=F.normalize(features), options=chosen)


# ---------------------------------------------------------------- order of the images


@pytest.mark.parametrize("sizes", [(1, 1), (7, 20), (8, 8), (9, 3), (12, 0), (3, 2)])
@pytest.mark.parametrize("last_batch", ["drop", "merge", "keep"])
def test_order_covers_the_larger_domain_and_fills_the_smaller(
    sizes: tuple[int, int], last_batch: str
) -> None:
    batches = epoch_order(sizes, replace(OPTIONS, last_batch=last_batch), epoch=2)
    longest = max(sizes)
    lengths = [len(batch[sizes.index(longest)]) for batch in batches]
    assert lengths and min(lengths) >= 1
    if last_batch == "drop" and longest >= 4:
        assert set(lengths) == {4}
        assert sum(lengths) == longest // 4 * 4
    else:
        assert sum(lengths) == longest
        assert all(length == 4 for length in lengths[:-1])
    if last_batch == "merge" and longest >= 4:
        assert 4 <= lengths[-1] < 8
    for domain, size in enumerate(sizes):
        drawn = torch.cat([batch[domain] for batch in batches])
        assert len(drawn) == (sum(lengths) if size else 0)
        assert drawn.numel() == 0 or (drawn.min() >= 0 and drawn.max() < size)
        if size == longest or last_batch != "drop":
            assert drawn.unique().numel() == (min(size, sum(lengths)))
        # repeats come only after every image of the smaller domain has had its turn
        first = drawn[: min(size, len(drawn))]
        assert first.unique().numel() == len(first)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def flat(options: PromptStageOptions, epoch: int) -> list[int]:
        return torch.cat([torch.cat(batch) for batch in epoch_order((20, 9), options, epoch)]).tolist()

    torch.manual_seed(5)
    first = flat(OPTIONS, 1)
    torch.manual_seed(6)
    assert flat(OPTIONS, 1) == first
    assert flat(OPTIONS, 2) != first
    assert flat(replace(OPTIONS, seed=1), 1) != first


# ---------------------------------------------------------------- schedules


def test_learning_rate_as_released() -> None:
    options = PromptStageOptions()
    assert options.learning_rate(1) == pytest.approx(1e-5 + (3.5e-4 - 1e-5) / 5)
    assert options.learning_rate(4) == pytest.approx(1e-5 + (3.5e-4 - 1e-5) * 4 / 5)
    assert options.learning_rate(90) == pytest.approx((3.5e-4 + 1e-6) / 2)
    assert options.learning_rate(180) == pytest.approx(1e-6)
    expected = 1e-6 + 0.5 * (3.5e-4 - 1e-6) * (1 + math.cos(math.pi * 5 / 180))
    assert options.learning_rate(5) == pytest.approx(expected)


def test_learning_rate_as_in_the_paper() -> None:
    options = PromptStageOptions(epochs=150, optimizer="Adam", warmup_epochs=0, lr=1.0, min_lr=0.0)
    rates = [options.learning_rate(epoch) for epoch in range(1, 151)]
    assert rates == sorted(rates, reverse=True)
    assert rates[74] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0)


@pytest.mark.parametrize("steps", [1, 31, 157, 1109])
def test_token_factor_is_how_far_dense_adam_takes_a_row_per_visit(steps: int) -> None:
    """Simulated number by number: gradient 1e-3 at every visit, zero in the steps between."""
    lr, grad, visits, moved = 1e-3, 1e-3, 30, [0.0]
    first = second = place = 0.0
    for step in range(1, visits * steps + 1):
        now = grad if (step - 1) % steps == 0 else 0.0
        first, second = 0.9 * first + 0.1 * now, 0.999 * second + 0.001 * now**2
        place += lr * first / (1 - 0.9**step) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
        if step % steps == 0:
            moved.append(place)
    per_visit = [(b - a) / lr for a, b in itertools.pairwise(moved[1:])]
    factor = PromptStageOptions().token_factor(steps)
    assert per_visit[-1] == pytest.approx(factor, rel=0.01)
    assert all(0.7 * factor < length < 1.01 * factor for length in per_visit)
    assert PromptStageOptions(token_rate="plain").token_factor(steps) == 1.0


# ---------------------------------------------------------------- the equations


def slow_loss(stage: PromptStage) -> Tensor:
    """Eq. 2, 3 and 14 of the next batch, image by image."""
    total = torch.zeros(())
    for domain in (0, 1):
        chosen = stage._images[domain][stage._batches[stage.step][domain]].tolist()
        texts, images = [], []
        for index in chosen:
            feature = stage.features[index]
            texts.append(stage.prompts.text_features(stage.text, torch.tensor([index]), feature[None])[0])
            images.append(feature[-12:] / feature[-12:].norm())
        for rows, columns in ((images, texts), (texts, images)):
            for i, row in enumerate(rows):
                scores = torch.stack([row @ column for column in columns]).exp()
                same = [q for q in range(len(chosen)) if chosen[q] == chosen[i]]
                total = total - sum((scores[q] / scores.sum()).log() for q in same) / len(same) / len(chosen)
    return total


@pytest.mark.parametrize("optimizer", ["AdamW", "Adam"])
def test_one_step_against_the_loop(text: ClipTextTower, optimizer: str) -> None:
    stage, twin = (make(text, (9, 2), optimizer=optimizer, weight_decay=0.01) for _ in range(2))
    loss = slow_loss(twin)  # night has 2 images for 4 places, so repeats are in
    loss.backward()
    stage.train_step()
    measured = sum(stage._sums[f"{kind}_{name}"] for kind in ("i2t", "t2i") for name in ("day", "night"))
    torch.testing.assert_close(measured, loss.detach())
    dense = getattr(torch.optim, optimizer)(list(twin.prompts.bias_net.parameters()), weight_decay=0.01)
    dense.param_groups[0]["lr"] = OPTIONS.learning_rate(1)
    dense.step()
    for a, b in zip(stage.prompts.bias_net.parameters(), twin.prompts.bias_net.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_half_precision_gives_the_gradient_of_float32(text: ClipTextTower) -> None:
    """float16 is scaled on its way and divided again before the step; bfloat16 has the same range as float32."""
    grads, errors = {}, {}
    for kind in (None, torch.float16, torch.bfloat16):
        stage = make(text)
        stage.autocast, stage._scale = kind, PromptStage.scale_of(kind)
        stage.train_step()
        grads[kind] = [
            p.grad.clone() for p in stage.prompts.bias_net.parameters()
        ]  # as the optimizer saw them
    exact = torch.cat([g.flatten() for g in grads[None]])
    for kind in (torch.float16, torch.bfloat16):
        errors[kind] = float((torch.cat([g.flatten() for g in grads[kind]]) - exact).norm() / exact.norm())
    assert 0.0 < errors[torch.float16] < 0.01 < errors[torch.bfloat16] < 0.2


def test_rows_outside_the_batch_are_untouched_and_the_towers_too(text: ClipTextTower) -> None:
    stage = make(text, (9, 9))
    before, tower = stage.prompts.tokens.weight.detach().clone(), copy.deepcopy(text.state_dict())
    batch = stage._batches[0]
    touched = set(torch.cat([stage._images[d][batch[d]] for d in (0, 1)]).tolist())
    stage.train_step()
    changed = (stage.prompts.tokens.weight != before).any(dim=1).nonzero().flatten().tolist()
    assert set(changed) == touched
    torch.testing.assert_close(text.state_dict(), tower, rtol=0, atol=0)
    assert all(p.grad is None for p in text.parameters())


def test_dense_table_moves_rows_outside_the_batch(text: ClipTextTower) -> None:
    stage = make(text, (9, 9), sparse=False)
    before = stage.prompts.tokens.weight.detach().clone()
    stage.train_step()
    assert (stage.prompts.tokens.weight != before).any(dim=1).all()


@pytest.mark.parametrize("sizes", [(1, 1), (5, 0), (0, 3), (12, 5)])
def test_training_brings_the_loss_down(text: ClipTextTower, sizes: tuple[int, int]) -> None:
    stage = make(text, sizes, epochs=8, lr=0.05, warmup_epochs=0)
    names = [name for name, size in zip(("day", "night"), sizes, strict=True) if size]
    records = [r for _ in range(8 * stage.steps_per_epoch) if (r := stage.train_step())]
    assert stage.finished and len(records) == 8
    assert set(records[0]) == {f"{k}_{n}" for k in ("i2t", "t2i", "text_norm") for n in names} | {"lr"}
    assert all(math.isfinite(value) for record in records for value in record.values())
    if min(sizes) > 1:
        assert sum(records[-1][f"i2t_{n}"] for n in names) < sum(records[0][f"i2t_{n}"] for n in names) - 0.05


def test_the_norm_of_the_texts_is_written(text: ClipTextTower) -> None:
    stage = make(text, (3, 3))
    expected = {}
    for name, images in zip(("day", "night"), stage._images, strict=True):
        with torch.no_grad():
            texts = stage.prompts.text_features(text, images, stage.features[images])
        expected[f"text_norm_{name}"] = pytest.approx(float(texts.norm(dim=1).mean()), rel=1e-5)
    record = stage.train_step()
    assert {key: record[key] for key in expected} == expected


# ---------------------------------------------------------------- resuming


def finish(stage: PromptStage) -> None:
    while not stage.finished:
        stage.run_epoch(lambda: False)


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("stop_after", [1, 4])
def test_resumed_run_has_the_same_bits(
    text: ClipTextTower, tmp_path: Any, stop_after: int, sparse: bool
) -> None:
    whole, part = make(text, sparse=sparse), make(text, sparse=sparse)
    finish(whole)
    for _ in range(stop_after):
        part.train_step()
    torch.save(part.state_dict(), tmp_path / "stage1.pt")
    torch.manual_seed(99)
    resumed = make(text, sparse=sparse)
    resumed.load_state_dict(torch.load(tmp_path / "stage1.pt", weights_only=True))
    assert (resumed.epoch, resumed.step) == (part.epoch, part.step)
    finish(resumed)
    for a, b in zip(whole.prompts.parameters(), resumed.prompts.parameters(), strict=True):
        assert torch.equal(a, b)


def test_means_of_a_resumed_epoch_count_the_steps_before(text: ClipTextTower) -> None:
    whole, part = make(text), make(text)
    expected = [record for _ in range(2) if (record := whole.train_step())]
    part.train_step()
    resumed = make(text)
    resumed.load_state_dict(copy.deepcopy(part.state_dict()))
    assert resumed.train_step() == expected[0]


def test_resuming_with_other_options_is_refused(text: ClipTextTower) -> None:
    state = make(text).state_dict()
    with pytest.raises(ValueError, match=r"'lr': \(0.01, 0.02\)"):
        make(text, lr=0.02).load_state_dict(state)


def test_it_stops_after_a_step_when_asked(text: ClipTextTower) -> None:
    stage = make(text)
    stage.run_epoch(lambda: True)
    assert (stage.epoch, stage.step) == (1, 1)
    stage.run_epoch(lambda: False)
    assert (stage.epoch, stage.step) == (2, 0)


# ---------------------------------------------------------------- results and refusals


def test_text_features_of_all_images(text: ClipTextTower) -> None:
    stage = make(text)
    features = stage.text_features(batch_size=4)
    assert features.shape == (15, 12)
    assert not features.requires_grad
    one = stage.prompts.text_features(text, torch.tensor([7]), stage.features[7:8])
    torch.testing.assert_close(features[7:8], one.detach())


def test_half_precision_features_are_accepted(text: ClipTextTower) -> None:
    stage = make(text)
    half = PromptStage(
        prompts=stage.prompts, text=text, features=stage.features.half(), options=stage.options
    )
    torch.testing.assert_close(half.text_features(), stage.text_features(), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": "SGD"}, "PROMPT_STAGE.OPTIMIZER is 'SGD'"),
        ({"token_rate": "fast"}, "PROMPT_STAGE.TOKEN_RATE is 'fast'"),
        ({"first_moment": "int8"}, "PROMPT_STAGE.FIRST_MOMENT is 'int8'"),
        ({"last_batch": "pad"}, "PROMPT_STAGE.LAST_BATCH is 'pad'"),
        ({"batch_size": 0}, "PROMPT_STAGE.BATCH_SIZE is 0; it must be at least 1"),
        ({"epochs": -1}, "PROMPT_STAGE.EPOCHS is -1; it must be at least 0"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PromptStageOptions(**options)


def test_wrong_number_of_features_is_refused(text: ClipTextTower) -> None:
    stage = make(text)
    with pytest.raises(ValueError, match="14 features for 15 prompts"):
        PromptStage(prompts=stage.prompts, text=text, features=stage.features[1:], options=OPTIONS)


def test_no_epochs_is_no_stage(text: ClipTextTower) -> None:
    stage = make(text, epochs=0)
    assert stage.finished


def test_options_from_config() -> None:
    cfg = get_cfg()
    assert construct(PromptStageOptions, cfg, seed=cfg.SEED) == PromptStageOptions()
    cfg.PROMPT_STAGE.LR, cfg.PROMPT_STAGE.LAST_BATCH = 0.25, "merge"
    expected = PromptStageOptions(lr=0.25, last_batch="merge", seed=7)
    assert construct(PromptStageOptions, cfg, seed=7) == expected
