"""Row by row: what plain fast-reid 1.4.0 does (asserted, so that a change upstream is noticed) and what we do instead.

The rows S1-S36 and the broken ones after them (M models, D data, T training, E evaluation) were found by running
fast-reid on PyTorch 2. `tools/make_hardened_table.py` turns the docstrings into docs/fast-reid-hardened.md.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fastreid.data.build as fastreid_build
import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.meta_arch import build_model
from PIL import Image
from run_helpers import resumed, train
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from dnreid_plugins.data.collate import collate
from dnreid_plugins.data.datasets import DN348
from dnreid_plugins.data.identity_batches import check_identity_batch
from dnreid_plugins.data.images import read_image
from dnreid_plugins.data.loaders import CpuGpuLoader, build_inference_loader
from dnreid_plugins.data.samplers import CrossDomainIdentitySampler
from dnreid_plugins.data.transforms import build_transforms
from dnreid_plugins.engine import preflight
from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.checkpoints import Checkpoints
from dnreid_plugins.engine.data_parallel import wrap_model
from dnreid_plugins.engine.option_hooks import (
    BestKeeper,
    LayerFreeze,
    Profile,
    WeightAverage,
    selection_score,
)
from dnreid_plugins.engine.solver.optimizer import build_optimizer, parameter_groups
from dnreid_plugins.engine.solver.schedule import plan_from_config
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.evaluation.evaluator import evaluate
from dnreid_plugins.evaluation.extraction import evaluating, extract_features
from dnreid_plugins.evaluation.query_expansion import expand_features
from dnreid_plugins.evaluation.scoring import ScoreOptions, Side, score
from dnreid_plugins.modeling.backbone import build_backbone
from dnreid_plugins.patches.distiller import Distiller
from dnreid_plugins.patches.losses import QueueMemory, SafeArcSoftmax, cross_entropy_loss
from dnreid_plugins.patches.reid_evaluator import DomainReidEvaluator
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.run_folder import set_aside
from dnreid_plugins.runtime.weight_files import WeightFileError, read_weight_file

Plain = dict[str, Any]


@pytest.fixture(scope="session")
def plain() -> Plain:
    """Row -> what plain fast-reid does, seen in a process of its own."""
    script = Path(__file__).with_name("plain_fastreid.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    """A supervised model of the tests' own backbone."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FEAT_DIM = "build_tiny_backbone", 16
    cfg.MODEL.HEADS.NUM_CLASSES = 3
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.OUTPUT_DIR = str(tmp_path)
    return cfg


def images(count: int = 4) -> torch.Tensor:
    return 255 * torch.rand(count, 3, 16, 16)


def metrics(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.json").read_text().splitlines()]


class ListLoader:
    """A loader over given images, as `extract_features` wants it."""

    def __init__(self, data: torch.Tensor) -> None:
        self.dataset, self.data = data, data

    def __iter__(self) -> Any:
        yield {"images": self.data.clone(), "indices": torch.arange(len(self.data))}

    def __len__(self) -> int:
        return 1


# ====================================================================== S: silent wrong results


def test_S01_optimizer_moves_nothing(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `build_optimizer` copies parameters into flat buffers; with PyTorch >= 2 no weight ever moves.

    Here: own `build_optimizer` without buffers; a test moves every parameter with every optimizer.
    """
    assert plain["s01"] == 0.0
    model = nn.Linear(3, 3)
    optimizer = build_optimizer(cfg, model)
    before = model.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    assert (model.weight != before).all()


def test_S02_flip_test(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `TEST.FLIP` normalises the flipped batch twice; on mirror-symmetric images the feature changes.

    Here: normalisation out of place; on symmetric images the flip test changes nothing.
    """
    assert plain["s02"] > 0.01
    model = build_model(cfg)
    symmetric = images()
    symmetric = (symmetric + symmetric.flip(3)) / 2
    single, both = (extract_features(model, ListLoader(symmetric), flip=flip) for flip in (False, True))
    torch.testing.assert_close(single, both, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["Baseline", "MoCo"])
def test_S03_preprocessing_in_place(plain: Plain, cfg: CfgNode, architecture: str) -> None:
    """fast-reid: the caller's images are overwritten, so the same batch twice gives other features; uint8 raises.

    Here: `preprocess_image` of every architecture does not change its input and accepts uint8.
    """
    assert plain["s03"]["input changed"]
    assert plain["s03"]["difference"] > 0.01
    assert "can't be cast" in plain["s03_uint8"]
    cfg.MODEL.META_ARCHITECTURE = architecture
    model = build_model(cfg).eval()
    given = images().round()
    before = given.clone()
    first, second = model({"images": given}), model({"images": given})
    assert torch.equal(given, before)
    assert torch.equal(first, second)
    torch.testing.assert_close(model({"images": given.to(torch.uint8)}), first)


def best_after(folder: str, scores: list[float | None], *, start: int = 0) -> tuple[int, float]:
    """Epoch and score of `model_best` after epochs of which those with a score were evaluated."""
    model, latest = nn.Linear(1, 1), {}
    keeper = BestKeeper(lambda: latest, AtomicCheckpointer(model, folder).save, folder)
    keeper.trainer = SimpleNamespace(start_iter=start, iter=0, epoch=0)
    keeper.before_train()
    for epoch, value in enumerate(scores, start):
        if value is not None:
            latest = {"A": {"D2N": {"mAP": value, "Rank-1": value}}}
        keeper.trainer = SimpleNamespace(iter=epoch, epoch=epoch)
        keeper.after_epoch()
    content = read_weight_file(Path(folder) / "model_best.pth")
    return content["epoch"], content["metric"]


def test_S04_best_is_forgotten_on_resume(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: after a resume the best score restarts at -1, so a worse epoch overwrites `model_best`.

    Here: `BestKeeper` reads the score from `model_best.pth` when a run is resumed.
    """
    assert plain["s04"] == [[0, 90.0], [2, 70.0]]
    assert best_after(str(tmp_path), [90.0]) == (0, 90.0)
    assert best_after(str(tmp_path), [70.0], start=2) == (0, 90.0)


def test_S05_best_with_another_epochs_score(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: `model_best` is labelled with the latest score in memory and misses a best between checkpoints.

    Here: the best is saved by the evaluation itself, with the weights that were scored.
    """
    assert plain["s05"]["first"] == ["model_best", 2, 50.0]
    assert all(metric < 99 for _, _, metric in plain["s05"]["between"])
    assert best_after(str(tmp_path / "a"), [None, 50.0, None, 30.0]) == (1, 50.0)
    assert best_after(str(tmp_path / "b"), [1.0, 99.0, 2.0, 20.0, 3.0]) == (1, 99.0)


def test_S06_best_of_nested_results(plain: Plain) -> None:
    """fast-reid: with nested results or several test sets the score is -1 and no `model_best` is written.

    Here: the score is the mean of (mAP + Rank-1) / 2 over the directions of the first test set.
    """
    assert not any(name == "model_best" for name, _, _ in plain["s06"])
    result = {"A": {name: {"mAP": v, "Rank-1": v} for name, v in (("D2N", 10.0), ("N2D", 30.0))}, "B": {}}
    assert selection_score(result) == 20.0


def test_S07_last_evaluation_is_not_written(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: the last evaluation never reaches `metrics.json` or TensorBoard.

    Here: scores carry the iteration they were measured at; the last one is in `metrics.json` and `results.json`.
    """
    assert plain["s07"] == [0.0, 1.0]
    tiny_cfg.TEST.EVAL_PERIOD = 1
    train(tiny_cfg)
    rows = [row for row in metrics(tiny_cfg.OUTPUT_DIR) if "DN348/D2N/mAP" in row]
    written = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    assert len({row["iteration"] for row in rows}) == 2
    assert rows[-1]["DN348/D2N/mAP"] == pytest.approx(written["DN348"]["D2N"]["mAP"])


def test_S08_two_runs_in_one_folder(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: a fresh run in a used folder appends to `metrics.json`; `resume_or_load()` resumes unasked.

    Here: a fresh run moves the earlier files aside (`previous-001/`); resuming needs `--resume`.
    """
    assert plain["s08"] == [3, 6]
    (tmp_path / "metrics.json").write_text("{}\n")
    AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path)).save("model_0000")
    assert set_aside(tmp_path) == tmp_path / "previous-001"
    assert not AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path)).resume_candidates()


def test_S09_warm_up_longer_than_the_run(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: the default 1000 warm-up iterations outlast a short run: the rate stays low, cosine's T_max < 0.

    Here: such a warm-up is shortened to a tenth of the schedule, with a warning.
    """
    assert plain["s09"]["highest"] < 0.14
    assert plain["s09"]["T_max"] == -240
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.MAX_EPOCH = 1000, 10
    plan = plan_from_config(cfg, 4)
    assert plan.warmup_iters == 4
    assert plan.learning_rate(1.0, 5) == 1.0


def test_S10_milestones_shift_with_the_warm_up(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `SOLVER.STEPS` are counted after the warm-up: [4, 6] drops at epochs 5 and 7 with two epochs of it.

    Here: they are counted from the start (of the stage).
    """
    assert plain["s10"] == [5, 7]
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.STEPS, cfg.SOLVER.MAX_EPOCH = 10, [4, 6], 9
    plan = plan_from_config(cfg, 5)
    rates = [plan.learning_rate(1.0, 5 * epoch) for epoch in range(9)]
    assert [epoch for epoch in range(3, 9) if rates[epoch] < 0.5 * rates[epoch - 1]] == [4, 6]


def test_S11_resume_with_other_solver_keys(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: on resume the optimizer's old rate and decay silently override the config.

    Here: a resume with another config is refused with the key, its old and its new value.
    """
    assert plain["s11"] == [0.1, 0]
    train(tiny_cfg)
    tiny_cfg.SOLVER.BASE_LR = 0.5
    with pytest.raises(ValueError, match=r"SOLVER\.BASE_LR was 0\.01 and is now 0\.5"):
        train(tiny_cfg, resume=True)


def test_S12_checkpoint_that_fits_nowhere(plain: Plain, cfg: CfgNode, tmp_path: Path) -> None:
    """fast-reid: a file with none of the model's keys loads "successfully"; evaluation without weights is random.

    Here: anything short of the whole backbone is refused; `--eval-only` without `MODEL.WEIGHTS` too.
    """
    assert plain["s12"] is True
    assert plain["s12_predictor"] == [2, 8]
    torch.save({"model": {"other": torch.zeros(3)}}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="does not fit the model"):
        AtomicCheckpointer(build_model(cfg)).load(str(tmp_path / "w.pth"))
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty"):
        preflight.check(cfg, eval_only=True)


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("build_resnet_backbone", "18x"),
        ("build_osnet_backbone", "x0_25"),
        ("build_shufflenetv2_backbone", "0.5x"),
        ("build_mobilenetv3_backbone", "Small"),
        ("build_repvgg_backbone", "A0"),
    ],
)
@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", None])
def test_S13_wrapped_start_weights(
    plain: Plain, cfg: CfgNode, tmp_path: Path, name: str, depth: str, wrapper: str | None
) -> None:
    """fast-reid: pre-trained weights with an unexpected wrapping or prefix load nothing.

    Here: any wrapping and prefix is removed; a file that does not fit completely is refused.
    """
    assert plain["s13"] == 0
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = name, depth
    weights = {f"module.{k}": torch.full_like(v, 7) for k, v in build_backbone(cfg).state_dict().items()}
    torch.save({wrapper: weights} if wrapper else weights, tmp_path / "w.pth")
    cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = True, str(tmp_path / "w.pth")
    assert all(bool((value == 7).all()) for value in build_backbone(cfg).state_dict().values())


def test_S14_unknown_loss_names(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: losses with an unknown name are left out: `tripletloss` and `CosfaceLoss` train nothing.

    Here: refused, with the nearest known name.
    """
    assert plain["s14"] == ["loss_cls"]
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss", "tripletloss")
    with pytest.raises(ValueError, match="'tripletloss', which is not known; did you mean 'TripletLoss'"):
        preflight.check(cfg)


def test_S15_heads_of_mgn(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `HEADS_LR_FACTOR` misses MGN's heads, and MGN drops the non-local blocks of `WITH_NL`.

    Here: the factor reaches `*_head`; MGN with `WITH_NL` is refused.
    """
    assert plain["s15"] == [1.0]
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "b1_head": nn.Linear(2, 2)})
    groups = parameter_groups(model, lr=1.0, decay=0.0, norm_decay=0.0, bias_decay=0.0, heads_factor=10.0)
    assert sorted(group["lr"] for group in groups) == [1.0, 10.0]
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "MGN", "build_resnet_backbone"
    cfg.MODEL.BACKBONE.WITH_NL = True
    with pytest.raises(ValueError, match="MGN drops the non-local blocks"):
        preflight.check(cfg)


def test_S16_regnet_remembers_regnety(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: after any RegNetY every RegNetX of the process gets squeeze-excitation blocks.

    Here: each build starts from RegNet's defaults.
    """
    assert plain["s16"][0] < plain["s16"][1]
    cfg.MODEL.BACKBONE.NAME = "build_regnet_backbone"
    sizes = []
    for depth in ("200x", "200y", "200x"):
        cfg.MODEL.BACKBONE.DEPTH = depth
        sizes.append(sum(p.numel() for p in build_backbone(cfg).parameters()))
    assert sizes[0] == sizes[2] == plain["s16"][0]


def test_S17_palette_images(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: a palette image gives its colour indices instead of its colours.

    Here: own `read_image` gives 8-bit RGB for every mode.
    """
    assert plain["s17"] == [1, 1, 1]
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(tmp_path / "p.png")
    assert np.asarray(read_image(str(tmp_path / "p.png")))[0, 0].tolist() == [200, 100, 50]


def test_S18_collator(plain: Plain) -> None:
    """fast-reid: NumPy numbers, arrays, lists and None become None in the batch; keys are dropped, shapes broadcast.

    Here: own collator: NumPy values are collated, everything else that does not fit is refused.
    """
    assert all(plain["s18"]["none"])
    assert plain["s18"]["keys"] == ["a"]
    assert plain["s18"]["broadcast"] == [[0.0, 0.0], [1.0, 1.0]]
    assert fastreid_build.fast_batch_collator is collate
    assert collate([np.int64(1), np.int64(2)]).tolist() == [1, 2]
    assert collate([np.zeros(2), np.ones(2)]).shape == (2, 2)
    for wrong in ([None, None], [[1], [2]], [{"a": 1}, {"a": 2, "b": 3}], [torch.zeros(2), torch.ones(1)]):
        with pytest.raises((TypeError, ValueError)):
            collate(wrong)


def side(features: torch.Tensor, ids: Any, cam: int = 0) -> Side:
    numbers = np.asarray(ids, dtype=np.int64)
    return Side(features, numbers, np.full(len(numbers), cam, dtype=np.int64))


def test_S19_nan_and_constant_features(plain: Plain) -> None:
    """fast-reid: NaN features score some mAP, constant ones 100 if the positives are listed first.

    Here: both are refused before ranking.
    """
    assert 0 < plain["s19"][0] < 100
    assert plain["s19"][1] == 100.0
    for features in (torch.full((10, 4), float("nan")), torch.ones(10, 4)):
        with pytest.raises(ValueError, match="features"):
            score(
                side(features, np.arange(10) % 2),
                side(features, np.arange(10) % 2, 1),
                options=ScoreOptions(),
            )


def test_S20_shuffled_test_loader(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: the first `num_query` rows are the queries, whatever order the loader had; no error.

    Here: rows are placed by their index; the drop-in evaluator refuses a shuffled loader.
    """
    assert len(plain["s20"]) == 2
    evaluator = DomainReidEvaluator(cfg, 2)
    batch = {"targets": torch.tensor([0, 1, 0, 1]), "camids": torch.tensor([0, 0, 1, 1])}
    evaluator.process({**batch, "indices": torch.tensor([2, 0, 3, 1])}, torch.randn(4, 3))
    with pytest.raises(ValueError, match="shuffles its images"):
        evaluator.evaluate()
    data = torch.randn(6, 3)
    loader = [
        {"images": data[order], "indices": order}
        for order in (torch.tensor([4, 0, 2]), torch.tensor([1, 5, 3]))
    ]

    class Loader(list):
        dataset = data

    features = extract_features(_Echo(), Loader(loader), normalize=False)
    assert torch.equal(features, data)


class _Echo(nn.Module):
    """Gives its images back as features."""

    def __init__(self) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return batch["images"]


def test_S21_queries_without_a_match(plain: Plain, caplog: pytest.LogCaptureFixture) -> None:
    """fast-reid: queries without a correct gallery image are left out of the mean without a message.

    Here: they are counted in the result and in the log.
    """
    assert plain["s21"] == 100.0
    eye = torch.eye(4)
    with caplog.at_level(logging.WARNING):
        result = score(side(eye, [0, 1, 2, 3]), side(eye[:2], [0, 1], 1), options=ScoreOptions())
    assert result["queries_without_match"] == 2
    assert "2 of 4 queries have no correct gallery image" in caplog.text


def test_S22_rerank_with_euclidean(plain: Plain) -> None:
    """fast-reid: re-ranking with METRIC euclidean mixes distances up to 1000 with one in [0, 1]: it does nothing.

    Here: features are normalised before re-ranking, for any metric.
    """
    assert plain["s22"] > 0.9
    features, ids = 30 * torch.randn(60, 8), np.arange(60) % 6
    features[:, 0] += 60 * torch.from_numpy(ids)
    options = (ScoreOptions(metric=metric, rerank=(10, 3, 0.3)) for metric in ("euclidean", "cosine"))
    plain_options = ScoreOptions(metric="euclidean")
    euclidean, cosine = (
        score(side(features[:20], ids[:20]), side(features[20:], ids[20:], 1), options=one) for one in options
    )
    untouched = score(side(features[:20], ids[:20]), side(features[20:], ids[20:], 1), options=plain_options)
    assert euclidean["mAP"] != pytest.approx(untouched["mAP"], abs=1e-6)
    # On the sphere the two metrics differ by a factor of two only.
    assert euclidean["mAP"] == pytest.approx(cosine["mAP"], abs=5)


def test_S23_roc_has_the_classes_swapped(plain: Plain) -> None:
    """fast-reid: `TEST.ROC` gives TPR 0 on perfectly separated data; negatives count as the positive class.

    Here: the share of true pairs accepted, in percent: 100 on separated data.
    """
    assert plain["s23"] == [0.0, 0.0, 0.0]
    features, ids = torch.eye(4).repeat(5, 1), np.arange(20) % 4
    result = score(side(features, ids), side(features, ids, 1), options=ScoreOptions(roc=True))
    assert [value for key, value in result.items() if key.startswith("TPR")] == [100.0, 100.0, 100.0]


def test_S24_small_galleries(plain: Plain) -> None:
    """fast-reid: below 50 kept gallery images its Cython ranking keeps values of the previous query; Python's raises.

    Here: own ranking; any gallery size works.
    """
    assert "inhomogeneous" in plain["s24"]
    features = torch.eye(3)
    result = score(side(features[:1], [0]), side(features, [0, 1, 2], 1), options=ScoreOptions())
    assert result["Rank-10"] == result["mAP"] == 100.0


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.heads = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads(self.backbone(x).mean((2, 3)))


def still_steps(hook: LayerFreeze, model: Parts, iterations: range) -> int:
    """Number of steps in which neither weights nor statistics of the backbone moved."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    still = 0
    for iteration in iterations:
        hook.trainer = SimpleNamespace(iter=iteration)
        hook.before_step()
        before = [value.clone() for value in model.backbone.state_dict().values()]
        optimizer.zero_grad()
        model(images(2)).sum().backward()
        optimizer.step()
        still += all(
            torch.equal(a, b) for a, b in zip(before, model.backbone.state_dict().values(), strict=True)
        )
        model.eval()
        model.train()
    return still


def test_S25_frozen_layers_thaw_at_the_first_evaluation(plain: Plain) -> None:
    """fast-reid: frozen batch norm trains again after an evaluation; a misspelled layer freezes nothing.

    Here: statistics stay frozen as long as the weights; an unknown name is refused.
    """
    assert plain["s25"] == {"typo": False, "before": True, "after an evaluation": False}
    model = Parts()
    assert still_steps(LayerFreeze(model, ["backbone"], 4), model, range(6)) == 4
    with pytest.raises(ValueError, match="'bakcbone', which is not a part of the model"):
        LayerFreeze(model, ["bakcbone"], 4)


def test_S26_freeze_counter_restarts(plain: Plain) -> None:
    """fast-reid: the freeze counter is not saved: a resumed run starts freezing again.

    Here: the run's iteration counts.
    """
    assert plain["s26"] == [4, 4]
    model = Parts()
    assert still_steps(LayerFreeze(model, ["backbone"], 4), model, range(3, 9)) == 1


def test_S27_clipping_per_tensor(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `CLIP_GRADIENTS` clips each tensor separately, which changes the direction of the step.

    Here: one norm over all parameters.
    """
    assert plain["s27"] == pytest.approx([1.0, 1.0], abs=1e-3)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = True, 1.0
    model = nn.Linear(3, 3)
    optimizer = build_optimizer(cfg, model)
    (1000 * model(torch.randn(4, 3)).sum()).backward()
    optimizer.step()
    total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(total) == pytest.approx(1.0, abs=1e-3)


def test_S28_weight_decay_zero(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `WEIGHT_DECAY` 0 leaves norm and bias parameters at 5e-4, since these keys are copies.

    Here: `WEIGHT_DECAY` 0 means none at all, with a warning.
    """
    assert plain["s28"] == [0.0, 0.0005]
    cfg.SOLVER.WEIGHT_DECAY = 0.0
    optimizer = build_optimizer(cfg, nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}


def test_S29_ema_teacher_is_not_saved(plain: Plain, cfg: CfgNode, tmp_path: Path) -> None:
    """fast-reid: Distiller's EMA teacher is not in the checkpoint and restarts at random; teachers stay in train mode.

    Here: own `Distiller`: the teacher is in the checkpoint, its batch norm uses running statistics.
    """
    assert plain["s29"] == {"in the state": False, "teacher trains": True}
    cfg.KD.EMA.ENABLED = True
    model, fresh = Distiller(cfg), Distiller(cfg)
    assert not model.model_ts[0].backbone.bn1.training
    AtomicCheckpointer(model, str(tmp_path)).save("model_0000")
    resumed(AtomicCheckpointer(fresh, str(tmp_path)))
    old, new = (m.model_ts[0].state_dict() for m in (model, fresh))
    assert all(torch.equal(old[key], new[key]) for key in old)


def test_S30_moco_queue(plain: Plain) -> None:
    """fast-reid: MoCo's empty queue rows count as class 0, and from the second batch on an image is its own positive.

    Here: own `QueueMemory`: empty rows are ignored, the image itself is left out at any position.
    """
    assert plain["s30"]["empty rows of class 0"] == 8
    assert plain["s30"]["loss"] > 0  # four images of four new classes have no positive but themselves
    memory = QueueMemory(dim=4, K=12)
    features = nn.functional.normalize(torch.randn(4, 4), dim=1)
    memory(features, torch.tensor([1, 2, 3, 4]))
    assert int((memory.queue_label[0] == 0).sum()) == 0
    assert memory(features, torch.tensor([5, 6, 7, 8])).item() == 0.0


def test_S31_identity_pooling(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: with `POOL_LAYER: Identity` on a CNN only the top-left cell of the map is used.

    Here: refused, except for a vision transformer.
    """
    assert plain["s31"] is True
    cfg.MODEL.HEADS.POOL_LAYER = "Identity"
    with pytest.raises(ValueError, match="only the top-left cell"):
        preflight.check(cfg)


def test_S32_sampler_seed_without_effect(plain: Plain, tiny_root: Path, tiny_cfg: CfgNode) -> None:
    """fast-reid: `ImbalancedDatasetSampler(seed=..)` draws from torch's global generator.

    Here: one `SEED` determines all generators of a run; two runs with this sampler are bit-identical.
    """
    assert plain["s32"] is False
    assert supervised_weights(tiny_cfg, "ImbalancedDatasetSampler") == supervised_weights(
        tiny_cfg, "ImbalancedDatasetSampler"
    )


def supervised(cfg: CfgNode, folder: str = "") -> CfgNode:
    """The tiny DN-348 with identity labels, fast-reid's own architecture, sampler and losses."""
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.HEADS.NAME = "Baseline", "EmbeddingHead"
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss", "TripletLoss")
    cfg.DATALOADER.SAMPLER_TRAIN = "NaiveIdentitySampler"
    cfg.MODEL.HEADS.NUM_CLASSES = 0
    cfg.SOLVER.IMS_PER_BATCH = 12
    cfg.OUTPUT_DIR += folder
    return cfg


def supervised_weights(cfg: CfgNode, sampler: str) -> str:
    cfg = supervised(cfg.clone(), f"/{sampler}")
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    np.random.seed(None)
    torch.seed()
    state = train(cfg).bare_model.state_dict()
    return str({key: value.double().sum().item() for key, value in state.items()})


def test_S33_samplers_reseed_numpy(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: samplers set NumPy's global seed, from a seed drawn from NumPy; there is no `SEED` key.

    Here: all samplers, fast-reid's too, draw from their own generators; `SEED` makes two runs equal.
    """
    assert plain["s33"] is True
    labels, domains = np.zeros(16, dtype=np.int64), np.arange(16) % 2
    sampler = CrossDomainIdentitySampler(
        labels, domains, num_clusters=1, num_instances=2, iterations=3, seed=1
    )
    np.random.seed(11)
    expected = np.random.rand()
    np.random.seed(11)
    first = list(sampler)
    assert np.random.rand() == expected
    np.random.seed(5)
    torch.manual_seed(5)
    assert list(sampler) == first
    assert supervised_weights(tiny_cfg, "NaiveIdentitySampler") == supervised_weights(
        tiny_cfg, "NaiveIdentitySampler"
    )


def test_S34_unsorted_readers(plain: Plain, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fast-reid: readers list images in the file system's order, so the same seed gives other batches elsewhere.

    Here: our readers sort into one canonical order; fast-reid's own lists are sorted too.
    """
    assert plain["s34"] is False
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    items = DN348().train
    assert items == sorted(items)


def test_S35_cross_entropy_leaves_out_zero_losses(plain: Plain) -> None:
    """fast-reid: cross entropy is the mean over the images whose loss is not exactly 0.

    Here: the mean over all images.
    """
    logits, targets = torch.tensor([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0]]), torch.tensor([0, 0])
    assert plain["s35"] == pytest.approx(math.log(3))
    assert float(cross_entropy_loss(logits, targets, 0.0)) == pytest.approx(math.log(3) / 2)


def test_S36_ignored_backbone_switches(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `LAST_STRIDE`, `WITH_SE`, `WITH_IBN` and `WITH_NL` do nothing in the backbones that lack them.

    Here: refused when set where they are ignored.
    """
    assert plain["s36"] is True
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.LAST_STRIDE = "build_osnet_backbone", 2
    with pytest.raises(ValueError, match="LAST_STRIDE is 2, which build_osnet_backbone ignores"):
        preflight.check(cfg)
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.LAST_STRIDE = "build_resnet_backbone", 1
    cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.WITH_NL = "18x", True
    with pytest.raises(ValueError, match="WITH_NL is True, but ResNet 18x has no place"):
        preflight.check(cfg)


# ====================================================================== M: models


def test_M01_regnet_outside_the_source_tree(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: RegNet and EfficientNet open their settings relative to the working directory: not found.

    Here: they are found next to fast-reid's code.
    """
    assert plain["m01"].startswith("FileNotFoundError")
    for name, depth in (("build_regnet_backbone", "400y"), ("build_effnet_backbone", "b0")):
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = name, depth
        assert sum(p.numel() for p in build_backbone(cfg).parameters()) > 10**6


def test_M02_pretrain_without_a_path(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `PRETRAIN: True` without a path needs gdown and a network, even for a cached file.

    Here: nothing is downloaded; refused with the key to set.
    """
    assert "gdown" in plain["m02"]
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.PRETRAIN = "build_osnet_backbone", True
    with pytest.raises(ValueError, match="PRETRAIN_PATH is empty"):
        preflight.check(cfg)


def test_M03_unknown_depth(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: an unknown `DEPTH` is a bare KeyError, also for `152x`, which ResNeXt half knows.

    Here: one sentence with key, value and backbone.
    """
    assert plain["m03"] == "KeyError: '152x'"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = "build_resnext_backbone", "152x"
    with pytest.raises(ValueError, match=r"MODEL\.BACKBONE\.DEPTH is '152x', which build_resnext_backbone"):
        build_backbone(cfg)


def test_M04_foreign_objects_in_weight_files(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: a file with a path, NumPy number or Namespace raises a long UnpicklingError.

    Here: one sentence that names the object and how to convert the file; no code of a pickle ever runs.
    """
    assert plain["m04"].startswith("UnpicklingError")
    torch.save({"model": {}, "path": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError, match="is refused, since loading such an object can run code"):
        read_weight_file(tmp_path / "w.pth")


def test_M05_arcface_nan(plain: Plain) -> None:
    """fast-reid: ArcSoftmax gives NaN losses and infinite gradients where a feature meets its class centre.

    Here: own `SafeArcSoftmax`, the same logits elsewhere.
    """
    assert plain["m05"] is False
    logits = torch.tensor([[1.0000001, 0.3]], requires_grad=True)
    SafeArcSoftmax(2, 30, 0.5)(logits, torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_M06_frozen_bn_in_the_neck(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: a batch-norm neck with `HEADS.NORM: FrozenBN` raises an AttributeError.

    Here: refused before anything is built.
    """
    assert plain["m06"].startswith("AttributeError")
    cfg.MODEL.HEADS.WITH_BNNECK, cfg.MODEL.HEADS.NORM = True, "FrozenBN"
    with pytest.raises(ValueError, match="FrozenBN cannot be used with WITH_BNNECK"):
        preflight.check(cfg)


def test_M07_triplet_on_collapsed_features(plain: Plain) -> None:
    """fast-reid: on collapsed features the triplet loss equals its margin and has no gradient: training is dead.

    Here: not patched, since the loss is defined like this; the next evaluation refuses features that are all the same.
    """
    assert plain["m07"] == pytest.approx([0.3, 0.0])
    with pytest.raises(ValueError, match="all 4 features are the same"):
        score(side(torch.ones(2, 3), [0, 1]), side(torch.ones(2, 3), [0, 1], 1), options=ScoreOptions())


def test_M08_one_class(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: cross entropy with one class is a division by zero.

    Here: refused when the training set is read.
    """
    assert plain["m08"].startswith("ZeroDivisionError")

    class OneIdentity(list):
        num_classes, img_items = 1, [("a", 0, 0)] * 64

    with pytest.raises(ValueError, match="has one identity"):
        preflight.check_supervised_data(cfg, OneIdentity([0] * 64))


def test_M09_only_unknown_losses(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: with unknown losses only, the loss is the number 0, which has no `backward`.

    Here: refused, see S14.
    """
    assert plain["m09"] == []
    cfg.MODEL.LOSSES.NAME = ("tripletloss",)
    with pytest.raises(ValueError, match="did you mean 'TripletLoss'"):
        preflight.check(cfg)


def test_M10_negative_targets(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: a batch whose targets sum below 0 gets all its targets set to 0, in place.

    Here: not reachable: with identity labels targets are 0 .. C-1, and pseudo labels never meet that code.
    """
    assert plain["m10"] == [0, 0, 0]
    trainer = CrossDomainTrainer(supervised(tiny_cfg))
    batch = next(iter(trainer.data_loader))
    assert 0 <= int(batch["targets"].min()) <= int(batch["targets"].max()) < 6


def test_M11_mgn_backbone_and_height(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: MGN on anything but ResNet 50x/101x is a state-dict error; images of low height break its stripes.

    Here: refused with the backbones and heights that work.
    """
    assert "Missing key(s) in state_dict" in plain["m11"]
    cfg.MODEL.META_ARCHITECTURE = "MGN"
    with pytest.raises(ValueError, match="MGN needs ResNet 50x or 101x"):
        preflight.check(cfg)


def test_M12_moco_queue_size(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: a queue that is not a multiple of the batch raises an empty AssertionError at the first step.

    Here: refused before the run.
    """
    assert plain["m12"].startswith("AssertionError")
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.QUEUE_SIZE = "MoCo", 100
    with pytest.raises(ValueError, match="QUEUE_SIZE 100 is not a multiple"):
        preflight.check(cfg)


def test_M13_distiller_without_teacher(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: Distiller without a teacher is a division by zero; a teacher's yaml picks its own device.

    Here: refused; teachers live on the student's device.
    """
    assert plain["m13"].startswith("ZeroDivisionError")
    cfg.MODEL.META_ARCHITECTURE = "Distiller"
    with pytest.raises(ValueError, match="Distiller has no teacher"):
        preflight.check(cfg)


def test_M14_batch_of_one(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: a batch of one image is an error of batch norm at the first step.

    Here: refused before the run.
    """
    assert "Expected more than 1 value per channel" in plain["m14"]
    cfg.SOLVER.IMS_PER_BATCH = 1
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 1"):
        preflight.check(cfg)


# ====================================================================== D: data


class Images(torch.utils.data.Dataset[Any]):
    def __init__(self, count: int = 4, broken: int | None = None) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == self.broken:
            raise OSError("disk gone")
        return {"images": torch.zeros(3, 2, 2), "targets": index}


def loader(data: Images, **options: Any) -> CpuGpuLoader:
    batches = BatchSampler(SequentialSampler(data), 2, False)
    return CpuGpuLoader(0, dataset=data, batch_sampler=batches, collate_fn=collate, **options)


def test_D01_loader_needs_cuda(plain: Plain) -> None:
    """fast-reid: every loader opens a CUDA stream; without a GPU nothing can be read.

    Here: an own loader replaces `DataLoaderX`; batches stay on the CPU until the model's device is known.
    """
    assert "NVIDIA driver" in plain["d01"]
    assert fastreid_build.DataLoaderX is CpuGpuLoader
    assert [batch["targets"].tolist() for batch in loader(Images())] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("workers", [0, 1])
def test_D02_an_error_while_reading_hangs(plain: Plain, workers: int) -> None:
    """fast-reid: an exception in the data set kills the loader's thread and the run waits forever (seen on a GPU).

    Here: no thread; the error is raised.
    """
    with pytest.raises(Exception, match="disk gone"):
        list(loader(Images(broken=2), num_workers=workers))


def test_D03_endless_sampler(plain: Plain) -> None:
    """fast-reid: an identity sampler that cannot fill a batch searches forever without a message.

    Here: batch, identities and instances are compared first.
    """
    assert plain["d02"] == "TooLongError: endless"
    items = [("a", i // 4, 0) for i in range(8)]
    with pytest.raises(ValueError, match="a batch needs 3 identities, the training set has 2"):
        check_identity_batch(items, 12, 4)


def test_D04_longer_items(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: `BalancedIdentitySampler` and `COMBINEALL` cannot take items of more than three fields.

    Here: our items are three fields with the domain as an attribute; the sampler runs on them.
    """
    assert "too many values to unpack" in plain["d03"]
    cfg = supervised(tiny_cfg)
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.SOLVER.MAX_EPOCH = "BalancedIdentitySampler", 1
    batch = next(iter(CrossDomainTrainer(cfg).data_loader))
    assert torch.unique(batch["targets"]).numel() == 6


def test_D05_set_reweight_sampler(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `SetReWeightSampler` adds an array to a list and fails.

    Here: refused, with the samplers that work.
    """
    assert "Error" in plain["d04"]
    cfg.DATALOADER.SAMPLER_TRAIN = "SetReWeightSampler"
    with pytest.raises(ValueError, match="known are TrainingSampler"):
        preflight.check(cfg)


def test_D06_fewer_images_than_a_batch(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: fewer training images than `IMS_PER_BATCH` is a division by zero in the schedule.

    Here: refused with both numbers.
    """
    assert plain["d05"].startswith("ZeroDivisionError")
    with pytest.raises(ValueError, match=r"fewer training images than SOLVER\.IMS_PER_BATCH"):
        plan_from_config(cfg, 0)


def test_D07_image_modes(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: RGBA keeps four channels, 16-bit images raise, Pillow alone would clip them to white.

    Here: everything becomes 8-bit RGB, 16 bits are scaled.
    """
    assert plain["d06"] == [4, "TypeError"]
    Image.new("RGBA", (4, 4), (9, 8, 7, 0)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 257 * 50, np.uint16)).save(tmp_path / "b.png")
    assert np.asarray(read_image(str(tmp_path / "a.png")))[0, 0].tolist() == [9, 8, 7]
    assert np.asarray(read_image(str(tmp_path / "b.png")))[0, 0].tolist() == [50, 50, 50]


def test_D08_affine(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `INPUT.AFFINE` passes arguments that torchvision has removed.

    Here: own affine step of the same range.
    """
    assert "unexpected keyword argument 'resample'" in plain["d07"]
    cfg.INPUT.AFFINE.ENABLED = True
    assert build_transforms(cfg, is_train=True)(Image.new("RGB", (20, 40))).shape == (3, 256, 128)


def test_D09_random_patch_memory(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `INPUT.RPT` keeps 50 000 views of whole images per worker: 18 GiB at 256 x 128.

    Here: a small pool of copies.
    """
    assert plain["d08"] == {"capacity": 50000, "numbers kept": 3 * 64 * 64}
    cfg.INPUT.RPT.ENABLED = True
    steps = build_transforms(cfg, is_train=True).transforms
    patch = next(step for step in steps if hasattr(step, "patchpool"))
    for _ in range(10):
        patch(torch.rand(3, 64, 64))
    assert patch.patchpool.maxlen <= 100
    assert all(kept.untyped_storage().size() == 4 * kept.numel() for kept in patch.patchpool)


def test_D10_identities_of_mixed_types(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: identities as numbers in one set and texts in another cannot be sorted.

    Here: the readers of this package give texts for training and numbers for testing, each alone.
    """
    assert "'<' not supported" in plain["d09"]
    dataset = DN348()
    assert {type(item[1]) for item in dataset.train} == {str}
    assert {type(item[1]) for item in (*dataset.query, *dataset.gallery)} == {int}


# ====================================================================== T: solver, trainer, hooks, checkpoints


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_T01_lamb(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `OPT: Lamb` is looked up in torch, although fast-reid ships it.

    Here: found; every other unknown name is refused with the list.
    """
    assert plain["t01"].startswith("AttributeError")
    cfg.SOLVER.OPT = "Lamb"
    assert type(build_optimizer(cfg, nn.Linear(2, 2))).__name__ == "Lamb"
    cfg.SOLVER.OPT = "LBFGS"
    with pytest.raises(ValueError, match=r"SOLVER\.OPT is 'LBFGS'; it must be one of"):
        build_optimizer(cfg, nn.Linear(2, 2))


def test_T02_swa(plain: Plain) -> None:
    """fast-reid: weight averaging (`hooks.SWA`) fails at its first step.

    Here: `SOLVER.SWA`: the mean of the weights after the last epochs, part of the checkpoint.
    """
    assert "AttributeError" in plain["t02"]
    model = nn.Linear(1, 1, bias=False)
    hook = WeightAverage(model, first_epoch=2)
    for epoch in range(3):
        model.weight.data.fill_(epoch)
        hook.trainer = SimpleNamespace(epoch=epoch, max_epoch=3)
        hook.after_epoch()
    assert model.weight.item() == 1.5


def test_T03_everything_frozen(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: a model without trainable parameters is an "empty parameter list".

    Here: one sentence with the key.
    """
    assert "empty parameter list" in plain["t03"]
    with pytest.raises(ValueError, match=r"No parameter of the model is trainable; .*MODEL\.FREEZE_LAYERS"):
        build_optimizer(cfg, nn.Linear(2, 2).requires_grad_(False))


def test_T04_unknown_schedule(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: `SCHED: StepLR` and any other name is a KeyError.

    Here: `StepLR` means `MultiStepLR`, others are refused with the list.
    """
    assert plain["t04"].startswith("KeyError")
    cfg.SOLVER.SCHED = "StepLR"
    assert plan_from_config(cfg, 5).kind == "step"
    cfg.SOLVER.SCHED = "PolyLR"
    with pytest.raises(ValueError, match=r"SOLVER\.SCHED is 'PolyLR'"):
        plan_from_config(cfg, 5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_T05_mixed_precision_without_cuda(plain: Plain, tiny_cfg: CfgNode, dtype: str) -> None:
    """fast-reid: `SOLVER.AMP` asserts CUDA at the first step; the loss scale is not in the checkpoint.

    Here: `torch.amp`, the scale is saved; on a CPU float16, which is slow there, is disabled with a warning.
    """
    assert "CUDA is required" in plain["t05"]
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.SOLVER.AMP.DTYPE = True, dtype
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.DATASETS.TESTS = 1, ()
    state = train(tiny_cfg).bare_model.state_dict()
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(("evaluate_every", "save_every"), [(0, 0), (9, 9)])
def test_T06_periods_of_zero(plain: Plain, tiny_cfg: CfgNode, evaluate_every: int, save_every: int) -> None:
    """fast-reid: `EVAL_PERIOD` or `CHECKPOINT_PERIOD` 0 is a division by zero, the first after all training.

    Here: 0 means only at the end; a negative period is refused; the final weights are evaluated, then saved.
    """
    assert plain["t06"].startswith("ZeroDivisionError")
    assert plain["t07"].startswith("ZeroDivisionError")
    assert plain["t08"] == [-1.0]
    tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.SOLVER.CHECKPOINT_PERIOD = evaluate_every, save_every
    trainer = train(tiny_cfg)
    assert set(trainer._last_eval_results["DN348"]) >= {"D2N", "N2D"}
    assert (Path(tiny_cfg.OUTPUT_DIR) / "model_final.pth").is_file()
    assert not list(Path(tiny_cfg.OUTPUT_DIR).glob("model_0*.pth"))


def test_T09_nothing_left_to_train(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: no test set, `MAX_EPOCH` 0 or resuming a finished run raises an unrelated AttributeError.

    Here: no test set is allowed, 0 epochs are refused, a finished run gives its results again.
    """
    assert "has no attribute 'epoch'" in plain["t09"]
    first = train(tiny_cfg)
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.train()["DN348"] == first._last_eval_results["DN348"]
    tiny_cfg.SOLVER.MAX_EPOCH = 0
    with pytest.raises(ValueError, match=r"SOLVER\.MAX_EPOCH is 0"):
        CrossDomainTrainer(tiny_cfg)


def test_T10_two_iterations(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: a run of two iterations or fewer divides by zero when it prints.

    Here: it runs.
    """
    assert plain["t10"].startswith("ZeroDivisionError")
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.DATALOADER.ITERS_PER_EPOCH, tiny_cfg.DATASETS.TESTS = 1, 1, ()
    assert train(tiny_cfg).iter == 1


def test_T11_profiler(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: `AutogradProfiler` passes an argument that PyTorch has removed.

    Here: `PROFILE.STEPS` writes traces with `torch.profiler`.
    """
    assert "use_cuda" in plain["t11"]
    hook = Profile(str(tmp_path), start=0, steps=1)
    hook.trainer = SimpleNamespace(iter=0)
    hook.before_step()
    torch.ones(3).sum()
    hook.after_step()
    assert json.loads((tmp_path / "profile-0.json").read_text())["traceEvents"]


def test_T12_result_types(plain: Plain, tiny_cfg: CfgNode) -> None:
    """fast-reid: an evaluator must return an OrderedDict; its NumPy numbers cannot be written as json.

    Here: results are plain floats in a plain, nested dict.
    """
    assert plain["t12"].startswith("AssertionError")
    result = evaluate(build_model(tiny_cfg), DN348(), tiny_cfg)
    assert all(type(value) is float for metric in result.values() for value in metric.values())
    json.dumps(result)


def test_T13_error_during_inference(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: after an exception during inference the model stays in eval mode.

    Here: every sub-module is back in its own mode after any exception.
    """
    assert plain["t13"] is False
    model = build_model(cfg).train()
    with pytest.raises(ValueError, match="x"), evaluating(model):
        raise ValueError("x")
    assert all(module.training for module in model.modules())


def test_T14_extra_data_in_a_checkpoint(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: NumPy numbers, paths and config nodes are saved and can never be loaded again.

    Here: converted when saved, or refused with their place.
    """
    assert plain["t14"].startswith("UnpicklingError")
    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0000", metric=np.float64(1.0), path=Path("x"))
    assert resumed(checkpointer) == {"metric": 1.0, "path": "x"}


def test_T15_a_failing_save(plain: Plain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """fast-reid: a save that fails leaves half a file under the final name; the old checkpoint is lost.

    Here: written to a temporary file, flushed to the disk, renamed; the old file stays until then.
    """
    whole, after = plain["t15"]
    assert after < whole
    checkpointer = AtomicCheckpointer(nn.Linear(100, 100), str(tmp_path))
    checkpointer.save("model_best")
    before = (tmp_path / "model_best.pth").read_bytes()

    def fail(data: Any, file: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    checkpointer.save("model_best")
    assert (tmp_path / "model_best.pth").read_bytes() == before


def test_T16_broken_pointer(plain: Plain, tmp_path: Path) -> None:
    """fast-reid: an empty or stale `last_checkpoint` file is an AssertionError on resume.

    Here: the newest readable checkpoint is used.
    """
    assert plain["t16"].startswith("AssertionError")
    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path))
    checkpointer.save("model_0000", epoch=0)
    (tmp_path / "last_checkpoint").write_text("")
    assert resumed(checkpointer) == {"epoch": 0}


def test_T18_several_processes_without_cuda(plain: Plain) -> None:
    """fast-reid: several processes need CUDA and NCCL; on a CPU its DDP wrapper gets a device number.

    Here: gloo on the CPU; `wrap_model` passes no device there.
    """
    assert "cuda is not available" in plain["t18"]
    model = nn.Linear(1, 1)
    assert wrap_model(model) is model


def test_T19_strict_types(plain: Plain) -> None:
    """fast-reid: `BASE_LR: 1` and `MAX_EPOCH: 3.0` are refused as type errors.

    Here: whole numbers and floats are interchangeable if nothing is lost.
    """
    assert plain["t19"].startswith("ValueError: Type mismatch")
    cfg = get_cfg()
    merge_with_suggestions(cfg, "", ["SOLVER.BASE_LR", "1", "SOLVER.MAX_EPOCH", "3.0"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH) == (1.0, 3)


def test_T20_unknown_keys(plain: Plain) -> None:
    """fast-reid: an unknown key is "Non-existent key" with the key.

    Here: the nearest known key is named, and the file or command line with the wrong one.
    """
    assert plain["t20"] == "AssertionError: Non-existent key: SOLVER.BASE_LRR"
    with pytest.raises(
        ValueError, match=r"the command line sets SOLVER\.BASE_LRR.*did you mean SOLVER\.BASE_LR\?"
    ):
        merge_with_suggestions(get_cfg(), "", ["SOLVER.BASE_LRR", "1.0"])


def test_T21_checkpoints_hold_the_generators(tiny_cfg: CfgNode) -> None:
    """fast-reid: random generators, the loss scale and the sampler's position are not in the checkpoint.

    Here: they are; a resume is bit-exact (see `tests/engine/test_trainer.py` and
    `test_supervised_resume.py`).
    """
    trainer = CrossDomainTrainer(tiny_cfg)
    assert set(Checkpoints(trainer).capture(0)) >= {
        "generators",
        "scaler",
        "iteration",
        "optimizer",
        "config",
    }


def test_T22_scalars_stay_in_memory(plain: Plain) -> None:
    """fast-reid: every scalar of every step stays in memory, up to a million values of each.

    Here: the newest 1,000 of each; smoothed values and the mean over all are the same.
    """
    from fastreid.utils.events import EventStorage

    assert plain["t22"] == 1500
    storage = EventStorage()
    for step in range(1500):
        storage.put_scalar("loss", float(step))
    history = storage.history("loss")
    assert len(history.values()) == 1000 and history.latest() == 1499.0
    assert history.median(20) == 1489.5 and history.global_avg() == pytest.approx(749.5)


# ====================================================================== E: evaluation


def test_E01_compiling_at_run_time(plain: Plain, cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """fast-reid: the evaluator runs `make` inside site-packages; a failure ends the run at the first evaluation.

    Here: nothing is compiled or written; fast-reid's own evaluator class neither.
    """
    from fastreid.evaluation import ReidEvaluator

    assert plain["e01"] is True
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(command))
    monkeypatch.setattr(subprocess, "call", lambda *command: pytest.fail(str(command)))
    DomainReidEvaluator(cfg, 2)
    ReidEvaluator(cfg, 2)


def test_E02_less_than_ten_gallery_images(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: fewer than ten gallery images is an IndexError for Rank-10.

    Here: Rank-10 of a shorter list is its last value.
    """
    assert plain["e02"].startswith("IndexError")
    evaluator = DomainReidEvaluator(cfg, 2)
    evaluator.process(
        {"targets": torch.tensor([0, 1, 0, 1, 0, 1]), "camids": torch.tensor([0, 0, 1, 1, 1, 1])},
        torch.randn(6, 4),
    )
    assert evaluator.evaluate()["Rank-10"] == 100.0


def test_E03_negative_distances(plain: Plain) -> None:
    """fast-reid: squared euclidean distances can be negative by rounding.

    Here: clamped at 0.
    """
    assert plain["e03"] < 0
    from dnreid_plugins.evaluation.scoring import _distance_blocks

    features = 30 * torch.randn(200, 64)
    assert min(block.min() for block in _distance_blocks(features, features, "euclidean")) == 0.0


def test_E04_rerank_on_the_cpu(plain: Plain, cfg: CfgNode) -> None:
    """fast-reid: re-ranking in the evaluator needs a GPU; `METRIC: jaccard` is a KeyError.

    Here: re-ranking runs on the CPU; unknown metrics are refused.
    """
    assert "NVIDIA driver" in plain["e04"]
    assert plain["e06"] == "KeyError: 'k1'"
    cfg.TEST.RERANK.ENABLED = True
    evaluator = DomainReidEvaluator(cfg, 20)
    pids = torch.arange(80) % 10
    evaluator.process({"targets": pids, "camids": (torch.arange(80) >= 20).long()}, torch.randn(80, 4))
    assert 0 < evaluator.evaluate()["mAP"] < 100
    cfg.TEST.METRIC = "jaccard"
    with pytest.raises(ValueError, match=r"TEST\.METRIC is 'jaccard'"):
        preflight.check(cfg)


def test_E05_query_expansion_nan(plain: Plain) -> None:
    """fast-reid: query expansion with a fractional `ALPHA` is NaN where a similarity is negative.

    Here: negative similarities have weight 0.
    """
    assert plain["e05"] is False
    both = torch.tensor([[1.0], [-1.0], [1.0], [-1.0], [-1.0]])
    assert torch.isfinite(expand_features(both, k=4, alpha=0.5, times=1)).all()


def test_E06_test_loader_workers(cfg: CfgNode, tiny_cfg: CfgNode) -> None:
    """fast-reid: the test loader always starts four workers, regardless of `NUM_WORKERS` (read in its code).

    Here: `DATALOADER.NUM_WORKERS` is used.
    """
    assert tiny_cfg.DATALOADER.NUM_WORKERS == 0
    assert build_inference_loader(tiny_cfg, DN348().test).num_workers == 0


def test_E07_verify_results(plain: Plain) -> None:
    """fast-reid: `verify_results` reads a config key that does not exist.

    Here: not reachable: this package never calls it.
    """
    assert plain["e07"] == "AttributeError: EXPECTED_RESULTS"
