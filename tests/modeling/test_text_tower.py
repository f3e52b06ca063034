"""The frozen text tower: cut prompts give the features of the full 77 tokens."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from torch import Tensor

from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import ClipDescription, build_open_clip

TOY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 3},
}
SENTENCES = [
    "A daytime photo of a red vehicle.",
    "",
    "an infrared photo of a very, very small person at night",
]


def toy_clip(custom: bool = False, **text: Any) -> Any:
    torch.manual_seed(0)
    cfg = {**TOY, "text_cfg": {**TOY["text_cfg"], **text}, "custom_text": custom}
    return build_open_clip(ClipDescription("toy", cfg)).double().eval()


@pytest.mark.parametrize("custom", [False, True])
@pytest.mark.parametrize("text", [{}, {"proj_bias": True}, {"pool_type": "eos", "eos_id": 49407}])
def test_equals_encode_text(custom: bool, text: dict[str, Any]) -> None:
    if text and not custom:
        pytest.skip("open_clip's plain CLIP class has this option in CustomTextCLIP only")
    model = toy_clip(custom, **text)
    expected = model.encode_text(open_clip.tokenize(SENTENCES))
    features = ClipTextTower(model=model).encode_texts(SENTENCES)
    assert features.shape == (3, 24)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)


def full_length_features(model: Any, prompts: Tensor, eot: Tensor) -> Tensor:
    """The slow twin: all 77 positions, as the released code does it."""
    tokens = prompts + model.positional_embedding
    tokens = model.ln_final(model.transformer(tokens, attn_mask=model.attn_mask))
    return torch.stack([tokens[i, e] for i, e in enumerate(eot.tolist())]) @ model.text_projection


@pytest.mark.parametrize("ends", [[12, 12, 12], [3, 76, 40], [0, 0, 0]])
def test_cut_prompts_equal_77_tokens_in_value_and_gradient(ends: list[int]) -> None:
    model = toy_clip()
    tower, eot = ClipTextTower(model=model), torch.tensor(ends)
    prompts = torch.randn(3, 77, 32, dtype=torch.float64)
    short, long = prompts.clone().requires_grad_(), prompts.clone().requires_grad_()
    weight = torch.randn(3, 24, dtype=torch.float64)
    result, expected = tower.encode_prompts(short, eot), full_length_features(model, long, eot)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    (result * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(short.grad, long.grad, rtol=0, atol=1e-12)
    cut_here = max(ends) + 1
    assert not short.grad[:, cut_here:].any()


def test_float32_agrees_to_1e5() -> None:
    model = toy_clip().float()
    eot = torch.full((4,), 12)
    prompts = torch.randn(4, 77, 32)
    result = ClipTextTower(model=model).encode_prompts(prompts, eot)
    torch.testing.assert_close(result, full_length_features(model, prompts, eot), rtol=0, atol=1e-5)


def test_one_number_stands_for_all_prompts_and_no_prompt_is_fine() -> None:
    tower = ClipTextTower(model=toy_clip())
    prompts = torch.randn(2, 9, 32, dtype=torch.float64)
    expected = tower.encode_prompts(prompts, torch.tensor([8, 8]))
    torch.testing.assert_close(tower.encode_prompts(prompts, 8), expected, rtol=0, atol=0)
    assert tower.encode_prompts(prompts[:0], 8).shape == (0, 24)
    assert tower.encode_texts([]).shape == (0, 24)


def test_positions_outside_are_refused() -> None:
    tower = ClipTextTower(model=toy_clip())
    with pytest.raises(ValueError, match="ends at position 9, but there are 9 tokens"):
        tower.encode_prompts(torch.zeros(1, 9, 32, dtype=torch.float64), 9)
    with pytest.raises(ValueError, match="the tower has 77 positions"):
        tower.encode_texts(["red " * 80])


def test_frozen_and_always_in_eval_mode() -> None:
    tower = ClipTextTower(model=toy_clip())
    holder = torch.nn.ModuleList([tower]).train()
    assert not any(module.training for module in holder[0].modules())
    assert not any(p.requires_grad for p in tower.parameters())
    prompts = torch.randn(1, 5, 32, dtype=torch.float64, requires_grad=True)
    tower.encode_prompts(prompts, 4).sum().backward()
    assert prompts.grad.abs().sum() > 0
    assert all(p.grad is None for p in tower.parameters())


@pytest.mark.parametrize("text", [{"no_causal_mask": True}, {"pool_type": "last"}, {"embed_cls": True}])
def test_towers_that_cannot_be_cut_are_refused(text: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not causal with its feature at the end-of-text token"):
        ClipTextTower(model=toy_clip(custom=True, **text))


def test_reduced_vocabulary_gives_the_same_features() -> None:
    full = toy_clip()
    tokenizer = open_clip.SimpleTokenizer()
    ids = sorted({0, *tokenizer.encode(" ".join(SENTENCES)), tokenizer.sot_token_id, tokenizer.eot_token_id})
    small = toy_clip(vocab_size=len(ids))
    state = full.state_dict()
    state["token_embedding.weight"] = state["token_embedding.weight"][ids]
    small.load_state_dict(state)
    tower = ClipTextTower(model=small, vocabulary=ids)
    expected = ClipTextTower(model=full).encode_texts(SENTENCES)
    torch.testing.assert_close(tower.encode_texts(SENTENCES), expected)
    # open_clip's own pooling takes the largest id of a row, which the ascending order keeps at the end
    rows = torch.searchsorted(torch.tensor(ids), open_clip.tokenize(SENTENCES))
    torch.testing.assert_close(small.encode_text(rows), expected)
    with pytest.raises(ValueError, match=r"no token \['bicycle'\]"):
        tower.word_ids("a red bicycle")
