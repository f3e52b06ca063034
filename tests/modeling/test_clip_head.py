"""The two batch-norm necks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg

import dnreid_plugins  # noqa: F401  (registers)
from dnreid_plugins.modeling.clip.head import ClipNeckHead


def make_head(num_classes: int = 0, neck_feat: str = "before", cls_type: str = "Linear") -> ClipNeckHead:
    return ClipNeckHead(
        split=(6, 4),
        feat_dim=10,
        embedding_dim=0,
        num_classes=num_classes,
        neck_feat=neck_feat,
        pool_type="Identity",
        cls_type=cls_type,
        scale=1,
        margin=0.0,
    )


def test_each_part_has_its_own_batch_norm() -> None:
    features = torch.randn(5, 10) * 3 + 1
    outputs = make_head().train()(features[..., None, None])
    expected = torch.cat(
        [F.batch_norm(part, None, None, training=True) for part in (features[:, :6], features[:, 6:])],
        dim=1,
    )
    assert outputs.keys() == {"features", "pooled"}  # all that is here is gathered from all processes
    torch.testing.assert_close(outputs["features"], expected)
    torch.testing.assert_close(outputs["pooled"], features, rtol=0, atol=0)


def test_weights_are_one_and_the_bias_is_frozen_at_zero() -> None:
    head = make_head().train()
    for neck in (head.bottleneck.token, head.bottleneck.projection):
        assert (neck.weight == 1).all() and neck.weight.requires_grad
        assert not neck.bias.any() and not neck.bias.requires_grad
    head(torch.randn(4, 10, 1, 1))["features"].square().sum().backward()
    assert head.bottleneck.token.bias.grad is None


def test_evaluation_uses_running_statistics_and_returns_the_neck_feature() -> None:
    head = make_head().eval()
    features = torch.randn(3, 10, 1, 1)
    torch.testing.assert_close(head(features), features[..., 0, 0] / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("cls_type", ["Linear", "CosSoftmax"])
@pytest.mark.parametrize("neck_feat", ["before", "after"])
def test_with_targets_it_answers_like_fastreids_head(neck_feat: str, cls_type: str) -> None:
    from fastreid.modeling.heads import EmbeddingHead

    torch.manual_seed(0)
    ours = make_head(3, neck_feat, cls_type).train()
    theirs = EmbeddingHead(
        feat_dim=10, embedding_dim=0, num_classes=3, neck_feat=neck_feat, pool_type="Identity",
        cls_type=cls_type, scale=1, margin=0.0, with_bnneck=True, norm_type="BN",
    ).train()  # fmt: skip
    theirs.weight.data.copy_(ours.weight.data)
    features, targets = torch.randn(6, 10, 1, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    got, expected = ours(features, targets), theirs(features, targets)
    for key in expected:
        torch.testing.assert_close(got[key], expected[key])


def test_from_config_splits_by_the_width_of_the_projection() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FEAT_DIM = 1280
    head = ClipNeckHead(cfg)
    assert head.bottleneck.split == (768, 512)
    cfg.MODEL.HEADS.EMBEDDING_DIM = 256
    with pytest.raises(ValueError, match="EMBEDDING_DIM is 256"):
        ClipNeckHead(cfg)
