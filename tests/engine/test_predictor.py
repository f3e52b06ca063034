from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model
from PIL import Image

from dnreid_plugins.data.domain_images import DomainImages
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.engine.predictor import Predictor, UnitPredictor
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.runtime.weight_files import WeightFileError


@pytest.fixture
def trained(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    """A checkpoint whose two streams differ."""
    model: Any = build_model(tiny_cfg)
    with torch.no_grad():
        model.backbone.backbone.conv1.night.weight.normal_()
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    return tiny_cfg


def pixels(height: int = 24, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_every_form_of_an_image_gives_the_models_feature(trained: CfgNode) -> None:
    predictor = Predictor(trained)
    array = pixels()
    image = torch.from_numpy(array).permute(2, 0, 1)
    before = image.clone()
    with torch.no_grad():
        expected = predictor.model({"images": image[None].float(), "domains": torch.tensor([1])})
    for form in (array, array.astype(np.float32), image, image[None], image[None].float()):
        torch.testing.assert_close(predictor(form, domain="night"), expected)
        torch.testing.assert_close(predictor(form, domain="night"), expected)
    bgr = np.ascontiguousarray(array[:, :, ::-1])
    torch.testing.assert_close(predictor(bgr[:, :, ::-1], domain="night"), expected)
    assert torch.equal(image, before)
    assert expected.shape == (1, 16)


def test_the_domain_chooses_the_stream_in_every_form(trained: CfgNode) -> None:
    predictor = Predictor(trained)
    images = torch.rand(2, 3, 24, 24) * 255
    day, night = predictor(images, domain="day"), predictor(images, domain="night")
    assert float(F.cosine_similarity(day, night).max()) < 0.99
    for form in (Domain.NIGHT, 1, "Night", [1, "night"], torch.tensor([1, 1]), np.array([1, 1])):
        assert torch.equal(predictor(images, domain=form), night), form
    mixed = predictor(images, domain=["night", Domain.DAY])
    torch.testing.assert_close(mixed, torch.stack([night[0], day[1]]))
    carried = DomainImages.of(images, torch.tensor([1, 0]))
    torch.testing.assert_close(predictor(carried), mixed)


@pytest.mark.parametrize(
    ("domain", "sentence"),
    [
        (None, "2 images came without `domains` to a model with two streams"),
        ("dusk", "The domain is 'dusk'; it is 'day'"),
        (2, "The domain is 2"),
        ([0, 1, 1], "There are 3 domains for 2 images"),
    ],
)
def test_a_model_with_two_streams_is_told_the_domain(trained: CfgNode, domain: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Predictor(trained)(torch.zeros(2, 3, 24, 24), domain=domain)


def test_the_config_may_say_the_domain_once(trained: CfgNode) -> None:
    images = torch.rand(2, 3, 24, 24) * 255
    expected = Predictor(trained)(images, domain="night")
    trained.MODEL.DUAL_STREAM.ASSUME_DOMAIN = "night"
    predictor = Predictor(trained)
    torch.testing.assert_close(predictor(images), expected)
    assert not torch.allclose(predictor(images, domain="day"), expected), "an image's own domain goes first"


def test_a_model_with_one_stream_needs_no_domain(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    tiny_cfg.MODEL.DUAL_STREAM.MODULES = ()
    torch.save({"model": build_model(tiny_cfg).state_dict()}, tmp_path / "w.pth")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    predictor, images = Predictor(tiny_cfg), torch.rand(2, 3, 24, 24) * 255
    torch.testing.assert_close(predictor(images), predictor(images, domain="night"))


def test_images_are_resized_as_in_the_evaluation(trained: CfgNode, tmp_path: Path) -> None:
    items = []
    for number, (height, width, domain) in enumerate([(37, 50, 0), (12, 90, 1)]):
        Image.fromarray(pixels(height, width, number)).save(tmp_path / f"{number}.png")
        items.append(DomainItem(str(tmp_path / f"{number}.png"), number, 0, domain))
    predictor = Predictor(trained)
    expected = extract_features(predictor.model, build_inference_loader(trained, items), normalize=False)
    for item, feature in zip(items, expected, strict=True):
        array = np.asarray(Image.open(item.path))
        torch.testing.assert_close(predictor(array, domain=item.domain)[0], feature)
        as_tensor = torch.tensor(array).permute(2, 0, 1)
        torch.testing.assert_close(predictor(as_tensor, domain=item.domain)[0], feature)


def test_floats_of_another_size_are_refused(trained: CfgNode) -> None:
    with pytest.raises(ValueError, match=r"float images of \(24, 30\) .* makes them \(24, 24\)"):
        Predictor(trained)(torch.zeros(1, 3, 24, 30), domain=0)
    trained.INPUT.SIZE_TEST = [24]  # the shorter side: there is no one size
    assert Predictor(trained)(torch.zeros(1, 3, 24, 30), domain=0).shape == (1, 16)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_scripts_get_features_that_their_products_compare(trained: CfgNode, metric: str) -> None:
    trained.TEST.METRIC = metric
    images = torch.rand(2, 3, 24, 24) * 255
    got, expected = (kind(trained)(images, domain="day") for kind in (UnitPredictor, Predictor))
    torch.testing.assert_close(got, F.normalize(expected, dim=1) if metric == "cosine" else expected)


def test_no_weights_and_misfitting_weights_are_refused(trained: CfgNode, tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    trained.MODEL.WEIGHTS = str(tmp_path / "other.pth")
    with pytest.raises(WeightFileError, match="does not fit the model"):
        Predictor(trained)
    trained.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty, so features would be random"):
        Predictor(trained)


@pytest.mark.parametrize("shape", [(24, 24), (1, 24, 24), (2, 4, 24, 24), (0, 3, 24, 24)])
def test_other_shapes_are_refused(trained: CfgNode, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="The predictor got shape"):
        Predictor(trained)(torch.zeros(shape))
