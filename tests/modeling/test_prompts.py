"""Per-image prompts: Eq. 1 against a loop, templates, sparsity."""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import torch
from fastreid.config import get_cfg
from torch import Tensor

import dnreid_plugins  # noqa: F401
from dnreid_plugins.modeling.clip.prompts import (
    DynamicBiasNet,
    PromptLearner,
    build_prompt_learner,
)
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import ClipDescription, build_open_clip

TOY = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 30, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
DOMAINS = torch.tensor([0, 0, 0, 1, 1])
DAY, NIGHT = "A daytime photo of a {} vehicle.", "A nighttime photo of a {} vehicle."


@pytest.fixture(scope="module")
def text() -> ClipTextTower:
    torch.manual_seed(0)
    return ClipTextTower(model=build_open_clip(ClipDescription("toy", TOY)))


def make(text: ClipTextTower, **options: Any) -> PromptLearner:
    return PromptLearner(text=text, domains=DOMAINS, **{"feature_dim": 9, "bias_hidden": 3, **options})


def slow_prompts(prompts: PromptLearner, text: ClipTextTower, index: int, feature: Tensor, m: int) -> Tensor:
    """Eq. 1 for one image: its sentence tokenised with X in the slots, then the slots replaced one by one."""
    sentence = (DAY, NIGHT)[int(DOMAINS[index])].replace("{}", "X " * m).strip()
    ids = open_clip.tokenize([sentence])[0]
    rows = text.token_embedding.weight[ids[: int(ids.argmax()) + 1]].to(feature.dtype).clone()
    net = prompts.bias_net
    bias = torch.zeros(16, dtype=feature.dtype)
    if net is not None:
        hidden = torch.relu(net.hidden.weight @ feature + net.hidden.bias)
        bias = net.out.weight @ hidden + net.out.bias
    for slot in range(m):
        rows[6 + slot] = prompts.tokens.weight[index, 16 * slot : 16 * (slot + 1)] + bias
    return rows


@pytest.mark.parametrize("bias_hidden", [0, 3])
@pytest.mark.parametrize("m", [1, 4, 6])
def test_equation_1_against_a_loop(text: ClipTextTower, m: int, bias_hidden: int) -> None:
    prompts = make(text, num_tokens=m, bias_hidden=bias_hidden, sparse=False).double()
    indices, features = torch.tensor([3, 0, 3, 2]), torch.randn(4, 9, dtype=torch.float64)
    features.requires_grad_()
    embeddings, eot = prompts(indices, features)
    assert embeddings.shape == (4, 9 + m, 16)
    assert eot.tolist() == [8 + m] * 4
    expected = torch.stack([slow_prompts(prompts, text, i, f, m) for i, f in zip(indices.tolist(), features)])
    torch.testing.assert_close(embeddings, expected)
    wanted = list(prompts.parameters()) + ([features] if bias_hidden else [])
    weight = torch.randn_like(embeddings)
    got = torch.autograd.grad((embeddings * weight).sum(), wanted)
    slow = torch.autograd.grad((expected * weight).sum(), wanted)
    torch.testing.assert_close(got, slow)


def test_bias_net_of_the_paper_has_143952_parameters() -> None:
    net = DynamicBiasNet(in_dim=1280, hidden_dim=80, out_dim=512, generator=torch.Generator())
    assert sum(p.numel() for p in net.parameters()) == 143_952


def test_text_features_equal_open_clip_when_the_tokens_are_words(text: ClipTextTower) -> None:
    prompts = make(text, bias_hidden=0, num_tokens=2)
    words = text.embed(torch.tensor(text.word_ids("dark red")))
    prompts.tokens.weight.data[4] = words.flatten()
    features = prompts.text_features(text, torch.tensor([4]), torch.zeros(1, 9))
    expected = text.encode_texts(["A nighttime photo of a dark red vehicle."])
    torch.testing.assert_close(features, expected)


def test_templates_of_different_length_in_one_batch(text: ClipTextTower) -> None:
    templates = ("a {} .", "An infrared photo of a very small {} person, at night.")
    prompts = make(text, templates=templates, num_tokens=2, bias_hidden=0)
    features = torch.zeros(2, 9)
    both = prompts.text_features(text, torch.tensor([1, 3]), features)
    for row, image in enumerate((1, 3)):
        alone = prompts.text_features(text, torch.tensor([image]), features[:1])
        torch.testing.assert_close(both[row : row + 1], alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"templates": ("a photo", DAY)}, "'a photo' must have exactly one"),
        ({"templates": (DAY, "{} and {}")}, "must have exactly one"),
        ({"templates": (DAY,)}, "1 templates"),
        ({"num_tokens": 0}, r"MODEL\.PROMPT\.NUM_TOKENS is 0"),
        ({"num_tokens": 25}, "A prompt has 34 tokens; the tower takes 30"),
    ],
)
def test_impossible_prompts_are_refused(text: ClipTextTower, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(text, **options)


def test_gradient_of_the_table_is_sparse(text: ClipTextTower) -> None:
    prompts = make(text)
    indices = torch.tensor([4, 1, 4])
    prompts.text_features(text, indices, torch.randn(3, 9)).square().sum().backward()
    grad = prompts.tokens.weight.grad
    assert grad.is_sparse
    assert grad.coalesce().indices().flatten().tolist() == [1, 4]
    dense = make(text, sparse=False)
    dense.text_features(text, indices, torch.randn(3, 9)).square().sum().backward()
    assert not dense.tokens.weight.grad.is_sparse


def test_the_start_depends_on_the_seed_and_nothing_else(text: ClipTextTower) -> None:
    torch.manual_seed(1)
    first = make(text, seed=3)
    torch.manual_seed(2)
    second, other = make(text, seed=3), make(text, seed=4)
    for a, b, c in zip(first.parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)


def test_only_what_is_learned_is_saved(text: ClipTextTower) -> None:
    keys = {"tokens.weight", "bias_net.hidden.weight", "bias_net.hidden.bias", "bias_net.out.weight"}
    assert set(make(text).state_dict()) == keys | {"bias_net.out.bias"}


def test_from_config(text: ClipTextTower) -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FEAT_DIM = 28
    cfg.MODEL.PROMPT.NUM_TOKENS = 3
    prompts = build_prompt_learner(cfg, text, DOMAINS)
    assert prompts.tokens.weight.shape == (5, 48)
    assert prompts.bias_net.hidden.weight.shape == (80, 28)
    assert prompts.num_images == 5
