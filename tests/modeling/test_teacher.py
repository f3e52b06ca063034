"""The teacher: an average that follows each step, is evaluated, makes no labels, and resumes with its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine.train_loop import HookBase
from fastreid.modeling.meta_arch import build_model
from run_helpers import cut_and_resumed, same, train, weights
from torch import nn

from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.modeling.teachers import Teacher
from dnreid_plugins.runtime.weight_files import read_weight_file

PREFIX = "parts.teacher.encoder."


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.TEACHER.ENABLED = True
    tiny_cfg.MODEL.TEACHER.DECAY = 0.8
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = 20
    return tiny_cfg


def student_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in state.items() if key.startswith(("backbone.", "heads."))}


def teacher_of(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key[len(PREFIX) :]: value.clone() for key, value in state.items() if key.startswith(PREFIX)}


class Mean(HookBase):
    """The same average by hand."""

    def before_train(self) -> None:
        self.mean = student_of(self.trainer.bare_model.state_dict())

    def after_step(self) -> None:
        for key, value in student_of(self.trainer.bare_model.state_dict()).items():
            mixed = 0.8 * self.mean[key] + 0.2 * value if value.is_floating_point() else value
            self.mean[key] = mixed


def test_it_is_the_average_after_every_step_statistics_included(cfg: CfgNode) -> None:
    trainer, mean = CrossDomainTrainer(cfg), Mean()
    trainer.register_hooks([mean])
    start = teacher_of(trainer.bare_model.state_dict())
    assert same(start, student_of(trainer.bare_model.state_dict()))
    trainer.train()
    state = trainer.bare_model.state_dict()
    found = teacher_of(state)
    assert found.keys() == mean.mean.keys() and any("running_mean" in key for key in found)
    for key, value in found.items():
        torch.testing.assert_close(value, mean.mean[key])
    assert not same(found, student_of(state)) and not same(found, start)
    learned = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert not any(id(p) in learned or p.requires_grad for p in trainer.bare_model.parts.teacher.parameters())


def test_a_thousandth_of_the_student_enters_in_a_step() -> None:
    student = nn.Linear(1, 1, bias=False)
    student.weight.data.fill_(1.0)
    teacher = Teacher({"encoder": student}, decay=0.999, evaluate=True)
    student.weight.data.fill_(3.0)
    nothing = torch.empty(0)
    batch = BatchFeatures(nothing, nothing, nothing.long(), nothing.long(), nothing.long())
    teacher.after_step(batch, Parts(memory=ClusterMemory(), losses={}, teacher=teacher))
    assert float(teacher.encoder["encoder"].weight.detach()) == pytest.approx(1.002, abs=1e-6)


def test_until_its_first_step_a_teacher_answers_as_the_student(cfg: CfgNode) -> None:
    """Also in a run that starts from the weights of another one, whose own teacher lags behind."""
    batch = {"images": torch.rand(4, 3, 24, 24) * 255, "domains": torch.tensor([0, 0, 1, 1])}

    def answers(trainer: CrossDomainTrainer) -> tuple[torch.Tensor, torch.Tensor]:
        model: Any = trainer.bare_model.eval()
        with torch.no_grad():
            return model(batch), model.encode(batch)

    assert torch.equal(*answers(CrossDomainTrainer(cfg)))
    trained = train(cfg)
    assert not torch.equal(*answers(trained))
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.OUTPUT_DIR += "-second"
    second = CrossDomainTrainer(cfg)
    second.resume_or_load()
    teacher, student = answers(second)
    assert torch.equal(teacher, student) and torch.equal(student, answers(trained)[1])


def test_it_is_evaluated_and_the_student_makes_the_labels(cfg: CfgNode) -> None:
    """Without any decay the teacher is the student of the start, whatever is trained."""
    cfg.MODEL.TEACHER.DECAY = 1.0
    trainer = train(cfg)
    end = trainer._last_eval_results
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    assert end["DN348"] == results["start"]["DN348"]

    cfg.MODEL.TEACHER.EVALUATE = False
    cfg.OUTPUT_DIR += "-student"
    other = train(cfg)
    assert same(
        student_of(weights(other)), student_of(weights(trainer))
    )  # labels do not come from the teacher
    assert other._last_eval_results["DN348"] != end["DN348"]

    cfg.MODEL.TEACHER.ENABLED = False
    cfg.OUTPUT_DIR += "-without"
    plain = train(cfg)
    assert same(student_of(weights(plain)), student_of(weights(trainer)))
    assert plain._last_eval_results == other._last_eval_results


def test_the_model_answers_with_the_teacher_in_eval_mode_only(cfg: CfgNode) -> None:
    model: Any = train(cfg).bare_model
    batch = {"images": torch.rand(4, 3, 24, 24) * 255, "domains": torch.tensor([0, 0, 1, 1])}
    model.eval()
    with torch.no_grad():
        answer, student = model(batch), model.encode(batch)
        assert torch.equal(
            student, model.heads(model.backbone(model.preprocess_image(batch), batch["domains"]))
        )
        assert not torch.allclose(answer, student, atol=1e-4)
        encoder = model.parts.teacher.encoder
        expected = encoder["heads"](encoder["backbone"](model.preprocess_image(batch), batch["domains"]))
    assert torch.equal(answer, expected)
    model.train()
    assert not any(module.training for module in model.parts.teacher.modules())


@pytest.mark.parametrize("iteration", [3, 4])
def test_it_resumes_with_the_run(cfg: CfgNode, iteration: int) -> None:
    """Inside an epoch and at the border of two."""
    whole = train(cfg)
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, iteration)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results
    at = read_weight_file(Path(cfg.OUTPUT_DIR) / f"model_{'iter00000003' if iteration == 3 else '0001'}.pth")
    assert not same(teacher_of(at["model"]), student_of(at["model"]))


def test_a_file_without_a_teacher_gives_one_that_begins_as_the_student(cfg: CfgNode) -> None:
    cfg.MODEL.TEACHER.ENABLED = False
    plain = train(cfg)
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.MODEL.TEACHER.ENABLED = True
    model = build_model(cfg)
    AtomicCheckpointer(model).load(path)
    assert same(student_of(model.state_dict()), student_of(weights(plain)))
    assert same(teacher_of(model.state_dict()), student_of(weights(plain)))


def test_a_run_from_weights_begins_with_a_teacher_that_is_the_student(cfg: CfgNode) -> None:
    train(cfg)
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.OUTPUT_DIR += "-second"
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load()
    state = trainer.bare_model.state_dict()
    assert same(teacher_of(state), student_of(state))


@pytest.mark.parametrize("decay", [-0.1, 1.5, float("nan")])
def test_a_decay_that_cannot_be_is_refused(cfg: CfgNode, decay: float) -> None:
    cfg.MODEL.TEACHER.DECAY = decay
    with pytest.raises(ValueError, match=rf"MODEL\.TEACHER\.DECAY is {decay}; it must be from 0 to 1"):
        CrossDomainTrainer(cfg)
