"""Systems that train on true identities, as their shipped configs name them, on the tiny data."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from run_helpers import SeenLosses, cut_and_resumed, replays_a_bad_batch, same, train, weights

from dnreid_plugins.engine import label_phase
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.labels import Refiner
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions

PROJECTS = Path(__file__).resolve().parents[2] / "projects"
LOSSES = {
    "AGW": ["loss_identityclassifier", "loss_weightedtriplet"],
    "CAJ": ["loss_identityclassifier", "loss_weightedtriplet"],
    "DCLNet": ["loss_centretriplet", "loss_identityclassifier"],
}
#: What makes a system, besides its network and the recipe.
METHOD = ("LABELS", "MODEL.LOSSES", "INPUT.VIEWS", "DATALOADER.PAIRED")


@pytest.fixture
def system(tiny_cfg: CfgNode) -> Callable[[str], CfgNode]:
    """The method of a shipped config on the tiny network and data."""

    def build(name: str) -> CfgNode:
        shipped = get_cfg()
        merge_with_suggestions(shipped, str(PROJECTS / f"{name}.yml"), [])
        for path in METHOD:
            *above, last = path.split(".")
            source, target = shipped, tiny_cfg
            for part in above:
                source, target = source[part], target[part]
            target[last] = source[last]
        return tiny_cfg

    return build


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("size", ["dn348", "dnmini", "as-released"])
def test_a_run_trains_and_resumes_inside_an_epoch_bit_exactly(
    system: Callable[[str], CfgNode], name: str, size: str, caplog: pytest.LogCaptureFixture
) -> None:
    cfg = system(f"{name}/configs/{size}")
    caplog.set_level(logging.INFO)
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    whole.register_hooks([seen])
    whole.resume_or_load()
    before = whole.bare_model.backbone.backbone.conv1.night.weight.detach().clone()
    whole.train()
    assert [sorted(one) for one in seen.losses] == [LOSSES[name]] * 8
    assert all(0 < float(loss) < 200 for one in seen.losses for loss in one.values())
    assert "audit, gradient norm" in caplog.text and "gradient exactly 0" not in caplog.text
    first, last = (
        sum(float(one["loss_identityclassifier"]) for one in h) for h in (seen.losses[:4], seen.losses[4:])
    )
    assert last < first
    assert whole.parts.losses["IdentityClassifier"].layer.shape == (6, 16)
    assert not torch.equal(whole.bare_model.backbone.backbone.conv1.night.weight, before)
    if size != "as-released":
        cfg.OUTPUT_DIR += "-cut"
        assert same(weights(cut_and_resumed(cfg, 6)), weights(whole))


def test_the_batch_is_of_two_day_views_and_night_images_of_the_same_identities(
    system: Callable[[str], CfgNode],
) -> None:
    cfg = system("CAJ/configs/dn348")
    cfg.INPUT.REA.ENABLED = False  # so that an exchanged view can be told by its colours
    trainer = CrossDomainTrainer(cfg)
    batches: list[dict[str, Any]] = []
    forward = trainer.bare_model.forward
    trainer.bare_model.forward = lambda batch: (batches.append(batch), forward(batch))[1]
    trainer.resume_or_load()
    trainer.train()
    data = trainer.train_data
    assert data is not None and data.images.true_ids is not None
    trained = [batch for batch in batches if "targets" in batch and len(batch["targets"]) == 24]
    assert len(trained) == 8
    for batch in trained:
        images, places = batch["images"], batch["indices"].tolist()
        assert batch["views"].tolist() == [0] * 8 + [1] * 8 + [0] * 8 and places[:8] == places[8:16]
        grey = [bool((one[0] == one[1]).all() and (one[0] == one[2]).all()) for one in images[:16]]
        assert grey == [False] * 8 + [True] * 8
        ids = data.images.true_ids[places]
        assert ids[:8].tolist() == ids[16:].tolist()


def test_labels_are_the_identities_in_every_domain_and_in_both(system: Callable[[str], CfgNode]) -> None:
    trainer = train(system("AGW/configs/dn348"))
    epoch = trainer.parts.epoch
    assert epoch is not None and list(epoch.clusters) == ["day", "night", "joint"]
    joint = epoch.clusters["joint"]
    assert torch.equal(joint.labels, torch.as_tensor(trainer.train_data.images.true_ids))
    assert [epoch.clusters[name].num_clusters for name in epoch.clusters] == [6, 6, 6]
    assert trainer.parts.memory.rows("joint").shape == (6, 16)


@pytest.mark.parametrize("name", ["IdentityClassifier", "WeightedTriplet"])
def test_a_bad_batch_replays(system: Callable[[str], CfgNode], name: str) -> None:
    replays_a_bad_batch(system("CAJ/configs/dn348"), name, 6)


def test_nothing_is_clustered_and_nothing_extracted(
    system: Callable[[str], CfgNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = system("AGW/configs/dn348")
    monkeypatch.setattr(
        "dnreid_plugins.labels.clusters.DomainClusters.__call__",
        lambda *_, **__: pytest.fail("something was clustered"),
    )
    monkeypatch.setattr(
        "dnreid_plugins.engine.trainer.extract_features",
        lambda *_, **__: pytest.fail("features were extracted"),
    )
    trainer = train(cfg)
    epoch = trainer.parts.epoch
    assert epoch is not None and not epoch.day.features.any() and epoch.day.features.shape == (36, 16)
    assert trainer.bare_model.training


@pytest.mark.parametrize("change", ["a head", "a matcher", "a refiner", "a label source"])
def test_features_are_extracted_where_something_reads_them(
    system: Callable[[str], CfgNode], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = system("AGW/configs/dn348")
    if change == "a head":
        cfg.MODEL.LOSSES.NAME = (*cfg.MODEL.LOSSES.NAME, "ClusterNCE")
    trainer = CrossDomainTrainer(cfg)
    phase = next(hook for hook in trainer._hooks if isinstance(hook, label_phase.LabelPhase))
    if change == "a matcher":
        monkeypatch.setattr(type(trainer.parts.losses["WeightedTriplet"].matcher), "reads_features", True)
    if change == "a refiner":
        phase.labels.refiners = (type("Same", (Refiner,), {"__call__": lambda _, e, f, i: e})(),)
    if change == "a label source":
        monkeypatch.setattr(type(phase.labels.source), "reads_features", True)
    trainer.train()
    assert phase.trainer.parts.epoch.day.features.norm(dim=1).tolist() == pytest.approx([1.0] * 36)


@pytest.mark.parametrize("name", ["IdentityClassifier", "WeightedTriplet", "HardTriplet", "CentreTriplet"])
def test_without_joint_clusters_it_is_refused_before_any_image_is_read(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", "nowhere")
    tiny_cfg.MODEL.LOSSES.NAME = (name,)
    reader = name if name == "IdentityClassifier" else "JointMatcher"
    with pytest.raises(ConfigError, match=f"{reader} reads the clusters 'joint', but the labels have"):
        CrossDomainTrainer(tiny_cfg)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_set_without_identities_is_refused(
    system: Callable[[str], CfgNode], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = system(f"{name}/configs/dn348")
    monkeypatch.setattr("dnreid_plugins.data.train_data._true_ids", lambda items: None)
    with pytest.raises(
        ValueError, match=r"LABELS\.SOURCE is 'Identities', but a training image has no identity"
    ):
        CrossDomainTrainer(cfg)
