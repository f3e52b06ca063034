from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from fastreid.layers.any_softmax import ArcSoftmax
from fastreid.modeling.losses import cross_entropy_loss as fastreid_cross_entropy
from torch import Tensor

from dnreid_plugins.patches.losses import QueueMemory, SafeArcSoftmax, cross_entropy_loss


def test_arc_logits_are_fastreids_where_those_are_finite() -> None:
    cosines = (2 * torch.rand(8, 5, dtype=torch.float64) - 1).requires_grad_()
    targets = torch.tensor([0, 1, 2, 3, 4, -1, 0, 1])
    ours = SafeArcSoftmax(5, 30.0, 0.5)(cosines, targets)
    theirs = ArcSoftmax(5, 30.0, 0.5)(cosines.clone(), targets)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    (a,) = torch.autograd.grad((ours * weights).sum(), cosines, retain_graph=True)
    (b,) = torch.autograd.grad((theirs * weights).sum(), cosines)
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("cosine", [1.0, 1.0000001, -1.0, -1.0000001, 0.9999999])
def test_arc_is_finite_where_a_feature_meets_its_centre(cosine: float) -> None:
    cosines = torch.tensor([[cosine, 0.3]], requires_grad=True)
    logits = SafeArcSoftmax(2, 30.0, 0.5)(cosines, torch.tensor([0]))
    F.cross_entropy(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits).all()
    assert cosines.grad is not None
    assert torch.isfinite(cosines.grad).all()


@pytest.mark.parametrize("eps", [0.0, 0.1, -1.0])
def test_cross_entropy_is_fastreids_where_no_loss_is_zero(eps: float) -> None:
    logits = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(5, (7,))
    ours, theirs = (f(logits, targets, eps, 0.3) for f in (cross_entropy_loss, fastreid_cross_entropy))
    torch.testing.assert_close(ours, theirs)
    (a,), (b,) = torch.autograd.grad(ours, logits, retain_graph=True), torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(a, b)


def test_cross_entropy_is_torchs_with_the_other_smoothing_convention() -> None:
    logits, targets = torch.randn(6, 4), torch.randint(4, (6,))
    torch.testing.assert_close(
        cross_entropy_loss(logits, targets, 0.1),
        F.cross_entropy(logits, targets, label_smoothing=0.1 * 4 / 3),
    )


def test_images_without_loss_count_in_the_mean() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    targets = torch.tensor([0, 0])
    assert float(cross_entropy_loss(logits, targets, 0.0)) == pytest.approx(math.log(3) / 2)


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="got 1 class; the training set needs two identities"):
        cross_entropy_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 0.1)


def slow_queue_loss(
    features: Tensor, targets: Tensor, queue: Tensor, labels: Tensor, own: list[int]
) -> float:
    """MoCo's pairwise cosface, one pair at a time; ``queue``: (D, K), label -1 = empty row."""
    total = 0.0
    for i, feature in enumerate(features):
        pull, push = [], []
        for j, label in enumerate(labels.tolist()):
            similarity = float(feature @ queue[:, j])
            if label == int(targets[i]) and j != own[i]:
                pull.append(-32 * similarity)
            elif label >= 0 and label != int(targets[i]):
                push.append(32 * (similarity + 0.25))
        if pull and push:
            value = torch.logsumexp(torch.tensor(pull, dtype=torch.float64), 0) + torch.logsumexp(
                torch.tensor(push, dtype=torch.float64), 0
            )
            total += float(F.softplus(value))
    return total / len(features)


def test_the_queue_compares_each_image_with_others_only() -> None:
    memory = QueueMemory(dim=6, K=12).double()
    for step in range(5):
        features = F.normalize(torch.randn(4, 6, dtype=torch.float64), dim=1)
        targets = torch.tensor([0, 0, 1, 2])
        start = int(memory.queue_ptr)
        loss = memory(features, targets)
        own = list(range(start, start + 4))
        expected = slow_queue_loss(features, targets, memory.queue, memory.queue_label[0], own)
        assert loss.item() == pytest.approx(expected, rel=1e-9), step


def test_a_batch_without_any_pair_has_no_loss_and_a_gradient_of_zero() -> None:
    memory = QueueMemory(dim=6, K=12)
    raw = torch.randn(2, 6, requires_grad=True)
    loss = memory(raw, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == 0.0
    assert raw.grad is not None
    assert raw.grad.abs().max() == 0
