"""One test per patch of compat.py; the first half of each fails once fast-reid no longer needs the patch."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import fastreid.data.build as build
import fastreid.data.common as common
import fastreid.evaluation
import numpy as np
import pytest
import torch
from fastreid.config import get_cfg
from fastreid.data import CommDataset
from fastreid.modeling.meta_arch import build_model
from PIL import Image

from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.patches import compat


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter without the plug-ins."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


SHIM = """
import collections, collections.abc, sys, types
six = types.ModuleType("torch._six"); six.string_classes = str
sys.modules["torch._six"] = six
collections.Mapping = collections.abc.Mapping
"""


def test_plain_fastreid_does_not_import_and_nothing_of_the_shim_stays() -> None:
    plain = fresh("import fastreid.data")
    assert plain.returncode != 0 and "_six" in plain.stderr
    plain = fresh(
        SHIM.replace("collections.Mapping = collections.abc.Mapping", "") + "import fastreid.evaluation"
    )
    assert plain.returncode != 0 and "Mapping" in plain.stderr
    ours = "import dnreid_plugins, sys, collections\n"
    ours += "assert 'torch._six' not in sys.modules and not hasattr(collections, 'Mapping')"
    assert fresh(ours).returncode == 0


def test_a_missing_fastreid_is_one_sentence_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise compat.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compat.importlib.metadata, "version", missing)
    with pytest.raises(ImportError, match=r"pip install --no-deps fastreid==1\.4\.0"):
        compat.import_fastreid()


def test_preprocessing_leaves_the_callers_images_alone() -> None:
    plain = fresh(
        SHIM
        + """
import torch
from fastreid.modeling.meta_arch.baseline import Baseline
class Half(Baseline):
    def __init__(self):
        torch.nn.Module.__init__(self)
        self.pixel_mean, self.pixel_std = torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
images = torch.ones(1, 3, 2, 2)
Half().preprocess_image(images)
print(float(images.sum()))
"""
    )
    assert plain.stdout.split()[-1] == "0.0", "fast-reid no longer normalises in place: drop the patch"
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = "build_mobilenetv2_backbone", "0.1x"
    cfg.MODEL.BACKBONE.FEAT_DIM = 1280
    model = build_model(cfg).eval()
    images = torch.rand(2, 3, 32, 32) * 255
    before = images.clone()
    with torch.no_grad():
        assert torch.equal(model(images), model({"images": images}))
    assert torch.equal(images, before)


def test_preprocessing_takes_the_targets_to_the_models_device() -> None:
    """Our loader leaves a batch on the CPU; fast-reid's loops give it to the model as it comes."""
    from fastreid.modeling.meta_arch.baseline import Baseline
    from fastreid.modeling.meta_arch.mgn import MGN

    for architecture in (Baseline, MGN):
        model = architecture.__new__(architecture)
        torch.nn.Module.__init__(model)
        model.pixel_mean, model.pixel_std = (torch.ones(1, 3, 1, 1, device="meta") for _ in range(2))
        batch = {"images": torch.ones(2, 3, 4, 4), "targets": torch.tensor([1, 0]), "img_paths": ["a", "b"]}
        assert model.preprocess_image(batch).device.type == "meta"
        assert batch["targets"].device.type == "meta" and batch["images"].device.type == "cpu"


def test_the_loader_works_without_cuda() -> None:
    plain = fresh(
        SHIM
        + """
import torch
from fastreid.data.build import DataLoaderX
DataLoaderX(0, dataset=[1, 2], batch_size=1)
"""
    )
    if not torch.cuda.is_available():
        assert plain.returncode != 0, "fast-reid's loader works on the CPU now: drop the patch"
    batches = list(build.DataLoaderX(0, dataset=[{"x": 1}, {"x": 2}], batch_size=2))
    assert batches[0]["x"].tolist() == [1, 2]


def test_the_collator_knows_every_type_or_refuses() -> None:
    plain = fresh(
        SHIM + "from fastreid.data.build import fast_batch_collator as f; print(f([(1, 2), (3, 4)]))"
    )
    assert plain.stdout.split()[-1] == "None", "fast-reid's collator is honest now: drop the patch"
    with pytest.raises((TypeError, ValueError)):
        build.fast_batch_collator([object(), object()])


def test_regnet_builds_anywhere_and_a_y_does_not_spoil_an_x(
    monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    plain = fresh(
        "import os; os.chdir('/')\n"
        "from fastreid.config import get_cfg\n"
        "from fastreid.modeling.backbones import build_backbone\n"
        "c = get_cfg(); c.MODEL.BACKBONE.NAME, c.MODEL.BACKBONE.DEPTH = 'build_regnet_backbone', '200x'\n"
        "build_backbone(c)"
    )
    assert "FileNotFoundError" in plain.stderr, "fast-reid finds its yaml files now: drop the patch"
    monkeypatch.chdir(tmp_path)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_regnet_backbone"
    sizes = []
    from fastreid.modeling.backbones import build_backbone

    for depth in ("200x", "200y", "200x"):
        cfg.MODEL.BACKBONE.DEPTH = depth
        sizes.append(sum(p.numel() for p in build_backbone(cfg).parameters()))
    assert sizes[0] == sizes[2] != sizes[1]


def test_the_evaluator_never_compiles_in_site_packages() -> None:
    from fastreid.evaluation import ReidEvaluator

    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    ReidEvaluator(cfg, num_query=1)
    plain = fresh(
        SHIM
        + """
import fastreid.evaluation.reid_evaluation as r, inspect
print("compile_helper" in inspect.getsource(r.ReidEvaluator._compile_dependencies))
"""
    )
    assert plain.stdout.split()[-1] == "True", "fast-reid no longer compiles at run time: drop the patch"


def test_the_ranking_is_where_visualize_result_takes_it_from() -> None:
    own = Path(fastreid.evaluation.__file__).read_text()
    assert "evaluate_rank" not in own, "fast-reid exports evaluate_rank now: drop the patch"
    ids, cameras = (np.array([1, 2]), np.array([2, 1])), (np.zeros(2), np.ones(2))
    distances = np.array([[1.0, 0.0], [0.0, 1.0]])
    cmc, precisions, _ = fastreid.evaluation.evaluate_rank(distances, *ids, *cameras, max_rank=1)
    assert cmc[0] == 1.0 and precisions == [1.0, 1.0]


def test_samples_say_the_domain_that_their_item_knows(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    bare = (str(tmp_path / "a.png"), 1, 0)
    item = DomainItem(*bare, 1)
    plain = CommDataset.__mro__[1]
    assert plain.__module__ == "fastreid.data.common"
    assert "domains" not in plain([item])[0], "fast-reid's samples know their domain now: drop the patch"
    assert CommDataset is build.CommDataset is common.CommDataset
    assert CommDataset([item])[0]["domains"] == 1 and "domains" not in CommDataset([bare])[0]
