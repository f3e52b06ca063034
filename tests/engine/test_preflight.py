from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.preflight import training as preflight
from dnreid_plugins.engine.preflight.training import check, check_supervised_data
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions


def config(*opts: str) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, "", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", "", *opts])
    return cfg


CLIP = ("MODEL.BACKBONE.NAME", "build_clip_vit_backbone", "MODEL.HEADS.POOL_LAYER", "Identity")
BASE = ("MODEL.META_ARCHITECTURE", "CrossDomainBaseline", "MODEL.LOSSES.NAME", "('ClusterNCE',)")


@pytest.mark.parametrize(
    "opts",
    [
        (),
        BASE,
        ("TEST.EVAL_PERIOD", "0", "SOLVER.CHECKPOINT_PERIOD", "0"),
        ("DATASETS.TESTS", "()"),
        (
            "MODEL.BACKBONE.WITH_IBN",
            "True",
            "MODEL.BACKBONE.WITH_NL",
            "True",
            "MODEL.BACKBONE.LAST_STRIDE",
            "2",
        ),
        ("MODEL.BACKBONE.NAME", "build_vit_backbone", "MODEL.HEADS.POOL_LAYER", "Identity"),
        ("MODEL.META_ARCHITECTURE", "MGN", "INPUT.SIZE_TRAIN", "[384, 128]"),
        ("MODEL.META_ARCHITECTURE", "MGN", "INPUT.SIZE_TRAIN", "[80, 64]"),
        ("MODEL.META_ARCHITECTURE", "MoCo"),
        ("MODEL.META_ARCHITECTURE", "Distiller", "KD.EMA.ENABLED", "True"),
        ("INPUT.SIZE_TRAIN", "[256]"),
        ("INPUT.SIZE_TRAIN", "[0]", "INPUT.SIZE_TEST", "[0]", "INPUT.PADDING.ENABLED", "False"),
        ("INPUT.AFFINE.ENABLED", "True"),
        ("SOLVER.WARMUP_ITERS", "100000"),
    ],
)
def test_sensible_configs_pass(opts: tuple[str, ...]) -> None:
    check(config(*opts))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.DEVICE", "gpu"), "MODEL.DEVICE is 'gpu'; it must be 'cpu', 'cuda'"),
        (
            ("MODEL.DEVICE", "mps"),
            "MODEL.DEVICE is 'mps', but only CPU and CUDA are supported; set MODEL.DEVICE cpu",
        ),
        (("MODEL.META_ARCHITECTURE", "CrossDomainBase"), "did you mean 'CrossDomainBaseline'"),
        (("MODEL.BACKBONE.NAME", "build_resnet50"), "did you mean 'build_resnet_backbone'"),
        (("MODEL.HEADS.NAME", "EmbedingHead"), "did you mean 'EmbeddingHead'"),
        (("MODEL.HEADS.POOL_LAYER", "avgpool"), "did you mean 'GlobalAvgPool'"),
        (("MODEL.HEADS.CLS_LAYER", "Arcface"), "MODEL.HEADS.CLS_LAYER has 'Arcface'"),
        (("DATASETS.NAMES", "('Market',)"), "DATASETS.NAMES has 'Market'.*did you mean 'Market1501'"),
        (("DATASETS.TESTS", "('DNmini',)"), "DATASETS.TESTS has 'DNmini'.*did you mean 'DNMini'"),
        (("MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'tripletloss')"), "did you mean 'TripletLoss'"),
        (("MODEL.LOSSES.NAME", "('CosfaceLoss',)"), "did you mean 'Cosface'"),
        (("MODEL.LOSSES.NAME", "()"), "MODEL.LOSSES.NAME is empty; Baseline knows CrossEntropyLoss"),
        (
            (
                "MODEL.META_ARCHITECTURE",
                "MGN",
                "INPUT.SIZE_TRAIN",
                "[384, 128]",
                "MODEL.LOSSES.NAME",
                "('Cosface',)",
            ),
            "MODEL.LOSSES.NAME for MGN has 'Cosface'",
        ),
        (
            (*BASE, "MODEL.LOSSES.NAME", "('CrossEntropyLoss',)"),
            "for CrossDomainBaseline has 'CrossEntropyLoss'",
        ),
        (("MODEL.BACKBONE.PRETRAIN", "True"), "PRETRAIN is True and PRETRAIN_PATH is empty"),
        (
            ("MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", "/nowhere.pth"),
            "PRETRAIN_PATH /nowhere.pth does not exist",
        ),
        (
            ("MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", "shipped:nothing"),
            "PRETRAIN_PATH is 'shipped:nothing'; the package ships",
        ),
        (
            (*CLIP, "MODEL.BACKBONE.PRETRAIN", "True"),
            "PRETRAIN is True and CLIP.PRETRAINED is empty",
        ),
        (
            (*CLIP, "MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", "ViT-B-16.pt"),
            "PRETRAIN_PATH is 'ViT-B-16.pt', which build_clip_vit_backbone does not read",
        ),
        (
            (
                *(*BASE, *CLIP, "MODEL.HEADS.NAME", "ClipNeckHead", "MODEL.LOSSES.NAME", "('ImageText',)"),
                *("PROMPT_STAGE.FIRST_MOMENT", "bfloat16", "MODEL.PROMPT.SPARSE", "False"),
            ),
            "FIRST_MOMENT is 'bfloat16', which the dense token table",
        ),
        (("MODEL.WEIGHTS", "/nowhere.pth"), "MODEL.WEIGHTS /nowhere.pth does not exist"),
        (
            (*BASE, "MODEL.LOSSES.CLUSTERNCE.WEIGHT", "((0, 1.0),)"),
            "MODEL.LOSSES.CLUSTERNCE.WEIGHT is .* ascending whole epochs from 1",
        ),
        (
            ("MODEL.BACKBONE.NAME", "build_osnet_backbone", "MODEL.BACKBONE.LAST_STRIDE", "2"),
            "LAST_STRIDE is 2, which build_osnet_backbone ignores",
        ),
        (
            ("MODEL.BACKBONE.NAME", "build_resnext_backbone", "MODEL.BACKBONE.WITH_SE", "True"),
            "WITH_SE is True",
        ),
        (
            ("MODEL.BACKBONE.NAME", "build_resnest_backbone", "MODEL.BACKBONE.WITH_IBN", "True"),
            "WITH_IBN is True",
        ),
        (
            ("MODEL.BACKBONE.NAME", "build_repvgg_backbone", "MODEL.BACKBONE.WITH_IBN", "True"),
            "WITH_IBN is True",
        ),
        (("MODEL.HEADS.POOL_LAYER", "Identity"), "only the top-left cell"),
        (("MODEL.HEADS.NECK_FEAT", "both"), "NECK_FEAT is 'both'"),
        (("MODEL.HEADS.NORM", "SyncBN"), "MODEL.HEADS.NORM has 'SyncBN'.*did you mean 'syncBN'"),
        (("MODEL.BACKBONE.NORM", ""), "MODEL.BACKBONE.NORM has ''.*known are BN, FrozenBN"),
        (
            ("MODEL.PIXEL_MEAN", "[1.0, 'nan', 1.0]"),
            "PIXEL_MEAN is .1.0, 'nan', 1.0.; it must be three numbers, one",
        ),
        (("MODEL.PIXEL_STD", "[1.0, 0.0, 1.0]"), "PIXEL_STD is .* it must be three numbers above 0"),
        (("MODEL.PIXEL_STD", "[]"), "PIXEL_STD is ..; it must be three"),
        (
            ("MODEL.BACKBONE.NAME", "build_clip_vit_backbone", "INPUT.SIZE_TRAIN", "[0]"),
            "INPUT.SIZE_TRAIN is .0. .original size., but Baseline with build_clip_vit_backbone is built for one size",
        ),
        (("MODEL.PIXEL_STD", "[1.0, 1e999, 1.0]"), "PIXEL_STD is .*inf.* it must be three"),
        (("MODEL.HEADS.WITH_BNNECK", "True", "MODEL.HEADS.NORM", "FrozenBN"), "FrozenBN cannot be used"),
        (("INPUT.SIZE_TRAIN", "[0, 3]"), r"INPUT.SIZE_TRAIN is \[0, 3\]"),
        (("INPUT.SIZE_TRAIN", "[0]", "INPUT.PADDING.ENABLED", "True"), "INPUT.PADDING has no size"),
        ((*BASE, "INPUT.SIZE_TRAIN", "[0]"), "CrossDomainBaseline .* is built for one size"),
        (("MODEL.META_ARCHITECTURE", "MGN", "INPUT.SIZE_TRAIN", "[0]"), "gives MGN 1 feature rows"),
        (("INPUT.SIZE_TEST", "[]"), r"INPUT.SIZE_TEST is \[\]"),
        (
            ("MODEL.BACKBONE.NAME", "build_vit_backbone", "INPUT.SIZE_TEST", "[224, 224]"),
            "must be the same .height, width. for build_vit_backbone",
        ),
        (("MODEL.META_ARCHITECTURE", "MGN", "MODEL.BACKBONE.DEPTH", "18x"), "MGN needs ResNet 50x or 101x"),
        (
            ("MODEL.META_ARCHITECTURE", "MGN", "MODEL.BACKBONE.WITH_NL", "True"),
            "MGN drops the non-local blocks",
        ),
        (
            ("MODEL.META_ARCHITECTURE", "MGN", "INPUT.SIZE_TRAIN", "[64, 64]"),
            "4 feature rows, which cannot be cut",
        ),
        (("MODEL.META_ARCHITECTURE", "MoCo", "MODEL.QUEUE_SIZE", "100"), "QUEUE_SIZE 100 is not a multiple"),
        (
            ("MODEL.META_ARCHITECTURE", "MoCo", "MODEL.HEADS.EMBEDDING_DIM", "8"),
            "needs MODEL.HEADS.NECK_FEAT after",
        ),
        (("MODEL.META_ARCHITECTURE", "Distiller"), "Distiller has no teacher"),
        (
            ("MODEL.META_ARCHITECTURE", "Distiller", "KD.MODEL_CONFIG", "['a.yml']"),
            "names 1 teachers and KD.MODEL_WEIGHTS 0",
        ),
        (
            ("MODEL.META_ARCHITECTURE", "Distiller", "KD.MODEL_CONFIG", "['a']", "KD.MODEL_WEIGHTS", "['b']"),
            "KD names a, which does not exist",
        ),
        (("SOLVER.IMS_PER_BATCH", "1"), "IMS_PER_BATCH is 1 for 1 process"),
        (("TEST.IMS_PER_BATCH", "0"), "TEST.IMS_PER_BATCH is 0"),
        (("DATALOADER.SAMPLER_TRAIN", "SetReWeightSampler"), "SAMPLER_TRAIN has 'SetReWeightSampler'"),
        (("SOLVER.MAX_EPOCH", "0"), "SOLVER.MAX_EPOCH is 0"),
        (("TEST.EVAL_PERIOD", "-1"), "EVAL_PERIOD is -1"),
        (("SOLVER.CHECKPOINT_PERIOD", "-2"), "CHECKPOINT_PERIOD is -2"),
        (("SOLVER.AMP.DTYPE", "half"), "SOLVER.AMP.DTYPE is 'half'"),
        ((*BASE, "TEST.PRECISE_BN.ENABLED", "True"), "TEST.PRECISE_BN.ENABLED"),
        ((*BASE, "DATASETS.COMBINEALL", "True"), "DATASETS.COMBINEALL would train on the test images"),
        ((*BASE, "CLUSTER.FEATURE", "middle"), "CLUSTER.FEATURE is 'middle'"),
        ((*BASE, "MODEL.DUAL_STREAM.MODULES", "('layer9',)"), "MODEL.DUAL_STREAM.MODULES names 'layer9'"),
        (
            (*BASE, "CLUSTER.FEATURE", "before", "MODEL.HEADS.EMBEDDING_DIM", "8"),
            "CLUSTER.FEATURE is 'before' with MODEL.HEADS.EMBEDDING_DIM 8",
        ),
        ((*BASE, "MODEL.LOSSES.NAME", "('ImageText',)"), "needs build_clip_vit_backbone and ClipNeckHead"),
        (("OUTPUT_DIR", "x" * 300), "OUTPUT_DIR 'xxx.*' cannot be a folder name .File name too long."),
        (("OUTPUT_DIR", "a\0b"), "OUTPUT_DIR .* has a NUL byte"),
        (("MODEL.WEIGHTS", "x" * 300), "MODEL.WEIGHTS xxx"),
        (("OUTPUT_DIR", "/dev/null/run"), "OUTPUT_DIR /dev/null/run cannot be written"),
        (("TEST.METRIC", "jaccard"), "TEST.METRIC is 'jaccard'"),
        (("SOLVER.OPT", "SWA"), "SOLVER.OPT is 'SWA'"),
        (("GUARD.MODE", "shout"), "GUARD.MODE is 'shout'"),
        (
            ("SOLVER.LR_FACTORS", "(('^backbone', -1),)"),
            "SOLVER.LR_FACTORS is .*; it holds .pattern, factor. pairs",
        ),
        (("SOLVER.SCHED", "PolyLR"), "SOLVER.SCHED is 'PolyLR'"),
        (("SOLVER.STAGES", "(500,)"), "SOLVER.STAGES .500,. begins a stage at epoch 500"),
        (("SOLVER.STAGES", "((1, 0.5),)"), "SOLVER.STAGES is ..1, 0.5.,."),
        (("INPUT.REA.MODE", "black"), "INPUT.REA.MODE is 'black'"),
        (("DATASETS.FOLDER_IDS", "yes"), "DATASETS.FOLDER_IDS is 'yes'"),
        (
            ("DATASETS.DAY_DIR", "mycrops/day"),
            "DATASETS.DAY_DIR is 'mycrops/day' and NIGHT_DIR ''; give both",
        ),
    ],
)
def test_each_impossible_setting_is_refused_in_one_sentence(opts: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        check(config(*opts))
    assert "\n" not in str(caught.value)


def test_what_one_check_refuses_does_not_trip_the_next() -> None:
    """The transforms compare the size with 0."""
    with pytest.raises(ConfigError, match=r"INPUT.SIZE_TRAIN is \['24', 24\]"):
        check(config("INPUT.SIZE_TRAIN", "['24', 24]"))


def test_every_check_can_object() -> None:
    """A check that none of the configs above trips over would be dead."""
    marks = test_each_impossible_setting_is_refused_in_one_sentence.pytestmark  # type: ignore[attr-defined]
    late = config()
    late.PLUGINS = ["no_such_module"]  # in a config file it is refused while the file is read
    refused = [late, *(config(*opts) for opts, _ in marks[0].args[1])]
    silent = {preflight._freezing, preflight._workers}  # one only warns, one reads the limits of the process
    for one in {*preflight.EVALUATION_CHECKS, *preflight.TRAINING_CHECKS} - silent:
        assert any(one(cfg) is not None for cfg in refused), one


def test_cuda_without_cuda_and_beyond_the_last_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match=r"MODEL\.DEVICE is 'cuda' but PyTorch finds no CUDA device; set MODEL\.DEVICE cpu"
    ):
        check(config("MODEL.DEVICE", "cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check(config("MODEL.DEVICE", "cuda:1"))
    with pytest.raises(ValueError, match="there are 2 CUDA devices"):
        check(config("MODEL.DEVICE", "cuda:2"))


def test_all_objections_come_at_once() -> None:
    with pytest.raises(ValueError, match="MAX_EPOCH") as caught:
        check(config("SOLVER.MAX_EPOCH", "0", "SOLVER.OPT", "SWA", "MODEL.HEADS.NECK_FEAT", "x"))
    assert len(str(caught.value).splitlines()) == 3


def test_evaluation_alone_does_not_mind_training_keys_but_wants_weights(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty, so random weights would be evaluated"):
        check(config(), eval_only=True)
    (tmp_path / "w.pth").touch()
    check(config("SOLVER.MAX_EPOCH", "0", "MODEL.WEIGHTS", str(tmp_path / "w.pth")), eval_only=True)


@pytest.mark.parametrize(("layers", "iterations"), [("['backbone']", "0"), ("[]", "5")])
def test_half_a_freeze_is_said(layers: str, iterations: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check(config("MODEL.FREEZE_LAYERS", layers, "SOLVER.FREEZE_ITERS", iterations))
    assert "nothing is frozen; set both or neither" in caplog.text


def dataset(identities: int, images: int) -> Any:
    items = [(f"{i}.jpg", i % identities, 0) for i in range(images)]
    return type("Data", (SimpleNamespace,), {"__len__": lambda self: images})(
        img_items=items, num_classes=identities
    )


def test_a_training_set_that_fits_and_ones_that_do_not() -> None:
    naive = ("DATALOADER.SAMPLER_TRAIN", "NaiveIdentitySampler", "SOLVER.IMS_PER_BATCH", "16")
    check_supervised_data(config(*naive), dataset(4, 16))
    with pytest.raises(ValueError, match="a batch needs 4 identities, the training set has 3"):
        check_supervised_data(config(*naive), dataset(3, 30))
    with pytest.raises(ValueError, match="has 15 images, SOLVER.IMS_PER_BATCH is 16"):
        check_supervised_data(config(*naive), dataset(5, 15))
    with pytest.raises(ValueError, match="has one identity"):
        check_supervised_data(config("SOLVER.IMS_PER_BATCH", "16"), dataset(1, 30))


def test_a_loss_that_begins_after_the_last_epoch_is_named(caplog: pytest.LogCaptureFixture) -> None:
    late = (
        *BASE,
        "MODEL.LOSSES.NAME",
        "('ClusterNCE', 'MAA')",
        "MODEL.LOSSES.MAA.WEIGHT",
        "((1, 0), (9, 0.5))",
    )
    check(config(*late, "SOLVER.MAX_EPOCH", "9", "SOLVER.STEPS", "()"))
    assert "has no effect" not in caplog.text
    check(config(*late, "SOLVER.MAX_EPOCH", "8", "SOLVER.STEPS", "()"))
    assert "MAA begins at epoch 9, after the last one: with SOLVER.MAX_EPOCH 8" in caplog.text
