from __future__ import annotations

import json
import logging
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.option_hooks import (
    BestKeeper,
    LayerFreeze,
    Profile,
    WeightAverage,
    selection_score,
)
from dnreid_plugins.modeling.loss_heads import PrototypeClassifier


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            OrderedDict(conv1=nn.Conv2d(3, 4, 1), bn1=nn.BatchNorm2d(4), conv10=nn.Conv2d(4, 4, 1))
        )
        self.heads = nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.heads(self.backbone(images).mean((2, 3)))


def run(hook: Any, model: Model, iterations: range, *, evaluate_after: int = -1) -> None:
    """Steps of a trainer that, as fast-reid's evaluation does, puts the model into eval and back."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for iteration in iterations:
        hook.trainer = SimpleNamespace(iter=iteration)
        hook.before_step()
        optimizer.zero_grad()
        model(torch.randn(4, 3, 2, 2) + 3).square().sum().backward()
        optimizer.step()
        hook.after_step()
        if iteration == evaluate_after:
            model.eval()
            model.train()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], model: nn.Module) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def test_a_frozen_part_keeps_weights_and_statistics_even_after_an_evaluation() -> None:
    model = Model()
    hook = LayerFreeze(model, ["backbone.conv1", "backbone.bn1"], 5)
    before = snapshot(model)
    run(hook, model, range(5), evaluate_after=1)
    assert changed(before, model) == {
        "heads.weight",
        "heads.bias",
        "backbone.conv10.weight",
        "backbone.conv10.bias",
    }
    run(hook, model, range(5, 7))
    assert changed(before, model) == set(before)
    assert model.backbone.bn1.training


def test_the_count_is_the_runs_and_goes_on_after_a_resume() -> None:
    model = Model()
    hook = LayerFreeze(model, ["backbone"], 5)
    before = snapshot(model)
    run(hook, model, range(4, 5))
    assert not any(name.startswith("backbone") for name in changed(before, model))
    run(hook, model, range(5, 6))
    assert any(name.startswith("backbone") for name in changed(before, model))


def test_what_was_not_trainable_stays_so() -> None:
    model = Model()
    model.backbone.conv1.requires_grad_(False)
    run(LayerFreeze(model, ["backbone"], 1), model, range(3))
    assert not model.backbone.conv1.weight.requires_grad
    assert model.backbone.conv10.weight.requires_grad


def test_the_plain_path_means_both_copies_of_a_dual_stream() -> None:
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.backbone = nn.Module()
    model.backbone.backbone.conv1 = nn.ModuleDict({"day": nn.Linear(1, 1), "night": nn.Linear(1, 1)})
    model.heads = nn.Linear(1, 1)
    assert len(LayerFreeze(model, ["backbone.conv1"], 1).parameters) == 4
    assert len(LayerFreeze(model, ["backbone"], 1).parameters) == 4


@pytest.mark.parametrize("name", ["bakcbone", "backbone.conv", "conv1", ""])
def test_a_name_that_fits_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a part of the model; its parts are \['backbone', 'heads'\]"):
        LayerFreeze(Model(), [name], 1)


def test_nothing_left_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves nothing to train"):
        LayerFreeze(Model(), ["backbone", "heads"], 1)


def epoch_end(hook: Any, epoch: int, **trainer: Any) -> None:
    hook.trainer = SimpleNamespace(epoch=epoch, **trainer)
    hook.after_epoch()


def test_the_mean_of_the_last_epochs_ends_in_the_model() -> None:
    model = Model()
    hook = WeightAverage(model, first_epoch=2)
    seen = []
    for epoch in range(4):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.copy_(torch.full_like(value, epoch**2))
        seen.append(snapshot(model))
        epoch_end(hook, epoch, max_epoch=4)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([s[key] for s in seen[1:]]).mean(0))
        else:
            assert torch.equal(value, seen[-1][key])


def test_the_mean_goes_on_after_a_resume() -> None:
    straight, first, second = (WeightAverage(m, first_epoch=1) for m in (Model(), Model(), Model()))
    for epoch in range(4):
        for hook in (straight, first if epoch < 2 else second):
            with torch.no_grad():
                for value in hook.model.state_dict().values():
                    value.copy_(torch.full_like(value, 3 * epoch))
            epoch_end(hook, epoch, max_epoch=4)
        if epoch == 1:
            second.load_state_dict(first.state_dict())
    a, b = straight.model.state_dict(), second.model.state_dict()
    assert straight.count == second.count == 4
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_layers_sized_by_the_clusters_are_left_out_of_the_mean() -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "classifier": PrototypeClassifier()})
    classifier: Any = model["classifier"]
    hook = WeightAverage(model, first_epoch=1)
    for epoch, clusters in enumerate((3, 5)):
        with torch.no_grad():
            model["body"].weight.fill_(epoch)  # type: ignore[union-attr]
        for layer in (classifier.day, classifier.night):
            layer.data = torch.full((clusters, 2), float(epoch))
        # A state of before this rule holds them still.
        hook.load_state_dict(
            {"count": hook.count, "mean": {**hook.mean, "classifier.day": torch.zeros(3, 2)}}
        )
        epoch_end(hook, epoch, max_epoch=2)
    assert set(hook.mean) == {"body.weight", "body.bias"}
    assert torch.equal(model["body"].weight, torch.full((2, 2), 0.5))
    assert torch.equal(classifier.day, torch.ones(5, 2)) and torch.equal(classifier.night, torch.ones(5, 2))


def test_no_epoch_in_the_mean_leaves_the_model_alone() -> None:
    model = Model()
    before = snapshot(model)
    epoch_end(WeightAverage(model, first_epoch=9), 1, max_epoch=2)
    assert changed(before, model) == set()


def test_a_profile_can_be_read(tmp_path: Path) -> None:
    hook = Profile(str(tmp_path), start=1, steps=2)
    run(hook, Model(), range(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["profile-1.json", "profile-2.json"]
    trace = json.loads((tmp_path / "profile-1.json").read_text())
    assert any("conv2d" in str(event.get("name")) for event in trace["traceEvents"])


def results(value: float) -> dict[str, Any]:
    directions = {name: {"mAP": value, "Rank-1": value} for name in ("D2N", "N2D")}
    return {"DNMini": {**directions, "D2D": {"mAP": 99.0, "Rank-1": 99.0}}}


class Run:
    """A trainer that evaluates at will; weights are the number of the epoch."""

    def __init__(self, folder: Path, *, resume_at: int = 0) -> None:
        self.model = nn.Linear(1, 1)
        self.results: dict[str, Any] = {}
        save = AtomicCheckpointer(self.model, str(folder)).save
        self.hook = BestKeeper(lambda: self.results, save, str(folder))
        self.folder = folder
        self.hook.trainer = SimpleNamespace(start_iter=resume_at)
        self.hook.before_train()

    def epoch(self, number: int, score: float | None) -> None:
        with torch.no_grad():
            self.model.weight.fill_(number)
        if score is not None:
            self.results = results(score)
        epoch_end(self.hook, number, iter=10 * (number + 1))

    def best(self) -> tuple[float, float]:
        content = torch.load(self.folder / "model_best.pth", weights_only=True)
        return content["metric"], float(content["model"]["weight"])


def test_the_best_is_saved_with_its_own_score_and_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = Run(tmp_path)
    with caplog.at_level(logging.INFO):
        for number, score in enumerate([50.0, None, 99.0, None, 70.0]):
            one.epoch(number, score)
    assert one.best() == (99.0, 2.0)
    kept = json.loads((tmp_path / "results.json").read_text())["best_on_test"]
    assert kept["epoch"] == 3 and kept["note"] == "chosen by test labels, not a result"
    assert selection_score(kept["results"]) == 99.0
    assert "not a result" in caplog.text


def test_a_resume_knows_the_best_and_a_fresh_run_does_not(tmp_path: Path) -> None:
    Run(tmp_path).epoch(0, 90.0)
    resumed = Run(tmp_path, resume_at=1)
    resumed.epoch(2, 70.0)
    assert resumed.best() == (90.0, 0.0)
    resumed.epoch(3, 91.0)
    assert resumed.best() == (91.0, 3.0)
    fresh = Run(tmp_path)
    fresh.epoch(0, 20.0)
    assert fresh.best() == (20.0, 0.0)


def test_a_damaged_best_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model_best.pth").write_bytes(b"PK")
    one = Run(tmp_path, resume_at=5)
    assert "best score so far is unknown" in caplog.text
    one.epoch(1, 10.0)
    assert one.best() == (10.0, 1.0)


@pytest.mark.parametrize(
    ("given", "score"),
    [
        (results(40.0), 40.0),
        ({"A": {"Q2G": {"mAP": 10.0, "Rank-1": 30.0}}, "B": {"Q2G": {"mAP": 90.0, "Rank-1": 90.0}}}, 20.0),
        ({}, None),
        ({"A": {}}, None),
        ({"A": {"D2D": {"mAP": 1.0, "Rank-1": 1.0}}}, None),
        ({"A": {"Acc@1": 3.0, "metric": 7.0}}, 7.0),
        ({"A": {"mAP": 10.0, "Rank-1": 30.0}}, 20.0),
        ({"A": {"Acc@1": 3.0}}, None),
    ],
)
def test_the_score_is_fastreids_over_the_directions_of_the_first_set(
    given: dict[str, Any], score: float | None
) -> None:
    assert selection_score(given) == score
