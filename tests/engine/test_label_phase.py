"""The label phase of a run: one process makes the labels, and it is announced before it starts."""

from __future__ import annotations

import gc
import logging
import re
import weakref
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.utils import comm
from run_helpers import label_phase

from dnreid_plugins.engine.label_phase import LabelPhase
from dnreid_plugins.engine.preflight.resources import WORTH_SAYING, label_phase_objection
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.labels import DomainClusters, Labels, TrainImages
from dnreid_plugins.modeling.meta_arch import StudentFeatures
from dnreid_plugins.runtime import progress
from dnreid_plugins.runtime.launch import launch


def label_phase_of_this_process(_: Namespace) -> tuple[list[str], list[int]]:
    """What this process logs while all of them make the labels together, and the labels it gets."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    class Checkpoints:
        def stop_if_asked(self) -> None: ...

    class Trainer:
        max_epoch = 9
        checkpoints = Checkpoints()

    progress.EVERY = 0.0
    progress.logger.addHandler(Keep())
    progress.logger.setLevel(logging.INFO)
    rows = torch.randn(1100, 16, generator=torch.Generator().manual_seed(0))
    centres = torch.randn(20, 16, generator=torch.Generator().manual_seed(1))
    features = torch.nn.functional.normalize(centres[torch.arange(1100) % 20] + 0.05 * rows, dim=1)
    images = TrainImages(torch.tensor([0] * 1050 + [1] * 50), torch.zeros(1100, dtype=torch.int64), None)
    phase = LabelPhase(extract=lambda: features, labels=Labels(DomainClusters(k1=8)), images=images)
    phase.trainer = Trainer()
    labels = phase._label(3).day.labels.tolist()
    return comm.all_gather((found, labels))


@pytest.mark.slow
def test_several_processes_search_together_and_have_the_same_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the three products of 1,050 images the main process makes two, so it says once how far it is."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first, second = launch(label_phase_of_this_process, 2, args=(Namespace(opts=["MODEL.DEVICE", "cpu"]),))
    assert len(first[0]) == 1 and "1050 day images: 50 %" in first[0][0]
    assert second[0] == []
    assert first[1] == second[1] and max(first[1]) > 5


@pytest.mark.parametrize(("images", "said"), [(WORTH_SAYING // 2, False), (WORTH_SAYING // 2 + 1, True)])
def test_a_large_label_phase_is_announced_with_memory_and_time(
    images: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert label_phase_objection((images, images), 2048, None, k1=30) is None
    texts = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Label phase:")]
    assert len(texts) == said
    if said:
        assert f"Label phase: {2 * images} images, about 0." in texts[0] and " s per epoch" in texts[0]


def test_the_trainer_announces_it_before_the_first_epoch(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnreid_plugins.engine.preflight.resources.WORTH_SAYING", 10)
    said: list[Any] = []
    monkeypatch.setattr(
        "dnreid_plugins.engine.preflight.resources.logger.info", lambda *args: said.append(args)
    )
    CrossDomainTrainer(tiny_cfg)
    assert [args[1] for args in said] == [72]


@pytest.mark.parametrize("flip", [False, True])
def test_clusters_are_made_of_both_mirror_images_where_asked(tiny_cfg: CfgNode, flip: bool) -> None:
    """Against the mean of two passes, the mirror images put in by hand."""
    tiny_cfg.CLUSTER.FLIP = flip
    trainer = CrossDomainTrainer(tiny_cfg)
    loader = trainer.train_data.inference_loader
    model = StudentFeatures(trainer.bare_model).eval()
    expected = []
    for batch in loader:
        sides = [batch["images"], batch["images"].flip(-1)] if flip else [batch["images"]]
        with torch.no_grad():
            rows = sum(F.normalize(model({**batch, "images": side}), dim=1) for side in sides)
        expected.append(F.normalize(rows, dim=1))
    torch.testing.assert_close(trainer.build_label_phase().extract(), torch.cat(expected), rtol=0, atol=1e-5)


def test_the_old_features_are_gone_before_new_ones_are_made(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    tiny_cfg.OUTPUT_DIR = str(tmp_path)
    trainer = CrossDomainTrainer(tiny_cfg)
    (phase,) = (hook for hook in trainer._hooks if isinstance(hook, LabelPhase))
    extract, old, alive = phase.extract, list[weakref.ref[torch.Tensor]](), list[int]()

    def watched() -> torch.Tensor:
        gc.collect()
        alive.append(sum(one() is not None for one in old))
        features = extract()
        old.append(weakref.ref(features))
        return features

    start = phase._start

    def started(epoch: Epoch) -> None:
        old.extend(weakref.ref(part.features) for part in epoch.clusters.values())
        start(epoch)

    phase.extract, phase._start = watched, started  # type: ignore[method-assign]
    trainer.train()
    assert len(alive) >= 2 and not any(alive)


@pytest.mark.parametrize("labelled", [True, False])
def test_figures_of_true_labels_have_a_line_of_their_own(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, labelled: bool
) -> None:
    """What no unsupervised method knows must not be read as what it knows."""
    tiny_cfg.SOLVER.MAX_EPOCH = 1
    trainer = CrossDomainTrainer(tiny_cfg)
    phase = label_phase(trainer)
    if not labelled:
        phase.images = replace(phase.images, true_ids=None)
    caplog.set_level(logging.INFO, logger="dnreid_plugins.engine.label_phase")
    trainer.train()
    known, *true = [text for text in caplog.messages if re.match("epoch 1/1 (health|true labels)", text)]
    assert "day/clusters" in known and "ARI" not in known and "precision" not in known
    assert len(true) == labelled
    for text in true:
        assert text.startswith("epoch 1/1 true labels (not used): ") and "day/ARI" in text
        assert "clusters " not in text and "radius" not in text
