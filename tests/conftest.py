"""Settings every test shares: one thread, a fixed seed, no time limits in property tests."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from hypothesis import settings
from PIL import Image
from registrations import registrations_undone
from torch import nn

import dnreid_plugins  # noqa: F401  (patches and registers before any test imports fast-reid's data room)
from dnreid_plugins.runtime import workers
from dnreid_plugins.runtime.sections import SECTIONS

torch.set_num_threads(1)

# Examples are a function of the test alone, so that a red run is red again; `--hypothesis-profile=explore`
# draws new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_logs() -> None:
    """A run in this process leaves its log handlers and levels to no other test."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("fastreid", "dnreid_plugins"):
            found = logging.getLogger(name)
            found.handlers.clear()
            found.setLevel(logging.NOTSET)
            found.propagate = True
    vars(logging.getLogger("dnreid_plugins")).pop("output_dir", None)


@pytest.fixture(autouse=True)
def _own_sections() -> Iterator[None]:
    """What a test's ``PLUGINS`` add to the config would stand in the pages that a later test makes."""
    before = set(SECTIONS)
    yield
    assert set(SECTIONS) == before, "the test adds sections to the config: it needs the fixture `scratch`"


class TinyBackbone(nn.Module):
    """Two convolutions with batch norm: the smallest thing that behaves like a backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)))


def build_tiny_backbone(cfg: Any) -> nn.Module:
    return TinyBackbone()


if "build_tiny_backbone" not in BACKBONE_REGISTRY._obj_map:
    BACKBONE_REGISTRY.register(build_tiny_backbone)


def write_tiny_dn348(root: Path, *, train_ids: int = 6, test_ids: int = 4, images: int = 6) -> None:
    """A DN-348 of 24 x 24 pictures: an identity is a stripe pattern, night is darker, noise everywhere."""
    rng = np.random.default_rng(0)
    lists: dict[str, list[str]] = {f"{s}_list_{d}": [] for s in ("train", "test") for d in ("day", "night")}
    for identity in range(train_ids + test_ids):
        base = rng.uniform(40, 220, size=(4, 4, 3)).repeat(6, axis=0).repeat(6, axis=1)
        split = "train" if identity < train_ids else "test"
        for domain, gain in (("day", 1.0), ("night", 0.5)):
            folder = root / "dn348" / domain / f"{identity:05d}"
            folder.mkdir(parents=True)
            for number in range(images):
                pixels = np.clip(gain * base + rng.normal(0, 12, base.shape), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number:03d}.png")
                lists[f"{split}_list_{domain}"].append(f"{identity:05d}/{number:03d}.png")
    folder = root / "dn348" / "train_test_split"
    folder.mkdir()
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datasets folder that holds a tiny ``dn348``."""
    root = tmp_path_factory.mktemp("datasets")
    write_tiny_dn348(root)
    return root


@pytest.fixture
def tiny_cfg(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    """Base on the tiny DN-348: two epochs of four iterations in about a second."""
    return tiny("tiny.yml", tiny_root, tmp_path, monkeypatch)


@pytest.fixture
def tiny_bridging_cfg(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    """Both stages of Bridging Day and Night on the tiny DN-348."""
    return tiny("tiny_bridging.yml", tiny_root, tmp_path, monkeypatch)


def tiny(name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    monkeypatch.setenv("FASTREID_DATASETS", str(root))
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).parent / name))
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    return cfg


@pytest.fixture
def supervised_cfg(tiny_cfg: CfgNode) -> CfgNode:
    """fast-reid's Baseline on identities: two epochs of two iterations, each evaluated."""
    opts: list[Any] = ["MODEL.META_ARCHITECTURE", "Baseline", "MODEL.HEADS.NAME", "EmbeddingHead"]
    opts += ["MODEL.LOSSES.NAME", ("CrossEntropyLoss",), "DATALOADER.SAMPLER_TRAIN", "TrainingSampler"]
    opts += ["DATALOADER.ITERS_PER_EPOCH", 2, "SOLVER.STEPS", []]
    tiny_cfg.merge_from_list([*opts, "TEST.EVAL_START", False, "TEST.EVAL_PERIOD", 1])
    return tiny_cfg


@pytest.fixture
def as_fastreid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a script finds under ``python -m dnreid_plugins``; everything is as before afterwards."""
    from fastreid.engine.train_loop import TrainerBase

    from dnreid_plugins.engine.script_door import take_over
    from dnreid_plugins.patches import old_names

    names = ("DefaultTrainer", "DefaultPredictor", "default_setup", "seed_all_rng", "launch")
    names += ("build_optimizer", "LRScheduler")
    for module in ("engine", "engine.defaults", "engine.launch", "engine.hooks", "solver", "solver.build"):
        for name in names:
            found = sys.modules[f"fastreid.{module}"]
            if hasattr(found, name):
                monkeypatch.setattr(found, name, getattr(found, name))
    monkeypatch.setattr(TrainerBase, "__init__", TrainerBase.__init__)
    for name in ("merge_from_file", "merge_from_list"):
        monkeypatch.setattr(CfgNode, name, getattr(CfgNode, name))
    with old_names.in_place():
        take_over()
        yield


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test or its ``PLUGINS`` register or configure is gone afterwards."""
    monkeypatch.setattr(workers, "_FIRST", list(workers._FIRST))
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    with registrations_undone():
        yield
    for name in set(sys.modules) - modules:
        if {"mine", "experiments"} & set(Path(getattr(sys.modules[name], "__file__", None) or "").parts):
            del sys.modules[name]


# ------------------------------------------------------------------ the table of docs/reliability.md

_ATTACKS: dict[tuple[str, str], list[bool]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the tests that are marked ``attack(area, fault)``: each is one try of that fault."""
    attack = dict(report.user_properties).get("attack")
    if attack is not None and (report.when == "call" or report.failed):
        _ATTACKS.setdefault(attack, []).append(report.passed)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        marker = item.get_closest_marker("attack")
        if marker is not None:
            item.user_properties.append(("attack", (marker.args[0], marker.args[1])))


def pytest_sessionfinish() -> None:
    from stress.ledger import record

    for (area, fault), passed in _ATTACKS.items():
        lost = "" if all(passed) else f"{passed.count(False)} tests are red"
        record(area, fault, tried=len(passed), survived=sum(passed), lost=lost)
