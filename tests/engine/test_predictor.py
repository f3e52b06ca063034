from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model

from dnreid_plugins.engine.predictor import Predictor
from dnreid_plugins.modeling.weight_files import WeightFileError


@pytest.fixture
def trained(tiny_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    model = build_model(tiny_cfg)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    tiny_cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")
    return tiny_cfg


def test_every_form_of_an_image_gives_the_models_feature(trained: CfgNode) -> None:
    predictor = Predictor(trained)
    array = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    image = torch.from_numpy(array).permute(2, 0, 1)
    before = image.clone()
    expected = predictor.model({"images": image[None].float()})
    for form in (array, image, image[None], image[None].float()):
        torch.testing.assert_close(predictor(form), expected)
        torch.testing.assert_close(predictor(form), expected)
    assert torch.equal(image, before)
    assert expected.shape == (1, 16)


def test_no_weights_and_misfitting_weights_are_refused(trained: CfgNode, tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "other.pth")
    trained.MODEL.WEIGHTS = str(tmp_path / "other.pth")
    with pytest.raises(WeightFileError, match="does not fit the model"):
        Predictor(trained)
    trained.MODEL.WEIGHTS = ""
    with pytest.raises(ValueError, match=r"MODEL\.WEIGHTS is empty, so features would be random"):
        Predictor(trained)


@pytest.mark.parametrize("shape", [(24, 24), (1, 24, 24), (2, 4, 24, 24)])
def test_other_shapes_are_refused(trained: CfgNode, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="The predictor got shape"):
        Predictor(trained)(torch.zeros(shape))
