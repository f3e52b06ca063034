"""The calls of fast-reid's own tools, unmodified and through us, on a checkpoint with two streams."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader
from fastreid.evaluation import DatasetEvaluator, inference_on_dataset
from fastreid.modeling.meta_arch import build_model
from torch import Tensor

from dnreid_plugins.data.domain_images import DomainImages
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.data.train_data import read_dataset
from dnreid_plugins.evaluation.evaluator import evaluate
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.functional.types import Domain

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture
def model(tiny_cfg: CfgNode) -> Any:
    """Two streams that differ, and features that spread."""
    model: Any = build_model(tiny_cfg)
    with torch.no_grad():
        model.backbone.backbone.conv1.night.weight.normal_()
        model.train().backbone(255 * torch.rand(16, 3, 24, 24), torch.arange(16) % 2)
    return model.eval()


def tools(model: Any, folder: Path, root: Path, *opts: str) -> subprocess.CompletedProcess[str]:
    torch.save({"model": model.state_dict()}, folder / "w.pth")
    script = Path(__file__).with_name("fastreid_tools.py")
    words = [
        str(TESTS / "tiny.yml"),
        str(folder / "found.pth"),
        "MODEL.WEIGHTS",
        str(folder / "w.pth"),
        *opts,
    ]
    return subprocess.run(
        [sys.executable, "-m", "dnreid_plugins", str(script), *words],
        cwd=TESTS.parent,
        env={
            **os.environ,
            "FASTREID_DATASETS": str(root),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def unit_features(model: Any, cfg: CfgNode, items: list[Any]) -> Tensor:
    return extract_features(model, build_inference_loader(cfg, items))


def test_every_tool_gets_the_features_of_its_domain(
    model: Any, tiny_cfg: CfgNode, tiny_root: Path, tmp_path: Path
) -> None:
    done = tools(model, tmp_path, tiny_root, "MODEL.DUAL_STREAM.ASSUME_DOMAIN", "night")
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "found.pth")
    dataset = read_dataset("DN348")
    items = [*dataset.query, *dataset.gallery]
    assert found["paths"] == [item[0] for item in items]
    expected = unit_features(model, tiny_cfg, items)
    # visualize_result.py: both domains in one batch, though the key says night
    assert float((found["seen"] * expected).sum(dim=1).min()) > 1 - 1e-6
    assert 100 * found["mAP"] == pytest.approx(evaluate(model, dataset, tiny_cfg)["D2N"]["mAP"], abs=1e-3)
    # demo.py and onnx_export.py: the domain that the key says
    session = onnxruntime.InferenceSession(found["onnx"])
    name = session.get_inputs()[0].name
    night = [place for place, item in enumerate(items) if item.domain == 1]
    day = [place for place, item in enumerate(items) if item.domain == 0]
    loader = build_inference_loader(tiny_cfg, items)
    images = torch.cat([batch["images"] for batch in loader]).float().numpy()
    exported = torch.from_numpy(np.concatenate([session.run(None, {name: one[None]})[0] for one in images]))
    for features in (found["demo"], F.normalize(exported, dim=1)):
        cosine = (features * expected).sum(dim=1)
        assert float(cosine[night].min()) > 1 - 1e-6
        assert float(cosine[day].min()) < 0.99, "the streams are alike: the test proves nothing"


@pytest.mark.parametrize("flip", [False, True])
def test_fastreids_own_evaluation_loop_knows_the_domains(model: Any, tiny_cfg: CfgNode, flip: bool) -> None:
    class Kept(DatasetEvaluator):
        def reset(self) -> None:
            self.outputs: list[Tensor] = []

        def process(self, inputs: Any, outputs: Tensor) -> None:
            self.outputs.append(outputs)

        def evaluate(self) -> Tensor:
            return torch.cat(self.outputs)

    loader, _ = build_reid_test_loader(tiny_cfg, dataset_name="DN348")
    got = inference_on_dataset(model, loader, Kept(), flip_test=flip)
    dataset = read_dataset("DN348")
    expected = []
    for batch in build_inference_loader(tiny_cfg, [*dataset.query, *dataset.gallery]):
        images = [batch["images"], batch["images"].flip(3)] if flip else [batch["images"]]
        with torch.no_grad():
            expected.append(sum(model({**batch, "images": one}) for one in images) / len(images))
    torch.testing.assert_close(got, torch.cat(expected))


def test_a_list_without_domains_is_not_taken_for_day(model: Any, tiny_cfg: CfgNode) -> None:
    """fast-reid's own data sets know no domain."""
    items = read_dataset("DN348").query[:3]
    plain = [tuple(item) for item in items]
    with pytest.raises(ValueError, match="3 images came without `domains`"):
        unit_features(model, tiny_cfg, plain)
    model.assume_domain = Domain.NIGHT
    as_night = [DomainItem(*item, Domain.NIGHT) for item in plain]
    torch.testing.assert_close(
        unit_features(model, tiny_cfg, plain), unit_features(model, tiny_cfg, as_night)
    )
    # Beside images that have a domain, the others count as day.
    mixed = [plain[0], as_night[1]]
    torch.testing.assert_close(
        unit_features(model, tiny_cfg, mixed), unit_features(model, tiny_cfg, [items[0], as_night[1]])
    )


def test_images_keep_their_domains_on_the_way_to_another_process() -> None:
    """As ``demo.py --parallel`` sends them."""
    images = DomainImages.of(torch.rand(2, 3, 4, 4), torch.tensor([1, 0]))
    back = pickle.loads(ForkingPickler.dumps(images))
    assert torch.equal(back, images) and back.domains.tolist() == [1, 0]
    assert type(images.flip(3)) is torch.Tensor and type(images.float() / 2) is torch.Tensor
