"""The guard: when it speaks, what it names, and that a run obeys it, resumed or not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import cut_and_resumed, label_phase

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.labels.guard import Guard, WorseLabelsError, distinctness


def figures(silhouette: float, clustered: float = 80.0, largest: float = 30.0) -> dict[str, float]:
    found = {"silhouette": silhouette, "clustered": clustered, "largest": largest, "clusters": 50.0}
    return {f"{domain}/{key}": value for domain in ("day", "night") for key, value in found.items()}


def said(silhouettes: list[float], caplog: pytest.LogCaptureFixture, **keys: Any) -> list[int]:
    """Epochs in which a guard warns."""
    epochs, history = [], {}
    for number, value in enumerate(silhouettes, start=1):
        history[number] = figures(value)
        caplog.clear()
        Guard(**keys).look(history, eps=0.5)
        epochs += [number] if caplog.records else []
    return epochs


def test_it_speaks_once_after_so_many_bad_epochs_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    assert said([0.5, 0.4, 0.4, 0.4, 0.4, 0.3], caplog) == [4]
    assert said([0.5, 0.4, 0.4, 0.5, 0.4, 0.4], caplog) == []
    assert said([0.5, 0.4, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4], caplog) == [4]
    assert said([0.5, 0.4], caplog, epochs=1) == [2]
    assert said([0.5, 0.3, 0.3, 0.3], caplog, mode="off") == []


def test_a_dip_of_a_sound_run_is_no_alarm(caplog: pytest.LogCaptureFixture) -> None:
    assert said([0.5, 0.46, 0.455, 0.46, 0.47], caplog) == []
    assert said([0.5, 0.449, 0.449, 0.449], caplog) == [4]


def test_a_start_below_zero_and_undefined_figures(caplog: pytest.LogCaptureFixture) -> None:
    assert said([-0.2, -0.21, -0.21, -0.21], caplog) == []
    assert said([-0.2, -0.23, -0.23, -0.23], caplog) == [4]
    assert said([0.5, float("nan"), float("nan"), float("nan")], caplog) == [4]
    assert distinctness({}) == 0 and distinctness(figures(0.5)) == pytest.approx(0.4)
    assert distinctness({"day/silhouette": 0.5, "day/clustered": 80.0}) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("last", "eps", "remedy"),
    [
        (figures(0.1, 90, 70), 0.5, "clusters have merged, so lower CLUSTER.EPS (now 0.5) or set it to auto"),
        (figures(0.4, 40, 20), 0.5, "images have left the clusters, so raise CLUSTER.EPS (now 0.5)"),
        (figures(0.3), 0.5, "lower SOLVER.BASE_LR or begin with stronger weights, or set CLUSTER.EPS"),
        (figures(0.1, 90, 70), "auto", "); lower SOLVER.BASE_LR or begin with stronger weights."),
    ],
)
def test_the_remedy_follows_what_happened(last: dict[str, float], eps: Any, remedy: str) -> None:
    with pytest.raises(WorseLabelsError) as caught:
        Guard(mode="stop", epochs=1).look({1: figures(0.6), 2: last}, eps=eps)
    assert remedy in str(caught.value) and str(caught.value).count(". ") == 1


@pytest.mark.parametrize("keys", [{"mode": "shout"}, {"epochs": 0}])
def test_the_preflight_refuses_what_it_cannot_use(tiny_cfg: CfgNode, keys: dict[str, Any]) -> None:
    name, value = next(iter(keys.items()))
    tiny_cfg.GUARD[name.upper()] = value
    with pytest.raises(ValueError, match=rf"GUARD\.{name.upper()} is {value!r}"):
        CrossDomainTrainer(tiny_cfg)


def spoilt(cfg: CfgNode) -> CrossDomainTrainer:
    """A run whose encoder is replaced by noise after the first epoch."""
    cfg.merge_from_list(["SOLVER.MAX_EPOCH", 4, "DATALOADER.ITERS_PER_EPOCH", 1, "TEST.EVAL_START", False])
    cfg.merge_from_list(["CLUSTER.EPS", 0.8, "GUARD.EPOCHS", 2, "DATASETS.TESTS", []])
    trainer = CrossDomainTrainer(cfg)
    phase = label_phase(trainer)
    extract = phase.extract

    def features() -> torch.Tensor:
        rows = extract()
        if trainer.epoch == 0:
            rows = torch.zeros_like(rows)
            for place in range(len(rows)):
                rows[place, place // 4 % rows.shape[1]] = 1
            rows += 0.05 * torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
        else:
            rows = torch.randn(rows.shape, generator=torch.Generator().manual_seed(trainer.epoch))
        return torch.nn.functional.normalize(rows, dim=1)

    phase.extract = features
    return trainer


def test_a_run_that_loses_its_clusters_is_warned_or_stopped(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    spoilt(tiny_cfg).train()
    told = [r.getMessage() for r in caplog.records if "have become worse than the start's" in r.getMessage()]
    assert len(told) == 1 and "for 2 epochs" in told[0]
    tiny_cfg.GUARD.MODE = "stop"
    stopped = spoilt(tiny_cfg)
    with pytest.raises(WorseLabelsError, match=r"GUARD\.MODE is 'stop'"):
        stopped.train()
    assert stopped.epoch == 2


def test_a_sound_run_keeps_what_the_guard_needs_through_a_resume(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_cfg.merge_from_list(["CLUSTER.EPS", "auto", "SOLVER.MAX_EPOCH", 3, "TEST.EVAL_START", False])
    whole = CrossDomainTrainer(tiny_cfg)
    whole.train()
    expected = label_phase(whole)
    tiny_cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(tiny_cfg, 6)
    found = label_phase(resumed)
    assert found.history == expected.history and sorted(found.history) == [1, 2, 3]
    assert "day/stability" not in found.history[1] and "day/stability" in found.history[2]
    assert all(torch.equal(found.previous[name], expected.previous[name]) for name in ("day", "night"))
    states = [trainer.bare_model.state_dict() for trainer in (whole, resumed)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not [r for r in caplog.records if "have become worse" in r.getMessage()]
