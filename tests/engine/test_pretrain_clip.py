"""The miniature CLIP: vocabulary, captions, training, and what is shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import dnreid_plugins  # noqa: F401
from dnreid_plugins.dnmini.identity import caption
from dnreid_plugins.dnmini.pretrain_clip import (
    ClipPretrainOptions,
    describe_miniclip,
    pretrain_clip,
    vary_caption,
    write_miniclip,
)
from dnreid_plugins.dnmini.source import source_set
from dnreid_plugins.dnmini.worlds import WORLDS
from dnreid_plugins.modeling.clip.image_tower import ClipVitBackbone
from dnreid_plugins.modeling.clip.prompts import PromptLearner
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import MINI_CLIP, build_open_clip, describe, find_weights

TINY = ClipPretrainOptions(num_ids=12, images_per_id=2, steps=3, batch_size=4)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_vocabulary_has_every_caption_and_template(world: str) -> None:
    description, drawn = describe_miniclip(world), WORLDS[world]
    assert description.vocabulary == tuple(sorted(description.vocabulary))
    assert description.model_cfg["text_cfg"]["vocab_size"] == len(description.vocabulary) < 300
    tower = ClipTextTower(model=build_open_clip(description), vocabulary=description.vocabulary)
    others = drawn.identities(count=300, seed=987, half=1) + drawn.identities(count=300, seed=987, half=0)
    captions = [drawn.caption(vehicle) for vehicle in others]
    assert len(set(captions)) > 590
    for sentence in captions:
        assert tower.word_ids(sentence)
    for word in ("daytime", "nighttime", "visible", "infrared", "vehicle", "person"):
        assert len(tower.word_ids(word)) == 1


def test_varied_captions_stay_true_and_vary() -> None:
    generator = torch.Generator().manual_seed(0)
    sentence = "an orange van with a roof rack, two dark side windows and round warm lamps"
    varied = [vary_caption(sentence, ClipPretrainOptions(), generator) for _ in range(200)]
    assert len(set(varied)) > 20
    for text in varied:
        assert "an orange van" in text or "an orange vehicle" in text
        assert "None" not in text and text.strip() == text
        if "round warm lamps" in text:  # attributes go from the end
            assert "a roof rack, two dark side windows" in text
    assert any("vehicle" in text for text in varied) and any("van" in text for text in varied)
    assert any(text.startswith("A daytime photo of an orange") for text in varied)


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_training_is_a_function_of_its_options(tmp_path: Path, world: str) -> None:
    options = replace(TINY, world=world)
    source = source_set(options.num_ids, options.images_per_id, options.seed, world=world, workers=1)
    torch.manual_seed(1)
    description, first = pretrain_clip(options, source=source)
    torch.manual_seed(2)
    _, second = pretrain_clip(options)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    write_miniclip(tmp_path, description, first, options)
    assert (tmp_path / "miniclip.safetensors").stat().st_size < 4 * 2**20
    model = build_open_clip(describe(str(tmp_path / "miniclip.json")), str(tmp_path / "miniclip.safetensors"))
    torch.testing.assert_close(model.state_dict(), first, rtol=1e-3, atol=1e-4)
    start = build_open_clip(description)
    assert not torch.equal(model.visual.proj, start.visual.proj)


def test_too_few_vehicles_are_refused() -> None:
    with pytest.raises(ValueError, match="2 vehicles are too few for a batch of 4"):
        pretrain_clip(TINY, source=source_set(2, 1, 0, workers=1))


shipped = pytest.mark.skipif(not find_weights(MINI_CLIP, MINI_CLIP)[0].is_file(), reason="not shipped yet")


@shipped
def test_shipped_miniclip_is_small_and_knows_its_words() -> None:
    description = describe(MINI_CLIP)
    path = find_weights(MINI_CLIP, MINI_CLIP)[0]
    assert path.stat().st_size + path.with_suffix(".json").stat().st_size < 4 * 2**20
    assert description.vocabulary == describe_miniclip().vocabulary
    model = build_open_clip(description, MINI_CLIP)
    text = ClipTextTower(model=model, vocabulary=description.vocabulary)
    backbone = ClipVitBackbone(visual=model.visual, input_size=(64, 64), freeze_patch=False)
    assert backbone(torch.zeros(1, 3, 64, 64)).shape == (1, sum(backbone.split), 1, 1)
    prompts = PromptLearner(text=text, domains=torch.tensor([0, 1]), feature_dim=backbone.feat_dim)
    assert prompts(torch.tensor([0, 1]), torch.zeros(2, backbone.feat_dim))[0].shape[1] == 13


@shipped
def test_shipped_miniclip_tells_unseen_vehicles_by_their_caption() -> None:
    """Image and sentence of vehicles of neither training set nor DNMini's seed: far above chance (1/32)."""
    from dnreid_plugins.dnmini.pretrain_clip import _resized

    source = source_set(32, 2, 4321, workers=1)
    description = describe(MINI_CLIP)
    model = build_open_clip(description, MINI_CLIP).eval()
    text = ClipTextTower(model=model, vocabulary=description.vocabulary)
    with torch.no_grad():
        images = model.encode_image((_resized(source, (64, 64)).float() - 127.5) / 127.5)
        sentences = text.encode_texts([f"A daytime photo of {caption(v)}." for v in source.identities])
    scores = torch.nn.functional.normalize(images) @ torch.nn.functional.normalize(sentences).T
    right = (scores.argmax(dim=1) == torch.arange(32).repeat_interleave(2)).float().mean()
    assert right > 0.3
