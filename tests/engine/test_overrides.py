"""A subclass of our trainer keeps every override that fast-reid's DefaultTrainer offers, or is refused."""

from __future__ import annotations

import json
import logging
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.common import CommDataset
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.transforms import build_transforms
from fastreid.engine import hooks
from fastreid.engine.train_loop import HookBase
from fastreid.evaluation import DatasetEvaluator
from fastreid.solver import build_lr_scheduler
from fastreid.solver.build import build_optimizer
from fastreid.utils.events import EventWriter
from torch import nn

from dnreid_plugins.data.datasets import DN348
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.config_files import ConfigError


@pytest.fixture
def cfg(supervised_cfg: CfgNode) -> CfgNode:
    return supervised_cfg


def run(trainer: type[CrossDomainTrainer], cfg: CfgNode, *, resume: bool = False) -> Any:
    one = trainer(cfg)
    one.resume_or_load(resume=resume)
    one.train()
    return one


def results(cfg: CfgNode) -> dict[str, Any]:
    return json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())


def metrics(cfg: CfgNode, key: str) -> list[float]:
    rows = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    return [row[key] for row in rows if key in row]


class Mean(DatasetEvaluator):
    """Counts images; its figures are of the types that scripts return."""

    def __init__(self, name: str = "Recall@1") -> None:
        self.name, self.images = name, 0

    def reset(self) -> None:
        self.images = 0

    def process(self, inputs: dict[str, Any], outputs: torch.Tensor) -> None:
        assert outputs.shape[0] == len(inputs["images"])
        self.images += len(outputs)

    def evaluate(self) -> OrderedDict[str, Any]:
        return OrderedDict(
            [(self.name, np.float32(12.5)), ("images", self.images), ("metric", torch.ones(1))]
        )


# ---------------------------------------------------------------------------- one override each


class OwnModel(CrossDomainTrainer):
    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        model = super().build_model(cfg)
        model.tag = "own"
        return model


class OwnOptimizer(CrossDomainTrainer):
    """As a fast-reid script writes it: a pair comes, a pair goes."""

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        optimizer, wrapper = super().build_optimizer(cfg, model)
        optimizer.defaults["own"] = True
        return optimizer, wrapper


class BareOptimizer(CrossDomainTrainer):
    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        optimizer.defaults["own"] = True
        return optimizer


class OwnSchedule(CrossDomainTrainer):
    """fast-reid's dict of schedulers."""

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Any, iters_per_epoch: int) -> Any:
        return {"lr_sched": torch.optim.lr_scheduler.MultiStepLR(optimizer, [1], gamma=0.5)}


class OwnTrainLoader(CrossDomainTrainer):
    """Samples without a camera, half of the images."""

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        class NoCamera(CommDataset):
            def __getitem__(self, index: int) -> dict[str, Any]:
                sample = super().__getitem__(index)
                return {key: sample[key] for key in ("images", "targets", "img_paths")}

        items = DN348().train[::2]
        return build_reid_train_loader(cfg, train_set=NoCamera(items, build_transforms(cfg)))


class OwnTestLoader(CrossDomainTrainer):
    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        data = DN348()
        items = [*data.query[:6], *data.gallery]
        test_set = CommDataset(items, build_transforms(cfg, is_train=False), relabel=False)
        return build_reid_test_loader(cfg, test_set=test_set, num_query=6)


class OwnEvaluator(CrossDomainTrainer):
    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
        loader, num_query = cls.build_test_loader(cfg, dataset_name)
        assert num_query == 24
        return loader, Mean()


class Notes(HookBase):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_step(self) -> None:
        self.seen.append(self.trainer.iter)


class OwnHooks(CrossDomainTrainer):
    def build_hooks(self) -> list[HookBase]:
        self.notes = Notes()
        return [*super().build_hooks(), self.notes]


class FastreidsHooks(CrossDomainTrainer):
    """All of them put together by hand, with fast-reid's classes."""

    def build_hooks(self) -> list[HookBase]:
        self.notes = Notes()
        return [
            hooks.IterationTimer(),
            self.notes,
            hooks.EvalHook(1, lambda: self.test(self.cfg, self.model)),
            hooks.PeriodicCheckpointer(self.checkpointer, 1),
            hooks.PeriodicWriter(self.build_writers(), 200),
        ]


class OwnWriters(CrossDomainTrainer):
    def build_writers(self) -> list[EventWriter]:
        class Text(EventWriter):
            def write(self) -> None:
                (folder / "own.txt").write_text(str(trainer.iter))

        trainer, folder = self, Path(self.cfg.OUTPUT_DIR)
        return [*super().build_writers(), Text()]


class OwnTest(CrossDomainTrainer):
    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        return OrderedDict(mAP=np.float64(3.0), **{"Rank-1": torch.tensor(5.0)})


class OwnScaling(CrossDomainTrainer):
    @staticmethod
    def auto_scale_hyperparams(cfg: CfgNode, num_classes: int) -> CfgNode:
        cfg = CrossDomainTrainer.auto_scale_hyperparams(cfg, num_classes)
        cfg.SOLVER.BASE_LR = 0.0625
        return cfg


class OwnStep(CrossDomainTrainer):
    steps = 0

    def run_step(self) -> None:
        self.steps += 1
        super().run_step()


class OwnStart(CrossDomainTrainer):
    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self.own = self.iters_per_epoch


KEPT = {
    OwnModel: lambda t, cfg: t.bare_model.tag == "own",
    OwnOptimizer: lambda t, cfg: t.optimizer.defaults["own"],
    BareOptimizer: lambda t, cfg: t.optimizer.defaults["own"] and metrics(cfg, "lr")[0] == 0.125,
    OwnSchedule: lambda t, cfg: metrics(cfg, "lr") == [0.01, 0.005],
    OwnTrainLoader: lambda t, cfg: len(t.data_loader.dataset) == 36,
    OwnTestLoader: lambda t, cfg: set(results(cfg)["DN348"]) >= {"Rank-1", "mAP", "metric"},
    OwnEvaluator: lambda t, cfg: results(cfg)["DN348"] == {"Recall@1": 12.5, "images": 48, "metric": 1.0},
    OwnHooks: lambda t, cfg: t.notes.seen == [0, 1, 2, 3],
    FastreidsHooks: lambda t, cfg: t.notes.seen == [0, 1, 2, 3] and "D2N" in results(cfg)["DN348"],
    OwnWriters: lambda t, cfg: (Path(cfg.OUTPUT_DIR) / "own.txt").read_text() == "4",
    OwnTest: lambda t, cfg: results(cfg)["DN348"] == {"mAP": 3.0, "Rank-1": 5.0},
    OwnScaling: lambda t, cfg: t.cfg.SOLVER.BASE_LR == 0.0625 and t.cfg.MODEL.HEADS.NUM_CLASSES == 6,
    OwnStep: lambda t, cfg: t.steps == 4,
    OwnStart: lambda t, cfg: t.own == 2,
}


@pytest.mark.parametrize("trainer", KEPT, ids=lambda one: one.__name__)
def test_an_override_is_kept(cfg: CfgNode, trainer: type[CrossDomainTrainer]) -> None:
    one = run(trainer, cfg)
    assert KEPT[trainer](one, cfg)
    assert one.iter == 4


# ---------------------------------------------------------------------------- evaluation by the script's own parts


def test_flat_figures_reach_table_metrics_best_and_resume(
    cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    cfg.TEST.EVAL_START = True
    with caplog.at_level(logging.INFO):
        trainer = run(OwnEvaluator, cfg)
    assert results(cfg)["start"] == {"DN348": {"Recall@1": 12.5, "images": 48, "metric": 1.0}}
    assert metrics(cfg, "DN348/Recall@1") == [12.5, 12.5]
    assert (Path(cfg.OUTPUT_DIR) / "model_best.pth").is_file()
    tables = [r.message for r in caplog.records if "Results in percent" in r.message]
    assert len(tables) == 3 and all("Recall@1" in table and "12.50" in table for table in tables)
    assert trainer._last_eval_results == {"DN348": results(cfg)["DN348"]}
    # fast-reid's answer: the figures of the only set, without its name.
    assert OwnEvaluator.test(cfg, trainer.model)["Recall@1"] == 12.5
    again = run(OwnEvaluator, cfg, resume=True)
    assert again._last_eval_results == {"DN348": results(cfg)["DN348"]}


def test_a_two_stream_model_gets_the_domains_in_fastreids_loop(tiny_cfg: CfgNode) -> None:
    """The flat scores of fast-reid's loop are those of our D2N direction."""

    class Loop(CrossDomainTrainer):
        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            return super().build_evaluator(cfg, dataset_name, output_dir)

    model = CrossDomainTrainer.build_model(tiny_cfg)
    ours = CrossDomainTrainer.test(tiny_cfg, model)["DN348"]["D2N"]
    flat = Loop.test(tiny_cfg, model)
    assert {key: flat[key] for key in ours} == pytest.approx(ours)
    tiny_cfg.TEST.FLIP.ENABLED = True  # it averages the features as they are, so it has figures of its own
    assert Loop.test(tiny_cfg, model)["mAP"] != flat["mAP"]


def test_a_set_without_an_evaluator_is_left_out(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    class Nothing(CrossDomainTrainer):
        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            raise NotImplementedError

    run(Nothing, cfg)
    assert results(cfg)["DN348"] == {}
    assert "Nothing has no evaluator for DN348" in caplog.text


def test_several_sets_keep_their_names(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "DN348_again", DN348)
    cfg.DATASETS.TESTS = ("DN348", "DN348_again")

    class Several(CrossDomainTrainer):
        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            return cls.build_test_loader(cfg, "DN348")[0], Mean(f"of {dataset_name}")

    found = Several.test(cfg, CrossDomainTrainer.build_model(cfg))
    assert [next(iter(one)) for one in found.values()] == ["of DN348", "of DN348_again"]


# ---------------------------------------------------------------------------- schedules and resume


class WarmSchedule(CrossDomainTrainer):
    """fast-reid's own function: warm-up by iteration, decay by epoch."""

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: Any, iters_per_epoch: int) -> Any:
        return build_lr_scheduler(cfg, optimizer, iters_per_epoch)


def test_fastreids_schedulers_survive_a_resume(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.merge_from_list(["SOLVER.MAX_EPOCH", 4, "SOLVER.STEPS", [2], "SOLVER.WARMUP_ITERS", 3])
    whole = run(WarmSchedule, cfg)
    rates = metrics(cfg, "lr")
    assert len(set(rates)) > 2
    cfg.OUTPUT_DIR = str(tmp_path / "cut")
    cut = WarmSchedule(cfg)
    cut.resume_or_load()
    cut.max_epoch = 2
    cut.checkpoints.after_epoch = lambda: cut.checkpoints.save("model_0002", cut.iter)  # type: ignore[method-assign]
    cut.train()
    resumed = run(WarmSchedule, cfg, resume=True)
    assert metrics(cfg, "lr")[-2:] == rates[-2:]
    states = whole.bare_model.state_dict(), resumed.bare_model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# ---------------------------------------------------------------------------- what is refused


class FlatBuffers(CrossDomainTrainer):
    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> Any:
        return build_optimizer(cfg, model)


class NoLabels(CrossDomainTrainer):
    def build_hooks(self) -> list[HookBase]:
        return [hooks.IterationTimer()]


@pytest.mark.parametrize(
    ("trainer", "words"),
    [
        (OwnTrainLoader, "OwnTrainLoader.build_train_loader is never called with .*'CrossDomainBaseline'"),
        (OwnScaling, "OwnScaling.auto_scale_hyperparams is never called"),
        (NoLabels, "NoLabels.build_hooks leaves out LabelPhase"),
    ],
)
def test_overrides_that_pseudo_labels_would_ignore_are_refused(
    tiny_cfg: CfgNode, trainer: type[CrossDomainTrainer], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        trainer(tiny_cfg)


def test_flat_buffers_are_refused(cfg: CfgNode) -> None:
    with pytest.raises(ConfigError, match="FlatBuffers.build_optimizer copies the parameters"):
        FlatBuffers(cfg)
