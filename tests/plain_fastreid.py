"""What fast-reid 1.4.0 does by itself on a CPU. Run as a script it prints one JSON object, row -> what was seen.

It runs in a process of its own, because `import dnreid_plugins` patches fast-reid in memory. Only the two names that
fast-reid cannot be imported without are put in place, and nothing is compiled or written into site-packages.
A row that ends in an exception gives its text, "TypeError: ...".
"""

from __future__ import annotations

import collections
import collections.abc
import contextlib
import io
import json
import logging
import os
import signal
import sys
import tempfile
import types
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
sys.modules["torch._six"] = types.ModuleType("torch._six")
sys.modules["torch._six"].string_classes = str  # type: ignore[attr-defined]

import fastreid.data.build as build  # noqa: E402
import fastreid.engine.hooks as hooks  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from fastreid.config import get_cfg  # noqa: E402
from fastreid.data.data_utils import read_image  # noqa: E402
from fastreid.data.samplers import ImbalancedDatasetSampler, NaiveIdentitySampler  # noqa: E402
from fastreid.engine import DefaultPredictor, DefaultTrainer  # noqa: E402
from fastreid.engine.train_loop import TrainerBase  # noqa: E402
from fastreid.evaluation import ReidEvaluator  # noqa: E402
from fastreid.evaluation.rank import evaluate_rank  # noqa: E402
from fastreid.evaluation.roc import evaluate_roc  # noqa: E402
from fastreid.evaluation.testing import print_csv_format  # noqa: E402
from fastreid.layers import any_softmax  # noqa: E402
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone  # noqa: E402
from fastreid.modeling.losses import cross_entropy_loss, triplet_loss  # noqa: E402
from fastreid.modeling.meta_arch import build_model  # noqa: E402
from fastreid.modeling.meta_arch.distiller import Distiller  # noqa: E402
from fastreid.modeling.meta_arch.moco import Memory  # noqa: E402
from fastreid.solver import build_lr_scheduler, build_optimizer  # noqa: E402
from fastreid.solver.build import get_default_optimizer_params  # noqa: E402
from fastreid.utils.checkpoint import Checkpointer, PeriodicCheckpointer  # noqa: E402
from fastreid.utils.events import EventStorage, JSONWriter  # noqa: E402
from PIL import Image  # noqa: E402
from torch import nn  # noqa: E402

FASTREID_PARENT = Path(build.__file__).parents[2]
ReidEvaluator._compile_dependencies = lambda self: None  # it would run make inside site-packages


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn1(self.conv1(x)))


@BACKBONE_REGISTRY.register()
def build_tiny_backbone(cfg: Any) -> nn.Module:
    return Tiny()


def config(**keys: Any) -> Any:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.FEAT_DIM = "build_tiny_backbone", 8
    cfg.MODEL.HEADS.NUM_CLASSES = 3
    cfg.SOLVER.WARMUP_ITERS = 0
    for key, value in keys.items():
        *path, last = key.split("__")
        node = cfg
        for name in path:
            node = node[name]
        node[last] = value
    return cfg


def images(count: int = 4) -> torch.Tensor:
    return 255 * torch.rand(count, 3, 8, 8)


class Loop(TrainerBase):
    """fast-reid's loop and hooks without a model: each epoch has its number as the score to evaluate."""

    def __init__(self, cfg: Any, scores: list[float], hook_list: list[Any]) -> None:
        super().__init__()
        self.cfg, self.scores, self.max_epoch = cfg, scores, len(scores)
        self.iters_per_epoch = 4
        self.max_iter = self.iters_per_epoch * self.max_epoch
        self.register_hooks(hook_list)

    def run_step(self) -> None:
        self.storage.put_scalar("total_loss", 1.0)

    def score(self) -> dict[str, float]:
        return {"metric": self.scores[self.epoch]}


class Recorder:
    def __init__(self) -> None:
        self.saved: list[tuple[str, int, float]] = []

    def save(self, name: str, *, epoch: int, metric: float) -> None:
        self.saved.append((name, epoch, float(metric)))


def saved_files(
    scores: list[float], evaluate: int, save: int, key: str = "metric"
) -> list[tuple[str, int, float]]:
    recorder = Recorder()
    loop = Loop(config(DATASETS__TESTS=("A",)), scores, [])
    loop.register_hooks(
        [
            hooks.EvalHook(evaluate, lambda: {key: loop.score()["metric"]}),
            hooks.PeriodicCheckpointer(recorder, save),
        ]
    )
    loop.train(0, loop.max_epoch, loop.iters_per_epoch)
    return recorder.saved


def json_rows(folder: str, epochs: int, period: int = 1) -> list[dict[str, Any]]:
    path = os.path.join(folder, "metrics.json")
    loop = Loop(config(), [float(e) for e in range(epochs)], [])
    loop.register_hooks([hooks.EvalHook(period, loop.score), hooks.PeriodicWriter([JSONWriter(path)], 200)])
    loop.train(0, epochs, loop.iters_per_epoch)
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


# ---------------------------------------------------------------------- silent wrong results


def s01() -> Any:
    model = nn.Linear(3, 3)
    optimizer, _ = build_optimizer(config(SOLVER__BASE_LR=0.1), model)
    before = model.weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    return float((model.weight - before).abs().max())


def s02() -> Any:
    model = build_model(config()).eval()
    batch = {"images": images()}
    batch["images"] = (batch["images"] + batch["images"].flip(3)) / 2  # the same image left and right
    with torch.no_grad():
        plain = model(batch).clone()
        batch["images"] = batch["images"].flip(dims=[3])
        flipped = model(batch)
    return float((plain - flipped).abs().max())


def s03() -> Any:
    model = build_model(config()).eval()
    given = images()
    before = given.clone()
    with torch.no_grad():
        first, second = model({"images": given}).clone(), model({"images": given})
    return {
        "input changed": not torch.equal(given, before),
        "difference": float((first - second).abs().max()),
    }


def s03_uint8() -> Any:
    build_model(config()).eval()({"images": images().to(torch.uint8)})


def s04() -> Any:
    recorder = Recorder()
    PeriodicCheckpointer(recorder, 1, max_epoch=9).step(0, metric=90.0)
    PeriodicCheckpointer(recorder, 1, max_epoch=9).step(2, metric=70.0)  # the process after a resume
    return [(epoch, metric) for name, epoch, metric in recorder.saved if name == "model_best"]


def s05() -> Any:
    late = [item for item in saved_files([10, 50, 20, 30, 40, 45, 5], 2, 3) if item[0] == "model_best"]
    between = [item for item in saved_files([1, 99, 2, 20, 3], 1, 3) if item[0] == "model_best"]
    return {"first": late[0], "between": between}


def s06() -> Any:
    return saved_files([10, 20, 30], 1, 1, key="sc/metric")


def s07() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        rows = json_rows(folder, 3)
    return [row["metric"] for row in rows if "metric" in row]


def s08() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return [len(json_rows(folder, 3)), len(json_rows(folder, 3))]


def s09() -> Any:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cfg = config(SOLVER__WARMUP_ITERS=1000, SOLVER__SCHED="CosineAnnealingLR", SOLVER__MAX_EPOCH=10)
    schedulers = build_lr_scheduler(cfg, optimizer, 4)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedulers["warmup_sched"].step()
    return {"highest": max(rates), "T_max": schedulers["lr_sched"].T_max}


def s10() -> Any:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    cfg = config(SOLVER__WARMUP_ITERS=10, SOLVER__STEPS=[4, 6], SOLVER__MAX_EPOCH=9)
    trainer = Loop(cfg, [0.0] * 9, [hooks.LRScheduler(optimizer, build_lr_scheduler(cfg, optimizer, 5))])
    trainer.warmup_iters, trainer.delay_epochs, trainer.grad_scaler = 10, 0, None
    rates: list[float] = []
    trainer.run_step = lambda: (rates.append(optimizer.param_groups[0]["lr"]), optimizer.step())
    trainer.train(0, 9, 5)
    per_epoch = rates[::5]
    return [epoch for epoch in range(3, 9) if per_epoch[epoch] < 0.5 * per_epoch[epoch - 1]]


def s11() -> Any:
    parameter = nn.Parameter(torch.zeros(1))
    old, new = torch.optim.Adam([parameter], lr=0.1), torch.optim.Adam([parameter], lr=0.5, weight_decay=0.1)
    new.load_state_dict(old.state_dict())
    return [new.param_groups[0]["lr"], new.param_groups[0]["weight_decay"]]


def s12() -> Any:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": {"other": torch.zeros(3)}}, f"{folder}/w.pth")
        Checkpointer(model).load(f"{folder}/w.pth")
    return torch.equal(model.weight, before)


def s12_predictor() -> Any:
    return list(DefaultPredictor(config())(images(2)).shape)


def s13() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        cfg = config(MODEL__BACKBONE__NAME="build_osnet_backbone", MODEL__BACKBONE__DEPTH="x0_25")
        weights = {k: torch.full_like(v, 7) for k, v in build_backbone(cfg).state_dict().items()}
        torch.save({"state_dict": weights}, f"{folder}/w.pth")
        cfg.MODEL.BACKBONE.PRETRAIN, cfg.MODEL.BACKBONE.PRETRAIN_PATH = True, f"{folder}/w.pth"
        loaded = build_backbone(cfg).state_dict()
    return sum(bool((value == 7).all()) for value in loaded.values())


def s14() -> Any:
    cfg = config(MODEL__LOSSES__NAME=("CrossEntropyLoss", "tripletloss", "CosfaceLoss"))
    with EventStorage():
        return sorted(build_model(cfg)({"images": images(3), "targets": torch.tensor([0, 1, 2])}))


def s15() -> Any:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "b1_head": nn.Linear(2, 2)})
    groups = get_default_optimizer_params(model, base_lr=1.0, heads_lr_factor=10.0)
    return sorted({group["lr"] for group in groups})


def s16() -> Any:
    with contextlib.chdir(FASTREID_PARENT) if hasattr(contextlib, "chdir") else _chdir(FASTREID_PARENT):
        sizes = []
        for depth in ("200x", "200y", "200x"):
            cfg = config(MODEL__BACKBONE__NAME="build_regnet_backbone", MODEL__BACKBONE__DEPTH=depth)
            sizes.append(sum(p.numel() for p in build_backbone(cfg).parameters()))
    return [sizes[0], sizes[2]]


@contextlib.contextmanager
def _chdir(path: Path) -> Any:
    old = os.getcwd()
    os.chdir(path)
    yield
    os.chdir(old)


def s17() -> Any:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    with tempfile.TemporaryDirectory() as folder:
        image.save(f"{folder}/p.png")
        return np.asarray(read_image(f"{folder}/p.png"))[0, 0].tolist()


def s18() -> Any:
    values = [np.int64(1), np.float32(1), np.zeros(2), [1], (1,), None]
    shapes = build.fast_batch_collator([torch.zeros(2), torch.ones(1)])
    return {
        "none": [build.fast_batch_collator([v, v]) is None for v in values],
        "keys": sorted(build.fast_batch_collator([{"a": 1}, {"a": 2, "b": 3}])),
        "broadcast": shapes.tolist(),
    }


def _evaluated(features: torch.Tensor, pids: list[int], queries: int, **keys: Any) -> dict[str, float]:
    evaluator = ReidEvaluator(config(**keys), queries)
    cams = torch.tensor([0] * queries + [1] * (len(pids) - queries))
    evaluator.process({"targets": torch.tensor(pids), "camids": cams}, features)
    return {key: float(value) for key, value in evaluator.evaluate().items()}


def s19() -> Any:
    pids = [i % 10 for i in range(80)]
    nan = _evaluated(torch.full((80, 4), float("nan")), pids, 20)
    return [nan["mAP"], _evaluated(torch.ones(80, 4), [*([0] * 20), *([0] * 30), *([1] * 30)], 20)["mAP"]]


def s20() -> Any:
    torch.manual_seed(0)
    pids = torch.arange(80) % 10
    features = nn.functional.one_hot(pids, 10).float() + 0.4 * torch.randn(80, 10)
    order = torch.randperm(80)
    right = _evaluated(features, pids.tolist(), 20)["mAP"]
    return [right, _evaluated(features[order], pids[order].tolist(), 20)["mAP"]]


def s21() -> Any:
    pids = [*range(10), *range(100, 110), *([i % 10 for i in range(60)])]
    features = nn.functional.one_hot(torch.tensor(pids) % 97, 97).float()
    return _evaluated(features, pids, 20)["Rank-1"]


def s22() -> Any:
    """The share of pairs whose order a Jaccard distance in [0, 1] can change among squared distances."""
    torch.manual_seed(0)
    features = 5 * torch.randn(40, 32)
    distances = (features[:10, None] - features[None, 10:]).square().sum(2)
    mixed = 0.7 * torch.rand(10, 30) + 0.3 * distances
    return float((distances.argsort(1) == mixed.argsort(1)).float().mean())


def s23() -> Any:
    from sklearn import metrics

    pids = np.arange(20) % 4
    distances = (pids[:, None] != pids[None, :]).astype(np.float32)  # perfectly separated
    cams = np.zeros(20, dtype=int)
    scores, labels = evaluate_roc(distances, pids, pids, cams, cams + 1)
    false, true, _ = metrics.roc_curve(labels, scores)
    return [float(true[np.argmin(np.abs(false - rate))]) for rate in (1e-4, 1e-3, 1e-2)]


def s24() -> Any:
    rng = np.random.default_rng(0)
    gallery = rng.integers(0, 3, 12)
    cams = np.array([0, 1] * 6)
    evaluate_rank(rng.random((5, 12)), rng.integers(0, 3, 5), gallery, np.array([0, 1, 0, 1, 7]), cams)


class Freezable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = Tiny()
        self.heads = nn.Linear(8, 2)


def s25() -> Any:
    model = Freezable()
    hook = hooks.LayerFreeze(model, ["bakcbone"], 5)
    hook.freeze_specific_layer()
    typo_frozen = not model.backbone.bn1.training
    hook = hooks.LayerFreeze(model, ["backbone"], 5)
    hook.trainer = types.SimpleNamespace(iter=0)
    hook.before_step()
    frozen = not model.backbone.bn1.training
    model.eval()
    model.train()
    hook.before_step()
    return {"typo": typo_frozen, "before": frozen, "after an evaluation": not model.backbone.bn1.training}


def s26() -> Any:
    def steps(count: int, state: Any = None) -> tuple[int, Any]:
        model = Freezable()
        cfg = config(SOLVER__OPT="SGD", MODEL__FREEZE_LAYERS=["backbone"], SOLVER__FREEZE_ITERS=4)
        optimizer, _ = build_optimizer(cfg, model, contiguous=False)
        if state:
            optimizer.load_state_dict(state)
        still = 0
        for _ in range(count):
            before = model.backbone.conv1.weight.detach().clone()
            optimizer.zero_grad()
            model.heads(model.backbone(images()).mean((2, 3))).sum().backward()
            optimizer.step()
            still += int(torch.equal(before, model.backbone.conv1.weight))
        return still, optimizer.state_dict()

    first, state = steps(6)
    return [first, steps(6, state)[0]]


def s27() -> Any:
    model = nn.Linear(3, 3)
    cfg = config(
        SOLVER__OPT="SGD", SOLVER__CLIP_GRADIENTS__ENABLED=True, SOLVER__CLIP_GRADIENTS__CLIP_VALUE=1.0
    )
    optimizer, _ = build_optimizer(cfg, model, contiguous=False)
    (1000 * model(torch.randn(4, 3)).sum()).backward()
    optimizer.step()
    return [float(p.grad.norm()) for p in model.parameters()]


def s28() -> Any:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer, _ = build_optimizer(config(SOLVER__WEIGHT_DECAY=0.0), model, contiguous=False)
    return sorted({group["weight_decay"] for group in optimizer.param_groups})


def s29() -> Any:
    model = Distiller(config(KD__EMA__ENABLED=True))
    return {
        "in the state": any("ema" in key or "model_ts" in key for key in model.state_dict()),
        "teacher trains": model.model_ts[0].backbone.bn1.training,
    }


def s30() -> Any:
    memory = Memory(dim=4, K=12)
    features = nn.functional.normalize(torch.randn(4, 4), dim=1)
    memory(features, torch.tensor([1, 2, 3, 4]))
    empty = int((memory.queue_label[0, 4:] == 0).sum())
    # Second batch of four different classes: no image has a positive, so each term is log(1 + 0).
    return {"empty rows of class 0": empty, "loss": float(memory(features, torch.tensor([5, 6, 7, 8])))}


def s31() -> Any:
    model = build_model(config(MODEL__HEADS__POOL_LAYER="Identity")).eval()
    first = images(1)
    second = first.clone()
    second[..., 4:, :] = 0
    with torch.no_grad():
        return torch.equal(model({"images": first.clone()}), model({"images": second}))


def s32() -> Any:
    items = [("a", i % 3, 0) for i in range(30)]
    drawn = []
    for _ in range(2):
        sampler = iter(ImbalancedDatasetSampler(items, seed=5))
        drawn.append([next(sampler) for _ in range(20)])
    return drawn[0] == drawn[1]


def s33() -> Any:
    items = [("a", i // 4, 0) for i in range(32)]
    sampler = NaiveIdentitySampler(items, 8, 4)
    np.random.seed(11)
    expected = np.random.rand()
    np.random.seed(11)
    next(iter(sampler))
    return np.random.rand() != expected


def s34() -> Any:
    import inspect

    from fastreid.data.datasets import Market1501

    return "sorted" in inspect.getsource(Market1501)


def s35() -> Any:
    logits = torch.tensor([[0.0, 0.0, 0.0], [200.0, 0.0, 0.0]])
    return float(cross_entropy_loss(logits, torch.tensor([0, 0]), 0.0))


def s36() -> Any:
    sizes = []
    for stride in (1, 2):
        cfg = config(MODEL__BACKBONE__NAME="build_osnet_backbone", MODEL__BACKBONE__DEPTH="x0_25")
        cfg.MODEL.BACKBONE.LAST_STRIDE = stride
        sizes.append(list(build_backbone(cfg).eval()(torch.zeros(1, 3, 64, 32)).shape))
    return sizes[0] == sizes[1]


# ---------------------------------------------------------------------- models


def m01() -> Any:
    build_backbone(config(MODEL__BACKBONE__NAME="build_regnet_backbone", MODEL__BACKBONE__DEPTH="200x"))


def m02() -> Any:
    cfg = config(MODEL__BACKBONE__NAME="build_osnet_backbone", MODEL__BACKBONE__DEPTH="x0_25")
    cfg.MODEL.BACKBONE.PRETRAIN = True
    os.environ["HTTPS_PROXY"] = os.environ["https_proxy"] = "http://127.0.0.1:9"  # no download from a test
    build_backbone(cfg)


def m03() -> Any:
    build_backbone(config(MODEL__BACKBONE__NAME="build_resnext_backbone", MODEL__BACKBONE__DEPTH="152x"))


def m04() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"model": {}, "path": Path("x")}, f"{folder}/w.pth")
        Checkpointer(nn.Linear(1, 1)).load(f"{folder}/w.pth")


def m05() -> Any:
    logits = torch.tensor([[1.0000001, 0.3]], requires_grad=True)
    any_softmax.ArcSoftmax(2, 30, 0.5)(logits.clone(), torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    return bool(torch.isfinite(logits.grad).all())


def m06() -> Any:
    build_model(config(MODEL__HEADS__WITH_BNNECK=True, MODEL__HEADS__NORM="FrozenBN"))


def m07() -> Any:
    features = torch.ones(6, 4, requires_grad=True)
    loss = triplet_loss(features, torch.tensor([0, 0, 1, 1, 2, 2]), 0.3, False, True)
    loss.backward()
    assert features.grad is not None
    return [float(loss), float(features.grad.abs().max())]


def m08() -> Any:
    cross_entropy_loss(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), 0.1)


def m09() -> Any:
    cfg = config(MODEL__LOSSES__NAME=("tripletloss",))
    with EventStorage():
        losses = build_model(cfg)({"images": images(3), "targets": torch.tensor([0, 1, 2])})
    return sorted(losses)


def m10() -> Any:
    model = build_model(config(MODEL__META_ARCHITECTURE="Baseline"))
    targets = torch.tensor([0, -1, -1])
    with EventStorage():
        model({"images": images(3), "targets": targets})
    return targets.tolist()


def m11() -> Any:
    cfg = config(MODEL__META_ARCHITECTURE="MGN", MODEL__BACKBONE__NAME="build_resnet_backbone")
    cfg.MODEL.BACKBONE.DEPTH, cfg.MODEL.BACKBONE.FEAT_DIM = "18x", 512
    build_model(cfg)


def m12() -> Any:
    Memory(dim=4, K=10)(torch.randn(4, 4), torch.arange(4))


def m13() -> Any:
    model = Distiller(config())
    with EventStorage():
        model({"images": images(3), "targets": torch.tensor([0, 1, 2])})


def m14() -> Any:
    with EventStorage():
        build_model(config(MODEL__HEADS__WITH_BNNECK=True))(
            {"images": images(1), "targets": torch.tensor([0])}
        )


# ---------------------------------------------------------------------- data


class Items(torch.utils.data.Dataset):
    num_classes = 2

    def __init__(self, count: int = 8) -> None:
        self.img_items = [("a", i % 2, 0) for i in range(count)]

    def __len__(self) -> int:
        return len(self.img_items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"images": torch.zeros(3, 2, 2), "targets": 0, "camids": 0, "img_paths": "a"}


def d01() -> Any:
    build.build_reid_test_loader(Items(), test_batch_size=4, num_query=2, num_workers=0)


def d02() -> Any:
    items = [("a", i // 4, 0) for i in range(8)]
    signal.alarm(3)
    next(iter(NaiveIdentitySampler(items, 12, 4)))  # three identities wanted, two there


def d03() -> Any:
    from fastreid.data.samplers import BalancedIdentitySampler

    next(iter(BalancedIdentitySampler([("a", i // 4, 0, "clothes") for i in range(8)], 8, 4)))


def d04() -> Any:
    from fastreid.data.samplers import SetReWeightSampler

    items = [("a", i // 8, i // 8 % 2) for i in range(64)]
    iterator = iter(SetReWeightSampler(items, 16, 4, [1, 1]))
    return [next(iterator) for _ in range(16)]


def d05() -> Any:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    build_lr_scheduler(config(SOLVER__WARMUP_ITERS=10), optimizer, len(Items()) // 64)


def d06() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGBA", (4, 4)).save(f"{folder}/p.png")
        channels = np.asarray(read_image(f"{folder}/p.png")).shape[2]
        Image.fromarray(np.zeros((4, 4), np.uint16)).save(f"{folder}/q.png")
        try:
            read_image(f"{folder}/q.png")
        except Exception as error:
            return [channels, type(error).__name__]
    return [channels, None]


def d07() -> Any:
    from fastreid.data.transforms import build_transforms

    build_transforms(config(INPUT__AFFINE__ENABLED=True))


def d08() -> Any:
    from fastreid.data.transforms.transforms import RandomPatch

    patch = RandomPatch()
    for _ in range(5):
        patch(torch.rand(3, 64, 64))
    return {
        "capacity": patch.patchpool.maxlen,
        "numbers kept": patch.patchpool[0].untyped_storage().size() // 4,
    }


def d09() -> Any:
    from fastreid.data.common import CommDataset

    CommDataset([("a", 1, 0), ("b", "x_2", 0)])


# ---------------------------------------------------------------------- solver, trainer, hooks, checkpoints


def t01() -> Any:
    build_optimizer(config(SOLVER__OPT="Lamb"), nn.Linear(2, 2), contiguous=False)


def t02() -> Any:
    hook = hooks.SWA(0, 1, 1.0, 0.0)
    trainer = DefaultTrainer.__new__(DefaultTrainer)
    trainer.iter = 0
    trainer._trainer = types.SimpleNamespace(
        optimizer=torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    )
    hook.trainer = trainer
    hook.before_step()


def t03() -> Any:
    build_optimizer(config(), nn.Linear(2, 2).requires_grad_(False), contiguous=False)


def t04() -> Any:
    build_lr_scheduler(
        config(SOLVER__SCHED="StepLR"), torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0), 5
    )


def t05() -> Any:
    from fastreid.engine.train_loop import AMPTrainer

    model = nn.Linear(1, 1)
    AMPTrainer(model, [1], torch.optim.SGD(model.parameters(), lr=1.0), None).run_step()


def _periods(evaluate: int, save: int, epochs: int = 3) -> Any:
    return saved_files([float(e) for e in range(epochs)], evaluate, save)


def t06() -> Any:
    return _periods(0, 1)


def t07() -> Any:
    return _periods(1, 0)


def t08() -> Any:
    return [metric for name, _, metric in _periods(9, 1) if name == "model_final"]


def t09() -> Any:
    loop = Loop(config(), [], [hooks.EvalHook(1, dict)])
    loop.train(0, 0, 4)


def t10() -> Any:
    from fastreid.utils.events import CommonMetricPrinter

    loop = Loop(config(), [1.0], [])
    loop.iters_per_epoch = loop.max_iter = 2
    loop.register_hooks([hooks.IterationTimer(), hooks.PeriodicWriter([CommonMetricPrinter(2)])])
    loop.train(0, 1, 2)


def t11() -> Any:
    hook = hooks.AutogradProfiler(lambda trainer: True, ".")
    hook.trainer = None
    hook.before_step()


def t12() -> Any:
    print_csv_format({"mAP": 1.0, "dataset": "A"})


def t13() -> Any:
    from fastreid.evaluation.evaluator import inference_context

    model = nn.Linear(1, 1)
    with contextlib.suppress(ValueError), inference_context(model):
        raise ValueError
    return model.training


def t14() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        model = nn.Linear(1, 1)
        checkpointer = Checkpointer(model, folder)
        checkpointer.save("model_0000", metric=np.float64(1.0))
        checkpointer.resume_or_load("", resume=True)


def t15() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(nn.Linear(100, 100), folder)
        checkpointer.save("model_best")
        whole = os.path.getsize(f"{folder}/model_best.pth")

        class Unsaveable:
            def __reduce__(self) -> Any:
                raise RuntimeError("disk full")

        with contextlib.suppress(RuntimeError):
            checkpointer.save("model_best", extra=Unsaveable())
        return [whole, os.path.getsize(f"{folder}/model_best.pth")]


def t16() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "last_checkpoint").touch()
        Checkpointer(nn.Linear(1, 1), folder).resume_or_load("", resume=True)


def t18() -> Any:
    # Called as a process of `launch(..., num_gpus_per_machine=2)` would.
    sys.modules["fastreid.engine.launch"]._distributed_worker(0, print, 2, 2, 0, "", ())


def t19() -> Any:
    get_cfg().merge_from_list(["SOLVER.BASE_LR", "1"])


def t20() -> Any:
    get_cfg().merge_from_list(["SOLVER.BASE_LRR", "1.0"])


def t22() -> Any:
    from fastreid.utils.events import EventStorage

    storage = EventStorage()
    for _ in range(1500):
        storage.put_scalar("loss", 1.0)
    return len(storage.history("loss").values())


# ---------------------------------------------------------------------- evaluation


def e01() -> Any:
    import inspect

    import fastreid.evaluation.rank_cylib as package

    return "make" in inspect.getsource(package.compile_helper)


def e02() -> Any:
    pids = [0, 1, 0, 1, 0, 1]
    return _evaluated(torch.randn(6, 4), pids, 2)


def e03() -> Any:
    from fastreid.utils.compute_dist import build_dist

    torch.manual_seed(0)
    features = 30 * torch.randn(200, 64)
    return float(np.asarray(build_dist(features, features, "euclidean")).min())


def e04() -> Any:
    return _evaluated(torch.randn(80, 4), [i % 10 for i in range(80)], 20, TEST__RERANK__ENABLED=True)


def e05() -> Any:
    from fastreid.evaluation.query_expansion import aqe

    query, _ = aqe(torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0], [-1.0], [-1.0]]), 1, 4, 0.5)
    return bool(torch.isfinite(query).all())


def e06() -> Any:
    return _evaluated(torch.randn(80, 4), [i % 10 for i in range(80)], 20, TEST__METRIC="jaccard")


def e07() -> Any:
    from fastreid.evaluation.testing import verify_results

    verify_results(config(), OrderedDict())


class TooLongError(Exception):
    """The row ran for so long that it is taken for an endless loop."""


def _alarm(*_: Any) -> None:
    raise TooLongError("endless")


def observe(seconds: int = 60) -> dict[str, Any]:
    """Every row of this file; an exception becomes its text."""
    rows = {}
    signal.signal(signal.SIGALRM, _alarm)
    for name, row in sorted(globals().items()):
        if name[0] in "smdte" and name[1:3].isdigit():
            torch.manual_seed(0)
            np.random.seed(0)
            signal.alarm(seconds)
            try:
                rows[name] = row()
            except SystemExit as error:
                rows[name] = f"SystemExit: {error}"
            except Exception as error:
                rows[name] = f"{type(error).__name__}: {error}"
            finally:
                signal.alarm(0)
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    with contextlib.redirect_stdout(io.StringIO()):
        observed = observe()
    json.dump(observed, sys.stdout)
